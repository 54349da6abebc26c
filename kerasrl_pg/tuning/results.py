"""What came out of a search: a table, a picture, the best settings as a file, and whether they hold on new seeds."""

import contextlib
import csv
import dataclasses
import io
import json
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kerasrl_pg.run import Run
from kerasrl_pg.seeds import bootstrap_interval, interquartile_mean
from kerasrl_pg.serving.files import write_beside
from kerasrl_pg.tuning import picture
from kerasrl_pg.tuning.hyper_agent import AGGREGATES, HyperAgent, list_of_seeds
from kerasrl_pg.tuning.records import read_json, trials_of
from kerasrl_pg.tuning.spaces import plain

DONE, ENDED, FAILED, RUNNING = "done", "ended early", "failed", "not finished"


class Row(NamedTuple):
    """One trial.

    Args:
        trial: Its number, KerasTuner's text.
        status: "done", "ended early", "failed" or "not finished".
        values: By path.
        returns: Each seed's mean return in its last evaluation, by seed.
        val_return: The objective; nan where there is none.
        interval: 95 % bootstrap interval of it over the seeds, `(low, high)`.
        epochs: Shares of the budget that were trained at most.
        reason: Why it failed or was ended; "" otherwise.
    """

    trial: str
    status: str
    values: dict
    returns: dict
    val_return: float
    interval: tuple
    epochs: int
    reason: str


def results(search):
    """The results of a search, finished or not.

    Args:
        search: A KerasTuner tuner that searched a `HyperAgent`, or its folder (`directory / project_name`).

    Returns:
        `Results`.

    Raises:
        FileNotFoundError: If there is no such search.
    """
    folder = Path(getattr(search, "project_dir", search))
    description = read_json(folder / "search.json")
    if description is None:
        raise FileNotFoundError(f"There is no search of a HyperAgent in {folder}: it has no search.json.")
    return Results(folder, description)


