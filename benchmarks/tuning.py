"""A search over PPO on CartPole-v1 and Pendulum-v1, and whether what it finds beats the defaults on new seeds.

    .venv/bin/python benchmarks/tuning.py --env=CartPole --env=Pendulum

The environments are the library's compiled ones, which follow gymnasium's CartPole-v1 and Pendulum-v1; the defaults are
`pg.PPO()` as it is, with as many environments and steps. A search is KerasTuner's, over the ready space of PPO; best
and default are then trained on seeds that the search has not seen. What is found goes to `results/tuning.json`,
`results/tuning.md` and `results/tuning-<env>.png`. A second call goes on where the first was stopped.

    .venv/bin/python benchmarks/tuning.py --workers

How many trials a minute one worker runs and two do, of the same search, each process with one TensorFlow thread: from
the first trial's begin to the last one's end, without what importing TensorFlow takes. To `results/tuning.json`, too.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

from records import ONE_THREAD, origin

RESULTS = Path(__file__).parent / "results"
STEPS = {"CartPole": 20_000, "Pendulum": 60_000}
TRIALS = {"CartPole": 30, "Pendulum": 16}
ENVS, SEEDS, NEW_SEEDS = 8, 3, 10


def search(env, kind, folder, verbose=1):
    """One search, and its retraining; its record."""
    import kerasrl_pg as pg

    default = pg.Run(pg.PPO, {env: {"num_envs": ENVS}}, STEPS[env])
    hyper = pg.tuning.HyperAgent(default, seeds=SEEDS)
    timer = folder / "seconds.json"
    before = json.loads(timer.read_text()) if timer.exists() else {"search": 0.0, "retraining": 0.0}
    started = time.monotonic()
    tuner = pg.tuning.tuner(kind, hyper, folder / "search", trials=TRIALS[env])
    tuner.search(verbose=verbose)
    seconds = {**before, "search": before["search"] + time.monotonic() - started}
    timer.write_text(json.dumps(seconds))
    started = time.monotonic()
    found = pg.tuning.results(tuner)
    comparison = found.retrain(NEW_SEEDS, folder=folder / "retraining")
    seconds["retraining"] += time.monotonic() - started
    timer.write_text(json.dumps(seconds))
    found.plot(RESULTS / f"tuning-{env.lower()}.png")
    (RESULTS / f"tuning-{env.lower()}.yaml").write_text(pg.run.render(found.best_run.to_dict()))
    statuses = [row.status for row in found.rows]
    best = found.best
    return {
        "env": env,
        "tuner": kind,
        "total_steps": STEPS[env],
        "num_envs": ENVS,
        "trials": len(found.rows),
        "statuses": {status: statuses.count(status) for status in sorted({*statuses})},
        "seeds": hyper.seeds,
        "best": {"trial": best.trial, "values": best.values, "returns": list(best.returns.values())},
        "comparison": comparison.to_dict(),
        "median": median(folder / "search", best.trial),
        "minutes": {name: round(value / 60, 1) for name, value in seconds.items()},
        **origin(),
    }


def median(folder, best):
    """What `pg.tuning.Median()` would have done to a search without it, in the order of its trials."""
    import numpy as np

    from kerasrl_pg.tuning.hyper_agent import curve
    from kerasrl_pg.tuning.records import trials_of
    from kerasrl_pg.tuning.stopping import Median

    curves, spent, whole, ended = [], 0, 0, []
    for trial in trials_of(folder):
        runs = trial.record()["runs"]
        if trial.record()["failed"]:
            continue
        kept = []
        for run in runs:
            rule = Median().callback(curves, len(run["returns"]))
            rule.set_model(type("Agent", (), {}))
            kept.append({"returns": []})
            for epoch, value in enumerate(run["returns"]):
                kept[-1]["returns"].append(value)
                rule.on_epoch_end(epoch, {"val_return": value})
                if rule.stopped:
                    break
            if rule.stopped:
                ended.append([trial.path.name.removeprefix("trial_"), float(np.mean([r["returns"][-1] for r in runs]))])
                break
        curves.append(curve(kept))
        spent += sum(len(run["returns"]) for run in kept)
        whole += sum(len(run["returns"]) for run in runs)
    saved = 1 - spent / whole
    return {"ended": ended, "saved": saved, "best_is_kept": best not in [name for name, _ in ended]}


def report(records):
    """`results/tuning.md`."""
    workers, records = [r for r in records if r["env"] == "workers"], [r for r in records if r["env"] != "workers"]
    lines = [
        "# What a search is worth",
        "",
        "    .venv/bin/python benchmarks/tuning.py " + " ".join(f"--env={r['env']}" for r in records),
        "",
        f"PPO on the compiled CartPole and Pendulum, {ENVS} environments; trials of {SEEDS} seeds, over "
        '`pg.tuning.space("ppo")`; then best and default settings on '
        f"{NEW_SEEDS} new seeds each, 100 episodes with the mode of the policy. IQM: interquartile mean over seeds; in "
        "brackets its 95 % bootstrap interval.",
        "",
        "| environment | steps | tuner | trials: done, ended early, failed | search | retraining "
        "| best, IQM | defaults, IQM | gain |",
        "| --- | ---: | --- | --- | ---: | ---: | --- | --- | --- |",
    ]
    for r in records:
        both = r["comparison"]
        count = [str(r["statuses"].get(name, 0)) for name in ("done", "ended early", "failed")]
        cells = [
            r["env"],
            f"{r['total_steps']:,}",
            r["tuner"],
            ", ".join(count),
            f"{r['minutes']['search']} min",
            f"{r['minutes']['retraining']} min",
            *(_with_interval(both[name]["iqm"], both[name]["interval"]) for name in ("best", "default")),
            _with_interval(both["difference"], both["interval"]),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    for r in records:
        lines += ["", f"The best settings for {r['env']}: `{json.dumps(r['best']['values'])}`"]
        lines += [f"(`tuning-{r['env'].lower()}.yaml`, for `kerasrl-pg train --config`)."]
    lines += [
        "",
        "`stopping=pg.tuning.Median()`, worked out afterwards from the curves, trial by trial:",
        "",
        "| environment | trials ended early | evaluations (and steps) saved | best trial kept "
        "| best that was ended, of the best |",
        "| --- | ---: | ---: | --- | --- |",
    ]
    for r in records:
        rule, best = r["median"], sum(r["best"]["returns"]) / len(r["best"]["returns"])
        worst = max((value for _, value in rule["ended"]), default=float("nan"))
        lines.append(
            f"| {r['env']} | {len(rule['ended'])} | {rule['saved']:.0%} | {'yes' if rule['best_is_kept'] else 'no'} "
            f"| {worst:.1f} of {best:.1f} |"
        )
    for r in workers:
        cpu = " and ".join(f"{sum(v) / len(v):.1f}" for v in r["cpu_seconds_per_trial"].values())
        one, two = (", ".join(f"{x:.1f}" for x in r["trials_per_minute"][n]) for n in ("1", "2"))
        lines += [
            "",
            f"Trials a minute (`benchmarks/tuning.py --workers`): one worker {one}; two {two}: "
            f"{r['ratio']:.2f} times as many. CPU seconds a trial, imports and chief included: "
            f"{cpu}. Load of the machine (two cores) at the end: {r['load'][0]:.1f}.",
        ]
    lines += ["", f"Machine: {platform.machine()}, two cores, shared with other work; see tuning.json for versions."]
    return "\n".join(lines) + "\n"


def _keep(path, record):
    there = json.loads(path.read_text()) if path.exists() else []
    records = sorted([*(r for r in there if r["env"] != record["env"]), record], key=lambda r: r["env"])
    path.write_text(json.dumps(records, indent=1) + "\n")
    records = json.loads(path.read_text())
    (RESULTS / "tuning.md").write_text(report(records))


def _with_interval(value, interval):
    return f"{value:.1f} [{interval[0]:.1f}, {interval[1]:.1f}]"


def rate(workers, folder):
    """Trials a minute of so many workers, and CPU seconds a trial: PPO for 524,288 steps, settings that cost the
    same."""
    import kerasrl_pg as pg

    folder.mkdir(parents=True)
    settings = {"horizon": 128, "minibatch_size": 128}
    pg.Run(pg.PPO, {"CartPole": {"num_envs": 8}}, 524_288, settings=settings).save(folder / "run.yaml")
    (folder / "space.json").write_text('{"optimizer.learning_rate": {"min": 1e-4, "max": 1e-2, "sampling": "log"}}')
    command = [sys.executable, "-m", "kerasrl_pg.cli", "tune", f"--config={folder}/run.yaml", "--seeds=1", "--trials=6"]
    command += [f"--space={folder}/space.json", "--retrain=0", f"--workers={workers}", f"--out={folder}/out"]
    before = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    # Not read from disk, which would spare the second search what the first has compiled.
    subprocess.run(command, check=True, env={**os.environ, **ONE_THREAD, "KERASRL_PG_CACHE": ""})
    trials = [pg.tuning.records.TrialFolder(path) for path in (folder / "out" / "search").glob("trial_*")]
    begins, ends = zip(*((t.begun.stat().st_mtime, t.seeds.stat().st_mtime) for t in trials), strict=True)
    cpu = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]) - before
    return len(trials) / (max(ends) - min(begins)) * 60, cpu / len(trials)


def measure_workers(folder, turns):
    """The rates, by turns, so that other work on the machine is the same for both."""
    rates, cpu = {1: [], 2: []}, {1: [], 2: []}
    for turn in range(turns):
        for workers in rates if turn % 2 == 0 else reversed(rates):
            result = rate(workers, folder / f"workers-{workers}-{turn}-{time.time():.0f}")
            for kept, value in zip((rates, cpu), result, strict=True):
                kept[workers].append(value)
            print(workers, result, flush=True)
    ratio = sum(rates[2]) / sum(rates[1])
    measured = {"trials_per_minute": rates, "cpu_seconds_per_trial": cpu, "ratio": ratio}
    return {"env": "workers", **measured, "load": os.getloadavg(), **origin()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--env", action="append", choices=list(STEPS))
    parser.add_argument("--tuner", default="random", choices=["random", "bayesian"])
    parser.add_argument("--workers", action="store_true", help="measure one worker against two, and nothing else")
    parser.add_argument("--turns", type=int, default=2, help="of one worker and two")
    parser.add_argument("--folder", default="runs/tuning")
    arguments = parser.parse_args()
    path = RESULTS / "tuning.json"
    if arguments.workers:
        _keep(path, measure_workers(Path(arguments.folder), arguments.turns))
        return
    for env in arguments.env or list(STEPS):
        folder = Path(arguments.folder) / f"{env.lower()}-{arguments.tuner}"
        folder.mkdir(parents=True, exist_ok=True)
        record = search(env, arguments.tuner, folder)
        _keep(path, record)
        print(record["comparison"])


if __name__ == "__main__":
    main()
