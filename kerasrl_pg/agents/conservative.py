"""What the conservative updates have in common: one measured step of the policy, then the critic's regression."""

from typing import Any, NamedTuple

import keras
import tensorflow as tf

from kerasrl_pg import estimators, ops
from kerasrl_pg.agents.divergence import divergence
from kerasrl_pg.agents.episodic import Episodic
from kerasrl_pg.agents.minibatches import check_minibatch_size, for_each_minibatch, length_of_sequences
from kerasrl_pg.baselines import Baseline
from kerasrl_pg.checks import check_number, check_standardizable, check_whole
from kerasrl_pg.settings import Setting

# Of the critic's regression: K and M, Stable-Baselines3-Contrib's TRPO.
UPDATE_EPOCHS, MINIBATCH_SIZE = 10, 128
HORIZON = 128  # T with a critic.


def check_baseline(name, value):
    """Refuses what is neither "critic", None, nor a baseline of returns alone."""
    if not (value is None or value == "critic" or (isinstance(value, Baseline) and not value.needs_critic)):
        raise TypeError(
            f'`{name}` must be "critic", None, or one of kerasrl_pg.baselines other than ValueFunction, which the '
            f"critic is. Received: {name}={value!r}."
        )


class Outcome(NamedTuple):
    """What a policy is worth on a batch: scalars, means over the valid rows."""

    kl: Any  # KL(π_old || π), nats
    objective: Any  # what the step ascends: surrogate + c_H entropy
    surrogate: Any  # π/π_old A
    entropy: Any  # nats


