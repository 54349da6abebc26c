"""What the methods share whose rollouts may be whole episodes: how many these are, and what their returns are held
against."""

import gymnasium as gym

from kerasrl_pg import estimators, ops
from kerasrl_pg.agents.agent import Agent
from kerasrl_pg.baselines import Baseline
from kerasrl_pg.checks import check_flag, check_whole
from kerasrl_pg.envs.compiled import CompiledEnv
from kerasrl_pg.settings import Setting


def check_baseline(name, value):
    """Refuses what is neither None nor a baseline."""
    if value is not None and not isinstance(value, Baseline):
        raise TypeError(f"`{name}` must be None or one of kerasrl_pg.baselines. Received: {name}={value!r}.")


class Episodic(Agent):
    """Base of the agents that learn from whole episodes, always or where they have no critic.

    A method says by `needs_critic` which baselines its critic is, and by `episodes_per_env` when its rollouts are whole
    episodes.

    Args:
        horizon: Rows of a rollout, the most steps that an environment's episodes may take together; None for `episodes`
            times the environment's own time limit. An episode cut off by it counts as truncated, and as a trajectory.
        estimator: `RewardToGo()` or `WholeReturn()`, or any where there is a critic. Without one a truncated episode's
            return ends with its last reward.
        baseline: None, or one of `kerasrl_pg.baselines`.
        episodes: Episodes of each environment in a rollout, at least 1.
        normalize_advantages: Whether advantages are divided by their standard deviation over the rollout.
    """

    baseline = Setting(check_baseline)
    episodes = Setting(check_whole)
    normalize_advantages = Setting(check_flag)
    critics_baseline = "ValueFunction()"  # What `baseline` is where the critic is meant.

    def __init__(
        self, policy=None, critic=None, *, horizon, estimator, baseline, episodes, normalize_advantages, **kwargs
    ):
        super().__init__(policy, critic, horizon=horizon, estimator=estimator, **kwargs)
        self.baseline = baseline
        self.episodes = episodes
        self.normalize_advantages = normalize_advantages

    def check_settings(self):
        super().check_settings()
        if not self.needs_critic and not isinstance(self.estimator, (estimators.RewardToGo, estimators.WholeReturn)):
            raise ValueError(
                "`estimator` must be RewardToGo() or WholeReturn() without a critic. "
                f"Received: estimator={self.estimator!r}, baseline={self.baseline!r}. "
                f"Or take baseline={self.critics_baseline}."
            )
        if self.head is not None and self.needs_critic != (self.critic is not None):
            raise ValueError(
                f"`baseline` must {'not ' if self.critic is None else ''}be {self.critics_baseline} of an agent that "
                f"was built {'without' if self.critic is None else 'with'} a critic. "
                f"Received: baseline={self.baseline!r}. Make a new agent with it."
            )
        if isinstance(self.baseline, Baseline) and self.actor_critic is not None:
            self.baseline.check(self.actor_critic)

    def check_rollout(self, horizon, num_envs):
        if self.episodes_per_env is None:
            return
        episodes = self.episodes_per_env * num_envs
        if isinstance(self.baseline, Baseline) and episodes < self.baseline.least_episodes:
            raise ValueError(
                f"`baseline` {type(self.baseline).__name__} is the average of the other episodes, and needs at least "
                f"{self.baseline.least_episodes} in a rollout, episodes x num_envs. Received: {self.episodes_per_env} "
                f"x {num_envs}. Take more of either, or baseline=None or {self.critics_baseline}."
            )
        if self.normalize_advantages and episodes < 2:
            raise ValueError(
                "`normalize_advantages` must be False with one episode in a rollout, since its own mean would take its "
                f"gradient away. Received: episodes x num_envs = {self.episodes_per_env} x {num_envs}. Take more of "
                "either."
            )

    @property
    def episodes_per_env(self):
        return self.episodes

    def rollout_horizon(self, vector_env):
        return self.horizon or self.episodes_per_env * time_limit(vector_env)

    def less_baseline(self, credit, rollout):
        """R_t - b(s_t) [T, N]; a critic's values are off already."""
        if not isinstance(self.baseline, Baseline):
            return credit
        return credit - self.baseline.of(credit, rollout, self.actor_critic)

    def mean_of_others(self, credit, rollout):
        """What standardising takes off [T, N]: the mean of the other episodes, or 0 where a baseline was such a mean,
        whose others hold the episode's own return."""
        if isinstance(self.baseline, Baseline) and self.baseline.least_episodes > 1:
            return 0.0
        return ops.average_baseline(credit, rollout.ends, rollout.valid)


def time_limit(vector_env):
    """The environment's own limit of steps in an episode.

    Raises:
        ValueError: If it has none.
    """
    limit = _time_limit(vector_env)
    if limit is None:
        raise ValueError(
            "`horizon` must be given for an environment without a time limit. Received: horizon=None. "
            "Give the most steps that an iteration's episodes may take, or wrap the environment in "
            "gymnasium.wrappers.TimeLimit."
        )
    return limit


def _time_limit(vector_env):
    if isinstance(vector_env, CompiledEnv):
        return vector_env.max_episode_steps
    for env in (*getattr(vector_env, "envs", ())[:1], vector_env):
        while env is not None:
            spec = getattr(env, "spec", None)  # EnvPool keeps the limit in `spec.config`.
            for holder in (spec, getattr(spec, "config", None)):
                if getattr(holder, "max_episode_steps", None):
                    return int(holder.max_episode_steps)
            if isinstance(env, gym.wrappers.TimeLimit):
                return int(env._max_episode_steps)
            env = getattr(env, "env", None)
    return None
