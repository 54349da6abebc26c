"""The verbs of training: compile and fit. Each hands nouns to the room that does the work."""

import keras
import numpy as np
import tensorflow as tf

from kerasrl_pg.callbacks import Budget, FitCallbacks, Progress, as_list
from kerasrl_pg.checks import check_whole, knows_its_arguments
from kerasrl_pg.envs.compiled import check_contract
from kerasrl_pg.models.memory import Recurrent
from kerasrl_pg.rollouts import compiled
from kerasrl_pg.rollouts.actor import has_convolutions
from kerasrl_pg.rollouts.collect import Collector
from kerasrl_pg.rollouts.evaluate import RESULTS
from kerasrl_pg.settings import settings
from kerasrl_pg.training import distributed, fitting, mirrored
from kerasrl_pg.training.acting import Acting
from kerasrl_pg.training.compiled import CompiledTraining, resumed
from kerasrl_pg.training.host import HostTraining, Noise
from kerasrl_pg.training.iteration import Iteration
from kerasrl_pg.training.keras_loop import KerasLoop
from kerasrl_pg.training.optimizers import Annealing, check_annealing, check_optimizer
from kerasrl_pg.training.stored import refuse_stored


class Trainer(KerasLoop, distributed.Distributing, Acting):
    """An agent's `compile` and `fit`; base of `Agent`, which has the settings and the tools of a method's author."""

    differentiates_twice = False  # Whether a gradient is differentiated once more, as for the Fisher matrix.
    usual_envs = 1  # Environments that `fit` makes side by side where nobody says how many.

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
            jit_compile: Whether to compile `train_step` with XLA. "auto": yes, but not under a MirroredStrategy, for
                convolutions on CPU, where XLA was measured twice as slow, nor for recurrent policies of NPG and TRPO,
                whose sequences would be written out step by step, which takes minutes to compile.
            run_eagerly: Run everything in Python, for debugging.
            steps_per_execution: Iterations between two looks at the callbacks, at least 1; what is learned does not
                depend on it. On a compiled environment they are one call of one program, which pays where iterations
                are short.

        Raises:
            ValueError: If the settings contradict each other.
        """
        check_whole("steps_per_execution", steps_per_execution)
        with mirrored.scope(self._rooms.strategy):
            optimizer = self.default_optimizer() if optimizer is None else keras.optimizers.get(optimizer)
            critic_optimizer = None if critic_optimizer is None else keras.optimizers.get(critic_optimizer)
        if critic_optimizer is not None and not self.needs_critic:
            raise ValueError(
                f"`critic_optimizer` must be left out, since {self!r} has no critic. Received: {critic_optimizer!r}."
            )
        for each in filter(None, (optimizer, critic_optimizer)):
            check_annealing(self.anneal_learning_rate, [each])
            check_optimizer(each, self.optimizers)
        if run_eagerly and jit_compile is True:
            raise ValueError("`jit_compile` must not be True with `run_eagerly=True`. Received: both. Choose one.")
        mirrored.check_under_strategy(self._rooms.strategy, jit_compile, filter(None, (optimizer, critic_optimizer)))
        # Keras's own loop counts executions, and knows nothing of what is in them.
        super().compile(optimizer=optimizer, jit_compile=False, run_eagerly=run_eagerly)
        vars(self).pop("loss", None)  # Keras's own, which is none, and would hide the method's.
        self._rooms.programs.forget()  # They hold the former optimizer.
        if critic_optimizer is None and self.alternates:
            # One optimizer would count the steps of both in its bias corrections, schedule and accumulation.
            critic_optimizer = type(self.optimizer).from_config(self.optimizer.get_config())
        self.critic_optimizer = critic_optimizer
        self._iterations_per_execution = steps_per_execution
        self._jit_setting = jit_compile
        self._compiled_learning_rates = [float(o.learning_rate.numpy()) for o in self.optimizers]
        self._build_optimizers()

    @property
    def optimizers(self):
        """The optimizers there are, the policy's first."""
        return [o for o in (getattr(self, "optimizer", None), self.critic_optimizer) if o is not None]

    def _build_optimizers(self):
        # Built at once, because Keras loads only the variables of built optimizers.
        if getattr(self, "optimizer", None) is None or self.actor_critic is None:
            return
        if self.critic_optimizer is not None and self.shared_model is not None and not self.alternates:
            raise ValueError(
                "`critic_optimizer` must be left out where policy and critic share layers, which both would move. "
                f"Received: critic_optimizer={self.critic_optimizer!r}. Compile with one optimizer."
            )
        with mirrored.scope(self._rooms.strategy):
            for optimizer, variables in self.moves().values():
                optimizer.build(variables)

    @property
    def compiled_with_xla(self):
        """Whether programs are compiled with XLA, as `jit_compile` says."""
        if self._jit_setting != "auto" or mirrored.is_mirrored(self._rooms.strategy):
            return self._jit_setting not in ("auto", False)
        if self.differentiates_twice and any(isinstance(m, Recurrent) for m in self.actor_critic.memories):
            return False
        on_cpu = not tf.config.list_physical_devices("GPU")
        return not (on_cpu and any(has_convolutions(m) for m in self.actor_critic.models))

    def program(self, key, make):
        """A compiled program of this agent, made once; see `Programs.get`."""
        return self._rooms.programs.get(key, make, self.compiled_with_xla, self.run_eagerly)

    @property
    def programs(self):
        """The compiled `Programs` there are."""
        return self._rooms.programs

    def settings_changed(self, name):
        """A program holds what it was traced with; whatever changes between two fits needs another."""
        if self._rooms.fit is None:
            self._rooms.programs.forget()

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
        workers=None,
    ):
        """Trains on an environment.

        Args:
            env: A gymnasium id, a callable that makes an environment, an `Env`, a `VectorEnv`, or an EnvPool
                environment; or a `CompiledEnv`, which is collected from inside the compiled program. A second fit on
                an equal compiled environment goes on with the episodes of the first.
            total_steps: Budget of environment steps, never exceeded: training ends when another rollout could exceed
                it.
            epochs: Number of epochs, equal shares of `total_steps` (10 if left out: ours, for ten lines of progress);
                without that, it goes with `steps_per_epoch`.
            steps_per_epoch: Iterations (rollout and update) in an epoch.
            num_envs: N, environments stepped side by side; the vector's own number, else 1, or as many as a
                population has members.
            callbacks: One Keras callback, or a list. Weights that one sets while the fit runs, as `EarlyStopping` does,
                are those of networks and statistics: counters and random state go on, and so does the optimizer.
            validation_env: As `env`; evaluated after every `validation_freq` epochs, logged as `val_return` and so on
                (other epochs have none, as in Keras; a `CSVLogger` writes "NA").
            validation_freq: Epochs between evaluations, or a list of epochs, the first being 1.
            validation_episodes, validation_max_steps: Of an evaluation. 10 episodes: ours, cheap beside an epoch.
            verbose: 0 silent, 1 progress bar, 2 one line an epoch.
            initial_epoch: Epoch to start from, below `epochs`: those before count as spent. With KerasTuner's
                Hyperband, whose trials differ in `epochs`, give `steps_per_epoch` in place of `total_steps`.
            seed: Of the environments; None derives it from the agent's random state.
            resume: Go on with the fit that the agent was in when it was saved; give the same budget.
            workers: None, or how many processes of Ray's play, each its share of the `num_envs`; a whole number, or
                `Workers`. With rollouts of so many steps from environments in Python, that learns what one process
                learns, bit for bit; whole episodes and compiled environments are others. (`A3C` always has some.)

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
        mirrored.check_outside(self._rooms.strategy, "fit")
        callbacks, verbose = as_list(callbacks), 1 if verbose == "auto" else verbose
        fitting.check_arguments(callbacks, total_steps, epochs, initial_epoch, resume)
        with self._opened(env, num_envs, workers) as world:
            budget = self._begin(world, total_steps, epochs, steps_per_epoch)
            initial_epoch = self._first_epoch(budget, initial_epoch, resume)
            if validation_env is not None:
                validation_freq = budget.check_validation(validation_freq)
            judged = validation_env, validation_episodes, validation_max_steps, world.env
            with fitting.opened_validation(*judged) as validation:
                if validation is not None:
                    self.bind(*distributed.spaces_of(validation.env), "validation_env")
                training = self._training(world, budget, seed)
                fresh = verbose != 0 and not self.programs.has(*training.key)
                self._rooms.fit = fitting.Fit(
                    type(self).__name__, training, budget, self._rooms.counters, validation, callbacks, fresh
                )
                try:
                    return self._fit(budget, callbacks, validation, verbose, initial_epoch, validation_freq)
                finally:
                    self._rooms.fit = self._initial_epoch = None

    def _opened(self, env, num_envs, workers):
        refuse_stored(env, self)
        return self._world(env, num_envs, workers)

    def _begin(self, world, total_steps, epochs, steps_per_epoch):
        """Gets the agent ready for a world; the fit's `Budget`."""
        self.bind(world.observation_space, world.action_space)
        horizon = self.rollout_horizon(world.env)
        self.check_rollout(horizon, world.rollout_envs)
        self._take_settings()
        if self.anneal_learning_rate and self._unannealed_learning_rates is not None:
            for optimizer, rate in zip(self.optimizers, self._unannealed_learning_rates, strict=True):
                optimizer.learning_rate = rate
        self._unannealed_learning_rates = None
        whole, executions = self.episodes_per_env is not None, self._iterations_per_execution
        most = self.rollout_steps(horizon, world.rollout_envs)
        return Budget(most, total_steps, epochs, steps_per_epoch, whole, executions)

    def _first_epoch(self, budget, initial_epoch, resume):
        """The epoch to begin with, to which progress is set where no fit is resumed."""
        if resume:
            return budget.epoch_at(self.progress.numpy())
        budget.check_start(initial_epoch)
        self.progress.assign(budget.progress_at(initial_epoch))
        return initial_epoch

    def _take_settings(self):
        """Lets settings that have changed hold from here on."""
        self.programs.keep_those_of(self.traced_values())
        if self.reward_scaling is not None:
            self.reward_scaling.gamma, self.reward_scaling.clip = self.gamma, self.reward_clip

    def _coefficients(self):
        """All that may follow a schedule, by name."""
        mine = {name: getattr(self, name) for name in settings(type(self)) if name != "anneal_learning_rate"}
        return mine | self.estimator.coefficients() | {name: head.std for name, head in self.head.scheduled().items()}

    def _set_noise(self):
        """Gives heads whose σ follows a schedule its present value, for the next rollout."""
        for head in self.head.scheduled().values():
            head.set_std(self.scheduled(head.std))

    def _iteration(self, num_envs):
        carry = [] if self.reward_scaling is None else [self._rooms.reward_carry(num_envs)]
        variables = [*self.variables, *(variable for optimizer in self.optimizers for variable in optimizer.variables)]
        return Iteration(
            self.train_step,
            self.learn_rewards,
            self.actor_critic,
            self._rooms.clock.following(self._coefficients(), self.optimizer),
            self._set_noise,
            Annealing(self.optimizers if self.anneal_learning_rate else [], self.anneal_learning_rate),
            self._rooms.counters,
            [v.value for v in {id(v): v for v in variables}.values()] + carry,
        )

    def _training(self, world, budget, seed):
        """`HostTraining` or `CompiledTraining` in this world."""
        self._rooms.clock.budget.assign(budget.annealing())
        self._set_noise()
        if isinstance(world.env, distributed.Distributed):
            return self._with_workers(world, budget, seed)
        n, horizon, networks = world.num_envs, self.rollout_horizon(world.env), self.actor_critic
        carry = None if self.reward_scaling is None else self._rooms.reward_carry(n)
        if world.compiled:
            check_contract(world.env)
            self._note_masks(networks.mask_key is not None or compiled.gives_masks(world.env, networks.head))
            own = self._rooms.episodes, carry, networks.memory_size, seed, self.next_seed
            return CompiledTraining(
                world.env,
                horizon,
                self.episodes_per_env,
                self._iteration(n),
                self.program,
                lambda: resumed(world.env, *own),
                lambda players: setattr(self._rooms.episodes, "kept", (world.env, players)),
                budget.annealing(),
            )
        if seed is None:
            seed = self.next_environment_seed()
        if carry is not None:
            carry.assign(tf.zeros(n))
        noise = Noise(self.noise_program, self.seed, horizon, n)
        actor = self._actor_for(n, deterministic=False, learning=True)
        spec, head = networks.spec, networks.head
        collector = Collector(
            world.env, spec, head, actor, noise, horizon, self.episodes_per_env, seed, networks.mask_key
        )
        return HostTraining(collector, noise, self._iteration(n), self.program, budget.annealing())

    def train_on(self, rollout):
        """One update, the same as in `fit`, from a rollout of yours; learning rates are not annealed.

        Args:
            rollout: A `Rollout` of arrays [T, N, ...], such as a recorded one.

        Returns:
            The method's logs, as numbers.

        Raises:
            ValueError: If the agent is not built, the rollout does not suit the settings, or the update had to be
                undone.

        >>> import gymnasium as gym, numpy as np
        >>> import kerasrl_pg as pg
        >>> agent = pg.A2C(seed=0)
        >>> agent.bind(gym.spaces.Box(-1, 1, (3,)), gym.spaces.Discrete(2))
        >>> agent.compile()
        >>> some, no = np.zeros((5, 1), "float32"), np.zeros((5, 1), bool)
        >>> inputs = pg.rollouts.Inputs(np.ones((5, 1, 3), "float32"))
        >>> rollout = pg.rollouts.Rollout(inputs, no.astype("int32"), some, some + 1, no, no, inputs, ~no)
        >>> sorted(agent.train_on(rollout))
        ['critic_loss', 'entropy', 'explained_variance', 'loss', 'policy_loss']
        """
        self._assert_compile_called("train_on")
        self._assert_built("train_on")
        rollout = tf.nest.map_structure(np.asarray, rollout)
        horizon, num_envs = rollout.rewards.shape
        self.check_rollout(horizon, num_envs)
        self._take_settings()
        learner = HostTraining(None, None, self._iteration(num_envs), self.program, [2**62, 0])
        return learner.train_on(rollout, int(rollout.valid.sum()))[0]

    def _fit(self, budget, callbacks, validation, verbose, initial_epoch, validation_freq):
        """Keras's loop, which asks `train_function` for one execution after the other."""
        callbacks = [budget, *callbacks]
        if verbose == 1 and not any(isinstance(c, keras.callbacks.ProgbarLogger) for c in callbacks):
            callbacks.append(Progress())
        # A dummy dataset: rollouts do not pass through Keras's data adapters, which prefetch and would train on a
        # stale policy.
        return super().fit(
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
