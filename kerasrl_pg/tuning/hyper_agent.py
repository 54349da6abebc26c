"""An agent with settings to be searched, for KerasTuner's tuners."""

import copy
import math
import time
from pathlib import Path

import keras
import keras_tuner as kt
import numpy as np

from kerasrl_pg.checks import check_choice, check_whole
from kerasrl_pg.described import describe
from kerasrl_pg.envs.compiled import CompiledEnv
from kerasrl_pg.run import Run
from kerasrl_pg.seeds import interquartile_mean, restart
from kerasrl_pg.tuning import spaces
from kerasrl_pg.tuning.records import TrialFolder, keep, read_json, trials_of, write_json
from kerasrl_pg.tuning.stopping import Evaluations, Median, Share

AGGREGATES = {"mean": np.mean, "iqm": interquartile_mean}


class HyperAgent(kt.HyperModel):
    """What KerasTuner's `RandomSearch`, `BayesianOptimization`, `Hyperband` and `GridSearch` search.

    A trial trains an agent once for each seed, one after the other on the same compiled programs (`fit_seeds`), each
    for the whole budget. The objective `val_return` is the mean over the seeds of the mean return of the last
    evaluation: episodes with the mode of the policy, the same ones in every trial.

    Under `Hyperband`, whose `max_epochs` are at most `epochs` here, an epoch is its share of the budget, and a trial
    of a later round goes on from the checkpoint of each seed, bit for bit on compiled environments.

    A trial in which anything is NaN, the environment raises, or the values contradict each other is a failed one, with
    its reason, and the search goes on; after `max_consecutive_failed_trials` of them KerasTuner ends it. What was
    searched is kept in the tuner's folder: the same script goes on where it was killed, and at most one seed of one
    trial is trained anew. (`pg.tuning.tuner` also repairs what a kill may have cut off.) TensorFlow keeps what it has
    compiled for as long as the process lives, some 40 to 100 MB a trial: a search of hundreds is best ended and gone on
    with now and then.

    Args:
        run: A `Run`, such as a preset; or a function from a seed and a dictionary of values by path to a compiled
            agent, with `env`, `total_steps` and `space`.
        env: A gymnasium id, a `CompiledEnv`, or what else `Agent.fit` takes; None for the run's.
        total_steps: Environment steps of one seed of one trial; None for the run's.
        space: What is searched: a dictionary from paths to ranges (see `kerasrl_pg.tuning.spaces`), or a function
            from `keras_tuner.HyperParameters` to a dictionary from paths to values; None for `spaces.space(run)`.
        seeds: Different whole numbers, or how many (0, 1, ...). 3: ours, the fewest with a middle one.
        num_envs: As of `Agent.fit`; None for the run's.
        epochs: Evaluations of a seed, each after an equal share of the budget. 5: ours, enough to tell who has no hope.
        episodes: Of an evaluation. 20: ours; their mean varies by a fifth of what the episodes do.
        evaluation_env: As of `Agent.evaluate`; None for `env`.
        evaluation_seed: Of the evaluations' episodes. 1,000,000: ours, far from the agents' own.
        aggregate: "mean" over the seeds, or "iqm", their interquartile mean, which needs four seeds to differ from it.
        stopping: A `Median`, by which trials without hope end early; None, and under `Hyperband`, which has its own
            way: never. A trial that ends early has the mean of what its seeds had reached.

    Attributes:
        objective: For the tuner: `keras_tuner.Objective("val_return", "max")`.

    Raises:
        ValueError, TypeError: If something contradicts something else, a path is not known, or an end of a range is
            refused.

    >>> import keras_tuner as kt
    >>> import kerasrl_pg as pg
    >>> run = pg.Run(pg.A2C, {"CartPole": {"num_envs": 8}}, total_steps=400)
    >>> hyper = HyperAgent(run, space={"gamma": [0.9]}, seeds=2, epochs=2, episodes=2)
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     tuner = kt.GridSearch(hyper, hyper.objective, directory=folder)
    ...     tuner.search(verbose=0)
    ...     len(tuner.oracle.trials)
    1
    """

    objective = kt.Objective("val_return", "max")

    def __init__(
        self,
        run,
        env=None,
        total_steps=None,
        space=None,
        seeds=3,
        *,
        num_envs=None,
        epochs=5,
        episodes=20,
        evaluation_env=None,
        evaluation_seed=1_000_000,
        aggregate="mean",
        stopping=None,
    ):
        self.seeds = list_of_seeds(seeds)
        check_whole("epochs", epochs)
        check_whole("episodes", episodes)
        check_whole("evaluation_seed", evaluation_seed, at_least=0, at_most=2**31 - 1)
        check_choice("aggregate", aggregate, tuple(AGGREGATES))
        if not isinstance(stopping, Median | None):
            raise TypeError(f"`stopping` must be a pg.tuning.Median, or None. Received: stopping={stopping!r}.")
        self.epochs, self.episodes, self.evaluation_seed = epochs, episodes, evaluation_seed
        self.aggregate, self.stopping = aggregate, stopping
        if isinstance(run, Run):
            self.make, self.run = None, _changed(run, env, total_steps, num_envs)
            self.env, self.total_steps, self.num_envs = self.run.make_env(), self.run.total_steps, self.run.num_envs
        else:
            check_function(run, env, total_steps, space)
            self.make, self.run = run, None
            self.env, self.total_steps, self.num_envs = env, total_steps, num_envs
        self.evaluation_env = self.env if evaluation_env is None else evaluation_env
        self.space = spaces.space(self.run) if space is None else space
        self._check_space()
        super().__init__(name=getattr(self.run and self.run.method, "__name__", None))

    def _check_space(self):
        if callable(self.space):
            return
        if not isinstance(self.space, dict) or not self.space:
            raise ValueError(
                "`space` must be a dictionary from paths to ranges, with at least one, or a function. "
                f"Received: space={self.space!r}."
            )
        for path, given in self.space.items():
            spaces.check_range(path, given)
            for value in spaces.edges(given) if self.run is not None else ():
                try:
                    self.run.changed({path: value})
                except (ValueError, TypeError) as error:
                    raise type(error)(f"`space` must fit the run. Received: {path}={value!r}. {error}") from error

    # What KerasTuner calls

    def build(self, hp):
        """The compiled agent of the first seed, with the values of `hp`; KerasTuner's hook."""
        return self._agent(self.seeds[0], self.values(hp))

    def values(self, hp):
        """The values of `hp`, by path."""
        if callable(self.space):
            return self.space(hp)
        return {path: spaces.draw(hp, path, given) for path, given in self.space.items()}

    def fit(self, hp, agent, *, callbacks=None, verbose=1, epochs=None, initial_epoch=0, **fit):
        """Trains all seeds of a trial; KerasTuner's hook, which has what `tuner.search` was given.

        Args:
            hp, agent: KerasTuner's.
            callbacks: KerasTuner's, and copies of yours, which each seed gets new ones of.
            verbose: 0 silent, else one line a trial.
            epochs, initial_epoch: Of Hyperband's round.
            **fit: Of `Agent.fit`, but not what `HyperAgent` was told.

        Returns:
            A dictionary: `val_return`, the objective, and `env_steps` of all seeds together.

        Raises:
            keras_tuner.errors.FailedTrialError: With the reason.
            keras_tuner.errors.FatalValueError: If the search as a whole makes no sense.
        """
        known = {"env", "total_steps", "steps_per_epoch", "num_envs", "seed", "resume", "validation_env"} & {*fit}
        until = self.epochs if epochs is None else epochs
        if known:
            raise kt.errors.FatalValueError(
                f"`search` must leave out what HyperAgent says to `fit`. Received: {sorted(known)[0]}."
            )
        if until > self.epochs:
            raise kt.errors.FatalValueError(
                f"Hyperband's `max_epochs` must be at most HyperAgent's `epochs`, {self.epochs}, the shares of the "
                f"budget. Received: {until}."
            )
        mine, theirs = _sorted(callbacks or [])
        trial = _Trial.of_tuner(self, hp, mine, until, initial_epoch)
        started = time.monotonic()
        try:
            trial.run(agent, theirs, fit)
        except kt.errors.FatalError:
            raise
        except Exception as error:
            reason = trial.fail(error)
            if verbose:
                print(f"{trial.name}: failed. {reason}", flush=True)
            raise kt.errors.FailedTrialError(reason) from error
        result = self.result(trial.record)
        if verbose:
            print(trial.line(result, time.monotonic() - started), flush=True)
        return result

    def train(self, values, folder=None):
        """Trains all seeds with some values, outside of any search.

        Args:
            values: By path; {} for the run as it is.
            folder: Where each finished seed is noted, so that a second call, after a kill, goes on; or None.

        Returns:
            A dictionary: `runs`, a list of `seed`, `returns` (of each epoch's evaluation) and `env_steps`.

        Raises:
            ValueError: If the folder holds another one's.
            Exception: Whatever training raises.
        """
        if folder is not None:
            self.remember(Path(folder))
        trial = _Trial(self, dict(values), self.epochs, folder=None if folder is None else TrialFolder(folder))
        trial.run(None, [], {})
        return trial.record

    def result(self, record):
        """What a trial comes to, from its `seeds.json`."""
        last = [run["returns"][-1] for run in record["runs"]]
        return {
            "val_return": float(AGGREGATES[self.aggregate](last)),
            "env_steps": float(sum(run["env_steps"][-1] for run in record["runs"])),
        }

    # What a trial needs

    def run_with(self, values):
        """The `Run` with some values; None where a function makes the agents."""
        return None if self.run is None else self.run.changed(values)

    def _agent(self, seed, values):
        if self.run is not None:
            return self.run_with(values).agent(seed)
        agent = self.make(seed, dict(values))
        if not isinstance(agent, keras.Model) or not hasattr(agent, "evaluate"):
            raise kt.errors.FatalTypeError(f"The function must give a compiled agent. Received: {agent!r}.")
        return agent

    def environment(self, values):
        """`(env, evaluation_env, total_steps, num_envs)` of a trial, which may be among its values."""
        if not {path.split(".")[0] for path in values} & {"env", "total_steps", "num_envs"} or self.run is None:
            return self.env, self.evaluation_env, self.total_steps, self.num_envs
        run = self.run_with(values)
        env = run.make_env()
        return env, env if self.evaluation_env is self.env else self.evaluation_env, run.total_steps, run.num_envs

    def description(self):
        """Plain data that a search can be told from another by."""
        return {
            "run": None if self.run is None else self.run.to_dict(),
            "space": None if callable(self.space) else self.space,
            "seeds": self.seeds,
            "total_steps": self.total_steps,
            "epochs": self.epochs,
            "episodes": self.episodes,
            "evaluation_seed": self.evaluation_seed,
            "aggregate": self.aggregate,
            "stopping": None if self.stopping is None else vars(self.stopping),
        }

    def remember(self, folder):
        """Writes the description into a search's folder, or refuses a folder of another search.

        Raises:
            ValueError: If there is another one.
        """
        path, mine = folder / "search.json", self.description()
        there = read_json(path)
        if there is None:
            write_json(path, mine)
            return
        differ = [name for name in mine if there.get(name) != spaces.copied(mine[name])]
        if differ:
            name = differ[0]
            raise ValueError(
                f"The folder {folder} holds another search, which cannot be gone on with. It has {name}="
                f"{there.get(name)!r}. Received: {name}={mine[name]!r}. Name another folder, or overwrite it."
            )


