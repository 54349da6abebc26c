"""The agent: settings, and the tools of a method's author. No equations here; each method has its own file."""

import random

import keras
import tensorflow as tf

from kerasrl_pg import estimators, ops
from kerasrl_pg.agents.minibatches import check_sequence_length, for_each_minibatch, length_of_sequences
from kerasrl_pg.checks import check_flag, check_known, check_number, check_whole
from kerasrl_pg.models.actor_critic import regularization, regularized
from kerasrl_pg.models.adopt import check_networks
from kerasrl_pg.models.networks import Networks
from kerasrl_pg.models.normalization import RewardScaling
from kerasrl_pg.rollouts.records import Samples, rows_of
from kerasrl_pg.schedules import Clock
from kerasrl_pg.settings import Setting
from kerasrl_pg.training import mirrored, optimizers
from kerasrl_pg.training.iteration import Counters
from kerasrl_pg.training.rooms import Rooms
from kerasrl_pg.training.trainer import Trainer


def check_estimator(name, value):
    """Refuses what is no advantage estimator."""
    if not isinstance(value, estimators.Estimator):
        raise TypeError(
            f"`{name}` must be one of kerasrl_pg.estimators, such as GAE(0.95). Received: {name}={value!r}."
        )


def check_action_masks(name, value):
    """Refuses what names no place of action masks."""
    if value is not None and not isinstance(value, str):
        raise TypeError(
            f"`{name}` must be None, 'info', or the name of a leaf of the observations. Received: {name}={value!r}."
        )


def check_remembered(rollout, memories):
    """Refuses a rollout without memory where networks remember; `memories` are the layers that do."""
    if memories and isinstance(rollout.inputs.memory, tuple):
        raise ValueError(
            "`rollout.inputs.memory` must be what the agent's networks remembered before each step. Received: "
            "none. Record it with an agent that has memory, or train one that has none."
        )


