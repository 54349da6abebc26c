"""Environment steps a second of kerasrl_pg, Stable-Baselines3 and SBX, side by side.

    .venv/bin/python benchmarks/throughput.py --case ppo-cartpole --repeats 5

Each run is a process of its own; sides alternate, so that what else the machine does falls on
all of them. Each side is first tried once in each of its settings, and measured in the fastest.
The clock starts when the `warmup` iterations of the case are over, on every side, so imports,
tracing and compilation are off it; it stops when training returns. Writes
`results/throughput.md` and `.json`, keeping the other cases that are there.
"""

import argparse
import datetime
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
from pathlib import Path

from cases import CASES

HERE = Path(__file__).parent
RESULTS = HERE / "results"
NAMES = {"ours": "kerasrl_pg", "sb3": "Stable-Baselines3", "sbx": "SBX"}
# What a user can turn: (arguments, environment variables). 0 threads: torch's default.
XLA_SERIAL = {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}
SETTINGS = {
    "ours": {"1 TensorFlow thread": ([], {"TF_NUM_INTRAOP_THREADS": "1"}), "default threads": ([], {})},
    "sb3": {"1 torch thread": (["1"], {}), "default threads": (["0"], {})},
    "sbx": {
        "1 torch thread": (["1"], {}),
        "default threads": (["0"], {}),
        "1 torch thread, serial XLA": (["1"], XLA_SERIAL),
    },
}


ONE_THREAD = {side: {name: choices[name] for name in list(choices)[:1]} for side, choices in SETTINGS.items()}


def run(side, case, peers_python, setting=((), ())):
    """One measured process, which finds `games.py`; its report as a dictionary."""
    arguments, variables = setting
    program = "ours_run.py" if side == "ours" else f"peers/{side}_run.py"
    python = sys.executable if side == "ours" else peers_python
    command = [str(python), str(HERE / program), json.dumps(case), *arguments]
    places = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": places, "TF_CPP_MIN_LOG_LEVEL": "2", **dict(variables)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"{shlex.join(command)} must end well. Received:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def in_turns(choices, run, cost, repeats):
    """Measures sides in turns, each in the setting that cost least in a first try.

    Args:
        choices: By side, its settings by their names.
        run: Function from a side, a seed and a setting to a report.
        cost: Function from a report to what is better when it is less.
        repeats: Runs of each side, of seeds 0, 1, ...

    Returns:
        `(names, runs)`, by side: the chosen setting's name, and the reports.
    """
    names, runs = {}, {side: [] for side in choices}
    for side, settings in choices.items():
        trials = {name: cost(run(side, 0, setting)) for name, setting in settings.items()}
        names[side] = min(trials, key=trials.get)
    for seed in range(repeats):
        for side in list(choices)[:: 1 if seed % 2 == 0 else -1]:
            runs[side].append(run(side, seed, choices[side][names[side]]))
    return names, runs


def check_peers(parser, python):
    """Ends the program where there is no such Python."""
    if not os.access(python, os.X_OK):
        parser.error(
            "--peers_python must be the Python of the peers' environment; `make bench-peers` makes "
            f"one. Received: {python}."
        )


def show(what, report):
    print(f"{what}: {report['steps_per_second']:,.0f} steps/s", flush=True)


def measure(case, sides, repeats, peers_python, choices=SETTINGS):
    """Tries the settings where there is a choice, then alternates the sides; returns what the table needs."""
    host = machine()
    trials, settings = {}, {}
    for side in sides:
        trials[side] = {}
        for name, setting in choices[side].items():
            if len(choices[side]) > 1:
                trials[side][name] = run(side, {**case, "seed": 0}, peers_python, setting)
                show(f"trial, {side}, {name}", trials[side][name])
        best = max(choices[side], key=lambda name: trials[side].get(name, {}).get("steps_per_second", 0))
        settings[side] = best
    runs = {side: [] for side in sides}
    for repeat in range(repeats):
        # Turned round every other time, so that no side always follows the same one.
        for side in sides if repeat % 2 == 0 else sides[::-1]:
            report = run(side, {**case, "seed": repeat}, peers_python, choices[side][settings[side]])
            runs[side].append(report)
            show(f"repeat {repeat + 1}, {side}", report)
    rates = {side: [report["steps_per_second"] for report in runs[side]] for side in sides}
    pairs = {
        side: [ours / theirs for ours, theirs in zip(rates["ours"], rates[side], strict=True)]
        for side in sides
        if side != "ours"
    }
    # Where the peers are installed is this machine's affair.
    place = sys.argv.index("--peers_python") if "--peers_python" in sys.argv else len(sys.argv)
    recorded = sys.argv[1:place] + sys.argv[place + 2 :]
    trial_rates = {
        side: {name: report["steps_per_second"] for name, report in trial.items()} for side, trial in trials.items()
    }
    return {
        "case": case,
        "date": datetime.date.today().isoformat(),
        "command": shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *recorded]),
        "machine": host,
        "versions": {side: runs[side][0]["versions"] for side in sides},
        "trials": trial_rates,
        "settings": settings,
        "runs": runs,
        "median": {side: statistics.median(values) for side, values in rates.items()},
        "ratio": {side: {"median": statistics.median(r), "min": min(r), "max": max(r)} for side, r in pairs.items()},
    }


