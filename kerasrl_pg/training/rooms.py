"""What an agent holds but Keras must not track."""

import tensorflow as tf

from kerasrl_pg.saving.checkpoint import Episodes
from kerasrl_pg.training.programs import Programs


class Rooms:
    """The rooms behind an agent's verbs; a plain object, so that Keras saves and walks through none of it.

    Attributes:
        actor_critic: The `ActorCritic`; None before the agent is built.
        counters: The agent's `Counters`.
        clock: The `Clock` that its schedules are read by.
        programs: Its `Programs`.
        actors, noise_programs, reward_carries: Made once, by what they are for.
        episodes: Its `Episodes` on compiled environments.
        evaluated: The digest of the policy that was evaluated last, and what came out; None before.
        fit: The present `Fit`, or None.
        stop_training: What callbacks set.
        worker_events: What befell the workers of the last fit.
        strategy: The `tf.distribute` strategy that the agent was made under.
    """

    def __init__(self):
        self.actor_critic = self.counters = self.clock = self.fit = self.evaluated = None
        self.programs = Programs()
        self.actors, self.noise_programs, self.reward_carries = {}, {}, {}
        self.episodes = Episodes()
        self.stop_training = False
        self.worker_events = []
        self.strategy = tf.distribute.get_strategy()

    def reward_carry(self, num_envs):
        """The variable [N] that carries the running discounted returns of N environments to the next rollout."""
        if num_envs not in self.reward_carries:
            self.reward_carries[num_envs] = tf.Variable(tf.zeros(num_envs), trainable=False)
        return self.reward_carries[num_envs]