class _Trial:
    """One trial: its folder, its record, and its seeds.

    Args:
        hyper: The `HyperAgent`.
        values: By path.
        until, start: Epochs at its end, and at its begin.
        folder: Its `TrialFolder`, or None.
        project: The search's folder, or None outside of a search.
        before: The `TrialFolder` that it goes on from, or None.
        hyperband: Whether another trial may go on from it.
        callbacks: KerasTuner's.
        name: For what is printed.
    """

    def __init__(
        self,
        hyper,
        values,
        until,
        start=0,
        folder=None,
        project=None,
        before=None,
        hyperband=False,
        callbacks=(),
        name="",
    ):
        self.hyper, self.values, self.until, self.start = hyper, values, until, start
        self.folder, self.project, self.before, self.hyperband = folder, project, before, hyperband
        self.callbacks, self.name = callbacks, name
        self.record = self._open()

    @classmethod
    def of_tuner(cls, hyper, hp, callbacks, until, start):
        """The trial that a tuner's callbacks are of; without such, one that leaves nothing."""
        tuner, trial = next(((c.tuner, c.trial) for c in callbacks if hasattr(c, "tuner")), (None, None))
        if tuner is None:
            return cls(hyper, hyper.values(hp), until, start, callbacks=callbacks)
        project, folder = Path(tuner.project_dir), TrialFolder(tuner.get_trial_dir(trial.trial_id))
        before = TrialFolder(tuner.get_trial_dir(hp.values["tuner/trial_id"])) if start else None
        try:
            hyper.remember(project)
        except ValueError as error:
            raise kt.errors.FatalValueError(str(error)) from error
        keep(project, folder)
        band = "tuner/epochs" in hp.values
        name = f"Trial {trial.trial_id}"
        return cls(hyper, hyper.values(hp), until, start, folder, project, before, band, callbacks, name)

    def _open(self):
        """The record: of the same trial before a kill, else a new one."""
        new = {"values": self.values, "until": self.until, "start": self.start, "runs": []}
        new = {**new, "stopped": None, "failed": None}
        if self.folder is None:
            return new
        there = self.folder.record()
        same = all(there.get(name) == spaces.copied(new[name]) for name in ("values", "until", "start"))
        run = self.hyper.run_with(self.values)
        if run is not None:
            run.save(self.folder.run)
        # What stopped or failed is decided again.
        return {**new, "runs": there["runs"]} if same and not there["stopped"] else new

    def run(self, agent, callbacks, fit):
        """Trains what seeds there are left."""
        hyper = self.hyper
        env, evaluation_env, total_steps, num_envs = hyper.environment(self.values)
        budget = {"total_steps": total_steps, "num_envs": num_envs, "epochs": hyper.epochs, "verbose": 0}
        curves = self._curves() if hyper.stopping is not None and not self.hyperband else None
        trained = None
        done = {run["seed"] for run in self.record["runs"]}
        best = max((run["returns"][-1] for run in self.record["runs"]), default=-math.inf)
        for callback in self.callbacks:  # `SaveBestEpoch`, which is to keep the best of the seeds.
            if hasattr(callback, "best_value"):
                callback.best_value = best
        for seed in hyper.seeds:
            if seed in done:
                continue
            fresh = self._fresh(seed, agent if seed == hyper.seeds[0] else None)
            if trained is None:
                trained = fresh
            else:
                restart(trained, fresh)
            start = self._returns_before(seed)
            watch = Evaluations(evaluation_env, hyper.episodes, hyper.evaluation_seed)
            used = [Share(self.until, hyper.epochs), watch]
            if curves is not None:
                used.append(hyper.stopping.callback(curves, hyper.epochs))
            used += copy.deepcopy(callbacks)
            trained.fit(env, callbacks=used, resume=self.start > 0, **budget, **fit)
            if watch.last is None:  # Nothing was left of the budget.
                watch.set_model(trained)
                watch.evaluate()
            run = {"seed": seed, "returns": start + watch.returns, "env_steps": watch.env_steps}
            self._note(run, used[2].stopped if curves is not None else None, trained)
            if self.record["stopped"]:
                return

    def _fresh(self, seed, agent):
        """The agent of a seed before its training: new, or from the round before."""
        if self.before is not None:
            return keras.models.load_model(self.before.agent(seed))
        return self.hyper._agent(seed, self.values) if agent is None else agent

    def _returns_before(self, seed):
        if self.before is None:
            return []
        return next(run["returns"] for run in self.before.record()["runs"] if run["seed"] == seed)

    def _note(self, run, stopped, agent):
        self.record["runs"].append(run)
        self.record["stopped"] = stopped
        for callback in self.callbacks:
            callback.set_model(agent)
            callback.on_epoch_end(len(run["returns"]) - 1, {"val_return": run["returns"][-1]})
        if self.hyperband and self.folder is not None:
            agent.save(self.folder.agent(run["seed"]))
        self._save()  # Last: what it names is there.

    def _save(self):
        if self.folder is not None:
            write_json(self.folder.seeds, self.record)

    def _curves(self):
        """Curves of the trials that ended before this one."""
        if self.project is None:
            return []
        others = [trial for trial in trials_of(self.project) if trial.path != self.folder.path]
        ended = [o.record() for o in others if (read_json(o.trial) or {}).get("status") == "COMPLETED"]
        return [curve(record["runs"]) for record in ended if record]

    def fail(self, error):
        """Notes why the trial failed."""
        seed = self.hyper.seeds[min(len(self.record["runs"]), len(self.hyper.seeds) - 1)]
        self.record["failed"] = f"Seed {seed}: {type(error).__name__}: {error}"
        self._save()
        return self.record["failed"]

    def line(self, result, seconds):
        """What is printed of it."""
        returns = ", ".join(f"{run['returns'][-1]:.1f}" for run in self.record["runs"])
        stopped = f" {self.record['stopped']}" if self.record["stopped"] else ""
        return f"{self.name}: val_return {result['val_return']:.1f} ({returns}), {seconds:.0f} s.{stopped}"


