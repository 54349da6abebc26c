"""Proximal policy optimisation with a price on the KL divergence that adapts."""

import keras
import tensorflow as tf

from kerasrl_pg import estimators, ops
from kerasrl_pg.agents.agent import Agent
from kerasrl_pg.agents.conservative import check_trainable
from kerasrl_pg.agents.divergence import check_kl_estimator, check_policy_kl, divergence, of_rows, rows_of
from kerasrl_pg.agents.minibatches import check_minibatch_size
from kerasrl_pg.checks import check_flag, check_number, check_standardizable, check_whole
from kerasrl_pg.ops.trust_region import PENALTY_BOUNDS
from kerasrl_pg.settings import Setting


@keras.saving.register_keras_serializable("kerasrl_pg")
class PPOPenalty(Agent):
    """Policy optimisation by the adaptive Lagrangian (lecture notes 3.6.3; Schulman et al. 2017, arXiv 1707.06347,
    section 4; Heess et al. 2017, arXiv 1707.02286).

    Each iteration:

    1. run π_old for T steps in N environments;
    2. estimate advantages with the critic;
    3. for K passes, in minibatches of M: ascend the mean of c_t A_t - λ KL(π_old || π) - c_V (V - R)²/2 + c_H H, where
       c_t = π(a_t|s_t) / π_old(a_t|s_t);
    4. δ_KL = the mean KL(π_old || π) over the rollout; λ ← λ/2 if δ_KL < δ_target / 1.5, λ ← 2λ if δ_KL > 1.5 δ_target.

    Args:
        policy, critic, networks, gamma, reward_scaling, reward_clip, anneal_learning_rate, seed, name: See `Agent`.
        horizon: T. 2048 / N is customary for one environment of MuJoCo; 128: Schulman et al. 2017, table 5.
        estimator: None for GAE(λ = 0.95) (table 3 there).
        target_kl: δ_target > 0, nats. 0.01, the best of table 1 there.
        initial_penalty: λ at the first iteration, in [1e-6, 1e6], where it stays. 1, in the middle of those tried
            there; it soon adapts.
        kl_estimator: None for the closed form of the head's KL divergence; "sampled" for the estimator
            (r - 1) - log r on the rollout's actions, for heads that have no closed form.
        update_epochs: K, passes over the rollout, at least 1. 10, table 3 there.
        minibatch_size: M; T x N must be a multiple. 64, table 3 there.
        value_coef: c_V >= 0. 0.5 of half the squared error, as `PPO`.
        entropy_coef: c_H >= 0. 0: table 3 there.
        normalize_advantages: Whether advantages are standardised over the rollout, so that λ has the same unit in every
            minibatch and every environment. True: ours.

    `target_kl`, `value_coef` and `entropy_coef` may be schedules (`kerasrl_pg.schedules`). λ is a weight of the agent,
    `agent.penalty`, and is saved with it.

    Logs, means over the iteration's minibatches: `loss`, `policy_loss` (minus the mean of c_t A_t), `critic_loss` (half
    squared error, or cross-entropy), `entropy` (nats), `updates` (optimizer steps taken); over the rollout: `kl`
    (δ_KL, nats, by `kl_estimator`), `penalty` (λ of this iteration, before step 4), `explained_variance` (of the
    critic before the update).

    Raises:
        ValueError: If a setting is out of range, the head has no KL divergence and no `kl_estimator` is chosen, or
            `minibatch_size` does not divide T x N (when `fit` knows N).

    >>> agent = PPOPenalty(horizon=16, minibatch_size=32, update_epochs=2, seed=0)
    >>> agent.compile(keras.optimizers.SGD(0.0))
    >>> history = agent.fit("CartPole-v1", epochs=3, steps_per_epoch=1, num_envs=4, verbose=0)
    >>> history.history["penalty"]  # the policy never moves
    [1.0, 0.5, 0.25]
    """

    horizon = Setting(check_whole)
    target_kl = Setting(check_number, 0.0, exclusive=True, schedule=True)
    initial_penalty = Setting(check_number, *PENALTY_BOUNDS, fixed=True)
    kl_estimator = Setting(check_kl_estimator)
    update_epochs = Setting(check_whole)
    minibatch_size = Setting(check_whole)
    value_coef = Setting(check_number, 0.0, schedule=True)
    entropy_coef = Setting(check_number, 0.0, schedule=True)
    normalize_advantages = Setting(check_flag)

    def __init__(
        self,
        policy=None,
        critic=None,
        *,
        horizon=128,
        estimator=None,
        target_kl=0.01,
        initial_penalty=1.0,
        kl_estimator=None,
        update_epochs=10,
        minibatch_size=64,
        value_coef=0.5,
        entropy_coef=0.0,
        normalize_advantages=True,
        **kwargs,
    ):
        super().__init__(policy, critic, horizon=horizon, estimator=estimator or estimators.GAE(), **kwargs)
        self.target_kl = target_kl
        self.initial_penalty = initial_penalty
        self.kl_estimator = kl_estimator
        self.update_epochs = update_epochs
        self.minibatch_size = minibatch_size
        self.value_coef = value_coef
        self.entropy_coef = entropy_coef
        self.normalize_advantages = normalize_advantages
        self.penalty = self.add_weight(
            name="penalty",
            shape=(),
            dtype="float32",
            trainable=False,
            initializer=keras.initializers.Constant(initial_penalty),
        )

    def check_settings(self):
        super().check_settings()
        check_policy_kl(self)

    def check_rollout(self, horizon, num_envs):
        check_minibatch_size(self.minibatch_size, horizon, num_envs)
        check_standardizable(horizon * num_envs, "normalize_advantages", self.normalize_advantages)
        check_trainable(policy=self.policy)

    def samples(self, rollout):
        """The rows of a rollout, with those of π_old as their `old`."""
        samples = super().samples(rollout)
        return samples._replace(old=rows_of(self.actor_critic.distribution(samples.inputs), self.head))

    def loss(self, samples):
        """The class's step 3 on the `Samples` of a minibatch."""
        distribution, value_distribution = self.forward(samples.inputs)
        ratio = ops.importance_ratio(distribution.log_prob(samples.actions), samples.old_log_probs)
        kl = self.divergence(of_rows(samples.old, self.head), distribution, samples.actions)
        objective = ops.kl_penalized_objective(ratio, samples.advantages, kl, self.penalty.value)
        critic_loss = ops.masked_mean(self.critic_head.loss(value_distribution, samples.returns), samples.valid)
        entropy = ops.masked_mean(distribution.entropy(), samples.valid)
        loss = self.joint_loss(-ops.masked_mean(objective, samples.valid), critic_loss, entropy)
        surrogate = ops.masked_mean(ops.importance_objective(ratio, samples.advantages), samples.valid)
        return loss, {"policy_loss": -surrogate, "critic_loss": critic_loss, "entropy": entropy}

    def train_step(self, rollout):
        """Estimates advantages, runs the passes of the class's step 3, then adapts λ."""
        samples = self.samples(rollout)
        logs = self.passes(samples, self.update_epochs, self.minibatch_size)
        logs["kl"] = self.mean_kl(samples)
        logs["penalty"] = tf.identity(self.penalty.value)
        self.penalty.assign(ops.adapt_penalty(self.penalty.value, logs["kl"], self.scheduled(self.target_kl)))
        return {**logs, **self.explained(samples)}

    def mean_kl(self, samples):
        """δ_KL: KL(π_old || π) with the policy as it stands, mean over the rollout."""
        old, new = of_rows(samples.old, self.head), self.actor_critic.distribution(samples.inputs)
        return ops.masked_mean(self.divergence(old, new, samples.actions), samples.valid)

    def divergence(self, old, new, actions):
        """KL(old || new) [B], nats."""
        return divergence(old, new, actions, self.kl_estimator)
