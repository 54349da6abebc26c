"""The agent: a Keras model that is fitted on an environment. No equations here; each method has its own file."""

import copy
import dataclasses
import json
import random
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from kerasrl_pg import estimators, ops
from kerasrl_pg.agents.training import CompiledTraining, HostTraining
from kerasrl_pg.callbacks import Budget, FitCallbacks, Progress, as_list
from kerasrl_pg.checks import (
    Schedule,
    Setting,
    arguments,
    check_flag,
    check_known,
    check_number,
    check_whole,
    knows_its_arguments,
    misspelt,
    refuse_unknown,
    serialize,
    settings,
)
from kerasrl_pg.envs.adapter import CompiledVectorEnv
from kerasrl_pg.envs.compiled import CompiledEnv
from kerasrl_pg.envs.spaces import ObservationSpec, check_same_space, space_to_config
from kerasrl_pg.envs.vector import close, make_vector_env
from kerasrl_pg.models.adopt import adopt, regularized
from kerasrl_pg.models.networks import Networks
from kerasrl_pg.models.normalization import RewardScaling
from kerasrl_pg.rollouts import compiled
from kerasrl_pg.rollouts.actor import Actor, has_convolutions
from kerasrl_pg.rollouts.evaluate import RESULTS, check_policy, evaluate_policy
from kerasrl_pg.saving.weights import (
    InMemory,
    check_same_weights,
    read_weights,
    seal,
    spaces_from_configs,
    weights_of,
)
from kerasrl_pg.serving.export import export_saved_model
from kerasrl_pg.serving.files import verify_weights, verify_zip, write_beside


class _Runtime:
    """What an agent holds but Keras must not track: spaces, heads, programs, environments, and the present fit."""

    def __init__(self):
        self.spec = self.observation_space = self.action_space = None
        self.head = self.critic_head = None
        self.actors = {}
        self.programs = {}
        self.noise_programs = {}
        self.settings = None  # Those that the programs were traced with.
        self.reward_carry = {}
        self.players = None  # (environment, where its episodes stand), or (its text, arrays) from a checkpoint.
        self.training = self.validation = None
        self.stop_training = self.epoch_is_over = False


class _AgentType(type(keras.Model)):
    """Settings are checked together when an agent is whole, and one by one from then on."""

    def __call__(cls, *args, **kwargs):
        agent = super().__call__(*args, **kwargs)
        agent.check_settings()
        agent._constructed = True
        return agent


def check_estimator(name, value):
    """Refuses what is no advantage estimator."""
    if not isinstance(value, estimators.Estimator):
        raise TypeError(
            f"`{name}` must be one of kerasrl_pg.estimators, such as GAE(0.95). Received: {name}={value!r}."
        )


