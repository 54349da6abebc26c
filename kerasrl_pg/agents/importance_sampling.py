"""The policy gradient from trajectories that another policy played."""

import keras
import tensorflow as tf

from kerasrl_pg import estimators, ops
from kerasrl_pg.agents.reinforce import REINFORCE
from kerasrl_pg.agents.stored import FromStored
from kerasrl_pg.checks import check_flag, check_number
from kerasrl_pg.data.trajectories import along, log_probs_of
from kerasrl_pg.settings import Setting


@keras.saving.register_keras_serializable("kerasrl_pg")
class ImportanceSampling(FromStored, REINFORCE):
    """REINFORCE on stored trajectories, each weighed by how likely the policy is to play it (chapter 4.3: trajectories
    from a ρ that is easy to sample from, "a database of existing trajectories").

    Each iteration:

    1. take m stored trajectories {τ^i} of a policy β;
    2. ∇J(θ) = 1/m Σ_i Σ_t ∇ log π(a_t^i|s_t^i) (Σ_{t' >= t} γ^(t'-t) w_{t'}^i r_{t'}^i - w_t^i b(s_t^i)), where w_t^i
       is Π π/β of the actions up to step t, or of the whole trajectory;
    3. θ ← θ + α ∇J(θ).

    With weights that are neither normalised nor clipped the estimate is unbiased, whatever β, provided that it does
    everything that π may do; its variance grows with every step. The log `effective_sample_size` says how many
    trajectories are left of m, and `callbacks.Collapse` ends the fit, or warns, where they are too few.

    Args:
        policy, critic, networks, gamma, reward_scaling, reward_clip, anneal_learning_rate, seed, name: See `Agent`.
        per_decision: Weigh each reward by the actions up to it (Precup et al. 2000); False: by the whole trajectory's.
            True, whose variance is lower.
        state_weights: Weigh by the actions before step t, too, so that states count as π visits them. False: as β does
            (Degris et al. 2012, whose gradient this is), ρ_t (G_t - b) in place of w_t' r_t' and w_t b, with
            G_t = r_t + γ ρ_{t+1} G_{t+1}: biased, and of use in long episodes, where few trajectories would count. With
            `ValueFunction` G_t is r_t + γ v_{t+1}, and the critic is fitted to v, the V-trace targets of Espeholt et
            al. 2018, so that it says what π would earn; else it says what β did. True.
        self_normalized: Divide weights by their mean over the m trajectories. True: ours, since without it what the
            policy does less and less often still pulls with all its weight, at the price of a bias of order 1/m. None
            for True with `state_weights`, which it needs.
        weight_clip: None, or the most that a weight, without `state_weights` each ρ_t, may be, > 0 (Ionides 2008,
            "Truncated importance sampling"); before they are normalised. It bounds the variance, and biases towards
            what β did.
        episodes: m. 64, ours.
        estimator: None for `estimators.RewardToGo()`; without `per_decision` also `WholeReturn()`.
        baseline, discounted_gradient, normalize_advantages, entropy_coef: See `REINFORCE`. Averages are those of β's
            returns.

    Logs: as of `REINFORCE`, `episode_return` and `episode_length` being those of the stored episodes, and
    `effective_sample_size` and `largest_weight` (of whole trajectories, before weights are clipped and normalised).

    Raises:
        ValueError: If a setting is out of range or contradicts another; see `REINFORCE` and `data.Trajectories`.

    >>> import os, tempfile
    >>> os.environ["MINARI_DATASETS_PATH"] = tempfile.mkdtemp()
    >>> import kerasrl_pg as pg
    >>> dataset = pg.data.record(pg.A2C(seed=0), "CartPole-v1", "cartpole/random-v0", episodes=20)
    >>> agent = ImportanceSampling(episodes=10, seed=1)
    >>> agent.compile(keras.optimizers.Adam(1e-2))
    >>> history = agent.fit(dataset, epochs=1, verbose=0)  # One pass over the episodes.
    >>> 1.0 <= history.history["effective_sample_size"][0] <= 10.0
    True
    """

    needs_log_probs = True

    per_decision = Setting(check_flag)
    state_weights = Setting(check_flag)
    self_normalized = Setting(check_flag)
    weight_clip = Setting(check_number, 0.0, exclusive=True, optional=True)

    def __init__(
        self,
        policy=None,
        critic=None,
        *,
        per_decision=True,
        state_weights=True,
        self_normalized=None,
        weight_clip=None,
        episodes=64,
        **kwargs,
    ):
        super().__init__(policy, critic, episodes=episodes, **kwargs)
        self.per_decision = per_decision
        self.state_weights = state_weights
        self.self_normalized = state_weights if self_normalized is None else self_normalized
        self.weight_clip = weight_clip

    def check_settings(self):
        super().check_settings()
        if self.per_decision and isinstance(self.estimator, estimators.WholeReturn):
            raise ValueError(
                "`per_decision` must be False with WholeReturn(), which credits an action with rewards before it. "
                "Received: per_decision=True. Take estimator=RewardToGo(), or per_decision=False."
            )
        if not self.state_weights and (self.self_normalized or not self.per_decision):
            name = "self_normalized" if self.self_normalized else "state_weights"
            raise ValueError(
                f"`{name}` must be {name == 'state_weights'} where states are weighed as they were visited, and each "
                f"step by what follows it. Received: state_weights=False, self_normalized={self.self_normalized}, "
                f"per_decision={self.per_decision}."
            )
        if not isinstance(self.estimator, (estimators.RewardToGo, estimators.WholeReturn)):
            raise ValueError(
                "`estimator` must be RewardToGo() or WholeReturn(), whose rewards have weights. "
                f"Received: estimator={self.estimator!r}."
            )

    def check_rollout(self, horizon, num_envs):
        super().check_rollout(horizon, num_envs)
        if self.self_normalized and num_envs < 2:
            raise ValueError(
                "`self_normalized` must be False with one trajectory in an iteration, whose weight would always be 1. "
                f"Received: episodes={num_envs}. Take more."
            )

    def told(self, rollout):
        """`(log π, log β, valid)` [T, N] of the actions, as they stand."""
        log_probs = log_probs_of(self.actor_critic, rollout.inputs, rollout.actions)
        return tf.stop_gradient(log_probs), rollout.log_probs, rollout.valid

    def clipped(self, weights):
        """Weights, none above `weight_clip`."""
        return weights if self.weight_clip is None else tf.minimum(weights, self.weight_clip)

    def later(self, x, rollout):
        """What [T, N] is in the next step of the episode; 0 after its last."""
        return tf.where(rollout.ends, 0.0, tf.concat([x[1:], tf.zeros_like(x[:1])], 0))

    def credit(self, rollout):
        """`(credit, returns, values)`, all [T, N], of the class's step 2."""
        told, (advantages, returns, values) = self.told(rollout), self.estimate(along(self.actor_critic, rollout))
        if self.state_weights:
            weights = self.clipped(ops.importance_weights(*told, self.per_decision))
            weights = ops.self_normalized(weights) if self.self_normalized else weights
        else:
            weights = self.clipped(ops.importance_ratio(*told[:2]))
        credit = weights * self.less_baseline(advantages, rollout)
        if self.per_decision:  # The rewards after a step have weights of their own.
            rewards = returns - self.gamma * self.later(returns, rollout)  # After a truncation, V is in the last.
            rewards = tf.where(rollout.valid, rewards, 0.0)
            if self.state_weights:
                credit += ops.weighted_rewards_to_go(rewards, weights, self.gamma) - weights * returns
            elif not self.needs_critic:
                credit += ops.excursion_returns(rewards, weights, self.gamma) - weights * returns
            else:
                following = tf.concat([values[1:], tf.zeros_like(values[:1])], 0)
                returns = ops.vtrace_targets(
                    rewards, values, following, weights, rollout.ends, rollout.valid, self.gamma
                )
                credit = weights * (rewards + self.gamma * self.later(returns, rollout) - values)
        credit = tf.where(rollout.valid, credit, 0.0)
        return self.finished(credit, returns, rollout), returns, values

    def train_step(self, rollout):
        """`REINFORCE`'s, and how many trajectories count."""
        whole = ops.importance_weights(*self.told(rollout), per_decision=False)[-1]
        size = ops.effective_sample_size(whole)
        logs = super().train_step(rollout)
        return {**logs, "effective_sample_size": size, "largest_weight": tf.reduce_max(whole)}
