"""Training in compiled code beside PureJaxRL's, and the time until CartPole is solved beside Stable-Baselines3's.

    .venv/bin/python benchmarks/compiled.py --purejaxrl=CHECKOUT --repeats=5

Each run is a process of its own, with no compilation cache of an earlier one; sides alternate, so
that what else the machine does falls on both. Each side is first tried once in each of its
settings, and measured in the fastest. Writes `results/compiled.md` and `.json`, keeping the other
cases that are there.
"""

import argparse
import datetime
import json
import math
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time

from throughput import HERE, RESULTS, XLA_SERIAL, machine

# `steps_per_execution` is ours alone: about twenty calls a run, where PureJaxRL makes one.
CASES = {
    "purejaxrl-4x128": {"num_envs": 4, "horizon": 128, "steps": 1_024_000, "steps_per_execution": 100},
    "purejaxrl-64x128": {"num_envs": 64, "horizon": 128, "steps": 2_457_600, "steps_per_execution": 15},
    "purejaxrl-512x64": {"num_envs": 512, "horizon": 64, "steps": 2_621_440, "steps_per_execution": 4},
    "purejaxrl-ten-seeds": {"num_envs": 4, "horizon": 128, "steps": 256_000, "steps_per_execution": 50, "seeds": 10},
    # The zoo's whole run, in which its rate and its clipping fall to 0; and the first evaluation that is good enough.
    "solve-cartpole": {"env": "CartPole-v1", "whole_run": True, "episodes": 100, "threshold": 475},
    "solve-cartpole-first": {
        "env": "CartPole-v1",
        "whole_run": False,
        "interval": 5120,
        "episodes": 100,
        "threshold": 475,
    },
}
NAMES = {
    "ours": "kerasrl_pg",
    "ours-cached": "kerasrl_pg, its programs in XLA's cache",
    "purejaxrl": "PureJaxRL",
    "sb3": "Stable-Baselines3",
}
ONE_TF_THREAD = {"TF_NUM_INTRAOP_THREADS": "1"}
OURS = {"default threads": ([], {}), "1 TensorFlow thread": ([], ONE_TF_THREAD)}
# What a user can turn: (arguments, environment variables). 0 threads: torch's default.
SETTINGS = {
    "ours": OURS,
    "ours-cached": OURS,
    "purejaxrl": {
        "default threads": ([], {}),
        "serial XLA": ([], XLA_SERIAL),
        "1 XLA thread": ([], {"NPROC": "1"}),  # read by XLA's CPU client
    },
    "sb3": {"1 torch thread": (["1"], {}), "default threads": (["0"], {})},
}
PATIENCE = 90  # Seconds; the slowest run that ended took 25. PureJaxRL's ten seeds can wait for each other for ever.
# Either would spare a process compilations that another one has done, as would the library's own cache.
CACHES = ("TF_XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR")


def solves(case):
    return "threshold" in case


def run(side, case, places, setting):
    """One measured process; its report as a dictionary, or None where it did not end in time."""
    arguments, variables = setting
    ours = side.startswith("ours")
    what = "solve" if solves(case) else "compiled_run" if ours else "run"
    program = HERE / (f"ours_{what}.py" if ours else f"peers/{side}_{what}.py")
    command = [sys.executable if ours else places[side], str(program), json.dumps(case)]
    environment = {name: value for name, value in os.environ.items() if name not in CACHES}
    environment |= {"TF_CPP_MIN_LOG_LEVEL": "2", **variables}
    environment["KERASRL_PG_CACHE"] = places["cache"] if side == "ours-cached" else ""
    if side == "purejaxrl":
        command.append(places["checkout"])
    load = os.getloadavg()[0]
    if solves(case):
        command.append(repr(time.time()))
    try:
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, env=environment, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return None
    if done.returncode:
        sys.exit(f"{shlex.join(command)} must end well. Received:\n{done.stderr[-3000:]}")
    return {**json.loads(done.stdout.splitlines()[-1]), "load_average": load}


def merit(case, report):
    """What is compared, larger being better: steps a second, or one over the seconds until solved."""
    if solves(case):
        return 1.0 / report["seconds"] if report["solved"] else 0.0
    return report["steps_per_second"]


def speed(case, report):
    """What decides between settings: steps a second, in either kind of case."""
    if not solves(case):
        return report["steps_per_second"]
    (first, _, begun), (last, _, ended) = report["evaluations"][0], report["evaluations"][-1]
    return (last - first) / (ended - begun) if last > first else last / ended