class Agent(keras.Model, metaclass=_AgentType):
    """Base of all agents: build, compile, fit, evaluate, act, save, export.

    A method subclasses it and writes `train_step(rollout)`, which becomes one compiled TensorFlow function. Networks
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
        networks: `Networks`, what to build where `policy` is None; None for `Networks()`.
        gamma: Discount γ in [0, 1]. 0.99, as in Schulman et al. 2017 (arXiv 1707.06347), table 3.
        horizon: T, steps of each environment in one rollout, at least 1.
        estimator: How advantages are estimated, one of `kerasrl_pg.estimators`.
        reward_scaling: Divide rewards by the standard deviation of the running discounted return (see `RewardScaling`).
        reward_clip: Clip (scaled) rewards to [-reward_clip, reward_clip]; positive, or None.
        anneal_learning_rate: Multiply the learning rate by what falls linearly from 1 to 0 over a fit (Engstrom et al.
            2020, A.1). `optimizer.learning_rate` itself stays, so that what you or a callback such as
            `LearningRateScheduler` set it to is what is annealed.
        seed: Whole number: initial weights, actions, minibatches and, unless `fit` gets its own, the environments.
            None draws one from Python's `random`, which `keras.utils.set_random_seed` seeds.
        name: Keras's.

    Raises:
        ValueError: If a number is out of its range, or settings contradict each other.
        TypeError: If an argument is of the wrong kind, or there is none of that name.
    """

    needs_critic = True
    alternates = False  # Whether the method descends policy and critic by turns, so that each needs its own optimizer.

    gamma = Setting(check_number, 0.0, 1.0)
    horizon = Setting(check_whole, optional=True)
    estimator = Setting(check_estimator)
    reward_clip = Setting(check_number, 0.0, exclusive=True, optional=True)
    anneal_learning_rate = Setting(check_flag)
    seed = Setting(check_whole, at_least=0, at_most=2**31 - 1)

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
        name=None,
        **unknown,
    ):
        super().__init__(name=name)
        check_known(Agent, type(self), unknown)
        check_flag("reward_scaling", reward_scaling)
        for argument, model in {"policy": policy, "critic": critic}.items():
            if model is not None and not isinstance(model, keras.Layer):
                raise TypeError(
                    f"`{argument}` must be a Keras model that ends in a head of kerasrl_pg.heads, or None for what "
                    f"`networks` says. Received: {argument}={model!r}."
                )
        if networks is not None and not isinstance(networks, Networks):
            raise TypeError(f"`networks` must be a kerasrl_pg.Networks. Received: networks={networks!r}.")
        if policy is not None and networks is not None:
            raise ValueError(
                "`networks` says what to build where no `policy` is given, so only one of them may be given. "
                f"Received: policy={policy!r}, networks={networks!r}."
            )
        if policy is None and critic is not None:
            raise ValueError(
                "`critic` must come with a `policy` of your own. Received: critic alone. Pass both, or neither."
            )
        self.gamma = gamma
        self.horizon = horizon
        self.estimator = estimator
        self.reward_clip = reward_clip
        self.anneal_learning_rate = anneal_learning_rate
        self.seed = random.randrange(2**31) if seed is None else seed
        self._networks = networks or Networks()
        self._own_networks = policy is None
        self._runtime = _Runtime()
        self.policy = policy
        self.critic = critic
        self.shared_model = None
        self.reward_scaling = RewardScaling(gamma, reward_clip) if reward_scaling else None
        self.critic_optimizer = None
        self._unannealed_learning_rates = None
        # Random state and counters are weights, so that every checkpoint holds them.
        self.random_state = self.add_weight(
            name="random_state", shape=(2,), dtype="int32", trainable=False, initializer="zeros"
        )
        self.random_state.assign([self.seed, 0])
        self.iterations = self.add_weight(
            name="iterations", shape=(), dtype="int64", trainable=False, initializer="zeros"
        )
        self.env_steps = self.add_weight(
            name="env_steps", shape=(), dtype="int64", trainable=False, initializer="zeros"
        )
        # Iterations and environment steps of the present fit.
        self.progress = self.add_weight(
            name="progress", shape=(2,), dtype="int64", trainable=False, initializer="zeros"
        )

    def __setattr__(self, name, value):
        if vars(self).get("_constructed") and not hasattr(self, name):
            meant = misspelt(name, arguments(Agent, type(self)))
            if meant is not None:
                raise AttributeError(
                    f"`{type(self).__name__}` has no setting `{name}`. Did you mean `{meant}`? "
                    f"Received: {name}={value!r}."
                )
        if name in ("policy", "critic") and vars(self).get("_constructed") and getattr(self, name) is not value:
            raise ValueError(
                f"`{name}` must be given when {type(self).__name__} is made, since heads, optimizers and programs "
                f"belong to it. Received: {name}={value!r}. Make a new agent with it."
            )
        super().__setattr__(name, value)

    def check_settings(self):
        """Refuses settings that contradict each other, or the networks where they are built; a method adds its own.

        Called when an agent was made, when it is built, and for every setting that is changed.

        Raises:
            ValueError: As said.
        """
        for optimizer in self._optimizers():
            _check_annealing(self, optimizer)

    # Building

    def bind(self, observation_space, action_space, argument="env"):
        """Builds the networks for these spaces, or checks that they are the ones the agent was built for.

        `fit` calls it; call it yourself to look at the networks before training.

        Args:
            observation_space, action_space: Of one environment, gymnasium spaces.
            argument: The caller's name for the environment, for error sentences.

        Raises:
            ValueError: If the spaces differ from the agent's, have no network or head, or do not fit the given policy.

        >>> import gymnasium as gym
        >>> import kerasrl_pg as pg
        >>> agent = pg.PPO(seed=0)
        >>> agent.bind(gym.spaces.Box(-1, 1, (3,)), gym.spaces.Discrete(2))
        >>> agent.act([0.1, 0.2, 0.3]) in (0, 1)
        True
        """
        runtime = self._runtime
        if runtime.spec is not None:
            check_same_space(argument, runtime.observation_space, observation_space)
            check_same_space(argument, runtime.action_space, action_space, bounds=True)
            return
        spec = ObservationSpec(observation_space)
        policy, critic = given = self.policy, self.critic
        if policy is None:
            policy, critic = self._networks.build(observation_space, action_space, self.seed)
        networks = adopt(policy, critic, spec, action_space, self.needs_critic)
        self._take_networks(networks.policy, networks.critic, networks.shared)
        runtime.spec, runtime.head, runtime.critic_head = spec, networks.head, networks.critic_head
        runtime.observation_space, runtime.action_space = observation_space, action_space
        try:
            self.check_settings()
            self._build_optimizers()
        except Exception:  # Or the next call would take the agent for built, and check nothing.
            self._take_networks(*given)
            runtime.spec = runtime.head = runtime.critic_head = None
            raise
        self.built = True
        for model in (self.policy, self.critic, self.shared_model):
            if isinstance(model, keras.Model):
                model.predict = _refuse_predict

    def _take_networks(self, policy, critic, shared=None):
        constructed, self._constructed = vars(self).get("_constructed", False), False
        self.policy, self.critic, self.shared_model = policy, critic, shared
        self._constructed = constructed

    @property
    def head(self):
        """The policy's head; None before the agent is built."""
        return self._runtime.head

    @property
    def critic_head(self):
        """The critic's head; None without critic or before the agent is built."""
        return self._runtime.critic_head

    def call(self, observations):
        """The policy's distribution for observations [B, ...]."""
        return self.policy(observations)

    def forward(self, observations):
        """`(distribution, value_distribution)` for observations [B, ...], one pass where the networks share layers."""
        if self.shared_model is not None:
            outputs = self.shared_model(observations)
            return outputs["policy"], outputs["value"]
        return self.policy(observations), None if self.critic is None else self.critic(observations)

    # Compiling

    @knows_its_arguments
    def compile(
        self, optimizer=None, critic_optimizer=None, jit_compile="auto", run_eagerly=False, steps_per_execution=1
    ):
        """Sets how the weights are updated.

        Args:
            optimizer: Any Keras optimizer without `use_ema`, with any schedule and clipping; None for the method's
                `default_optimizer()`.
            critic_optimizer: An optimizer for the critic's own weights; None for one optimizer over both networks
                jointly (a `global_clipnorm` then clips their joint gradient). Where the method moves them by turns, as
                REINFORCE does, None is a second `optimizer` of the same settings, whose steps, bias corrections and
                schedule count the critic's updates alone.
            jit_compile: Whether to compile `train_step` with XLA. "auto": yes, but not for convolutions on CPU, where
                XLA was measured twice as slow.
            run_eagerly: Run everything in Python, for debugging.
            steps_per_execution: Iterations between two looks at the callbacks, at least 1; what is learned does not
                depend on it. On a compiled environment they are one call of one program, which pays where iterations
                are short.

        Raises:
            ValueError: If the settings contradict each other.
        """
        check_whole("steps_per_execution", steps_per_execution)
        optimizer = self.default_optimizer() if optimizer is None else keras.optimizers.get(optimizer)
        critic_optimizer = None if critic_optimizer is None else keras.optimizers.get(critic_optimizer)
        if critic_optimizer is not None and not self.needs_critic:
            raise ValueError(
                f"`critic_optimizer` must be left out, since {self!r} has no critic. Received: {critic_optimizer!r}."
            )
        for each in filter(None, (optimizer, critic_optimizer)):
            _check_annealing(self, each)
            if each.built and not any(each is mine for mine in self._optimizers()):
                raise ValueError(
                    "`optimizer` must be a fresh one, since its memory belongs to the weights that it was built for. "
                    f"Received: {each!r}, which moves another agent's. Make one for each agent."
                )
            if getattr(each, "inner_optimizer", each).use_ema:
                raise ValueError(
                    "`optimizer` must have `use_ema=False`, since Keras would write its averages over the weights of "
                    f"policy and critic alike, in order, whichever of them it moved. Received: {each!r}."
                )
        if run_eagerly and jit_compile is True:
            raise ValueError("`jit_compile` must not be True with `run_eagerly=True`. Received: both. Choose one.")
        # Keras's own loop counts executions, and knows nothing of what is in them.
        super().compile(optimizer=optimizer, jit_compile=False, run_eagerly=run_eagerly)
        self._runtime.programs.clear()  # They hold the former optimizer.
        if critic_optimizer is None and self.alternates:
            # One optimizer would count the steps of both in its bias corrections, schedule and accumulation.
            critic_optimizer = type(self.optimizer).from_config(self.optimizer.get_config())
        self.critic_optimizer = critic_optimizer
        self._iterations_per_execution = steps_per_execution
        self._jit_setting = jit_compile
        self._compiled_learning_rates = [float(o.learning_rate) for o in self._optimizers()]
        self._build_optimizers()

    def default_optimizer(self):
        """What `compile()` takes where none is given: Adam with PPO's customary constants.

        3e-4 (Schulman et al. 2017, table 3), ε 1e-5 and joint gradient norm 0.5 (OpenAI Baselines; Engstrom et al.
        2020, A.1).
        """
        return keras.optimizers.Adam(3e-4, epsilon=1e-5, global_clipnorm=0.5)

    def _optimizers(self):
        return [o for o in (getattr(self, "optimizer", None), self.critic_optimizer) if o is not None]

    def _build_optimizers(self):
        # Built at once, because Keras loads only the variables of built optimizers.
        if getattr(self, "optimizer", None) is None or self._runtime.spec is None:
            return
        if self.critic_optimizer is None:
            self.optimizer.build(self.network_variables)
        elif self.shared_model is not None and not self.alternates:
            raise ValueError(
                "`critic_optimizer` must be left out where policy and critic share layers, which both would move. "
                f"Received: critic_optimizer={self.critic_optimizer!r}. Compile with one optimizer."
            )
        else:
            self.optimizer.build(self.policy.trainable_variables)
            self.critic_optimizer.build(self.critic.trainable_variables)

    @property
    def network_variables(self):
        """Trainable variables of policy and critic, each once."""
        critic = [] if self.critic is None else self.critic.trainable_variables
        seen = {id(v): v for v in [*self.policy.trainable_variables, *critic]}
        return list(seen.values())

    def apply_gradients(self, tape, loss):
        """One step of the optimizer(s) down the gradient of `loss`, recorded on `tape`, in policy and critic."""
        if self.critic_optimizer is None:
            descend(tape, loss, (self.optimizer, self.network_variables))
            return
        policy, critic = self.policy.trainable_variables, self.critic.trainable_variables
        descend(tape, loss, (self.optimizer, policy), (self.critic_optimizer, critic))

    def apply_policy_gradients(self, tape, loss):
        """One step of `optimizer` in the policy alone, of a method that `alternates`."""
        descend(tape, loss, (self.optimizer, self.policy.trainable_variables))

    def apply_critic_gradients(self, tape, loss):
        """One step of `critic_optimizer` in the critic alone, of a method that `alternates`."""
        if self.critic_optimizer is None:
            raise ValueError(
                f"`alternates` must be True of {type(self).__name__}, whose critic is moved alone and needs an "
                "optimizer of its own. Received: alternates=False. Set it in the class, or compile with a "
                "`critic_optimizer`."
            )
        descend(tape, loss, (self.critic_optimizer, self.critic.trainable_variables))

    def regularization(self, variables=None):
        """What the regularizers of these weights, policy's and critic's if left out, add to the loss."""
        variables = self.network_variables if variables is None else variables
        # Of the loss's type, not the weights'.
        return sum(tf.cast(v.regularizer(v), tf.float32) for v in regularized(variables))

    @property
    def _compiled_with_xla(self):
        if self._jit_setting != "auto":
            return bool(self._jit_setting)
        on_cpu = not tf.config.list_physical_devices("GPU")
        models = [m for m in (self.policy, self.critic) if m is not None]
        return not (on_cpu and any(has_convolutions(m) for m in models))

    # Helpers of the methods' train_step

    def train_step(self, rollout):
        """One update from a `Rollout` of tensors; returns a dictionary of scalar logs. Each method writes its own."""
        raise NotImplementedError(f"{type(self).__name__} must implement train_step(rollout).")

    def values(self, observations):
        """V(s) [T, N] of observations [T, N, ...]."""
        leading = tf.shape(tf.nest.flatten(observations)[0])[:2]
        return tf.reshape(self.critic(ops.flatten_time(observations)).mean(), leading)

    def scaled_rewards(self, rollout):
        """Rewards [T, N] as the learner sees them, updating the scaling; the rollout keeps them as given."""
        if self.reward_scaling is None:
            clip = self.reward_clip
            return rollout.rewards if clip is None else tf.clip_by_value(rollout.rewards, -clip, clip)
        carry = self.reward_carry(rollout.rewards.shape[1])
        ends = ops.episode_ends(rollout.terminated, rollout.truncated, rollout.valid)
        carry.assign(self.reward_scaling.update(rollout.rewards, ends, rollout.valid, carry))
        return self.reward_scaling(rollout.rewards)

    def reward_carry(self, num_envs):
        """The variable [N] that carries the running discounted returns of N environments to the next rollout."""
        carries = self._runtime.reward_carry
        if num_envs not in carries:
            carries[num_envs] = tf.Variable(tf.zeros(num_envs), trainable=False)
        return carries[num_envs]

    def estimate(self, rollout):
        """`(advantages, returns, values)`, all [T, N], by the agent's estimator and critic."""
        values = self.values(rollout.observations)
        advantages, returns = self.estimator(
            self.scaled_rewards(rollout),
            values,
            self.values(rollout.next_observations),
            rollout.terminated,
            rollout.truncated,
            rollout.valid,
            self.gamma,
        )
        return advantages, returns, values

    def next_seed(self):
        """A fresh seed int32[2] from the agent's random state, which is saved with its weights."""
        self.random_state.assign_add([0, 1])
        return tf.identity(self.random_state.value)

    def scheduled(self, coefficient):
        """A coefficient's present value: itself, or a Keras schedule's value at this iteration."""
        return coefficient(self.iterations.value) if isinstance(coefficient, Schedule) else coefficient

    # Fitting

    @knows_its_arguments
    def fit(
        self,
        env,
        total_steps=None,
        epochs=None,
        steps_per_epoch=None,
        num_envs=None,
        callbacks=None,
        validation_env=None,
        validation_freq=1,
        validation_episodes=10,
        validation_max_steps=200_000,
        verbose="auto",
        initial_epoch=0,
        seed=None,
        resume=False,
    ):
        """Trains on an environment.

        Args:
            env: A gymnasium id, a callable that makes an environment, an `Env`, a `VectorEnv`, or an EnvPool
                environment; or a `CompiledEnv`, which is collected from inside the compiled program. A second fit on
                an equal compiled environment goes on with the episodes of the first.
            total_steps: Budget of environment steps, never exceeded: training ends when another rollout could exceed
                it.
            epochs: Number of epochs. With `total_steps` each epoch is an equal share of it (10 if left out: ours, for
                ten lines of progress); without, it goes with `steps_per_epoch`.
            steps_per_epoch: Iterations (rollout and update) in an epoch.
            num_envs: N, environments stepped side by side; the vector's own number, else 1.
            callbacks: One Keras callback, or a list. Weights that one sets while the fit runs, such as the best of
                `EarlyStopping`, are those of networks and statistics: the agent's counters and random state go on, and
                tell what was spent. (Keras does not set back the optimizer with them.)
            validation_env: As `env`; evaluated after every `validation_freq` epochs, logged as `val_return` and so on.
                Other epochs have no such logs, as in Keras; a `CSVLogger` has columns for them, "NA" there.
            validation_freq: Epochs between evaluations, or a list of epochs, the first being 1.
            validation_episodes: Episodes of an evaluation. 10: ours, cheap beside an epoch.
            validation_max_steps: The `max_steps` of an evaluation.
            verbose: 0 silent, 1 progress bar, 2 one line an epoch.
            initial_epoch: Epoch to start from, below `epochs`: those before count as spent. A search that gives its
                trials different `epochs`, as KerasTuner's Hyperband, needs `steps_per_epoch` in place of
                `total_steps`, which would be all spent in each trial's own epochs.
            seed: Of the environments; None derives it from the agent's random state.
            resume: Go on with the fit that the agent was in when it was saved: what that had spent of the budget
                counts, down to the iteration. Give the same budget.

        Returns:
            Keras's `History`, with the logs of each epoch: `loss`, `policy_loss`, `critic_loss`, `entropy` (nats),
            `kl` and more as the method documents, `episode_return` and `episode_length` (means over the last 100
            training episodes, raw reward), `env_steps` (of the agent's whole life) and `steps_per_second` (of this
            epoch).

        Raises:
            ValueError: If the budget is missing, contradictory or smaller than one rollout, or the environment does
                not fit. If a weight, a log or anything else is NaN or infinite after an update: the update is undone,
                and the sentence names the first such tensor. With Keras's `TerminateOnNaN` among the callbacks the fit
                ends there with a warning instead.
            RuntimeError: If the environment raises.

        >>> import kerasrl_pg as pg
        >>> agent = pg.PPO(horizon=32, minibatch_size=32, seed=0)
        >>> agent.compile()
        >>> history = agent.fit("CartPole-v1", total_steps=64, epochs=2, verbose=0)
        >>> history.history["env_steps"]
        [32.0, 64.0]
        """
        self._assert_compile_called("fit")
        runtime = self._runtime
        callbacks = as_list(callbacks)
        check_flag("resume", resume)
        if total_steps is not None:
            _refuse_rungs(callbacks, total_steps, epochs)
        if resume and initial_epoch:
            raise ValueError(
                "`initial_epoch` must be left out with `resume=True`, which knows where the fit was. "
                f"Received: initial_epoch={initial_epoch}."
            )
        vector_env, validation, history = None, None, None
        if not isinstance(env, CompiledEnv):
            vector_env, owned = make_vector_env(env, num_envs)
        elif num_envs not in (None, env.num_envs):
            raise ValueError(
                f"`num_envs` must be left out, or be {env.num_envs}, for {env!r}. Received: num_envs={num_envs}."
            )
        try:
            if vector_env is None:
                self.bind(env.observation_space, env.action_space)
                n, horizon = env.num_envs, self.rollout_horizon(env)
            else:
                self.bind(vector_env.single_observation_space, vector_env.single_action_space)
                n, horizon = vector_env.num_envs, self.rollout_horizon(vector_env)
            self.check_rollout(horizon, n)
            self._forget_programs_of_other_settings()
            self._restore_unannealed_learning_rates()
            budget = Budget(
                horizon * n,
                total_steps,
                epochs,
                steps_per_epoch,
                self.episodes_per_env is not None,
                self._iterations_per_execution,
            )
            if resume:
                initial_epoch = budget.epoch_at(self.progress.numpy())
            else:
                budget.check_start(initial_epoch)
                self.progress.assign(budget.progress_at(initial_epoch))
            if validation_env is not None:
                validation_freq = budget.check_validation(validation_freq)
                validation = self._validation(validation_env, validation_episodes, vector_env, validation_max_steps)
            verbose = 1 if verbose == "auto" else verbose
            if vector_env is None:
                runtime.training = CompiledTraining(self, budget, verbose != 0, env, horizon, seed)
            else:
                runtime.training = HostTraining(self, budget, verbose != 0, vector_env, horizon, seed)
            runtime.validation = validation
            callbacks = [budget, *callbacks]
            runtime.training.ends_at_nan = any(isinstance(c, keras.callbacks.TerminateOnNaN) for c in callbacks)
            if verbose == 1 and not any(isinstance(c, keras.callbacks.ProgbarLogger) for c in callbacks):
                callbacks.append(Progress())
            # A dummy dataset: Keras runs its loop and callbacks, and asks `train_function` for an execution. Rollouts
            # do not pass through its data adapters, which prefetch and would train on a stale policy.
            history = super().fit(
                tf.data.Dataset.range(1).repeat(),
                epochs=budget.epochs,
                initial_epoch=initial_epoch,
                callbacks=FitCallbacks(
                    callbacks,
                    () if validation is None else [f"val_{name}" for name in RESULTS],
                    add_history=True,
                    add_progbar=verbose != 0,
                    model=self,
                    verbose=verbose,
                    epochs=budget.epochs,
                    steps=budget.executions_per_epoch,
                ),
                validation_data=None if validation is None else tf.data.Dataset.range(1),
                validation_freq=validation_freq,
                shuffle=False,
            )
            return history
        finally:
            runtime.training = runtime.validation = self._initial_epoch = None
            if vector_env is not None and owned:
                close(vector_env, failed=history is None)
            if validation is not None and validation[1]:
                close(validation[0], failed=history is None)

    episodes_per_env = None  # Whole episodes of each environment in a rollout, for methods that need them.

    def rollout_horizon(self, vector_env):
        """T, the rows of one rollout from this vector environment."""
        return self.horizon

    def check_rollout(self, horizon, num_envs):
        """Refuses settings that do not fit rollouts of `horizon` x `num_envs`; a method adds its own checks."""

    def _validation(self, env, episodes, training_env, max_steps):
        check_whole("validation_episodes", episodes)
        check_whole("validation_max_steps", max_steps, optional=True)
        vector_env, owned = _evaluation_env(env, None, episodes, "validation_env")
        if vector_env is training_env:
            raise ValueError(
                "`validation_env` must not be the training environment itself, which it would reset. "
                "Received: the same object. Pass its id, a function that makes it, or another copy."
            )
        self.bind(vector_env.single_observation_space, vector_env.single_action_space, "validation_env")
        return vector_env, owned, episodes, max_steps

    def actor(self, num_envs, deterministic):
        """The `Actor` for this many environments; made once."""
        actors, key = self._runtime.actors, (num_envs, deterministic)
        if key not in actors:
            actors[key] = Actor(self.policy, self.head, self.observation_spec, num_envs, deterministic)
        return actors[key]

    def noise_program(self, shape):
        """The program from a seed int32[2] to the noise of a batch of actions of this shape; made once."""
        programs = self._runtime.noise_programs
        if shape not in programs:
            # Graph and not XLA, in every mode of the agent, whose rounding would differ. Concrete, because TensorFlow
            # takes a loop over agents or fits for one function that it has to trace again and again.
            function = tf.function(lambda seed: self.head.noise(seed, shape), autograph=False)
            programs[shape] = function.get_concrete_function(tf.TensorSpec((2,), tf.int32))
        return programs[shape]

    def make_train_function(self, force=False):
        """Keras's hook: the Python function that runs one execution."""
        self.train_function = lambda _: self._runtime.training.iterate()

    def program(self, key, make):
        """A compiled program of this agent, made once.

        Args:
            key: What it is for; hashable.
            make: Function without arguments giving `(function, names)`: what to compile, and the logs' names, which
                it fills in when it is traced.

        Returns:
            `(function, names)`, the function compiled as `compile` said.
        """
        programs = self._runtime.programs
        if key not in programs:
            function, names = make()
            if not self.run_eagerly:
                function = tf.function(function, autograph=False, jit_compile=self._compiled_with_xla)
            programs[key] = function, names
            self.update_function = function
        return programs[key]

    def _restore_unannealed_learning_rates(self):
        if self.anneal_learning_rate and self._unannealed_learning_rates is not None:
            for optimizer, rate in zip(self._optimizers(), self._unannealed_learning_rates, strict=True):
                optimizer.learning_rate = rate
        self._unannealed_learning_rates = None

    def _forget_programs_of_other_settings(self):
        """A program holds the settings it was traced with; what is set since, as `agent.gamma = 0.9`, needs another."""
        names = set(arguments(Agent, type(self))) - {"name", "seed", "policy", "critic", "networks", "reward_scaling"}
        values = {name: getattr(self, name, None) for name in names}
        settings = {name: repr((type(value), getattr(value, "__dict__", value))) for name, value in values.items()}
        if self._runtime.settings not in (None, settings):
            self._runtime.programs.clear()
        if self.reward_scaling is not None:
            self.reward_scaling.gamma, self.reward_scaling.clip = self.gamma, self.reward_clip
        self._runtime.settings = settings

    @property
    def programs(self):
        """The compiled programs there are, by key."""
        return self._runtime.programs

    def state_variables(self, num_envs):
        """Every variable that an iteration with N environments may change."""
        carry = [] if self.reward_scaling is None else [self.reward_carry(num_envs)]
        optimizers = [variable for optimizer in self._optimizers() for variable in optimizer.variables]
        unique = {id(v): v for v in [*self.variables, *optimizers]}
        return [v.value for v in unique.values()] + carry

    def keep_players(self, env, players):
        """Keeps where the episodes of a compiled environment stand, for the next fit and for checkpoints."""
        self._runtime.players = env, players

    def forget_players(self):
        """Lets the next fit on a compiled environment start with new episodes."""
        self._runtime.players = None

    def players_of(self, env):
        """Where the episodes of a compiled environment stand after a fit, or in the checkpoint; else None."""
        if self._runtime.players is None:
            return None
        kept, players = self._runtime.players
        if kept == env:
            return players
        if kept != repr(env):
            return None
        template = compiled.start(env, tf.constant([0, 0]))
        arrays, leaves = list(players), tf.nest.flatten(template)
        if self.reward_scaling is not None and len(arrays) > len(leaves):
            self.reward_carry(env.num_envs).assign(arrays.pop())
        if [(a.shape, a.dtype) for a in arrays] != [(tuple(x.shape), x.dtype.as_numpy_dtype) for x in leaves]:
            return None
        return tf.nest.pack_sequence_as(template, [tf.constant(a) for a in arrays])

    def reset_metrics(self):
        """Starts new epoch means; Keras calls it at each epoch's begin."""
        super().reset_metrics()
        if self._runtime.training is not None:
            self._runtime.training.start_epoch()

    # Keras asks `stop_training` both to leave an epoch and to leave the fit. An epoch that has used up its share of
    # environment steps ends through the same door, and the budget's callback closes it again.
    @property
    def stop_training(self):
        """Whether Keras should leave the present loop; callbacks set it to end the fit."""
        # A number: TensorFlow skips setting an attribute to the very object that it already is, such as True.
        return int(self._runtime.stop_training or self._runtime.epoch_is_over)

    @stop_training.setter
    def stop_training(self, value):
        if hasattr(self, "_runtime"):
            self._runtime.stop_training = value

    # Judging and acting

    def evaluate(
        self,
        env=None,
        episodes=100,
        deterministic=True,
        seed=None,
        num_envs=None,
        max_steps=200_000,
        *,
        x=None,
        callbacks=None,
        **kwargs,
    ):
        """Plays whole episodes with the policy as it stands; nothing learns and no statistics move.

        Each environment plays the same number of episodes (the first ones one more where they do not divide), since
        counting the first to finish would favour short episodes.

        Args:
            env: As for `fit`; a vector environment is reset.
            episodes: How many, at least 1. 100, as gymnasium's registry counts a task solved.
            deterministic: The mode of the policy, else samples.
            seed: Of environments and samples; None derives it from the agent's seed, without moving its random state.
            num_envs: Environments side by side where they are made here; min(episodes, 8): ours, more rarely pays in
                one process.
            max_steps: Steps that an episode may take, at least 1, or None for any number. Where one takes more, its
                return is unknown: all of them are given as NaN, with a warning. 200,000: ours, above the 108,000
                frames of an Atari game, the longest usual limit, and some seconds where steps are cheap.
            x, callbacks, kwargs: Keras's own, used when `fit` validates.

        Returns:
            A dictionary: `return`, `return_std`, `return_min`, `return_max` (raw reward, undiscounted), `length`
                (steps),
            `episodes`, `deterministic` (1.0 or 0.0).

        Raises:
            ValueError: If the agent is not built, the environment does not fit, or an observation, a reward or what
                the policy makes of it is not finite.
            RuntimeError: If the environment raises.
        """
        if x is None or self._runtime.validation is None:  # Else Keras asks, in `fit`.
            unknown = {**kwargs, **({} if x is None else {"x": x}), **({} if callbacks is None else {"callbacks": 0})}
            known = ["env", "episodes", "deterministic", "seed", "num_envs", "max_steps"]
            refuse_unknown("evaluate", known, unknown, {"n_envs": "It is `num_envs`."})
        if x is not None:
            vector_env, _, episodes, max_steps = self._runtime.validation
            callbacks.on_test_begin()
            logs = evaluate_policy(self, vector_env, episodes, deterministic, self.seed + 1, max_steps)
            callbacks.on_test_end(logs)
            return logs
        check_whole("episodes", episodes)
        check_whole("seed", seed, at_least=0, at_most=2**31 - 1, optional=True)
        check_whole("max_steps", max_steps, optional=True)
        self._assert_built("evaluate")
        vector_env, owned = _evaluation_env(env, num_envs, episodes)
        logs = None
        try:
            self.bind(vector_env.single_observation_space, vector_env.single_action_space)
            seed = self.seed + 1 if seed is None else seed
            logs = evaluate_policy(self, vector_env, episodes, deterministic, seed, max_steps)
            return logs
        finally:
            if owned:
                close(vector_env, failed=logs is None)

    @knows_its_arguments
    def act(self, observations, deterministic=True, seed=None):
        """The action(s) the environment accepts, for one observation or a batch.

        Args:
            observations: One observation of the environment's space, or a batch of them.
            deterministic: The mode, else a sample.
            seed: Of the sample; None takes the agent's random state, and moves it.

        Returns:
            One action, or a batch, as NumPy.

        Raises:
            ValueError: If the agent is not built, an observation is none of its space or not finite, or what the
                policy makes of it is not finite.
        """
        self._assert_built("act")
        spec = self._runtime.spec
        size = spec.batch_size(observations, _given)
        batched = size is not None
        flat = spec.read(observations if batched else [observations], size if batched else 1, _given, rows=not batched)
        spec.check_finite(flat, _given)
        seed = (self.next_seed() if seed is None else tf.constant([int(seed), 0])) if not deterministic else None
        distribution = self.policy(tf.nest.map_structure(tf.constant, flat))
        if deterministic:
            actions = distribution.mode()
        else:
            actions = self.head.sample(distribution, self.head.noise(seed, (size or 1,)))
        env_actions = self.head.to_env(actions).numpy()
        check_policy(tf.cast(distribution.log_prob(actions), tf.float32).numpy(), env_actions, _given)
        return env_actions if batched else env_actions[0]

    def predict_step(self, data):
        """Keras's hook: the deterministic actions for a batch of observations."""
        observations, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        return self.head.to_env(self.policy(observations).mode())

    def predict(self, x, *args, **kwargs):
        """Keras's `predict`: the deterministic actions for a batch of observations; see `act`.

        Raises:
            ValueError: If the agent is not built, or `x` is one observation.
        """
        self._assert_built("predict")
        is_data = isinstance(x, (tf.data.Dataset, keras.utils.PyDataset)) or hasattr(x, "__next__")
        if not is_data and not self._is_batch(x):
            raise ValueError(
                "`x` must be a batch of observations. Received: a single one. Call `act`, which takes one or a batch."
            )
        return super().predict(x, *args, **kwargs)

    def _is_batch(self, observations):
        try:
            return self._runtime.spec.batch_size(observations, _given) is not None
        except (KeyError, TypeError, IndexError):  # Not nested as the space, but as Keras's model takes it.
            return True

    def train_on_batch(self, *args, **kwargs):
        """Refused: an agent trains on rollouts of its own policy, not on data."""
        raise NotImplementedError(
            "`train_on_batch` has nothing to train on, since an agent learns from what its own policy does. Call `fit` "
            "with an environment, or `train_step` with a Rollout of your own."
        )

    def test_on_batch(self, *args, **kwargs):
        """Refused: an agent is judged by the episodes it plays, not on data."""
        raise NotImplementedError(
            "`test_on_batch` has nothing to compare with, since an agent is judged by episodes. Call `evaluate` with "
            "an environment."
        )

    def __getattr__(self, name):
        if name in _VERBS:
            raise AttributeError(f"`{type(self).__name__}` has no `{name}`. {_VERBS[name]}")
        return object.__getattribute__(self, name)  # Raises again, in its own words.

    def _assert_built(self, what):
        if self._runtime.spec is None:
            raise ValueError(
                f"The agent must be built before `{what}`. Received: an agent that has not seen an environment. "
                "Call `fit(env)`, load a saved agent, or call `bind(observation_space, action_space)`."
            )

    # Saving and shipping

    def get_config(self):
        """The settings, the networks and the spaces, as plain JSON."""
        runtime = self._runtime
        policy = self.shared_model if self.shared_model is not None else self.policy
        critic = None if self.shared_model is not None else self.critic
        return {
            "name": self.name,
            "policy": policy and serialize(policy),
            "critic": critic and serialize(critic),
            "networks": serialize(self._networks) if self._own_networks else None,
            "reward_scaling": self.reward_scaling is not None,
            **{name: serialize(getattr(self, name)) for name in settings(type(self))},
            "observation_space": runtime.spec and space_to_config(runtime.observation_space),
            "action_space": runtime.spec and space_to_config(runtime.action_space),
        }

    @classmethod
    def from_config(cls, config):
        """An agent from `get_config`'s dictionary, built if the saved one was."""
        config = {
            name: keras.saving.deserialize_keras_object(value)
            if isinstance(value, dict) and "class_name" in value
            else value
            for name, value in copy.deepcopy(config).items()  # Keras empties the dictionaries it reads.
        }
        observation_space, action_space = config.pop("observation_space"), config.pop("action_space")
        policy, critic, networks = config.pop("policy"), config.pop("critic"), config.pop("networks")
        if networks is None:
            return _bound(cls(policy, critic, **config), observation_space, action_space)
        agent = cls(networks=networks, **config)
        if policy is not None:
            agent._take_networks(policy, critic)
        return _bound(agent, observation_space, action_space)

    def get_compile_config(self):
        """The optimizers and compiler settings, as plain JSON."""
        serialize = keras.saving.serialize_keras_object
        return {
            "optimizer": serialize(self.optimizer),
            "critic_optimizer": self.critic_optimizer and serialize(self.critic_optimizer),
            "jit_compile": self._jit_setting,
            "run_eagerly": self.run_eagerly,
            "steps_per_execution": self._iterations_per_execution,
            "learning_rates": self._compiled_learning_rates,
        }

    def compile_from_config(self, config):
        """Compiles as `get_compile_config` says; Keras calls it when it loads an agent."""
        config = {
            name: keras.saving.deserialize_keras_object(value) if isinstance(value, dict) else value
            for name, value in config.items()
        }
        compiled = config.pop("learning_rates", None)
        # Earlier versions left the annealed rate in the optimizer, and kept here what it was annealed from.
        self._unannealed_learning_rates = config.pop("base_learning_rates", None)
        self.compile(**config)
        self._compiled_learning_rates = compiled or self._unannealed_learning_rates

    def save(self, filepath, overwrite=True, **kwargs):
        """Saves all that training needs to go on: networks, optimizer, schedules, normalisers, counters, random state.

        Written beside `filepath`, read back, then renamed: an older file is never lost to a crash or a full disk.

        Args:
            filepath: Path ending in `.keras`.
            overwrite: Replace an existing file without asking.
            kwargs: Keras's own, but for `zipped=False`.

        Raises:
            ValueError: If the path does not end in `.keras`.
        """
        if kwargs.get("zipped") is False:
            raise ValueError("`zipped` must be left out: an agent is one `.keras` file. Received: zipped=False.")
        save = super().save
        write_beside(filepath, ".keras", lambda path: _write(path, save, ".keras", **kwargs), verify_zip, overwrite)

    def save_weights(self, filepath, overwrite=True, max_shard_size=None):
        """Saves weights, optimizer, counters and random state to a `.weights.h5` file, by rename as `save` does.

        The file begins with the checksum of what follows, which `load_weights` verifies; h5py and Keras skip it.

        Args:
            filepath: Path ending in `.weights.h5`.
            overwrite: Replace an existing file without asking.
            max_shard_size: Keras's, which must be left out: an agent's weights are one file.

        Raises:
            ValueError: If the path does not end in `.weights.h5`, or the agent is not built.
        """
        if max_shard_size is not None:
            raise ValueError(
                "`max_shard_size` must be left out: an agent's weights are one file. "
                f"Received: max_shard_size={max_shard_size!r}."
            )
        self._assert_built("save_weights")

        def write(path):
            Path(path).write_bytes(seal(self._weights_content()))

        write_beside(filepath, ".weights.h5", write, verify_weights, overwrite)

    def _weights_content(self):
        file = InMemory(".weights.h5")
        super().save_weights(file)
        return file.getvalue()

    def load_weights(self, filepath, skip_mismatch=False, **kwargs):
        """Loads what `save_weights` or `save` saved; an agent not built yet is built first, for the spaces in the file.

        The file is read once, and its checksum, its contents, the spaces and every weight's shape are looked at before
        a weight changes. Files of versions without a checksum still load, unverified. The optimizer's weights are
        skipped, with Keras's warning, where they are another optimizer's.

        Args:
            filepath: A `.weights.h5` or `.keras` file.
            skip_mismatch: Take what fits, of whatever agent.
            kwargs: Keras's own.

        Raises:
            ValueError: If the file holds the weights of an agent of another method, other networks or other spaces, or
                what Keras never writes. The agent is as it was.
            OSError: If the file cannot be read or is damaged. The agent is as it was.
        """
        file, runtime = read_weights(filepath), self._runtime
        strict = not (skip_mismatch or kwargs)
        likeness = self
        if runtime.spec is None:
            if file.spaces is None:
                raise ValueError(
                    f"`filepath` must hold the weights of a built agent. Received: filepath={str(filepath)!r}, "
                    "which does not. Save them after `fit` or `bind`."
                )
            likeness = self._likeness()  # Built in place of this one, which may yet have to stay as it is.
            likeness.bind(*file.spaces)
        elif file.spaces is not None and strict:
            check_same_space("filepath", runtime.observation_space, file.spaces[0])
            check_same_space("filepath", runtime.action_space, file.spaces[1], bounds=True)
        before, players = likeness._weights_content(), runtime.players
        if strict:
            check_same_weights(filepath, file.weights, weights_of(before, filepath))
        if likeness is not self:
            self.bind(*file.spaces)
            before = self._weights_content()
        try:
            super().load_weights(InMemory(".weights.h5", file.content), skip_mismatch, **kwargs)
        except BaseException:
            super().load_weights(InMemory(".weights.h5", before))
            runtime.players = players
            raise

    def _likeness(self):
        """Another agent of the same settings, which shares the models that were given to this one."""
        settings = {name: getattr(self, name) for name in arguments(Agent, type(self)) if hasattr(self, name)}
        settings["reward_scaling"] = self.reward_scaling is not None
        settings["networks"] = self._networks if self._own_networks else None
        return type(self)(**settings)

    def set_weights(self, weights):
        """Keras's `set_weights`; while a fit runs it leaves the counters and the random state alone."""
        # At its beginning, too: a warm start is no checkpoint of this fit, as those that `load_weights` restores.
        kept = self._spent(begun=False)
        super().set_weights(weights)
        for variable, value in kept:
            variable.assign(value)

    def _spent(self, begun=True):
        """Pairs of what counts a running fit, or numbers its random draws, and its value; none before and after.

        Were they set back within a fit, it would exceed its budget and draw the same numbers again.
        """
        training = self._runtime.training
        if training is None or (begun and training.progress is None):  # Not begun: a checkpoint may be restored.
            return []
        return [(v, v.numpy()) for v in (self.random_state, self.iterations, self.env_steps, self.progress)]

    def save_own_variables(self, store):
        """Keras's hook: the agent's own weights, the spaces it was built for, and where compiled episodes stand."""
        super().save_own_variables(store)
        runtime = self._runtime
        if runtime.spec is not None:
            store["spaces"] = _text([space_to_config(space) for space in self.spaces])
        if runtime.players is not None:
            env, players = runtime.players
            arrays = list(players) if isinstance(env, str) else [x.numpy() for x in tf.nest.flatten(players)]
            if not isinstance(env, str) and self.reward_scaling is not None:
                arrays.append(self.reward_carry(env.num_envs).numpy())
            store["players"] = _text([env if isinstance(env, str) else repr(env), len(arrays)])
            for index, array in enumerate(arrays):
                store[f"players_{index}"] = array

    def load_own_variables(self, store):
        """Keras's hook: the agent's own weights and the compiled episodes; `load_weights` has read the spaces."""
        names = list(store.keys())
        players = _read_players(store) if "players" in names else None
        kept = self._spent()
        super().load_own_variables({name: store[name] for name in names if name.isdigit()})
        for variable, value in kept:
            variable.assign(value)
        if not kept:  # Else the fit goes on with the episodes it is in.
            self._runtime.players = players

    def export(self, filepath, verify=True):
        """Exports the policy as a SavedModel for TensorFlow Serving, which needs neither this library nor TFP.

        Endpoints, with named inputs, free batch size, normaliser and action bounds inside: `serving_default`
            (observations ->
        `action`, what the environment accepts), `sample` (observations and `seed` int32[2] -> `action`, `log_prob`),
        and `value` (observations -> `value`) where there is a critic.

        Args:
            filepath: Version folder to make, such as `saved_models/cartpole/1`; it must not exist.
            verify: Whether another process, which can import neither kerasrl_pg nor TFP, loads it and must give this
                agent's actions on 64 observations, and on those up to 10⁸ times as large, before the folder appears, by
                rename.

        Returns:
            The path.

        Raises:
            ValueError: If the agent is not built, a weight of the policy is not finite, or the folder exists.
            RuntimeError: If the exported model's actions differ.
        """
        self._assert_built("export")
        return export_saved_model(self, filepath, verify)

    @property
    def observation_spec(self):
        """The `ObservationSpec` of the environment the agent was built for; None before."""
        return self._runtime.spec

    @property
    def spaces(self):
        """`(observation_space, action_space)` the agent was built for."""
        return self._runtime.observation_space, self._runtime.action_space


