"""The verbs of training with workers: `fit(env, workers=...)`."""

import contextlib
import types

import tensorflow as tf
from gymnasium.vector import VectorEnv

from kerasrl_pg.envs.compiled import CompiledEnv, check_contract
from kerasrl_pg.envs.vector import close, make_vector_env
from kerasrl_pg.training import fitting
from kerasrl_pg.training.asynchronous import AsynchronousTraining
from kerasrl_pg.training.fitting import World
from kerasrl_pg.training.host import HostTraining
from kerasrl_pg.workers import Crew, engine
from kerasrl_pg.workers.gradients import statistics_of
from kerasrl_pg.workers.settings import as_workers, check_env
from kerasrl_pg.workers.together import Together
from kerasrl_pg.workers.worker import plan_for


class Distributed:
    """What a fit has for environments where workers have them.

    Args:
        env: What each worker makes its own of.
        one: One of them, made here to know its spaces and its limit of time; closed.
        vectors: Whether `env` is a function that makes vectors of them.
        num_envs: N, of all workers together.
        rollout_envs: Those of one iteration's rollout.
        crew: The `Crew`.
    """

    def __init__(self, env, one, vectors, num_envs, rollout_envs, crew):
        self.env, self.vectors, self.num_envs, self.rollout_envs = env, vectors, num_envs, rollout_envs
        self.crew = crew
        self.envs = getattr(one, "envs", ())
        # Where methods look for a limit of time.
        limit = getattr(one, "max_episode_steps", None)
        self.spec = types.SimpleNamespace(max_episode_steps=limit) if limit else getattr(one, "spec", None)


@contextlib.contextmanager
def opened(env, num_envs, workers, usual, alone):
    """A `World` of workers, ended afterwards.

    Args:
        env: What a user gives `fit`.
        num_envs: N, of all workers together; None for what `env` says, else `usual` of each worker.
        workers: As `fit` takes them.
        usual: See `num_envs`.
        alone: Whether each worker's rollout is an iteration of its own, so that all must have equally many.

    Raises:
        ValueError: If there are fewer environments than workers, or `env` is one that is there already.
        ImportError: If Ray is missing.
    """
    workers = as_workers(workers)
    check_env(env)
    one, own, vectors = _probe(env, workers)
    if num_envs is not None and own is not None and num_envs != own:
        raise ValueError(f"`num_envs` must be left out, or be {own}, for {env!r}. Received: num_envs={num_envs}.")
    n = own or num_envs or usual * workers.count
    if n < workers.count or (alone and n % workers.count):
        kind = f"a multiple of {workers.count}" if alone else f"at least {workers.count}"
        raise ValueError(
            f"`num_envs` must be {kind}, the number of workers, which share the environments. Received: num_envs={n}."
        )
    with engine.running(workers.cpus * workers.count) as ray:
        crew = Crew(ray, workers, n)
        try:
            each = n // workers.count if alone else n
            yield World(Distributed(env, one, vectors, n, each, crew), False, *spaces_of(one))
        finally:
            crew.close()


def _probe(env, workers):
    """One environment, how many there are of all workers where `env` says it, and whether it makes vectors of them."""
    if isinstance(env, CompiledEnv):
        return env, env.num_envs, False
    made = env if isinstance(env, str) or not callable(env) else env()
    vectors = isinstance(made, VectorEnv)
    one, _ = make_vector_env(env if made is env else lambda: made)
    close(one)
    return one, one.num_envs * workers.count if vectors else None, vectors


def spaces_of(one):
    """The spaces of one environment, compiled or of a vector."""
    if isinstance(one, CompiledEnv):
        return one.observation_space, one.action_space
    return one.single_observation_space, one.single_action_space


def refuse_workers(workers, reason):
    """Refuses workers for a method that has no use for them."""
    if workers is not None:
        raise ValueError(f"`workers` must be left out, since {reason}. Received: workers={workers!r}.")


class Distributing:
    """`fit` with workers, as an agent's base."""

    asynchronous = False  # Whether workers send gradients rather than rollouts.

    def usual_workers(self):
        """How many workers there are where nobody says it; None for none."""

    def _world(self, env, num_envs, workers):
        """The `World` of a fit, with workers or without."""
        workers = self.usual_workers() if workers is None else workers
        if workers is None:
            return fitting.opened(env, num_envs, self.usual_envs)
        return opened(env, num_envs, workers, self.usual_envs, self.asynchronous)

    @property
    def worker_events(self):
        """What befell the workers of the last fit: `workers.Event`s, by worker, environment step and reason."""
        return self._rooms.worker_events

    def _with_workers(self, world, budget, seed):
        """`HostTraining` on rollouts that workers collect together, or `AsynchronousTraining`."""
        env, horizon = world.env, self.rollout_horizon(world.env)
        if isinstance(env.env, CompiledEnv):
            check_contract(env.env)
        seed = self.next_environment_seed() if seed is None else int(seed)
        plan = plan_for(self, env.env, env.vectors, world.num_envs, horizon, seed, budget.annealing())
        self._rooms.worker_events = env.crew.events
        hellos = env.crew.begin(plan, lambda: int(self.env_steps.numpy()))
        self._note_masks(any(hello.masked for hello in hellos))
        iteration = self._iteration(world.num_envs)
        if self.asynchronous:
            return AsynchronousTraining(
                env.crew,
                iteration._replace(train_step=self.master_step),
                self.moves(),
                statistics_of(self),
                self.variables,
                world.num_envs,
                self.max_staleness,
                self.program,
                budget.annealing(),
            )
        if self.reward_scaling is not None:
            self._rooms.reward_carry(world.num_envs).assign(tf.zeros(world.num_envs))
        together = Together(env.crew, self.variables, world.num_envs)
        return HostTraining(together, together, iteration, self.program, budget.annealing())