def measure(case, sides, repeats, places, command, show):
    """Tries the settings, then alternates the sides; returns what the table needs."""
    host = machine()
    trials, settings = {}, {}
    for side in sides:
        trials[side] = {}
        for name, setting in SETTINGS[side].items():
            report = run(side, {**case, "seed": 0}, places, setting)
            trials[side][name] = 0.0 if report is None else speed(case, report)
            show(f"trial, {side}, {name}", report)
        settings[side] = max(trials[side], key=trials[side].get)
    runs = {side: [] for side in sides}
    for repeat in range(repeats):
        # Turned round every other time, so that no side always follows the same one.
        for side in sides if repeat % 2 == 0 else sides[::-1]:
            report = run(side, {**case, "seed": repeat}, places, SETTINGS[side][settings[side]])
            show(f"repeat {repeat + 1}, {side}", report)
            if report is None:
                sys.exit(
                    f"{NAMES[side]} must end within {PATIENCE} s. Received: a run of {settings[side]} that did not."
                )
            runs[side].append(report)
    *ours, peer = [[merit(case, report) for report in runs[side]] for side in sides]
    return {
        "case": case,
        "date": datetime.date.today().isoformat(),
        "command": command,
        "machine": host,
        "versions": {side: runs[side][0]["versions"] for side in sides},
        "trials": trials,
        "settings": settings,
        "runs": runs,
        "ratio": {side: ratio(merits, peer) for side, merits in zip(sides, ours, strict=False)},
    }


def ratio(ours, theirs):
    """Median and extremes of ours / theirs by pairs; a pair that neither side solved counts as 1, and inf is null."""
    pairs = [1.0 if a == b == 0.0 else a / b if b else math.inf for a, b in zip(ours, theirs, strict=True)]
    ends = {"median": statistics.median(pairs), "min": min(pairs), "max": max(pairs)}
    return {name: value if math.isfinite(value) else None for name, value in ends.items()}


def spread(values, form=",.1f"):
    """`median (lowest ... highest)`."""
    if len(values) == 1:
        return f"{values[0]:{form}}"
    return f"{statistics.median(values):{form}} ({min(values):{form}} ... {max(values):{form}})"


def told_ratio(result, side):
    if side not in result["ratio"]:
        return "-"
    told = {name: "∞" if value is None else f"{value:.2f}" for name, value in result["ratio"][side].items()}
    return "{median} ({min} ... {max})".format(**told)


def throughput_lines(result):
    """The table of a case against PureJaxRL."""
    yield "| side | env steps/s | ours / theirs, by pairs | compilation, s | imports, s | returns at the end |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: |"
    for side, reports in result["runs"].items():
        column = {key: [report[key] for report in reports] for key in reports[0]}
        yield (
            f"| {NAMES[side]} ({result['settings'][side]}) | {spread(column['steps_per_second'], ',.0f')} "
            f"| {told_ratio(result, side)} | {spread(column['compile_seconds'])} | {spread(column['import_seconds'])} "
            f"| {spread(column['last_returns'], '.0f')} |"
        )
    yield ""
    for side, trials in result["trials"].items():
        for name, rate in trials.items():
            if rate == 0.0:
                yield f"{NAMES[side]} with {name} did not end in {PATIENCE} s, and was left out.\n"
    yield (
        f"{result['case']['steps']:,} environment steps a run; steps/s without compilation. PureJaxRL's own settings "
        "on both sides: 4 passes of 4 minibatches, Adam with 2.5e-4 falling to 0, γ 0.99, λ 0.95, clipping 0.2 of "
        "ratio and values, entropy bonus 0.01, half the squared error times 0.5, gradient norm 0.5; networks 64 x 64 "
        "tanh, policy and value separate. "
        "Its gymnax environment takes the time limit of 500 steps for a terminal state; ours asks the critic there. "
        "Returns: mean of the last 100 training episodes."
    )


