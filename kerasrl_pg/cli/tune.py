"""searches settings that learn better, and trains them on new seeds beside the ones it began with.

    kerasrl-pg tune --agent=ppo --env=CartPole-v1 --total_steps=50000 --trials=30 --out=runs/tuned
    kerasrl-pg tune --config=runs/cartpole/run.yaml --tuner=hyperband --workers=2 --out=runs/tuned
    kerasrl-pg tune --agent=a2c --env=CartPole-v1 --total_steps=50000 --space=space.yaml --out=runs/tuned
    kerasrl-pg tune --resume --out=runs/tuned
    kerasrl-pg train --config=runs/tuned/best.yaml --out=runs/best

What is searched is KerasTuner's business; --space is a file of ranges by setting, such as

    optimizer.learning_rate: {min: 1e-5, max: 1e-2, sampling: log}
    horizon: [32, 64, 128]

and, left out, the agent's own (`pg.tuning.space`). A killed search goes on with --resume, which may be given more
--trials and other --workers. The folder holds run.yaml (what it began with), search/ (KerasTuner's, a folder for each
trial), trials.csv, trials.md and trials.png, best.yaml (for `train --config`), comparison.json (best and default on
seeds that the search has not seen).

Chief and workers on several machines that share the folder have KerasTuner's own variables KERASTUNER_TUNER_ID (chief,
or a name), KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT: this command for the chief, `tune --resume --out=...` for
the workers, and the same without the variables when they are done.
"""

import contextlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

from absl import app, flags

from kerasrl_pg.cli.command import Stopped, flags_of, need, no_more
from kerasrl_pg.cli.folder import Folder
from kerasrl_pg.cli.train import define_run, the_run

PARENT = "KERASRL_PG_TUNE_PARENT"  # Its process, in the environment of those that `--workers` starts.
LEFT = ("search", "space.json", "trials.csv", "trials.md", "trials.png", "best.yaml", "comparison.json", "retraining")
RESUMED = ("trials", "workers", "verbose")


def define(values):
    """Defines the flags."""
    kind = {"flag_values": values}
    define_run(values)
    kinds = ["random", "bayesian", "hyperband", "grid"]
    flags.DEFINE_enum("tuner", "random", kinds, "KerasTuner's search.", **kind)
    flags.DEFINE_string("space", None, "A file of ranges (YAML or JSON); the agent's ready space left out.", **kind)
    flags.DEFINE_integer(
        "trials", None, "How many; 30 left out. Hyperband and a whole grid need none.", lower_bound=1, **kind
    )
    flags.DEFINE_integer("seeds", 3, "Of each trial, the first one --seed.", lower_bound=1, **kind)
    flags.DEFINE_integer(
        "epochs", None, "Evaluations of each seed; 5 left out, and 9 for Hyperband.", lower_bound=1, **kind
    )
    flags.DEFINE_integer("episodes", 20, "Of each evaluation.", lower_bound=1, **kind)
    flags.DEFINE_bool("median", False, "End trials without hope, by the median rule.", **kind)
    flags.DEFINE_integer("search_seed", 1, "Of the search itself.", lower_bound=1, **kind)
    flags.DEFINE_integer("retrain", 10, "New seeds for best and default; 0 for none.", lower_bound=0, **kind)
    flags.DEFINE_integer("workers", 1, "Processes that run trials.", lower_bound=1, **kind)
    flags.DEFINE_string("out", None, "The search's folder.", **kind)
    flags.DEFINE_bool("overwrite", False, "Replace what an earlier search left in --out.", **kind)
    flags.DEFINE_bool("resume", False, "Go on with the search in --out.", **kind)
    flags.DEFINE_integer("verbose", 1, "0 silent, 1 one line a trial.", **kind)


def run(values, positional):
    """Searches, tabulates, retrains."""
    no_more(positional, "agent")
    need(values, "out")
    folder = Folder(values.out)
    remembered = values
    if values.resume:
        remembered = _remembered(values, folder)
    elif _part_of_many() and "chief" not in os.environ.get("KERASTUNER_TUNER_ID", ""):
        raise app.UsageError(
            "A worker must be told --resume and --out alone: the chief has begun the folder. "
            f"Received: KERASTUNER_TUNER_ID={os.environ.get('KERASTUNER_TUNER_ID')}."
        )
    else:
        _begin(values, folder)
    try:
        with _listening():
            _search(remembered, folder)
            if not _part_of_many():
                _finish(remembered, folder)
    except KeyboardInterrupt as error:
        number = error.args[0] if error.args else signal.SIGINT
        raise Stopped(
            number, f"Stopped; what is done is kept. Go on with: kerasrl-pg tune --resume --out={values.out}"
        ) from error


