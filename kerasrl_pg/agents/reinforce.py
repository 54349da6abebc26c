"""REINFORCE: the policy gradient from whole episodes."""

import gymnasium as gym
import keras
import tensorflow as tf

from kerasrl_pg import estimators, ops
from kerasrl_pg.agents.agent import Agent
from kerasrl_pg.baselines import Baseline
from kerasrl_pg.checks import check_flag, check_number, check_whole, serialize_coefficient
from kerasrl_pg.envs.compiled import CompiledEnv


@keras.saving.register_keras_serializable("kerasrl_pg")
class REINFORCE(Agent):
    """REINFORCE (lecture notes 3.2 and 3.3; chapter 4.3 and 4.4; Williams 1992).

    Each iteration, in the notes' words:

    1. collect trajectories {τ^i} with π_θ: `episodes` whole ones in each of the N environments;
    2. ∇J(θ) = 1/m Σ_i Σ_t ∇ log π(a_t^i | s_t^i) (R_t^i - b(s_t^i)), m trajectories;
    3. θ ← θ + α ∇J(θ).

    R is the whole return R^γ(τ^i) or the reward-to-go, by `estimator`. The notes print R^γ(τ_{1:t}), the rewards
    *before* the action; the whole return of 3.1, or the reward-to-go of the chapter's equation (4.3), is meant.

    Args:
        policy, critic, networks, gamma, reward_scaling, reward_clip, anneal_learning_rate, seed, name: See `Agent`. A
            critic is built and needed only for `baselines.ValueFunction`.
        horizon: Rows of a rollout, the most steps that an environment's episodes may take together; None for
            `episodes` times the environment's own time limit. An episode cut off by it counts as truncated.
        estimator: None for `estimators.RewardToGo()`; `WholeReturn()`, or any other where there is a critic. Without a
            critic a truncated episode's return ends with its last reward.
        baseline: None, or one of `kerasrl_pg.baselines`.
        episodes: Episodes of each environment in an iteration, at least 1. 1, as in the notes' first form.
        discounted_gradient: Weigh step t of an episode by γ^t. The gradient of J has this weight (the chapter, 4.3,
            prints λ^t where γ^t is meant); False, because nearly everyone drops it (Nota and Thomas 2020, arXiv
            1906.07073).
        normalize_advantages: Whether advantages are standardised over the rollout. False: not in the notes.
        entropy_coef: c_H >= 0, weight of the mean entropy per trajectory step (notes 3.5). 0.

    Logs: `loss`, `policy_loss` (per trajectory), `entropy` (nats), `episodes` (whole trajectories), and with a critic
        `critic_loss`
    (mean over the regression's steps) and `explained_variance` (before them).

    Raises:
        ValueError: If a setting is out of range, or the environment has no time limit and `horizon` is None.
        TypeError: If `baseline` is no baseline.

    >>> agent = REINFORCE(episodes=2, horizon=100, seed=0)
    >>> agent.compile(keras.optimizers.Adam(1e-2))
    >>> history = agent.fit("CartPole-v1", epochs=1, steps_per_epoch=1, verbose=0)
    >>> history.history["episodes"]
    [2.0]
    """

    def __init__(
        self,
        policy=None,
        critic=None,
        *,
        horizon=None,
        estimator=None,
        baseline=None,
        episodes=1,
        discounted_gradient=False,
        normalize_advantages=False,
        entropy_coef=0.0,
        **kwargs,
    ):
        super().__init__(policy, critic, horizon=horizon, estimator=estimator or estimators.RewardToGo(), **kwargs)
        check_whole("episodes", episodes)
        check_number("entropy_coef", entropy_coef, 0.0, schedule=True)
        if baseline is not None and not isinstance(baseline, Baseline):
            raise TypeError(f"`baseline` must be None or one of kerasrl_pg.baselines. Received: baseline={baseline!r}.")
        self.baseline = baseline
        self.needs_critic = baseline is not None and baseline.needs_critic
        if not self.needs_critic and not isinstance(self.estimator, (estimators.RewardToGo, estimators.WholeReturn)):
            raise ValueError(
                "`estimator` must be RewardToGo() or WholeReturn() without a critic. "
                f"Received: estimator={self.estimator!r}, baseline={baseline!r}. Add baseline=ValueFunction()."
            )
        check_flag("discounted_gradient", discounted_gradient)
        check_flag("normalize_advantages", normalize_advantages)
        self.episodes = episodes
        self.discounted_gradient = discounted_gradient
        self.normalize_advantages = normalize_advantages
        self.entropy_coef = entropy_coef

    @property
    def episodes_per_env(self):
        return self.episodes

    def rollout_horizon(self, vector_env):
        if self.horizon is not None:
            return self.horizon
        limit = _time_limit(vector_env)
        if limit is None:
            raise ValueError(
                "`horizon` must be given for an environment without a time limit. Received: horizon=None. "
                "Give the most steps that an iteration's episodes may take, or wrap the environment in "
                "gymnasium.wrappers.TimeLimit."
            )
        return self.episodes * limit

    def train_step(self, rollout):
        """Credits each action, then takes the class's steps 2 and 3, and fits the critic where there is one."""
        rewards = self.scaled_rewards(rollout)
        values = next_values = tf.zeros_like(rewards)
        if self.needs_critic:
            values, next_values = self.values(rollout.observations), self.values(rollout.next_observations)
        advantages, returns = self.estimator(
            rewards, values, next_values, rollout.terminated, rollout.truncated, rollout.valid, self.gamma
        )
        ends = ops.episode_ends(rollout.terminated, rollout.truncated, rollout.valid)
        if self.baseline is not None:
            advantages -= self.baseline(advantages, ends, rollout.valid)
        if self.normalize_advantages:
            advantages = ops.standardize(advantages, rollout.valid)
        if self.discounted_gradient:
            advantages *= ops.gradient_discount(ops.steps_in_episode(ends), self.gamma)

        valid = tf.cast(rollout.valid, tf.float32)
        finished = tf.cast((rollout.terminated | rollout.truncated) & rollout.valid, tf.float32)
        # An episode that the horizon cut off is a trajectory too.
        trajectories = tf.maximum(tf.reduce_sum(finished), 1.0)
        batch = ops.flatten_time((rollout.observations, rollout.actions, advantages, valid))
        observations, actions, advantages, valid = batch
        with tf.GradientTape() as tape:
            distribution = self.policy(observations)
            objective = ops.score_function_objective(distribution.log_prob(actions), advantages)
            policy_loss = -tf.reduce_sum(valid * objective) / trajectories
            entropy = ops.masked_mean(distribution.entropy(), valid > 0)
            loss = policy_loss - self.scheduled(self.entropy_coef) * entropy
            loss += self.regularization(self.policy.trainable_variables)
        self.apply_policy_gradients(tape, loss)
        logs = {"loss": loss, "policy_loss": policy_loss, "entropy": entropy, "episodes": tf.reduce_sum(finished)}
        if self.needs_critic:
            logs["critic_loss"] = self.fit_critic(observations, tf.reshape(returns, [-1]), valid > 0)
            logs["explained_variance"] = ops.explained_variance(values, returns, rollout.valid)
        return logs

    def fit_critic(self, observations, returns, valid):
        """Regresses the critic on the returns [B]; the mean loss of the steps."""

        def body(step, total):
            with tf.GradientTape() as tape:
                critic_loss = ops.masked_mean(self.critic_head.loss(self.critic(observations), returns), valid)
                loss = critic_loss + self.regularization(self.critic.trainable_variables)
            self.apply_critic_gradients(tape, loss)
            return step + 1, total + critic_loss

        steps = self.baseline.update_epochs
        _, total = tf.while_loop(
            lambda step, _: step < steps, body, (tf.constant(0), tf.constant(0.0)), maximum_iterations=steps
        )
        return total / steps

    def get_config(self):
        return {
            **super().get_config(),
            "baseline": self.baseline and keras.saving.serialize_keras_object(self.baseline),
            "episodes": self.episodes,
            "discounted_gradient": self.discounted_gradient,
            "normalize_advantages": self.normalize_advantages,
            "entropy_coef": serialize_coefficient(self.entropy_coef),
        }


def _time_limit(vector_env):
    """The environment's own limit of steps in an episode, or None."""
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
