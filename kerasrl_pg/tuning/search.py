"""KerasTuner's tuners, made for a `HyperAgent`, and their folder made whole before they are."""

import functools
import os
from pathlib import Path

import keras_tuner as kt

from kerasrl_pg.checks import check_choice, check_whole
from kerasrl_pg.tuning.records import repair, write_json

TUNERS = {
    "random": kt.RandomSearch,
    "bayesian": kt.BayesianOptimization,
    "hyperband": kt.Hyperband,
    "grid": kt.GridSearch,
}


def tuner(kind, hyper, folder, trials=None, *, seed=1, failures=10, overwrite=False, **kwargs):
    """One of KerasTuner's tuners, unchanged, on a folder that a killed search may have left.

    The same call goes on with the search in the folder: with the trials, the state of the search and the trained seeds
    that are there. A random search and a grid then end as if they had never been stopped, and so does Hyperband;
    KerasTuner's Bayesian optimisation draws new starting points for its next guess, and ends as another such search.

    Args:
        kind: "random", "bayesian", "hyperband" or "grid".
        hyper: The `HyperAgent`.
        folder: Of this search alone.
        trials: How many; of a grid, at most so many, None for all. Hyperband takes as many as `hyper.epochs` makes,
            once; more by `hyperband_iterations=`.
        seed: Of the search, at least 1, since KerasTuner takes 0 for none.
        failures: Failed trials in a row that end the search. 10: ours; by then it is the environment.
        overwrite: Begin anew, and delete what is in the folder.
        **kwargs: Other arguments of the tuner.

    Returns:
        The tuner; `tuner.search()` does the rest.

    Raises:
        ValueError: If an argument is out of range, or the folder holds another search.

    >>> import kerasrl_pg as pg
    >>> import tempfile
    >>> run = pg.Run(pg.A2C, {"CartPole": {"num_envs": 8}}, total_steps=400)
    >>> hyper = pg.tuning.HyperAgent(run, space={"gamma": [0.9, 0.99]}, seeds=2, epochs=1, episodes=2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     tuner("random", hyper, folder, trials=7).remaining_trials
    7
    """
    check_choice("kind", kind, tuple(TUNERS))
    check_whole("trials", trials, optional=True)
    check_whole("seed", seed)
    check_whole("failures", failures)
    if kind == "hyperband" and trials is not None:
        raise ValueError(
            "`trials` must be left out with Hyperband, whose number follows from HyperAgent's `epochs`. "
            f"Received: trials={trials}. Give `hyperband_iterations` for more."
        )
    if kind in ("random", "bayesian") and trials is None:
        raise ValueError(f"`trials` must be given for the tuner {kind!r}. Received: none.")
    folder, name = Path(folder), os.environ.get("KERASTUNER_TUNER_ID", "tuner0")
    works = "KERASTUNER_ORACLE_IP" in os.environ and "chief" not in name  # For a chief, whose folder it is.
    overwrite = overwrite and not works
    if not overwrite:
        if not works:
            repair(folder)
        if (folder / "search.json").exists():
            hyper.remember(folder)
        # KerasTuner reloads what a tuner of the same name has left; another worker may have, or none yet.
        if (folder / "oracle.json").exists() and not (folder / f"{name}.json").exists():
            write_json(folder / f"{name}.json", {})
    how = {"max_epochs": hyper.epochs} if kind == "hyperband" else {"max_trials": trials}
    made = TUNERS[kind](
        hyper,
        objective=hyper.objective,
        seed=seed,
        max_consecutive_failed_trials=failures,
        directory=str(folder.parent),
        project_name=folder.name,
        overwrite=overwrite,
        **{**how, **kwargs},
    )
    if kind == "grid" and made.oracle.__class__ is kt.oracles.GridSearchOracle and made.oracle.trials:
        _order(made.oracle)
    return made


def _order(oracle):
    """Gives a reloaded grid its order of trials, which KerasTuner 1.4.8 does not save: it would end, or raise."""
    values = {name: trial.hyperparameters.values for name, trial in oracle.trials.items()}
    known = sorted(values, key=functools.cmp_to_key(lambda a, b: oracle._compare(values[a], values[b])))
    before = None
    for name in known:
        oracle._ordered_ids.insert(name, before)
        before = name
    oracle._populate_next = list(oracle.start_order)