# What users of other libraries call.
_VERBS = {
    "learn": "Call `fit(env, total_steps=...)`.",
    "train": "Call `fit(env, total_steps=...)`.",
    "get_action": "Call `act(observations)`.",
    "choose_action": "Call `act(observations)`.",
    "select_action": "Call `act(observations)`.",
    "set_parameters": "Call `load_weights(filepath)` or `set_weights(weights)`.",
    "get_parameters": "Call `save_weights(filepath)` or `get_weights()`.",
    "set_env": "Give the environment to `fit`.",
    "load": "Call `keras.models.load_model(filepath)`.",
}


def _refuse_predict(*args, **kwargs):
    raise NotImplementedError(
        "`predict` of an agent's network has no arrays to give, since the network's outputs are distributions. Call "
        "`agent.predict(x)` or `agent.act(x)` for actions, or the network itself, as `agent.policy(x).mode()`."
    )


def _refuse_rungs(callbacks, total_steps, epochs):
    """Refuses KerasTuner's Hyperband with `total_steps`, which a cheap trial would spend in its few epochs."""
    trials = filter(None, (getattr(callback, "trial", None) for callback in callbacks))
    if any("tuner/epochs" in trial.hyperparameters.values for trial in trials):
        raise ValueError(
            "`total_steps` must be left out in a search that gives its trials different numbers of epochs, as "
            "Hyperband does: the cheapest would spend all of it in its few. "
            f"Received: total_steps={total_steps}, epochs={epochs}. Give `steps_per_epoch`, iterations of horizon x "
            "num_envs steps, and leave `epochs` and `initial_epoch` to the tuner."
        )