def solve_lines(result):
    """The table of the time until solved."""
    case = result["case"]
    yield "| side | solved | seconds until solved | theirs / ours, by pairs | env steps | imports, s | evaluations, s |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    for side, reports in result["runs"].items():
        solved = [report for report in reports if report["solved"]]
        seconds = spread([report["seconds"] for report in solved]) if solved else "-"
        steps = spread([report["steps"] for report in solved], ",.0f") if solved else "-"
        yield (
            f"| {NAMES[side]} ({result['settings'][side]}) | {len(solved)} of {len(reports)} | {seconds} "
            f"| {told_ratio(result, side)} | {steps} | {spread([report['import_seconds'] for report in reports])} "
            f"| {spread([report['evaluation_seconds'] for report in reports])} |"
        )
    yield ""
    when = (
        "the policy at the end of each side's whole run"
        if case["whole_run"]
        else f"the first evaluation (every {case['interval']:,} steps there, every 16,384 here)"
    )
    yield (
        f"Solved: {when} has a mean return of at least {case['threshold']} over {case['episodes']} deterministic "
        f"episodes in gymnasium's own {case['env']}. The clock runs from the start of the process, imports and "
        "compilation included, and stands still during evaluations. Seconds and steps: of the runs that solved it. A "
        "run that did not counts as infinitely slow in the pairs. Ours: `benchmarks/ours_solve.py`, on the compiled "
        "CartPole, 131,072 steps at most; theirs: RL Baselines3 Zoo's tuned settings for CartPole-v1, 100,000 steps at "
        "most."
    )


def section(name, result):
    """One case as Markdown."""
    host, runs = result["machine"], result["runs"]
    loads = [report["load_average"] for reports in runs.values() for report in reports]
    versions = [f"{key} {value}" for side in result["versions"].values() for key, value in side.items()]
    return "\n".join(
        [
            f"## {name}",
            "",
            *(solve_lines if solves(result["case"]) else throughput_lines)(result),
            "",
            f"{len(runs['ours'])} alternating runs a side, seeds 0, 1, ...; median (lowest ... highest). "
            f"{result['date']}, {host['cpu']}, {host['cpus']} CPUs, load average {min(loads):.1f} to {max(loads):.1f} "
            f"when the runs began, Python {host['python']}. Versions: {', '.join(dict.fromkeys(versions))}.",
            "",
            f"    {result['command']}",
            "",
        ]
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--case", choices=CASES, action="append", help="default: all")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--purejaxrl", help="a checkout of github.com/luchris429/purejaxrl")
    parser.add_argument("--purejaxrl_python", default=str(HERE / ".venv-purejaxrl/bin/python"))
    parser.add_argument("--peers_python", default=str(HERE / ".venv/bin/python"))
    arguments = parser.parse_args()
    names = arguments.case or list(CASES)
    if arguments.repeats < 1:
        parser.error(f"--repeats must be at least 1. Received: {arguments.repeats}.")
    needed = {
        ("peers", arguments.peers_python) if solves(CASES[name]) else ("purejaxrl", arguments.purejaxrl_python)
        for name in names
    }
    for peer, python in needed:
        if not os.access(python, os.X_OK):
            parser.error(
                f"--{peer}_python must be the Python of an environment that `make bench-{peer}` makes. "
                f"Received: {python}."
            )
    if "purejaxrl" in dict(needed) and not os.path.exists(os.path.join(arguments.purejaxrl or "", "purejaxrl/ppo.py")):
        parser.error(f"--purejaxrl must be a checkout that holds purejaxrl/ppo.py. Received: {arguments.purejaxrl}.")

    def show(what, report):
        if report is None:
            print(f"{what}: did not end in {PATIENCE} s", flush=True)
            return
        rate = f"{report['seconds']:.1f} s" + (
            f", {'' if report['solved'] else 'not '}solved after {report['steps']:,} steps"
            if "solved" in report
            else f", {report['steps_per_second']:,.0f} steps/s, compiled in {report['compile_seconds']:.1f} s"
        )
        print(f"{what}: {rate}", flush=True)

    path = RESULTS / "compiled.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    for name in names:
        sides = ["ours", "ours-cached", "sb3"] if solves(CASES[name]) else ["ours", "purejaxrl"]
        # Where the peers are installed is this machine's affair.
        checkout = ["--purejaxrl=CHECKOUT"] * ("purejaxrl" in sides)
        command = f"--case={name} --repeats={arguments.repeats}"
        command = " ".join(["python benchmarks/compiled.py", command, *checkout])
        print(name, flush=True)
        with tempfile.TemporaryDirectory() as cache:
            places = {
                "purejaxrl": arguments.purejaxrl_python,
                "sb3": arguments.peers_python,
                "checkout": arguments.purejaxrl,
                "cache": cache,
            }
            results[name] = measure(CASES[name], sides, arguments.repeats, places, command, show)
        results = {name: results[name] for name in CASES if name in results}
        path.write_text(json.dumps(results, indent=1) + "\n")
        text = "# Compiled training\n\n" + "\n".join(section(name, results[name]) for name in results)
        path.with_suffix(".md").write_text(text)


if __name__ == "__main__":
    main()