class Agent(Trainer):
    """Base of all agents: a Keras model that is fitted on an environment.

    A method subclasses it and writes `loss(samples)`, what is descended, and `train_step(rollout)`, on what and how
    often: one compiled TensorFlow function. Where the step itself is the method there is only the latter. Networks
    are built when the agent first sees an environment, from its spaces, or are the user's own. What their weights'
    regularizers say is added to the loss (subtracted from what a conservative step ascends). A setting changed between
    two fits, as `agent.entropy_coef = 0.0`, is checked like the constructor's, and holds from the next one on.

    A setting of a method's own is a class attribute `Setting(check, ...)`, and is set in the constructor. What settings
    must be to each other stands in `check_settings`.

    Args:
        policy: None, or your own Keras model: observations [B, ...] to a distribution, its last layer a head of
            `kerasrl_pg.heads`. It may have two outputs named "policy" and "value", where policy and critic share
            layers. It is always called as at inference, since a ratio compares two calls of one function: Dropout does
            nothing, BatchNormalization keeps its statistics; `models.RunningNormalization` learns from rollouts.
        critic: None, or your own Keras model: observations [B, ...] to a distribution over returns, its last layer a
            `ValueHead`. It must be given where `policy` is given, unless the policy has the second output or the method
            has no critic. The two share no layers, as two models.
        networks: `Networks` or a policy class, as `models.Tabular()`: what to build without a `policy`. `Networks()`.
        gamma: Discount γ in [0, 1]. 0.99, as in Schulman et al. 2017 (arXiv 1707.06347), table 3.
        horizon: T, steps of each environment in one rollout, at least 1.
        estimator: How advantages are estimated, one of `kerasrl_pg.estimators`.
        reward_scaling: Divide rewards by the standard deviation of the running discounted return (see `RewardScaling`).
        reward_clip: Clip (scaled) rewards to [-reward_clip, reward_clip]; positive, or None.
        anneal_learning_rate: Multiply the learning rate by what falls linearly from 1 to 0 over a fit (Engstrom et al.
            2020, A.1), or by a `schedules.OverBudget` of factors. `optimizer.learning_rate` itself stays: what you or a
            callback such as `LearningRateScheduler` set it to is annealed.
        seed: Whole number: initial weights, actions, minibatches and, unless `fit` gets its own, the environments.
            None draws one from Python's `random`, which `keras.utils.set_random_seed` seeds.
        action_masks: Where an environment says which actions are allowed: "info" for `info["action_mask"]` of `reset`
            and `step` (of a compiled environment, `action_masks(state)`), or the name of a leaf of its observations;
            None for the leaf `action_mask`, if it is one, and else for "info" once an environment gives it there.
            Masked actions have probability 0, in acting, learning, evaluation and export.
        sequence_length: L, where networks remember: consecutive steps that minibatches are made of and gradients flow
            back through; a divisor of a rollout's steps and of `minibatch_size`. None for the largest.
        name: Keras's.

    Raises:
        ValueError: If a number is out of its range, or settings contradict each other.
        TypeError: If an argument is of the wrong kind, or there is none of that name.
    """

    needs_critic = True
    alternates = False  # Whether the method descends policy and critic by turns, so that each needs its own optimizer.
    episodes_per_env = None  # Whole episodes of each environment in a rollout, for methods that need them.
    normalize_advantages = False  # True or "batch": `credit` standardises them over the rollout.
    loss_is_mean = False  # Whether `loss` is a mean over valid rows, so that devices may share them.
    known = ("policy", "critic", "networks", "reward_scaling", "name")  # Arguments that are no settings.

    gamma = Setting(check_number, 0.0, 1.0)
    horizon = Setting(check_whole, optional=True)
    estimator = Setting(check_estimator)
    reward_clip = Setting(check_number, 0.0, exclusive=True, optional=True)
    anneal_learning_rate = Setting(optimizers.check_factor)
    seed = Setting(check_whole, at_least=0, at_most=2**31 - 1, traced=False)
    action_masks = Setting(check_action_masks, fixed=True)
    sequence_length = Setting(check_whole, optional=True)

    def __init__(
        self,
        policy=None,
        critic=None,
        *,
        networks=None,
        gamma=0.99,
        horizon,
        estimator,
        reward_scaling=False,
        reward_clip=None,
        anneal_learning_rate=False,
        seed=None,
        action_masks=None,
        sequence_length=None,
        name=None,
        **unknown,
    ):
        super().__init__(name=name)
        vars(self).pop("loss", None)  # Keras's own, which is none, and would hide the method's.
        check_known(Agent, type(self), unknown)
        mirrored.check_strategy(self)
        check_flag("reward_scaling", reward_scaling)
        check_networks(policy, critic, networks)
        self.gamma, self.horizon, self.estimator = gamma, horizon, estimator
        self.reward_clip = reward_clip
        self.anneal_learning_rate = anneal_learning_rate
        self.seed = random.randrange(2**31) if seed is None else seed
        self.action_masks = action_masks
        self.sequence_length = sequence_length
        self._networks = networks or Networks()
        self._own_networks = policy is None
        self.policy, self.critic, self.shared_model = policy, critic, None
        self.reward_scaling = RewardScaling(gamma, reward_clip) if reward_scaling else None
        self.critic_optimizer = self._unannealed_learning_rates = None
        self._rooms = Rooms()
        self._rooms.counters = counters = Counters.weights(self.add_weight, self.seed)
        self.random_state, self.iterations, self.env_steps, self.progress = counters
        self._rooms.clock = Clock(self.iterations, self.progress)
        vars(self)["_librarys_own"] = {*vars(self)}

    def __setattr__(self, name, value):
        late = name in ("policy", "critic", "networks", "reward_scaling") and vars(self).get("_constructed")
        if late and getattr(self, name, ...) is not value:
            raise ValueError(
                f"`{name}` must be given when {type(self).__name__} is made, since weights and programs belong to it. "
                f"Received: {name}={value!r}. Make a new agent with it."
            )
        super().__setattr__(name, value)

    def check_settings(self):
        """Refuses, by a ValueError, settings that contradict each other, or the networks where they are built; a method
        adds its own. Called when an agent was made, when it is built, and for every setting that is changed."""
        optimizers.check_annealing(self.anneal_learning_rate, self.optimizers)
        if self.actor_critic is not None:
            check_sequence_length(self.sequence_length, self.actor_critic.memories)

    def check_rollout(self, horizon, num_envs):
        """Refuses settings that do not fit rollouts of `horizon` x `num_envs`; a method adds its own checks."""

    def rollout_horizon(self, env):
        """T, the rows of one rollout from this vector environment."""
        return self.horizon

    def rollout_steps(self, horizon, num_envs):
        """The most environment steps that an iteration may take, with rollouts of `horizon` x `num_envs`."""
        return horizon * num_envs

    def default_optimizer(self):
        """What `compile()` takes where none is given: Adam with PPO's customary constants, 3e-4 (Schulman et al. 2017,
        table 3), ε 1e-5 and joint gradient norm 0.5 (OpenAI Baselines; Engstrom et al. 2020, A.1)."""
        return keras.optimizers.Adam(3e-4, epsilon=1e-5, global_clipnorm=0.5)

    def moves(self):
        """Which optimizer moves which weights: pairs by name, "networks" for both, or "policy" and "critic"."""
        networks = self.actor_critic
        if self.critic_optimizer is None:
            return {"networks": (self.optimizer, networks.variables)}
        return {
            "policy": (self.optimizer, networks.policy_variables),
            "critic": (self.critic_optimizer, networks.critic_variables),
        }

    # A method: what is descended, and how often

    def loss(self, samples):
        """What a method descends: `(loss, logs)` of `Samples`, a scalar with gradient and a dictionary of scalars; what
        regularizers say is added to it."""
        raise NotImplementedError(f"{type(self).__name__} must implement loss(samples), or train_step(rollout).")

    def train_step(self, rollout):
        """One update from a `Rollout` of tensors; returns a dictionary of scalar logs. Here one step down `loss`."""
        samples = self.samples(rollout)
        return {**self.descend(self.loss, samples), **self.explained(samples)}

    # Tools of a method

    def samples(self, rollout):
        """A rollout's rows as a loss sees them: `Samples` [T x N, ...]."""
        advantages, returns, values = self.credit(rollout)
        check_remembered(rollout, self.actor_critic.memories)
        length = self.length_of_sequences(rollout.rewards.shape[0])
        rows = rollout.inputs, rollout.actions, values, advantages, returns, rollout.valid
        inputs, actions, *rest = rows_of(rows, length)
        if length > 1:  # What was remembered before the first step of each.
            inputs = inputs._replace(memory=inputs.memory[::length])
        # The ratio compares two runs of one model, so that it is 1, up to rounding, before the first step.
        return Samples(inputs, actions, self.actor_critic.distribution(inputs).log_prob(actions), *rest)

    def credit(self, rollout):
        """`estimate`, the advantages standardised over the rollout, beside its returns, where the settings say so."""
        advantages, returns, values = self.estimate(rollout)
        if self.normalize_advantages in (True, "batch"):
            advantages = ops.standardize(advantages, rollout.valid, returns=returns)
        return advantages, returns, values

    def standardized(self, samples):
        """`Samples` of one step, their advantages standardised over them where the settings say "minibatch"."""
        if self.normalize_advantages != "minibatch":
            return samples
        advantages = ops.standardize(samples.advantages, samples.valid, returns=samples.returns)
        return samples._replace(advantages=advantages)

    def estimate(self, rollout):
        """`(advantages, returns, values)`, all [T, N], by the agent's estimator and critic."""
        values = self.values(rollout.inputs)
        advantages, returns = self.estimator.present(self.scheduled)(
            self.scaled_rewards(rollout),
            values,
            self.values(rollout.next_inputs),
            rollout.terminated,
            rollout.truncated,
            rollout.valid,
            self.gamma,
        )
        return advantages, returns, values

    def values(self, inputs):
        """V(s) [T, N] of `Inputs` [T, N, ...]; 0 without a critic."""
        return self.actor_critic.values(inputs)

    def forward(self, inputs):
        """`(distribution, value_distribution)` for `Inputs` [B, ...], one pass where the networks share layers."""
        return self.actor_critic.forward(inputs)

    def scaled_rewards(self, rollout):
        """Rewards [T, N] as the learner sees them; the rollout keeps them as given."""
        if self.reward_scaling is None:
            clip = self.reward_clip
            return rollout.rewards if clip is None else tf.clip_by_value(rollout.rewards, -clip, clip)
        return self.reward_scaling(rollout.rewards)

    def learn_rewards(self, rollout):
        """What reward scaling learns from a rollout, once, before any of it is scaled."""
        if self.reward_scaling is not None:
            carry = self._rooms.reward_carry(rollout.rewards.shape[1])
            carry.assign(self.reward_scaling.update(rollout.rewards, rollout.ends, rollout.valid, carry))

    def passes(self, samples, epochs, size, until=None):
        """Descends `loss` on shuffled minibatches.

        Args:
            samples: `Samples` [B, ...].
            epochs: Passes over them, at least 1.
            size: Rows of a minibatch; B must be a multiple.
            until: None, or a function from a minibatch's logs to a bool tensor; where True, the passes end.

        Returns:
            Means of the logs over the minibatches done, and `updates`, their number.
        """
        keep_going = None if until is None else lambda logs: ~until(logs)
        return for_each_minibatch(
            lambda batch: self.descend(self.loss, batch),
            samples,
            self.next_seed(),
            epochs,
            size,
            keep_going,
            samples.inputs.length,
        )

    def length_of_sequences(self, horizon):
        """L, steps that gradients go back through memory, of rollouts of `horizon` steps; 1 without memory."""
        if not self.actor_critic.memories:
            return 1
        return length_of_sequences(self.sequence_length, horizon, getattr(self, "minibatch_size", 0))

    def descend(self, loss, samples, part=None):
        """One step of the optimizer(s) down the gradient of a loss.

        Args:
            loss: Function from `Samples` to `(loss, logs)`; what regularizers say of the moved weights is added.
            samples: `Samples`.
            part: None for all `moves()`, or the name of one.

        Returns:
            The logs, with `loss`.
        """
        samples, moves = self.standardized(samples), self._moves(part)
        loss = regularized_loss(loss, moves)
        if mirrored.is_mirrored(self._rooms.strategy):
            return mirrored.descend(self._rooms.strategy, loss, samples, moves)
        with tf.GradientTape() as tape:
            value, logs = loss(samples)
        optimizers.descend(tape, value, moves)
        return {"loss": value, **logs}

    def _moves(self, part):
        moves = self.moves()
        if part is None:
            return list(moves.values())
        if part not in moves:
            raise ValueError(
                f"`alternates` must be True of {type(self).__name__}, whose {part} is moved alone and needs an "
                "optimizer of its own. Received: alternates=False. Set it in the class, or compile with a "
                "`critic_optimizer`."
            )
        return [moves[part]]

    def gradients(self, rollout):
        """The gradient of each part's loss on a whole rollout, as optimizers get it, without moving a weight.

        Args:
            rollout: A `Rollout` of tensors or arrays.

        Returns:
            `(gradients, logs)`: a dictionary from the names of `moves()` to lists of tensors, in the order of their
            variables, and the logs.

        Raises:
            NotImplementedError: If the method has no `loss`.

        >>> import gymnasium as gym, numpy as np
        >>> import kerasrl_pg as pg
        >>> agent = pg.A2C(seed=0)
        >>> agent.bind(gym.spaces.Box(-1, 1, (3,)), gym.spaces.Discrete(2))
        >>> agent.compile()
        >>> some, no = np.zeros((5, 1), "float32"), np.zeros((5, 1), bool)
        >>> inputs = pg.rollouts.Inputs(np.ones((5, 1, 3), "float32"))
        >>> rollout = pg.rollouts.Rollout(inputs, no.astype("int32"), some, some + 1, no, no, inputs, ~no)
        >>> gradients, logs = agent.gradients(rollout)
        >>> [tuple(g.shape) for g in gradients["networks"]] == [v.shape for v in agent.network_variables]
        True
        """
        rollout = tf.nest.map_structure(tf.convert_to_tensor, rollout)
        carry = [] if self.reward_scaling is None else [self._rooms.reward_carry(rollout.rewards.shape[1])]
        kept = [(v, tf.identity(v)) for v in [*(v.value for v in self.variables), *carry]]
        self.learn_rewards(rollout)
        found, logs = self.gradients_of(self.standardized(self.samples(rollout)))
        for variable, before in kept:
            variable.assign(before)
        return found, logs

    def gradients_of(self, samples):
        """`gradients`, of `Samples`."""
        found, logs = {}, {}
        for part, move in self.moves().items():
            moved = [move] if self.alternates else list(self.moves().values())
            with tf.GradientTape() as tape:
                value, more = regularized_loss(self.loss_of(part), moved)(samples)
            (found[part],) = optimizers.gradients(tape, value, [move])
            logs = {"loss": value, **more, **logs}
        return found, logs

    def loss_of(self, part):
        """What moves a part of `moves()`: `loss`, but where a method moves parts by turns."""
        return self.loss

    def joint_loss(self, policy_loss, critic_loss, entropy):
        """L_π + c_V L_V - c_H H: the loss of policy and critic together, of scalars.

        Source: Mnih et al. 2016 (arXiv 1602.01783), algorithm S3 and section 4; Schulman et al. 2017, equation 9.
        """
        return policy_loss + self.scheduled(self.value_coef) * critic_loss - self.scheduled(self.entropy_coef) * entropy

    def explained(self, samples):
        """The log `explained_variance`, of the critic before the update."""
        return {"explained_variance": ops.explained_variance(samples.old_values, samples.returns, samples.valid)}

    def regularization(self, variables=None):
        """What the regularizers of these weights, policy's and critic's if left out, add to the loss."""
        return regularization(self.actor_critic.variables if variables is None else variables)

    def scheduled(self, coefficient):
        """A coefficient's present value: itself, or what its schedule gives now."""
        return self._rooms.clock.value(coefficient)


Agent.root = Agent


def regularized_loss(loss, moves):
    """A loss, function from `Samples` to `(loss, logs)`, with what regularizers say of all weights of the moves."""
    weights = list({id(weight): weight for _, weights in moves for weight in weights}.values())
    if not regularized(weights):
        return loss

    def whole(samples):
        value, logs = loss(samples)
        return value + regularization(weights), logs

    return whole