class Results:
    """A search's trials, the best first.

    Args:
        folder: Of the search.
        description: What its `search.json` holds.

    Attributes:
        rows: A list of `Row`: those that are done by `val_return`, then the others.
    """

    def __init__(self, folder, description):
        self.folder, self.description = Path(folder), description
        rows = [self._row(trial) for trial in trials_of(folder)]
        order = {DONE: 0, ENDED: 1, RUNNING: 2, FAILED: 3}
        self.rows = sorted(rows, key=lambda r: (order[r.status], -r.val_return if r.val_return == r.val_return else 0))

    def _row(self, trial):
        kept, record = read_json(trial.trial) or {}, trial.record()
        values = record.get("values") or self._values(kept)
        runs = record.get("runs", [])
        returns = {run["seed"]: run["returns"][-1] for run in runs}
        status = {"COMPLETED": DONE, "FAILED": FAILED}.get(kept.get("status"), RUNNING)
        if record.get("failed"):  # The failure that ends a search is not in KerasTuner's file.
            status = FAILED
        elif status == DONE and record.get("stopped"):
            status = ENDED
        reason = record.get("failed") or record.get("stopped") or ""
        if status == FAILED and not reason:
            reason = ([line for line in (kept.get("message") or "").splitlines() if line.strip()] or [""])[-1].strip()
            reason = reason or self._refused(values)
        score, interval = math.nan, (math.nan, math.nan)
        if returns and status in (DONE, ENDED):
            statistic = AGGREGATES[self.description["aggregate"]]
            score = float(statistic(list(returns.values())))
            interval = bootstrap_interval(list(returns.values()), statistic=statistic)
        epochs = max((len(run["returns"]) for run in runs), default=0)
        name = trial.path.name.removeprefix("trial_")
        return Row(name, status, values, returns, score, interval, epochs, reason)

    @staticmethod
    def _values(kept):
        values = kept.get("hyperparameters", {}).get("values", {})
        return {path: plain(value) for path, value in values.items() if not path.startswith("tuner/")}

    def _refused(self, values):
        """Why the run refuses some values: a worker's reason does not reach KerasTuner's chief."""
        try:
            self.default.changed(values)
        except (ValueError, TypeError, AttributeError) as error:
            return f"{type(error).__name__}: {error}"
        return "No reason was kept."

    # The best

    @property
    def best(self):
        """The `Row` of the trial with the highest `val_return`.

        Raises:
            ValueError: If none is done.
        """
        if not self.rows or self.rows[0].status != DONE:
            reasons = dict.fromkeys(row.reason for row in self.rows if row.status == FAILED)
            raise ValueError(
                f"A search must have a trial that is done. Received: {self.folder}, which has none."
                + (f" Reasons: {'; '.join(reasons)}" if reasons else "")
            )
        return self.rows[0]

    @property
    def default(self):
        """The `Run` that was searched, as it was before; None where a function made the agents."""
        run = self.description["run"]
        return None if run is None else Run.from_dict(run)

    @property
    def best_run(self):
        """The `Run` with the values of the best trial."""
        self._need_run()
        row = self.best
        made = self.default.changed(row.values)
        low, high = row.interval
        source = (
            f"Trial {row.trial} of a search of {len(self.rows)} with {len(row.returns)} seeds: return "
            f"{row.val_return:.1f} [{low:.1f}, {high:.1f}] on the search's own seeds."
        )
        return dataclasses.replace(made, source=source)

    def save_best(self, path):
        """Writes the best settings as a file that `Run.load` and `kerasrl-pg train --config` take.

        Args:
            path: Ending in .yaml, .yml or .json.
        """
        self.best_run.save(path)

    def retrain(self, seeds=10, **kwargs):
        """Trains the best and the default settings on new seeds, as many or these; see `retrain`.

        Raises:
            ValueError: If a seed was among those of the search.
        """
        self._need_run()
        if isinstance(seeds, int):
            first = max(self.description["seeds"]) + 1
            seeds = range(first, first + seeds)
        both = sorted({*list_of_seeds(seeds)} & {*self.description["seeds"]})
        if both:
            raise ValueError(f"`seeds` must be new ones. Received: {both}, by which the best was chosen.")
        return retrain(self.best_run, self.default, seeds, **kwargs)

    def _need_run(self):
        if self.description["run"] is None:
            raise ValueError(
                "The search must have been of a Run for this. Received: one of a function that makes agents. "
                "Use `results.best.values` with it, and `pg.fit_seeds`."
            )

    # The table

    def table(self):
        """Header and rows, as text."""
        paths = list(dict.fromkeys(path for row in self.rows for path in row.values))
        seeds = self.description["seeds"]
        header = ["trial", "status", "val_return", "low", "high", *(f"seed {seed}" for seed in seeds), *paths]
        lines = [
            [row.trial, row.status, *map(_number, (row.val_return, *row.interval))]
            + [_number(row.returns.get(seed, math.nan)) for seed in seeds]
            + [_text(row.values[path]) if path in row.values else "" for path in paths]
            + [row.reason]
            for row in self.rows
        ]
        return [[*header, "reason"], *lines]

    def markdown(self):
        """The table as Markdown."""
        header, *lines = self.table()
        rows = [header, ["---"] * len(header), *lines]
        return "\n".join("| " + " | ".join(" ".join(c.replace("|", "\\|").split()) for c in row) + " |" for row in rows)

    def write(self, folder):
        """Writes `trials.csv` and `trials.md`, and `trials.png` where matplotlib is installed.

        Args:
            folder: Where.

        Returns:
            The paths.
        """
        folder, text = Path(folder), io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(self.table())
        paths = [folder / "trials.csv", folder / "trials.md"]
        for path, content in zip(paths, (text.getvalue(), self.markdown() + "\n"), strict=True):
            _write(path, content)
        with contextlib.suppress(ImportError):
            paths.append(self.plot(folder / "trials.png"))
        return paths

    def plot(self, filepath):
        """Draws a panel for each hyperparameter: what each trial's value came to, each seed, and the failed ones.

        Args:
            filepath: Of the picture.

        Returns:
            The path.

        Raises:
            ImportError: If matplotlib is missing.
        """
        return picture.draw(self.rows, self.description, filepath)