def _part_of_many():
    """Whether this is a chief or a worker, by KerasTuner's variables."""
    return "KERASTUNER_ORACLE_IP" in os.environ


@contextlib.contextmanager
def _listening():
    """SIGTERM ends the search as Ctrl-C does: by no `Exception`, which would be a failed trial."""

    def heard(number, frame):
        raise KeyboardInterrupt(number)

    if PARENT in os.environ or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, heard)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _begin(values, folder):
    """Writes what is to be searched, once all of it is known to be right."""
    left = [name for name in (*LEFT, *folder.left()) if (folder.path / name).exists()]
    if left and not values.overwrite:
        raise app.UsageError(
            f"--out must be a folder without an earlier search. Received: --out={values.out}, which has "
            f"{' and '.join(dict.fromkeys(left))}. Name another folder, go on with --resume where it was stopped, or "
            "replace what is there with --overwrite."
        )
    if values.tuner == "hyperband" and values.trials:
        raise app.UsageError(
            f"--trials must be left out with --tuner=hyperband, whose number follows from --epochs. "
            f"Received: --trials={values.trials}."
        )
    made = the_run(values)
    _hyper(values, made)
    for name in LEFT:
        path = folder.path / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    given = [flag for flag in (values[name] for name in values) if flag.present and flag.name not in NOT_KEPT]
    lines = [line for flag in given if flag.value is not None for line in flag.serialize().split("\n")]
    folder.remember(["tune", *lines])
    made.save(folder.run)
    if values.space:  # A copy, for --resume.
        _write_json(folder.path / "space.json", _space(values))


NOT_KEPT = ("out", "overwrite", "space")


def _remembered(values, folder):
    """The flags of the command that made the folder."""
    given = {values[name].name for name in values if values[name].present}
    others = sorted(given - {"resume", "out", *RESUMED})
    if others:
        raise app.UsageError(
            f"--resume must be alone with --out, {', '.join(f'--{n}' for n in RESUMED)}: the folder knows the rest. "
            f"Received: {' '.join(f'--{name}' for name in others)}."
        )
    if not folder.arguments.exists() or folder.remembered()[:1] != ["tune"]:
        raise app.UsageError(
            f"--resume must name a folder in which `tune` was. Received: --out={values.out}, which has no search."
        )
    remembered = flags_of("tune")
    remembered([*folder.remembered(), f"--out={values.out}"])
    for name in RESUMED:
        if values[name].present:
            remembered[name].value = values[name].value
    return remembered


def _space(values):
    from kerasrl_pg.run import parse

    with open(values.space, encoding="utf8") as file:
        found = parse(file.read())
    if not isinstance(found, dict):
        raise ValueError(f"--space must hold ranges by setting. Received: {values.space}, a {type(found).__name__}.")
    return found


def _hyper(values, made, space=None):
    """The `HyperAgent` of the flags."""
    import kerasrl_pg as pg

    return pg.tuning.HyperAgent(
        made,
        space=_space(values) if values.space else space,
        seeds=range(made.seed, made.seed + values.seeds),
        epochs=values.epochs or (9 if values.tuner == "hyperband" else 5),
        episodes=values.episodes,
        stopping=pg.tuning.Median() if values.median else None,
    )


def _tuner(values, folder):
    import kerasrl_pg as pg

    copy = folder.path / "space.json"
    space = json.loads(copy.read_text(encoding="utf8")) if copy.exists() else None
    hyper = _hyper(values, pg.Run.load(folder.run), space)
    trials = values.trials or (30 if values.tuner in ("random", "bayesian") else None)
    return pg.tuning.tuner(values.tuner, hyper, folder.path / "search", trials, seed=values.search_seed)