def machine():
    """The CPU, how many this process may use, and how busy they are now."""
    model = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        model = names[0] if names else model
    return {
        "cpu": model,
        "cpus": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_average": os.getloadavg()[0],
    }


def table(name, result, names=NAMES):
    """One case as Markdown."""
    case, host = result["case"], result["machine"]
    lines = [
        f"## {name}: {case['algorithm'].upper().replace('_', ' ')} on {case['env']}, "
        f"{case['num_envs']} environments x {case['horizon']} steps",
        "",
        "| side | env steps/s, median | lowest ... highest | ours / theirs, median of pairs "
        "(lowest ... highest) | returns at the end |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for side, reports in result["runs"].items():
        rates = [report["steps_per_second"] for report in reports]
        ratio = "-"
        if side in result["ratio"]:
            ratio = "{median:.2f} ({min:.2f} ... {max:.2f})".format(**result["ratio"][side])
        ends = statistics.median(report["last_returns"] for report in reports)
        setting = f" ({result['settings'][side]})" if side in result["settings"] else ""
        lines.append(
            f"| {names[side]}{setting} | {result['median'][side]:,.0f} | "
            f"{min(rates):,.0f} ... {max(rates):,.0f} | {ratio} | {ends:.4g} |"
        )
    told = ", ".join(f"{key} {value}" for key, value in case.items() if key not in ("env", "steps", "networks"))
    networks = case.get("networks", "64 x 64 tanh, policy and value separate")
    versions = [f"{k} {v}" for side in result["versions"].values() for k, v in side.items()]
    lines += [
        "",
        f"{len(result['runs']['ours'])} alternating runs a side of {case['steps']:,} environment "
        f"steps after {case['warmup']} iterations of warm-up; seeds 0, 1, ... Returns: mean of the "
        "last 100 training episodes, median of the runs. "
        f"{result['date']}, {host['cpu']}, {host['cpus']} CPUs, load average "
        f"{host['load_average']:.1f} before it began, Python {host['python']}.",
        "",
        f"Told to each side: {told}; networks {networks}.",
        "",
        f"Versions: {', '.join(dict.fromkeys(versions))}.",
        "",
        f"    {result['command']}",
        "",
    ]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--case", choices=CASES, action="append", help="default: all")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, help="environment steps on the clock of each run")
    parser.add_argument("--peers_python", default=str(HERE / ".venv/bin/python"))
    arguments = parser.parse_args()
    if arguments.repeats < 1:
        parser.error(f"--repeats must be at least 1. Received: {arguments.repeats}.")
    check_peers(parser, arguments.peers_python)

    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "throughput.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    for name in arguments.case or CASES:
        case = dict(CASES[name])
        if arguments.steps:
            case["steps"] = arguments.steps
        sides = ["ours", "sb3"] + ["sbx"] * (case["algorithm"] == "ppo")  # SBX has no A2C
        print(name, flush=True)
        results[name] = measure(case, sides, arguments.repeats, arguments.peers_python)
        results = {name: results[name] for name in CASES if name in results}
        path.write_text(json.dumps(results, indent=1) + "\n")
        text = "# Throughput\n\n" + "\n".join(table(name, results[name]) for name in results)
        path.with_suffix(".md").write_text(text)


if __name__ == "__main__":
    main()
