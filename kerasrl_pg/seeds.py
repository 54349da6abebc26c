"""Many seeds of one setting: what a learning claim needs, in one call and with one compilation."""

import copy
from typing import NamedTuple

import numpy as np

from kerasrl_pg import figures
from kerasrl_pg.checks import check_whole


def fit_seeds(
    make_agent,
    env,
    seeds=10,
    *,
    episodes=100,
    evaluation_env=None,
    callbacks=None,
    filepath=None,
    side_by_side=None,
    **fit,
):
    """Trains an agent once for each seed, one after the other on the same compiled program, or side by side.

    The first agent is made, traced and compiled. Each further one lends it its weights and its seed, so that every run
    is, bit for bit, what `make_agent(seed).fit(env, ...)` would have been.

    Args:
        make_agent: Function from a seed to a fresh, compiled agent, such as `lambda seed: preset.agent(seed)`.
        env: As for `Agent.fit`.
        seeds: Whole numbers, or how many (0, 1, ...).
        episodes: Episodes of the evaluation, with the mode of the policy, that ends each run.
        evaluation_env: As for `Agent.evaluate`; None for `env`.
        callbacks: None, or a function from a seed to the callbacks of its run, which must not share any.
        filepath: None, or a path with `{seed}` in it, where each trained agent is saved: `"runs/{seed}.keras"`.
        side_by_side: None, or how many processes of Ray train at once, each its runs one after the other: a whole
            number or `Workers`, whose `count`, `threads` and `cpus` hold.
        **fit: The other arguments of `Agent.fit`.

    Returns:
        `SeedRuns`.

    Raises:
        ValueError: If two seeds are equal, or `make_agent` gives agents that differ in more than the seed.
        TypeError: If `callbacks` is a list.
        ImportError: If Ray is missing.

    >>> import kerasrl_pg as pg
    >>> def make_agent(seed):
    ...     agent = pg.A2C(seed=seed)
    ...     agent.compile()
    ...     return agent
    >>> runs = fit_seeds(make_agent, pg.envs.CartPole(num_envs=4), seeds=3, episodes=4, total_steps=400, verbose=0)
    >>> runs.returns.shape, runs.curve("episode_return").shape
    ((3,), (3, 10))
    """
    if isinstance(seeds, (int, np.integer)):
        check_whole("seeds", seeds)
        seeds = range(seeds)
    seeds = [int(seed) for seed in seeds]
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"`seeds` must be different whole numbers, at least one. Received: seeds={seeds}.")
    if callbacks is not None and not callable(callbacks):
        raise TypeError(
            "`callbacks` must be a function from a seed to a list of callbacks, since one callback cannot serve two "
            f"runs. Received: callbacks={callbacks!r}."
        )
    if filepath is not None and len({str(filepath).format(seed=seed) for seed in (0, 1)}) < 2:
        raise ValueError(f"`filepath` must hold {{seed}}, or the runs would overwrite each other. Received: {filepath}")
    evaluation_env = env if evaluation_env is None else evaluation_env
    given = make_agent, env, episodes, evaluation_env, callbacks, filepath, fit
    if side_by_side is not None:
        return SeedRuns(seeds, *zip(*_side_by_side(given, seeds, side_by_side), strict=True))
    runs, told, results = Runs(*given), fit.get("verbose", "auto") not in (0,), []
    for seed in seeds:
        if told:
            print(f"Seed {seed}, run {len(results) + 1} of {len(seeds)}", flush=True)
        results.append(runs.run(seed))
    return SeedRuns(seeds, *map(list, zip(*results, strict=True)))


class Runs:
    """Runs that share an agent, and so its compiled programs; arguments of `fit_seeds`."""

    def __init__(self, make_agent, env, episodes, evaluation_env, callbacks, filepath, fit):
        self._make_agent, self._env, self._fit = make_agent, env, fit
        self._episodes, self._evaluation_env = episodes, evaluation_env
        self._callbacks, self._filepath = callbacks, filepath
        self._agent = None

    def run(self, seed):
        """One run: `(evaluation, history)`."""
        fresh = self._make_agent(seed)
        if self._agent is None:
            self._agent = fresh
        else:
            restart(self._agent, fresh)
        callbacks = self._callbacks and self._callbacks(seed)
        history = copy.deepcopy(self._agent.fit(self._env, callbacks=callbacks, **self._fit).history)
        evaluation = self._agent.evaluate(self._evaluation_env, self._episodes)
        if self._filepath is not None:
            self._agent.save(str(self._filepath).format(seed=seed))
        return evaluation, history


def _side_by_side(given, seeds, workers):
    """`[(evaluation, history)]` of runs in Ray's processes, each of which trains the next seed that waits."""
    from kerasrl_pg.workers import engine
    from kerasrl_pg.workers.settings import as_workers

    workers = as_workers(workers)
    count = min(workers.count, len(seeds))
    with engine.running(workers.cpus * count) as ray:
        actor = ray.remote(Runs).options(
            num_cpus=workers.cpus, runtime_env={"env_vars": engine.environment(workers.threads)}
        )
        actors = [actor.remote(*given) for _ in range(count)]
        try:
            waiting, running, results = list(seeds), {}, {}
            for one in actors:
                seed = waiting.pop(0)
                running[one.run.remote(seed)] = seed, one
            while running:
                (done,), _ = ray.wait(list(running), num_returns=1)
                seed, one = running.pop(done)
                results[seed] = ray.get(done)
                if waiting:
                    seed = waiting.pop(0)
                    running[one.run.remote(seed)] = seed, one
        finally:
            for one in actors:
                ray.kill(one, no_restart=True)
    return [results[seed] for seed in seeds]