def curve(runs):
    """Mean over seeds of the returns by epoch, as far as any seed went."""
    longest = max((len(run["returns"]) for run in runs), default=0)
    return [float(np.mean([r["returns"][i] for r in runs if len(r["returns"]) > i])) for i in range(longest)]


def list_of_seeds(seeds, name="seeds"):
    """Seeds as a list of whole numbers.

    >>> list_of_seeds(2), list_of_seeds([7, 3])
    ([0, 1], [7, 3])
    """
    if isinstance(seeds, (int, np.integer)) and not isinstance(seeds, bool):
        check_whole(name, seeds)
        return list(range(seeds))
    seeds = [int(seed) for seed in seeds]
    if not seeds or len({*seeds}) < len(seeds) or min(seeds) < 0:
        raise ValueError(f"`{name}` must be different whole numbers, at least one. Received: {name}={seeds}.")
    return seeds


def check_function(make, env, total_steps, space):
    """Refuses what cannot go with a function that makes agents."""
    if not callable(make) or isinstance(make, type):
        raise TypeError(
            "`run` must be a pg.Run, such as a preset, or a function from a seed and values to a compiled agent. "
            f"Received: run={make!r}."
        )
    missing = [n for n, value in (("env", env), ("total_steps", total_steps), ("space", space)) if value is None]
    if missing:
        raise ValueError(f"`{missing[0]}` must be given with a function that makes agents. Received: none.")
    check_whole("total_steps", total_steps)


def _changed(run, env, total_steps, num_envs):
    changes = {"total_steps": total_steps, "num_envs": num_envs}
    changes = {name: value for name, value in changes.items() if value is not None}
    if env is not None:
        compiled = isinstance(env, CompiledEnv)
        if not compiled and not isinstance(env, (str, dict)):
            raise TypeError(
                "`env` must be a gymnasium id, the dictionary that Run takes, or a CompiledEnv. "
                f"Received: env={env!r}. Anything else goes with a function that makes agents."
            )
        changes["env"] = describe(env, "env") if compiled else env
        if compiled and run.num_envs is not None:
            run = Run.from_dict({name: value for name, value in run.to_dict().items() if name != "num_envs"})
    return run.changed(changes) if changes else run


def _sorted(callbacks):
    """KerasTuner's callbacks, and others."""
    mine = [c for c in callbacks if type(c).__module__.startswith("keras_tuner.")]
    return mine, [c for c in callbacks if c not in mine]