def _check_annealing(agent, optimizer):
    rate = getattr(optimizer, "inner_optimizer", optimizer)._learning_rate
    if agent.anneal_learning_rate and isinstance(rate, Schedule):
        raise ValueError(
            "`anneal_learning_rate` must be False with an optimizer that has a schedule of its own. "
            f"Received: anneal_learning_rate=True, learning_rate={rate!r}."
        )


def _text(value):
    """JSON as bytes that an HDF5 file takes."""
    return np.frombuffer(json.dumps(value).encode(), "uint8")


def _write(path, save, suffix, **kwargs):
    """Writes by ordinary means what Keras's `save` makes."""
    file = InMemory(suffix)
    save(file, **kwargs)
    Path(path).write_bytes(file.getbuffer())


def _read_players(store):
    """Where compiled episodes stand, as `save_own_variables` wrote it: the environment's text, and arrays."""
    try:
        env, count = json.loads(np.asarray(store["players"]).tobytes())
        if isinstance(env, str):
            return env, [np.array(store[f"players_{index}"]) for index in range(count)]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"The saved episodes of a compiled environment cannot be read: {error}.") from error
    raise ValueError(f"The saved episodes must be a compiled environment's. Received: {env!r}.")


def _given(row):
    """Where what `act` got comes from, for sentences."""
    return f"for observation {row or 0} of `act`"