class Comparison(NamedTuple):
    """Two settings on the same seeds, none of which chose between them.

    Args:
        seeds: The seeds.
        best, default: Each seed's mean return, [seeds].
        episodes: Of each evaluation, the same ones for all.
    """

    seeds: list
    best: np.ndarray
    default: np.ndarray
    episodes: int

    @property
    def difference(self):
        """The best's interquartile mean over seeds minus the default's, and its 95 % bootstrap interval."""
        gain = float(interquartile_mean(self.best) - interquartile_mean(self.default))
        return gain, *bootstrap_interval(self.best, minus=self.default)

    @property
    def holds(self):
        """Whether the whole interval of the difference is above 0."""
        return self.difference[1] > 0

    def to_dict(self):
        """Plain data."""
        gain, low, high = self.difference
        return {
            "seeds": self.seeds,
            "episodes": self.episodes,
            **{
                name: {
                    "returns": values.tolist(),
                    "iqm": float(interquartile_mean(values)),
                    "interval": list(bootstrap_interval(values)),
                }
                for name, values in (("best", self.best), ("default", self.default))
            },
            "difference": gain,
            "interval": [low, high],
        }

    def __str__(self):
        lines = [f"{len(self.seeds)} new seeds ({self.seeds[0]} to {self.seeds[-1]}), {self.episodes} episodes each:"]
        for name, values in (("best", self.best), ("default", self.default)):
            low, high = bootstrap_interval(values)
            worst = values.min()
            lines.append(f"  {name:8} IQM {interquartile_mean(values):8.1f} [{low:.1f}, {high:.1f}], worst {worst:.1f}")
        gain, low, high = self.difference
        verdict = "The best settings are better." if self.holds else "That may be chance."
        return "\n".join([*lines, f"  gain     {gain:+12.1f} [{low:.1f}, {high:.1f}]. {verdict}"])


def retrain(best, default, seeds=10, *, episodes=100, evaluation_seed=2_000_000, folder=None):
    """Trains two runs on the same new seeds, and evaluates them in the same new episodes.

    Args:
        best, default: `Run`s.
        seeds: Whole numbers, or how many (0, 1, ...). 10: ours, of which an interquartile mean has six.
        episodes: Of the evaluation that ends each run, with the mode of the policy.
        evaluation_seed: Of its episodes. 2,000,000: ours, not those of a search.
        folder: Where finished seeds are noted, so that a second call goes on after a kill; or None.

    Returns:
        `Comparison`.

    Raises:
        ValueError: If the folder holds other runs.

    >>> import kerasrl_pg as pg
    >>> run = pg.Run(pg.A2C, {"CartPole": {"num_envs": 8}}, total_steps=400)
    >>> comparison = retrain(run.changed({"gamma": 0.9}), run, seeds=2, episodes=2)
    >>> comparison.best.shape, len(comparison.difference)
    ((2,), 3)
    """
    returns = []
    for name, run in (("best", best), ("default", default)):
        hyper = HyperAgent(
            run,
            space={"total_steps": run.total_steps},
            seeds=seeds,
            epochs=1,
            episodes=episodes,
            evaluation_seed=evaluation_seed,
        )
        record = hyper.train({}, None if folder is None else Path(folder) / name)
        returns.append(np.array([each["returns"][-1] for each in record["runs"]]))
    return Comparison(hyper.seeds, *returns, episodes)


def _number(value):
    return "" if value != value else f"{value:.1f}"


def _text(value):
    return value if isinstance(value, str) else json.dumps(value)


def _write(path, content):
    def verify(part):
        if Path(part).read_text(encoding="utf8") != content:
            raise OSError(f"{path} cannot be read back. Is the disk full?")

    def write(part):
        with open(part, "w", encoding="utf8", newline="") as file:
            file.write(content)

    write_beside(path, path.suffix, write, verify)