class Conservative(Episodic):
    """Base of the agents whose policy takes one step of a length of its own, computed and not left to an optimizer.

    A method implements `policy_step(samples)`. The optimizer given to `compile` moves the critic alone, and
    `anneal_learning_rate` lowers its rate.

    Args:
        policy, critic, networks, gamma, reward_scaling, reward_clip, anneal_learning_rate, seed, name: See `Agent`.
            Layers that policy and critic share belong to the policy: the regression leaves them alone, or it would
            move the policy out of its bound (as Stable-Baselines3-Contrib does).
        horizon: T, steps of each environment in one rollout. None for 128, with eight environments the 1024 rows of
            OpenAI Baselines' trpo_mpi; without a critic None is `episodes` times the environment's own time limit.
        estimator: None for GAE(λ = 0.95), or without a critic RewardToGo().
        baseline: "critic", or to do without: None, or one of `kerasrl_pg.baselines`. Rollouts are whole episodes then,
            as REINFORCE's, and nothing is regressed: Kakade 2001 and the single path of Schulman et al. 2015 (5.1) have
            no critic.
        episodes: Without a critic, whole episodes of each environment in a rollout, None for 1.
        entropy_coef: c_H >= 0, weight of the mean entropy in what the step ascends. 0, OpenAI Baselines' trpo_mpi.
        normalize_advantages: Whether advantages are standardised over the rollout, as OpenAI Baselines does; without a
            critic less the mean of the other episodes.
        update_epochs: K, passes of the critic's regression over the rollout, at least 1. 10:
            Stable-Baselines3-Contrib's TRPO.
        minibatch_size: M of the regression; T x N must be a multiple. 128, as there.
    """

    baseline = Setting(check_baseline)
    episodes = Setting(check_whole, optional=True)
    entropy_coef = Setting(check_number, 0.0, schedule=True)
    update_epochs = Setting(check_whole)
    minibatch_size = Setting(check_whole)
    critics_baseline = '"critic"'

    def __init__(
        self,
        policy=None,
        critic=None,
        *,
        horizon=None,
        estimator=None,
        baseline="critic",
        episodes=None,
        entropy_coef=0.0,
        normalize_advantages=True,
        update_epochs=UPDATE_EPOCHS,
        minibatch_size=MINIBATCH_SIZE,
        **kwargs,
    ):
        super().__init__(
            policy,
            critic,
            horizon=horizon,
            estimator=estimator or (estimators.GAE() if baseline == "critic" else estimators.RewardToGo()),
            baseline=baseline,
            episodes=episodes,
            normalize_advantages=normalize_advantages,
            **kwargs,
        )
        self.entropy_coef = entropy_coef
        self.update_epochs = update_epochs
        self.minibatch_size = minibatch_size

    @property
    def needs_critic(self):
        return self.baseline == "critic"

    @property
    def episodes_per_env(self):
        return None if self.needs_critic else self.episodes or 1

    def rollout_horizon(self, vector_env):
        return (self.horizon or HORIZON) if self.needs_critic else super().rollout_horizon(vector_env)

    def check_settings(self):
        super().check_settings()
        self._check_regression()
        networks = self.actor_critic
        if self.needs_critic and networks and self.critic.trainable_variables and not networks.critic_alone:
            raise ValueError(
                "`policy` must leave the critic a layer of its own, since shared layers belong to the policy. "
                "Received: a critic whose layers are all the policy's."
            )

    def _check_regression(self):
        if self.needs_critic:
            if self.episodes is not None:
                raise ValueError(
                    "`episodes` must be None with a critic, whose rollouts are `horizon` steps. "
                    f"Received: episodes={self.episodes}. Or take a `baseline` of returns, such as AverageReturn()."
                )
            return
        regression = {"update_epochs": UPDATE_EPOCHS, "minibatch_size": MINIBATCH_SIZE, "anneal_learning_rate": False}
        for name, default in regression.items():
            if getattr(self, name) != default:
                raise ValueError(
                    f"`{name}` must be left out without a critic, whose regression it is for. "
                    f"Received: {name}={getattr(self, name)!r}, baseline={self.baseline!r}."
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
        optimizer = critic_optimizer if optimizer is None else optimizer
        if optimizer is not None and not self.needs_critic:
            raise ValueError(
                f"`optimizer` must be left out, since the policy of {type(self).__name__} needs none, and there is no "
                f"critic. Received: optimizer={optimizer!r}, baseline={self.baseline!r}."
            )
        super().compile(optimizer, None, **kwargs)

    def get_compile_config(self):
        config = super().get_compile_config()
        return config if self.needs_critic or not config else {**config, "optimizer": None}

    def default_optimizer(self):
        """Adam(1e-3) for the critic: Spinning Up's `vf_lr`, OpenAI Baselines' `vf_stepsize` for MuJoCo."""
        return keras.optimizers.Adam(1e-3)

    def moves(self):
        """The optimizer moves the critic alone, but for what it shares with the policy."""
        return {"critic": (self.optimizer, self.actor_critic.critic_alone)} if self.needs_critic else {}

    def check_rollout(self, horizon, num_envs):
        super().check_rollout(horizon, num_envs)
        if not self.needs_critic:
            check_trainable(policy=self.policy)
            return
        check_minibatch_size(self.minibatch_size, horizon, num_envs)
        check_standardizable(horizon * num_envs, "normalize_advantages", self.normalize_advantages)
        check_trainable(policy=self.policy, critic=self.critic)

    # The update

    def train_step(self, rollout):
        """Estimates advantages, takes the policy's step, then regresses the critic, if there is one, on the returns."""
        samples = self.samples(rollout)
        logs = self.policy_step(samples)
        if not self.needs_critic:
            finished = (rollout.terminated | rollout.truncated) & rollout.valid
            return {**logs, "episodes": tf.reduce_sum(tf.cast(finished, tf.float32))}
        rows = samples._replace(old=())
        fitted = for_each_minibatch(
            lambda batch: self.descend(self.critic_loss, batch),
            rows,
            self.next_seed(),
            self.update_epochs,
            self.minibatch_size,
            length=rows.inputs.length,
        )
        return {**logs, "critic_loss": fitted["critic_loss"], **self.explained(samples)}

    def credit(self, rollout):
        """As every agent's, but without a floor of the deviation: the step's length is not the advantages' scale."""
        advantages, returns, values = self.estimate(rollout)
        advantages = self.less_baseline(advantages, rollout)
        if self.normalize_advantages:
            mean = None if self.needs_critic else self.mean_of_others(advantages, rollout)
            advantages = ops.standardize(advantages, rollout.valid, mean)
        return advantages, returns, values

    def length_of_sequences(self, horizon):
        if self.needs_critic or not self.actor_critic.memories:
            return super().length_of_sequences(horizon)
        return length_of_sequences(self.sequence_length, horizon, 0)

    def samples(self, rollout):
        """The rows of a rollout, with π_old itself as their `old`."""
        samples = super().samples(rollout)
        return samples._replace(old=self.actor_critic.distribution(samples.inputs))

    def loss(self, samples):
        """Minus what the step ascends; its gradient is -∇J."""
        outcome = self.judge(samples)
        return -outcome.objective, self.logs(outcome)

    def gradients(self, rollout):
        """Refused: an update is no gradient here, but a step; see `gradient(samples)`."""
        raise NotImplementedError(
            f"`gradients` must be asked of a method that descends its loss; {type(self).__name__} takes a step of "
            "its own length. Call `gradient(agent.samples(rollout))` for ∇J."
        )

    def critic_loss(self, samples):
        """The regression of the critic on the returns."""
        values = self.actor_critic.value_distribution(samples.inputs)
        critic_loss = ops.masked_mean(self.critic_head.loss(values, samples.returns), samples.valid)
        return critic_loss, {"critic_loss": critic_loss}

    def policy_step(self, samples):
        """Moves the policy and returns logs. Each method writes its own."""
        raise NotImplementedError(f"{type(self).__name__} must implement policy_step(samples).")

    def judge(self, samples):
        """The `Outcome` of the policy as it stands."""
        policy = self.actor_critic.distribution(samples.inputs)
        ratio = ops.importance_ratio(policy.log_prob(samples.actions), samples.old_log_probs)
        surrogate = ops.masked_mean(ops.importance_objective(ratio, samples.advantages), samples.valid)
        entropy = ops.masked_mean(policy.entropy(), samples.valid)
        kl = ops.masked_mean(self.divergence(samples.old, policy, samples.actions), samples.valid)
        objective = surrogate + self.scheduled(self.entropy_coef) * entropy
        return Outcome(kl, objective - self.regularization(self.actor_critic.policy_variables), surrogate, entropy)

    def divergence(self, old, new, actions):
        """KL(old || new) [B], nats, by the estimator (r - 1) - log r on the rollout's actions."""
        return divergence(old, new, actions, "sampled")

    def gradient(self, samples):
        """`(outcome, ∇J [P])` before the step."""
        with tf.GradientTape() as tape:
            outcome = self.judge(samples)
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

    def take(self, step, before, samples):
        """Takes a step [P], unless it is nothing or not finite, or what it leads to is not finite.

        Returns:
            `(outcome, logs)`, the outcome that of `before` where the weights were kept.
        """
        theta = [tf.identity(value) for value in self.policy_values()]
        self.move(theta, tf.where(ops.all_finite(step), step, 0.0))
        after = self.judge(samples)
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


def check_trainable(**models):
    """Refuses to train models that have nothing to train, by their names."""
    for name, model in models.items():
        if not model.trainable_variables:
            raise ValueError(
                f"`{name}` must have weights to train. Received: {model!r}, which has none, or they are frozen. "
                "Set `trainable = True`."
            )
