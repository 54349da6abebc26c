"""One TRPO update of kerasrl_pg and of Stable-Baselines3-Contrib, side by side.

    make bench-peers
    .venv/bin/python benchmarks/trpo_update.py --repeats=5

Each run is a process of its own; sides alternate. Each side collects a rollout with its first policy, then makes the
update from it again and again, always from the same weights: conjugate gradient, line search and the critic's
regression; ours estimates the advantages, too, which Stable-Baselines3 does while collecting. Compilation is off the
clock. Each side is measured in the faster of its thread settings.
"""

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from throughput import check_peers, in_turns, machine

HERE = Path(__file__).parent
RESULTS = HERE / "results"
# Stable-Baselines3-Contrib's defaults for TRPO. Its `line_search_max_iter` counts the whole step, too.
CASE = {
    "env": "HalfCheetah-v5",
    "samples": 2048,
    "gamma": 0.99,
    "gae_lambda": 0.95,
    "max_kl": 0.01,
    "cg_iterations": 15,
    "damping": 0.1,
    "backtracks": 9,
    "backtrack_ratio": 0.8,
    "critic_passes": 10,
    "minibatch_size": 128,
    "learning_rate": 1e-3,
    "warmup": 3,
    "updates": 30,
}
SETTINGS = {
    "ours": {"1 TensorFlow thread": ([], {"TF_NUM_INTRAOP_THREADS": "1"}), "default threads": ([], {})},
    "sb3": {"1 torch thread": (["1"], {}), "default threads": (["0"], {})},
}
NAMES = {"ours": "kerasrl_pg", "sb3": "Stable-Baselines3-Contrib"}


def run(side, seed, peers_python, setting):
    """One measured process; its report, seconds an update as their median."""
    arguments, variables = setting
    program = "ours_trpo_update.py" if side == "ours" else "peers/sb3_trpo_update.py"
    command = [sys.executable if side == "ours" else peers_python, str(HERE / program)]
    command += [json.dumps({**CASE, "seed": seed}), *arguments]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **variables}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"{program} must end well. Received:\n{done.stderr[-3000:]}")
    report = json.loads(done.stdout.splitlines()[-1])
    report["milliseconds"] = 1000 * statistics.median(report.pop("seconds"))
    print(side, seed, f"{report['milliseconds']:.1f} ms, KL {report['kl']:.4f}", flush=True)
    return report


def table(result):
    """The record as Markdown."""
    lines = [
        "# One TRPO update",
        "",
        "| side | ms, median (lowest ... highest) | theirs / ours, by pairs | first call, s | KL after, nats |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for side, reports in result["runs"].items():
        times = [report["milliseconds"] for report in reports]
        pairs = "{median:.1f} ({min:.1f} ... {max:.1f})".format(**result["ratio"]) if side == "sb3" else "-"
        lines.append(
            f"| {NAMES[side]} ({result['settings'][side]}) "
            f"| {statistics.median(times):.1f} ({min(times):.1f} ... {max(times):.1f}) | {pairs} "
            f"| {statistics.median(report['first_call'] for report in reports):.1f} "
            f"| {statistics.median(report['kl'] for report in reports):.4f} |"
        )
    host = result["machine"]
    versions = {**result["runs"]["ours"][0]["versions"], **result["runs"]["sb3"][0]["versions"]}
    told = ", ".join(f"{key} {value}" for key, value in CASE.items())
    named = ", ".join(f"{key} {value}" for key, value in versions.items())
    return "\n".join(
        [
            *lines,
            "",
            f"{len(result['runs']['ours'])} alternating processes a side, seeds 0, 1, ...; in each the median of "
            f"{CASE['updates']} updates. Told to each side: {told}; networks 64 x 64 tanh, policy and value separate. "
            "Stable-Baselines3-Contrib takes the mean of the KL divergence over the action's dimensions where ours is "
            "their sum, the divergence itself, so that its bound of 0.01 is one of 0.06 nats; the table's is the sum.",
            "",
            f"{result['date']}, {host['cpu']}, {host['cpus']} CPUs, load average {host['load_average']:.1f} before "
            f"it began, Python {host['python']}. Versions: {named}.",
            "",
            f"    python benchmarks/trpo_update.py --repeats={len(result['runs']['ours'])}",
            "",
        ]
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peers_python", default=str(HERE / ".venv/bin/python"))
    arguments = parser.parse_args()
    check_peers(parser, arguments.peers_python)
    host = machine()

    def measured(side, seed, setting):
        return run(side, seed, arguments.peers_python, setting)

    settings, runs = in_turns(SETTINGS, measured, lambda report: report["milliseconds"], arguments.repeats)
    pairs = [b["milliseconds"] / a["milliseconds"] for a, b in zip(runs["ours"], runs["sb3"], strict=True)]
    result = {
        "case": CASE,
        "date": datetime.date.today().isoformat(),
        "machine": host,
        "settings": settings,
        "runs": runs,
        "ratio": {"median": statistics.median(pairs), "min": min(pairs), "max": max(pairs)},
    }
    (RESULTS / "trpo_update.json").write_text(json.dumps(result, indent=1) + "\n")
    (RESULTS / "trpo_update.md").write_text(table(result))


if __name__ == "__main__":
    main()
