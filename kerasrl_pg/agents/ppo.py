"""Proximal policy optimisation with the clipped objective."""

import keras

from kerasrl_pg import estimators, heads, ops
from kerasrl_pg.agents.agent import Agent
from kerasrl_pg.agents.minibatches import check_minibatch_size
from kerasrl_pg.checks import check_choice, check_number, check_standardizable, check_whole
from kerasrl_pg.settings import Setting


@keras.saving.register_keras_serializable("kerasrl_pg")
class PPO(Agent):
    """Proximal policy optimisation, clipped (lecture notes 3.6.3; Schulman et al. 2017, arXiv 1707.06347, algorithm 1).

    Each iteration:

    1. run π_old for T steps in N environments;
    2. estimate advantages with the critic;
    3. for K passes, in minibatches of M: ascend the mean of min(c_t A_t, clip(c_t, 1-ε, 1+ε) A_t) - c_V (V - R)²/2 +
       c_H H, where c_t = π(a_t|s_t) / π_old(a_t|s_t).

    The code-level optimisations of Engstrom et al. 2020 (arXiv 2005.12729, A.1; lecture notes 3.7) are switches:

    | optimisation | switch |
    | --- | --- |
    | value clipping | `value_clip` |
    | reward scaling, reward clipping | `reward_scaling`, `reward_clip` |
    | observation normalisation and clipping | `networks=Networks(normalize_observations=, observation_clip=)` |
    | orthogonal initialisation, tanh | `networks=Networks(orthogonal=, activation=)` |
    | learning-rate annealing | `anneal_learning_rate`, or any Keras schedule in the optimizer |
    | global gradient clipping | the optimizer's `global_clipnorm` |
    | advantage normalisation | `normalize_advantages` |
    | early stop on the KL divergence (Spinning Up) | `target_kl` |

    Args:
        policy, critic, networks, gamma, reward_scaling, reward_clip, anneal_learning_rate, seed, name: See `Agent`.
        horizon: T. 2048 / N is customary for one environment of MuJoCo; 128: Schulman et al. 2017, table 5.
        estimator: None for GAE(λ = 0.95) (table 3 there).
        clip_ratio: ε > 0. 0.2, table 3 there.
        update_epochs: K, passes over the rollout, at least 1. 10, table 3 there.
        minibatch_size: M; T x N must be a multiple. 64, table 3 there.
        value_coef: c_V >= 0. 0.5 of half the squared error, as in OpenAI Baselines; Stable-Baselines3's 0.5 of the
            whole squared error is 1.0 here.
        entropy_coef: c_H >= 0. 0: table 3 there.
        value_clip: None, or ε_V > 0: the critic's prediction may gain nothing by moving further than this from its old
            value. None: ours, because it depends on the scale of the rewards and Andrychowicz et al. 2021 found no
            gain.
        normalize_advantages: "minibatch", "batch", or False. "minibatch", as OpenAI Baselines does; the deviation has a
            floor, see `ops.standardize`.
        target_kl: None, or a bound > 0 on the approximate KL divergence (nats): the passes end after the minibatch
            where the estimate exceeds 1.5 times it (Spinning Up's rule, there by pass).

    `clip_ratio`, `value_coef`, `entropy_coef`, `value_clip` and `target_kl` may be schedules, of the iteration or over
    the budget (`kerasrl_pg.schedules`).

    Logs, means over the iteration's minibatches: `loss`, `policy_loss`, `critic_loss` (half squared error, or
    cross-entropy), `entropy` (nats), `kl` (the estimator (r - 1) - log r of KL(π_old, π), nats), `clip_fraction`,
    `explained_variance` (of the critic before the update), `updates` (optimizer steps taken).

    Raises:
        ValueError: If a setting is out of range, `minibatch_size` does not divide T x N (when `fit` knows N), or
            `normalize_advantages` has one row at a time to standardise.

    >>> agent = PPO(horizon=16, minibatch_size=32, update_epochs=2, seed=0)
    >>> agent.compile(keras.optimizers.Adam(1e-3))
    >>> history = agent.fit("CartPole-v1", total_steps=64, num_envs=4, epochs=1, verbose=0)
    >>> int(agent.env_steps.numpy())
    64
    """

    loss_is_mean = True

    horizon = Setting(check_whole)
    clip_ratio = Setting(check_number, 0.0, exclusive=True, schedule=True)
    update_epochs = Setting(check_whole)
    minibatch_size = Setting(check_whole)
    value_coef = Setting(check_number, 0.0, schedule=True)
    entropy_coef = Setting(check_number, 0.0, schedule=True)
    value_clip = Setting(check_number, 0.0, exclusive=True, optional=True, schedule=True)
    normalize_advantages = Setting(check_choice, ("minibatch", "batch", False))
    target_kl = Setting(check_number, 0.0, exclusive=True, optional=True, schedule=True)

    def __init__(
        self,
        policy=None,
        critic=None,
        *,
        horizon=128,
        estimator=None,
        clip_ratio=0.2,
        update_epochs=10,
        minibatch_size=64,
        value_coef=0.5,
        entropy_coef=0.0,
        value_clip=None,
        normalize_advantages="minibatch",
        target_kl=None,
        **kwargs,
    ):
        super().__init__(policy, critic, horizon=horizon, estimator=estimator or estimators.GAE(), **kwargs)
        self.clip_ratio = clip_ratio
        self.update_epochs = update_epochs
        self.minibatch_size = minibatch_size
        self.value_coef = value_coef
        self.entropy_coef = entropy_coef
        self.value_clip = value_clip
        self.normalize_advantages = normalize_advantages
        self.target_kl = target_kl

    def check_settings(self):
        super().check_settings()
        if self.normalize_advantages == "minibatch":
            check_standardizable(self.minibatch_size, "normalize_advantages", "minibatch")
        if self.value_clip is not None and not isinstance(self.critic_head, heads.NormalValue | None):
            raise ValueError(
                "`value_clip` must be None with a critic that is no NormalValue, since it clips a squared error. "
                f"Received: value_clip={self.value_clip}, critic head {self.critic_head!r}."
            )

    def check_rollout(self, horizon, num_envs):
        check_minibatch_size(self.minibatch_size, horizon, num_envs)
        check_standardizable(horizon * num_envs, "normalize_advantages", self.normalize_advantages)

    def loss(self, samples):
        """The class's step 3 on the `Samples` of a minibatch."""
        clip_ratio = self.scheduled(self.clip_ratio)
        distribution, value_distribution = self.forward(samples.inputs)
        log_probs = distribution.log_prob(samples.actions)
        ratio = ops.importance_ratio(log_probs, samples.old_log_probs)
        policy_loss = -ops.masked_mean(ops.clipped_objective(ratio, samples.advantages, clip_ratio), samples.valid)
        critic_loss = ops.masked_mean(self.critic_loss(value_distribution, samples), samples.valid)
        entropy = ops.masked_mean(distribution.entropy(), samples.valid)
        loss = self.joint_loss(policy_loss, critic_loss, entropy)
        return loss, {
            "policy_loss": policy_loss,
            "critic_loss": critic_loss,
            "entropy": entropy,
            "kl": ops.masked_mean(ops.kl_k3(log_probs, samples.old_log_probs), samples.valid),
            "clip_fraction": ops.masked_mean(ops.clip_fraction(ratio, clip_ratio), samples.valid),
        }

    def critic_loss(self, value_distribution, samples):
        """The critic's loss [B]: its head's, or the clipped squared error."""
        if self.value_clip is None:
            return self.critic_head.loss(value_distribution, samples.returns)
        values = value_distribution.mean()
        return ops.clipped_squared_error(values, samples.old_values, samples.returns, self.scheduled(self.value_clip))

    def train_step(self, rollout):
        """Estimates advantages, then runs the passes of the class's step 3 over the rollout."""
        samples = self.samples(rollout)
        until = None if self.target_kl is None else lambda logs: logs["kl"] > 1.5 * self.scheduled(self.target_kl)
        logs = self.passes(samples, self.update_epochs, self.minibatch_size, until)
        return {**logs, **self.explained(samples)}