def _bound(agent, observation_space, action_space):
    if observation_space is not None:
        agent.bind(*spaces_from_configs([observation_space, action_space]))
    return agent


def _evaluation_env(env, num_envs, episodes, argument="env"):
    """`(vector_env, owned)` to evaluate in."""
    if isinstance(env, CompiledEnv):
        # Side by side they cost next to nothing here.
        return CompiledVectorEnv(dataclasses.replace(env, num_envs=num_envs or min(episodes, 100))), True
    return make_vector_env(env, num_envs or (min(episodes, 8) if isinstance(env, str) else None), argument)


def descend(tape, loss, *moves):
    """One step down the gradient of `loss`, recorded on `tape`.

    Args:
        tape: The `tf.GradientTape` that saw the loss.
        loss: Scalar.
        moves: Pairs (optimizer, variables); weights that the loss does not depend on have gradient 0.
    """
    # What an optimizer divides gradients by again, against underflow in half precision; mostly 1.
    one = tf.ones_like(loss)
    scales = [optimizer.scale_loss(one) for optimizer, _ in moves]
    values = [[variable.value for variable in variables] for _, variables in moves]
    gradients = tape.gradient(
        loss, values, output_gradients=scales[0], unconnected_gradients=tf.UnconnectedGradients.ZERO
    )
    for (optimizer, variables), scale, mine in zip(moves, scales, gradients, strict=True):
        mine = [tf.cast(g, tf.float32) for g in mine]  # Heads stay float32, and Keras clips one type jointly.
        if any(each is not one for each in scales):
            # An embedding's gradient is sparse, which Keras does not scale.
            mine = [tf.convert_to_tensor(g) * (scale / scales[0]) for g in mine]
        optimizer.apply(mine, variables)