def restart(agent, fresh):
    """Makes an agent what another, fresh one is, and keeps its compiled programs.

    Args:
        agent: A built and compiled agent.
        fresh: An agent of the same settings but for the seed.

    Raises:
        ValueError: If they differ in more than the seed.
    """
    fresh._assert_compile_called("fit_seeds")
    fresh.bind(*agent.spaces)
    mine, theirs = _settings(agent), _settings(fresh)
    differ = [name for name in sorted({*mine, *theirs}) if mine.get(name) != theirs.get(name)]
    if differ:
        told = "; ".join(f"{name}={mine.get(name)!r} and {theirs.get(name)!r}" for name in differ)
        raise ValueError(f"`make_agent` must give agents that differ in nothing but the seed. Received: {told}.")
    for mine, theirs in zip(_variables(agent), _variables(fresh), strict=True):
        mine.assign(theirs)
    agent.seed = fresh.seed
    agent.forget_episodes()


def _variables(agent):
    return [*agent.variables, *(v for optimizer in agent.optimizers for v in optimizer.variables)]


def _settings(agent):
    """What two agents must share to share a program: everything but seeds, initial weights and names."""
    config = {**agent.get_config(), **agent.get_compile_config()}
    for name in ("policy", "critic"):
        config.pop(name)
    config = _without_names_and_seeds(config)
    config["class"] = type(agent).__name__
    config["variables"] = [(tuple(v.shape), v.dtype) for v in _variables(agent)]
    for optimizer in ("optimizer", "critic_optimizer"):
        layer = config[optimizer]
        while layer:  # `LossScaleOptimizer` holds another
            # A learning rate that callbacks moved; what it was compiled with is among the base rates.
            if isinstance(layer["config"].get("learning_rate"), float):
                layer["config"].pop("learning_rate")
            layer = layer["config"].get("inner_optimizer")
    return config


def _without_names_and_seeds(config):
    """A config without those in it: names of layers are counted up, and what seeds draw is handed over."""
    if isinstance(config, dict):
        return {key: _without_names_and_seeds(value) for key, value in config.items() if key not in ("name", "seed")}
    return [_without_names_and_seeds(each) for each in config] if isinstance(config, (list, tuple)) else config


def interquartile_mean(values, axis=-1):
    """The mean without the lowest and the highest quarter of the values.

    Args:
        values: Array.
        axis: Along which.

    Returns:
        Array without `axis`.

    Source: Agarwal et al. 2021 (arXiv 2108.13264), section 4.3.

    >>> float(interquartile_mean([0.0, 4.0, 6.0, 100.0]))
    5.0
    """
    values = np.sort(np.asarray(values, float), axis)
    count = values.shape[axis]
    return np.take(values, range(count // 4, count - count // 4), axis).mean(axis)


def bootstrap_interval(values, resamples=10_000):
    """95 % percentile bootstrap of the interquartile mean over seeds.

    Args:
        values: [seeds].
        resamples: How many.

    Returns:
        `(low, high)`.

    Source: Agarwal et al. 2021 (arXiv 2108.13264), section 4.1; their strata are tasks, and this is one.

    >>> bootstrap_interval([2.0, 2.0, 2.0])
    (2.0, 2.0)
    """
    values = np.asarray(values, float)
    drawn = np.random.default_rng(0).integers(0, len(values), (resamples, len(values)))
    low, high = np.percentile(interquartile_mean(values[drawn]), [2.5, 97.5])
    return float(low), float(high)


class SeedRuns(NamedTuple):
    """What the seeds of one setting reached.

    Args:
        seeds: The seeds.
        evaluations: For each, what `Agent.evaluate` gave at the end.
        histories: For each, Keras's `History.history`.
    """

    seeds: list
    evaluations: list
    histories: list

    @property
    def returns(self):
        """Mean evaluation return of each seed, [seeds]."""
        return np.array([evaluation["return"] for evaluation in self.evaluations])

    @property
    def iqm(self):
        """Interquartile mean of `returns`."""
        return float(interquartile_mean(self.returns))

    @property
    def interval(self):
        """95 % bootstrap interval of `iqm`: `(low, high)`."""
        return bootstrap_interval(self.returns)

    def curve(self, name="episode_return"):
        """A log by epoch, [seeds, epochs]; nan after the end of a shorter run."""
        rows = [history[name] for history in self.histories]
        longest = max(map(len, rows))
        return np.array([[*row, *[np.nan] * (longest - len(row))] for row in rows])

    def plot(self, filepath, name="episode_return"):
        """Draws a curve for each seed, and their interquartile mean in bold.

        Args:
            filepath: Where to write the picture, such as `"seeds.png"`.
            name: Of the log.

        Raises:
            ImportError: If matplotlib is missing.
        """
        figure = figures.figure(6, 4, extra="plot")
        axes = figure.subplots()
        steps, values = self.curve("env_steps"), self.curve(name)
        axes.plot(steps.T, values.T, color="tab:blue", alpha=0.35, linewidth=1)
        axes.plot(steps[0], interquartile_mean(values, 0), color="tab:blue", linewidth=2.5)
        low, high = self.interval
        axes.set(xlabel="environment steps", ylabel=name.replace("_", " "))
        axes.set_title(f"{len(self.seeds)} seeds; final return, IQM {self.iqm:.1f} [{low:.1f}, {high:.1f}]", size=10)
        figures.write(figure, filepath)