def _search(values, folder):
    """All trials that are left."""
    if values.workers > 1 and not _part_of_many():
        _many(values)
        return
    if PARENT in os.environ:
        threading.Thread(target=_die_with_parent, daemon=True).start()
    with contextlib.redirect_stdout(io.StringIO()):  # KerasTuner says that it reloads.
        tuner = _tuner(values, folder)
    tuner.oracle.verbose = 0  # KerasTuner's dozen lines a trial; `HyperAgent` has one.
    if not values.debug:
        from keras_tuner.src import config

        config.DEBUG = False  # It prints the traceback of a trial that failed, whose reason is kept.
    try:
        tuner.search(**({} if values.verbose else {"verbose": 0}))
    except RuntimeError as error:
        if "consecutive failures" not in str(error):
            raise
        raise RuntimeError(_failures(folder)) from error
    except Exception as error:
        if not type(error).__module__.startswith("grpc"):
            raise
        reason = error.details() if hasattr(error, "details") else error
        raise RuntimeError(
            f"The chief does not answer, or has ended the search: {reason}. Go on with --resume."
        ) from error


def _failures(folder):
    import kerasrl_pg as pg

    rows = [row for row in pg.tuning.results(folder.path / "search").rows if row.status == "failed"]
    reasons = "; ".join(dict.fromkeys(row.reason for row in rows))
    return f"The search ended, since so many trials failed one after the other. Reasons: {reasons}"


def _many(values):
    """A chief and workers, each in a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    threads = str(max(1, (os.cpu_count() or 1) // values.workers))
    command = [sys.executable, "-m", "kerasrl_pg.cli", "tune", "--resume", f"--out={values.out}"]
    command += [f"--verbose={values.verbose}"] + ([f"--trials={values.trials}"] if values.trials else [])

    def start(name):
        shared = {
            "KERASTUNER_TUNER_ID": name,
            "KERASTUNER_ORACLE_IP": "127.0.0.1",
            "KERASTUNER_ORACLE_PORT": str(port),
            "TF_NUM_INTRAOP_THREADS": threads,
            "TF_NUM_INTEROP_THREADS": threads,
            PARENT: str(os.getpid()),
        }
        return subprocess.Popen(command, env={**os.environ, **shared}, start_new_session=True)

    chief = start("chief")
    workers = [start(f"worker-{number}") for number in range(values.workers)]
    try:
        while any(worker.poll() is None for worker in workers):
            if chief.poll() not in (None, 0):
                raise RuntimeError("The chief of the search has ended. Go on with --resume.")
            time.sleep(0.2)
    finally:
        for process in (*workers, chief):  # The chief looks only every 20 seconds; what it knows is written.
            if process.poll() is None:
                process.terminate()
        for process in (*workers, chief):
            process.wait()
    failed = [worker.returncode for worker in workers if worker.returncode]
    if failed:
        raise RuntimeError(
            f"{len(failed)} of {len(workers)} workers ended with code {failed[0]} before the search was done. "
            f"Go on with: kerasrl-pg tune --resume --out={values.out}"
        )


def _die_with_parent():
    """A worker whose parent was killed would go on beside the one that resumes the search."""
    while os.getppid() == int(os.environ[PARENT]):
        time.sleep(0.5)
    os._exit(1)


def _finish(values, folder):
    """Table, picture, best settings, and whether they hold on new seeds."""
    import kerasrl_pg as pg

    found = pg.tuning.results(folder.path / "search")
    written = found.write(folder.path)
    best = folder.path / "best.yaml"
    found.save_best(best)
    row = found.best
    low, high = row.interval
    counts = {status: sum(r.status == status for r in found.rows) for status in ("done", "ended early", "failed")}
    print(", ".join(f"{count} {status}" for status, count in counts.items()) + f"; {', '.join(map(str, written))}")
    print(f"Best: trial {row.trial}, return {row.val_return:.1f} [{low:.1f}, {high:.1f}] on the search's own seeds")
    for path, value in row.values.items():
        print(f"  {path}: {json.dumps(value)}")
    if values.retrain:
        comparison = found.retrain(values.retrain, folder=folder.path / "retraining")
        _write_json(folder.path / "comparison.json", comparison.to_dict())
        print(comparison)
    print(f"Settings: {best}  (kerasrl-pg train --config={best} --out=...)")


def _write_json(path, data):
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf8")
