"""What the methods without gradients share: a population is played, and its returns say where to go."""

import tensorflow as tf

from kerasrl_pg import estimators, ops
from kerasrl_pg.agents.agent import Agent
from kerasrl_pg.agents.episodic import time_limit
from kerasrl_pg.checks import check_flag, check_whole, refuse_given
from kerasrl_pg.settings import Setting
from kerasrl_pg.training.searching import Searching

LEARNERS = ("critic", "estimator", "reward_scaling", "reward_clip", "sequence_length")


class Search(Searching, Agent):
    """Base of the methods without gradients: the weights θ [D] of the policy are searched by what they return.

    A method writes `iteration(play)`: it makes weights [P, D] of a population, has them played, once, and moves θ. The
    objective is the mean over a member's episodes of Σ γ^t r_t. Whatever it keeps beside θ is a weight of the agent.

    Every environment plays `episodes` episodes of a member. Where there are more environments than members, each member
    plays in as many as there are for it; where there are fewer, the members take turns.

    Any policy will do, of any head, with memory or masks. There is no critic, nothing is estimated, and what
    `RunningNormalization` learns from is all that the population sees.

    Args:
        policy: As of every agent; of a model with two outputs the second is left out.
        networks, action_masks, seed, name: As of every agent.
        population_size: P, at least 1.
        episodes: Episodes of each environment that a member plays in, at least 1.
        horizon: The most steps that these may take together; None for `episodes` times the environment's own time
            limit. What is cut off by it counts with what it has.
        deterministic: Whether members act by the mode of their policy, else by samples of it.
        gamma: γ in [0, 1].
    """

    needs_critic = False

    population_size = Setting(check_whole)
    episodes = Setting(check_whole)
    deterministic = Setting(check_flag)

    def __init__(
        self, policy=None, *, population_size, episodes=1, horizon=None, deterministic=True, gamma=1.0, **kwargs
    ):
        refuse_given(type(self), kwargs, LEARNERS, "which compares whole returns and estimates nothing")
        super().__init__(policy, gamma=gamma, horizon=horizon, estimator=estimators.WholeReturn(), **kwargs)
        self.population_size = population_size
        self.episodes = episodes
        self.deterministic = deterministic

    def check_settings(self):
        super().check_settings()
        if self.anneal_learning_rate and self.default_optimizer() is None:
            raise ValueError(
                f"`anneal_learning_rate` must be False, since {type(self).__name__} has no learning rate. "
                f"Received: anneal_learning_rate={self.anneal_learning_rate!r}."
            )

    def check_rollout(self, horizon, num_envs):
        if self.population_size % num_envs and num_envs % self.population_size:
            raise ValueError(
                "`num_envs` must be a multiple or a divisor of `population_size`, so that members play as much as each "
                f"other. Received: num_envs={num_envs}, population_size={self.population_size}."
            )

    @property
    def usual_envs(self):
        return self.population_size

    @property
    def episodes_per_env(self):
        return self.episodes

    def rollout_horizon(self, env):
        return self.horizon or self.episodes * time_limit(env)

    def rollout_steps(self, horizon, num_envs):
        return horizon * max(num_envs, self.population_size)

    def default_optimizer(self):
        """None: there is none unless a method says more."""
        return

    def iteration(self, play):
        """One step of the search.

        Args:
            play: Function from the weights float32 [P, D] of a population to its returns, float32 [P]; to be called
                once.

        Returns:
            A dictionary of scalar logs.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement iteration(play).")

    # Tools of a method

    def theta(self):
        """The policy's trainable weights as one vector, float32 [D]."""
        return ops.flatten_parameters(self.actor_critic.policy_variables)

    def move_to(self, theta):
        """Sets the policy's trainable weights to a vector [D]."""
        variables = self.actor_critic.policy_variables
        for variable, value in zip(variables, ops.split_parameters(theta, variables), strict=True):
            constraint = getattr(variable, "constraint", None)
            variable.assign(value if constraint is None else constraint(value))

    def draw(self, rows):
        """Standard normal noise float32 [rows, D], another with each call."""
        return ops.random.normal(self.next_seed(), (rows, self.size))

    @property
    def size(self):
        """D, how many weights are searched."""
        return sum(int(tf.TensorShape(v.shape).num_elements()) for v in self.actor_critic.policy_variables)
