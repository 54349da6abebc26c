"""One fit: the environments that it plays, what is left of its budget, and the means of its epochs."""

import contextlib
import time
import warnings
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from kerasrl_pg.callbacks import Compiling
from kerasrl_pg.checks import check_flag, check_whole
from kerasrl_pg.envs.compiled import CompiledEnv
from kerasrl_pg.envs.vector import make_vector_env
from kerasrl_pg.rollouts.evaluate import closing, opened_to_evaluate
from kerasrl_pg.training.undo import NotFinite


class World(NamedTuple):
    """The environments of a fit.

    Args:
        env: A `CompiledEnv`, or a `VectorEnv`.
        compiled: Which.
        observation_space, action_space: Of one environment.
    """

    env: Any
    compiled: bool
    observation_space: Any
    action_space: Any

    @property
    def num_envs(self):
        """N."""
        return self.env.num_envs

    @property
    def rollout_envs(self):
        """Those of one iteration's rollout: all, but where each worker's is an iteration of its own."""
        return getattr(self.env, "rollout_envs", self.num_envs)


@contextlib.contextmanager
def opened(env, num_envs, copies=1):
    """A `World` from anything a user passes, of `copies` where neither says how many; closed afterwards where it was
    made here."""
    if isinstance(env, CompiledEnv):
        if num_envs not in (None, env.num_envs):
            raise ValueError(
                f"`num_envs` must be left out, or be {env.num_envs}, for {env!r}. Received: num_envs={num_envs}."
            )
        yield World(env, True, env.observation_space, env.action_space)
        return
    vector_env, owned = make_vector_env(env, num_envs, copies=copies)
    with closing(vector_env, owned):
        yield World(vector_env, False, vector_env.single_observation_space, vector_env.single_action_space)


class Validation(NamedTuple):
    """What is evaluated after epochs: a `VectorEnv`, how many episodes, and their limit of steps."""

    env: Any
    episodes: int
    max_steps: int | None


@contextlib.contextmanager
def opened_validation(env, episodes, max_steps, training_env):
    """A `Validation`, or None where `env` is None."""
    if env is None:
        yield None
        return
    check_whole("validation_episodes", episodes)
    check_whole("validation_max_steps", max_steps, optional=True)
    with opened_to_evaluate(env, None, episodes, "validation_env") as vector_env:
        if vector_env is training_env:
            raise ValueError(
                "`validation_env` must not be the training environment itself, which it would reset. "
                "Received: the same object. Pass its id, a function that makes it, or another copy."
            )
        yield Validation(vector_env, episodes, max_steps)


def check_arguments(callbacks, total_steps, epochs, initial_epoch, resume):
    """Refuses arguments of `fit` that contradict each other.

    Raises:
        ValueError: As said; also for KerasTuner's Hyperband with `total_steps`, which a cheap trial would spend in its
            few epochs.
    """
    check_flag("resume", resume)
    if resume and initial_epoch:
        raise ValueError(
            "`initial_epoch` must be left out with `resume=True`, which knows where the fit was. "
            f"Received: initial_epoch={initial_epoch}."
        )
    trials = filter(None, (getattr(callback, "trial", None) for callback in callbacks))
    if total_steps is not None and any("tuner/epochs" in trial.hyperparameters.values for trial in trials):
        raise ValueError(
            "`total_steps` must be left out in a search that gives its trials different numbers of epochs, as "
            "Hyperband does: the cheapest would spend all of it in its few. "
            f"Received: total_steps={total_steps}, epochs={epochs}. Give `steps_per_epoch`, iterations of horizon x "
            "num_envs steps, and leave `epochs` and `initial_epoch` to the tuner."
        )


class Fit:
    """The present fit; Keras's loop asks it for one execution after the other.

    Args:
        name: Of the agent's class, for the line that says that something is being compiled.
        training: `HostTraining` or `CompiledTraining`.
        budget: The `Budget`.
        counters: The agent's `Counters`.
        validation: `Validation`, or None.
        callbacks: Keras callbacks. Where `TerminateOnNaN` is among them, it ends the fit where a loss is NaN, so that
            an update that had to be undone is no error but a NaN among the logs.
        show: Whether to say that something is being compiled.

    Attributes:
        progress: `[iterations, environment steps]` of the fit so far; None before its first iteration.
    """

    def __init__(self, name, training, budget, counters, validation, callbacks, show):
        self.progress = None
        self.budget = budget
        self.validation = validation
        self._name = name
        self._training = training
        self._counters = counters
        self._show = show
        self._ends_at_nan = any(isinstance(c, keras.callbacks.TerminateOnNaN) for c in callbacks)
        self.start_epoch()

    def start_epoch(self):
        """Starts the means and the clock anew."""
        self._sums, self._count, self._epoch_steps = {}, 0, 0
        self._started = time.perf_counter()

    def iterate(self):
        """Runs one execution of iterations, and returns the logs so far in this epoch."""
        first = self.progress is None
        if first:  # Not earlier: another callback may restore a checkpoint when training begins.
            self.progress = self._counters.progress.numpy().tolist()
            self._training.begin(int(self._counters.iterations.numpy()))
        count = self.budget.iterations(self.progress)
        if count:
            try:
                with Compiling(self._name) if first and self._show else contextlib.nullcontext():
                    sums, (_, env_steps, *progress) = self._run(count)
            except NotFinite as error:
                if not self._ends_at_nan:
                    raise
                warnings.warn(str(error), stacklevel=2)
                steps = int(self._counters.env_steps.numpy())
                return {"loss": float("nan"), **self._training.episodes(), "env_steps": steps}
            self._add(sums, progress)
        self.budget.spend(self.progress)
        logs = {name: total / self._count for name, total in self._sums.items()}
        logs.update(self._training.episodes())
        logs["env_steps"] = env_steps if count else int(self._counters.env_steps.numpy())
        logs["steps_per_second"] = self._epoch_steps / (time.perf_counter() - self._started)
        return logs

    def _run(self, count):
        try:
            return self._training.run(count)
        except (StopIteration, tf.errors.OutOfRangeError) as error:
            # Keras would take it for the end of the data.
            raise RuntimeError(f"Training failed at environment step {self.progress[1]}: {error!r}.") from error

    def _add(self, sums, progress):
        for name, value in sums.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += progress[0] - self.progress[0]
        self._epoch_steps += progress[1] - self.progress[1]
        self.progress = progress
