"""An agent's actors, what they may do, and the chance they draw from."""

import tensorflow as tf

from kerasrl_pg import ops
from kerasrl_pg.rollouts.actor import Actor


class Actors:
    """With or without action masks, each made once; and the agent's random numbers."""

    def actor(self, num_envs, deterministic, masked=False, learning=False):
        """The `Actor` for this many environments, with action masks or without; made once. While `learning` it keeps
        the critic's memory, too."""
        learning = learning and self.actor_critic.memory_size > self.actor_critic.policy_memory_size
        actors, key = self._rooms.actors, (num_envs, deterministic, masked, learning)
        if key not in actors:
            networks = self.actor_critic
            self._check_masked(masked)
            critic = networks.critic if learning else None
            actors[key] = Actor(networks.policy, networks.head, networks.spec, num_envs, deterministic, masked, critic)
        return actors[key]

    def _check_masked(self, masked):
        """Refuses masks for a head that takes none."""
        if masked and self.head.mask_shape is None:
            raise ValueError(
                "`info['action_mask']` must be left out where the policy's head takes no masks. Received: masks, "
                f"and the head {self.head!r}. Take Categorical or MultiCategorical, or a Composite of such."
            )

    def _actor_for(self, num_envs, deterministic, learning=False):
        """Function from whether the environments give action masks to the `Actor`."""

        def choose(masked):
            self._note_masks(masked, learning)
            return self.actor(num_envs, deterministic, masked, learning)

        return choose

    def _note_masks(self, given, learning=True):
        """Refuses an environment that must give action masks and does not, and remembers of one that is learnt in
        whether it gives them beside its observations.

        Args:
            given: Whether it gives masks, there or in a leaf.
            learning: Whether it is learnt in; to be judged in one that gives masks binds an agent to nothing.
        """
        self._check_masked(given)
        if learning and given and self.actor_critic.mask_key is None:
            vars(self)["action_masks"] = "info"
        elif not given and self.action_masks == "info":
            raise ValueError(
                "`info['action_mask']` must be given by the environment, since action_masks='info', as said or as "
                "in an earlier environment of this agent. Received: none. Give ones where all is allowed."
            )

    def noise_program(self, shape):
        """The program from a seed int32[2] to the noise of a batch of actions of this shape; made once."""
        programs = self._rooms.noise_programs
        if shape not in programs:
            # Graph and not XLA, in every mode of the agent, whose rounding would differ. Concrete, because TensorFlow
            # takes a loop over agents or fits for one function that it has to trace again and again.
            function = tf.function(lambda seed: self.head.noise(seed, shape), autograph=False)
            programs[shape] = function.get_concrete_function(tf.TensorSpec((2,), tf.int32))
        return programs[shape]

    def next_seed(self):
        """A fresh seed int32[2] from the agent's random state, which is saved with its weights."""
        self.random_state.assign_add([0, 1])
        return tf.identity(self.random_state.value)

    def next_environment_seed(self):
        """A fresh seed of environments, a whole number, from the same."""
        return int(tf.bitwise.right_shift(ops.random.bits(self.next_seed(), ()), 1))
