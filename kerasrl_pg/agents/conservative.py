"""What the conservative updates have in common: one measured step of the policy, then the critic's regression."""

from typing import Any, NamedTuple

import keras
import tensorflow as tf

from kerasrl_pg import estimators, ops
from kerasrl_pg.agents.agent import Agent, descend
from kerasrl_pg.agents.divergence import divergence
from kerasrl_pg.agents.minibatches import check_minibatch_size, for_each_minibatch
from kerasrl_pg.checks import Setting, check_flag, check_number, check_standardizable, check_whole


class Batch(NamedTuple):
    """A rollout as one step needs it, [B, ...] each, and π_old on it."""

    observations: Any
    actions: Any
    advantages: Any
    returns: Any
    valid: Any
    old: Any = None
    old_log_probs: Any = None


class Outcome(NamedTuple):
    """What a policy is worth on a batch: scalars, means over the valid rows."""

    kl: Any  # KL(π_old || π), nats
    objective: Any  # what the step ascends: surrogate + c_H entropy
    surrogate: Any  # π/π_old A
    entropy: Any  # nats


class Conservative(Agent):
    """Base of the agents whose policy takes one step of a length of its own, computed and not left to an optimizer.

    A method implements `policy_step(batch)`. The optimizer given to `compile` moves the critic alone, and
    `anneal_learning_rate` lowers its rate.

    Args:
        policy, critic, networks, gamma, reward_scaling, reward_clip, anneal_learning_rate, seed, name: See `Agent`.
            Layers that policy and critic share belong to the policy: the regression leaves them alone, or it would
            move the policy out of its bound (as Stable-Baselines3-Contrib does).
        horizon: T. 128: with eight environments the 1024 rows of OpenAI Baselines' trpo_mpi.
        estimator: None for GAE(λ = 0.95).
        entropy_coef: c_H >= 0, weight of the mean entropy in what the step ascends. 0, OpenAI Baselines' trpo_mpi.
        normalize_advantages: Whether advantages are standardised over the rollout, as OpenAI Baselines does.
        update_epochs: K, passes of the critic's regression over the rollout, at least 1. 10:
            Stable-Baselines3-Contrib's TRPO.
        minibatch_size: M of the regression; T x N must be a multiple. 128, as there.
    """

    horizon = Setting(check_whole)
    entropy_coef = Setting(check_number, 0.0, schedule=True)
    normalize_advantages = Setting(check_flag)
    update_epochs = Setting(check_whole)
    minibatch_size = Setting(check_whole)

    def __init__(
        self,
        policy=None,
        critic=None,
        *,
        horizon=128,
        estimator=None,
        entropy_coef=0.0,
        normalize_advantages=True,
        update_epochs=10,
        minibatch_size=128,
        **kwargs,
    ):
        super().__init__(policy, critic, horizon=horizon, estimator=estimator or estimators.GAE(), **kwargs)
        self.entropy_coef = entropy_coef
        self.normalize_advantages = normalize_advantages
        self.update_epochs = update_epochs
        self.minibatch_size = minibatch_size

    def check_settings(self):
        super().check_settings()
        if self.head is not None and self.critic.trainable_variables and not self.critic_variables:
            raise ValueError(
                "`policy` must leave the critic a layer of its own, since shared layers belong to the policy. "
                "Received: a critic whose layers are all the policy's."
            )

    def compile(self, optimizer=None, critic_optimizer=None, **kwargs):
        """Sets how the critic learns, since the policy's step is no optimizer's.

        Args:
            optimizer: Any Keras optimizer, for the critic; None for `default_optimizer()`.
            critic_optimizer: The same by its other name.
            kwargs: Of `Agent.compile`.

        Raises:
            ValueError: If both are given, or the settings contradict each other.
        """
        if optimizer is not None and critic_optimizer is not None:
            raise ValueError(
                f"`optimizer` must be left out with `critic_optimizer`, since the policy of {type(self).__name__} "
                f"needs none. Received: optimizer={optimizer!r}, critic_optimizer={critic_optimizer!r}. Give one."
            )
        super().compile(critic_optimizer if optimizer is None else optimizer, None, **kwargs)

    def default_optimizer(self):
        """Adam(1e-3) for the critic: Spinning Up's `vf_lr`, OpenAI Baselines' `vf_stepsize` for MuJoCo."""
        return keras.optimizers.Adam(1e-3)

    def _build_optimizers(self):
        if getattr(self, "optimizer", None) is not None and self.observation_spec is not None:
            self.optimizer.build(self.critic_variables)

    @property
    def critic_variables(self):
        """The critic's trainable variables, without those that are the policy's, too."""
        shared = {id(v) for v in self.policy.trainable_variables}
        return [v for v in self.critic.trainable_variables if id(v) not in shared]

    def check_rollout(self, horizon, num_envs):
        check_minibatch_size(self.minibatch_size, horizon, num_envs)
        check_standardizable(horizon * num_envs, "normalize_advantages", self.normalize_advantages)
        check_trainable(policy=self.policy, critic=self.critic)

    # The update

    def train_step(self, rollout):
        """Estimates advantages, takes the policy's step, then regresses the critic on the returns."""
        advantages, returns, values = self.estimate(rollout)
        if self.normalize_advantages:
            advantages = ops.standardize(advantages, rollout.valid)
        batch = ops.flatten_time(
            (rollout.observations, rollout.actions, advantages, tf.stop_gradient(returns), rollout.valid)
        )
        batch = Batch(*batch)
        # The ratio compares two runs of one model, so that it is 1, up to rounding, before the step.
        old = self.policy(batch.observations)
        batch = batch._replace(old=old, old_log_probs=old.log_prob(batch.actions))
        logs = self.policy_step(batch)
        logs.update(self.fit_critic(batch))
        logs["explained_variance"] = ops.explained_variance(values, returns, rollout.valid)
        return logs

    def policy_step(self, batch):
        """Moves the policy and returns logs. Each method writes its own."""
        raise NotImplementedError(f"{type(self).__name__} must implement policy_step(batch).")

    def judge(self, batch):
        """The `Outcome` of the policy as it stands."""
        policy = self.policy(batch.observations)
        ratio = ops.importance_ratio(policy.log_prob(batch.actions), batch.old_log_probs)
        surrogate = ops.masked_mean(ops.importance_objective(ratio, batch.advantages), batch.valid)
        entropy = ops.masked_mean(policy.entropy(), batch.valid)
        kl = ops.masked_mean(self.divergence(batch.old, policy, batch.actions), batch.valid)
        objective = surrogate + self.scheduled(self.entropy_coef) * entropy
        return Outcome(kl, objective - self.regularization(self.policy.trainable_variables), surrogate, entropy)

    def divergence(self, old, new, actions):
        """KL(old || new) [B], nats, by the estimator (r - 1) - log r on the rollout's actions."""
        return divergence(old, new, actions, "sampled")

    def gradient(self, batch):
        """`(outcome, ∇J [P])` before the step."""
        with tf.GradientTape() as tape:
            outcome = self.judge(batch)
        gradients = tape.gradient(
            outcome.objective, self.policy_values(), unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        return outcome, ops.flatten_parameters(gradients)

    def policy_values(self):
        """The policy's trainable `tf.Variable`s."""
        return [variable.value for variable in self.policy.trainable_variables]

    def move(self, theta, step):
        """Sets the policy's weights to θ, a list, + step [P], then applies the weights' own constraints."""
        variables = self.policy.trainable_variables
        for variable, value, change in zip(variables, theta, ops.split_parameters(step, variables), strict=True):
            value = value + change
            variable.assign(value if variable.constraint is None else variable.constraint(value))

    def restore_unless(self, kept, theta):
        """Puts the weights θ, a list, back, bit by bit, unless `kept`."""
        for variable, value in zip(self.policy.trainable_variables, theta, strict=True):
            variable.assign(tf.where(kept, variable.value, value))

    def take(self, step, before, batch):
        """Takes a step [P], unless it is nothing or not finite, or what it leads to is not finite.

        Returns:
            `(outcome, logs)`, the outcome that of `before` where the weights were kept.
        """
        theta = [tf.identity(value) for value in self.policy_values()]
        self.move(theta, tf.where(ops.all_finite(step), step, 0.0))
        after = self.judge(batch)
        taken = tf.reduce_any(step != 0.0) & ops.all_finite(step, *after)
        self.restore_unless(taken, theta)
        after = tf.nest.map_structure(lambda new, old: tf.where(taken, new, old), after, before)
        return after, {"rejected": 1.0 - tf.cast(taken, tf.float32)}

    def logs(self, outcome, **more):
        """What every conservative step reports."""
        return {
            "loss": -outcome.objective,
            "policy_loss": -outcome.surrogate,
            "entropy": outcome.entropy,
            "kl": outcome.kl,
            **more,
        }

    def fit_critic(self, batch):
        """Regresses the critic on the returns; its logs, the loss a mean over minibatches."""
        variables = self.critic_variables

        def update(minibatch):
            observations, returns, valid = minibatch
            with tf.GradientTape() as tape:
                critic_loss = ops.masked_mean(self.critic_head.loss(self.critic(observations), returns), valid)
                loss = critic_loss + self.regularization(variables)
            descend(tape, loss, (self.optimizer, variables))
            return {"critic_loss": critic_loss}

        data = batch.observations, batch.returns, batch.valid
        logs = for_each_minibatch(
            update, data, ("critic_loss",), self.next_seed(), self.update_epochs, self.minibatch_size
        )
        return {"critic_loss": logs["critic_loss"]}


def check_trainable(**models):
    """Refuses to train models that have nothing to train, by their names."""
    for name, model in models.items():
        if not model.trainable_variables:
            raise ValueError(
                f"`{name}` must have weights to train. Received: {model!r}, which has none, or they are frozen. "
                "Set `trainable = True`."
            )
