"""What the weighted average costs: the norms of the gradient of every step of a rollout.

    .venv/bin/python benchmarks/baselines.py

Each case is a process of its own with one TensorFlow thread: REINFORCE on the compiled CartPole, 16 environments of 128
steps, 2,048 rows; policy of two layers of 64 units. It warms up, then times `repeats` iterations; memory is what the
process's peak grows by from before the program is compiled to the end. Writes `results/baselines.json` and `.md`.
"""

import argparse
import json
import resource
import statistics
import time
from pathlib import Path

from records import Records, origin, run_all, run_apart

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "baselines.json"
CASES = "None", "AverageReturn", "TimeDependent", "WeightedAverage", "WeightedAverage by step", "ValueFunction"
ROWS, ENVS = 128, 16


def baseline(name):
    import kerasrl_pg as pg

    if name == "None":
        return None
    if name.endswith("by step"):
        return pg.baselines.WeightedAverage(by_step=True)
    return getattr(pg.baselines, name)()


def measure(name, repeats):
    """Seconds of an iteration, and MiB that the process's peak grew by."""
    import keras

    import kerasrl_pg as pg

    agent = pg.REINFORCE(baseline=baseline(name), horizon=ROWS, networks=pg.Networks((64, 64)), seed=0)
    agent.compile(keras.optimizers.Adam(1e-4), steps_per_execution=10)
    env = pg.envs.CartPole(num_envs=ENVS)
    pg.REINFORCE(horizon=ROWS, seed=0).bind(env.observation_space, env.action_space)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    agent.fit(env, epochs=1, steps_per_epoch=10, verbose=0)
    seconds = []
    for _ in range(repeats):
        begun = time.perf_counter()
        agent.fit(env, epochs=1, steps_per_epoch=10, verbose=0)
        seconds.append((time.perf_counter() - begun) / 10)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return {"milliseconds": 1000 * statistics.median(seconds), "mebibytes": grown}


def report(records):
    none = next(r for r in records if r["case"] == "None")
    lines = [
        "REINFORCE on the compiled CartPole, 16 x 128 = 2,048 rows an iteration, policy of 64 x 64, one thread,",
        f"median of {none['repeats']} runs of ten iterations. `.venv/bin/python benchmarks/baselines.py`",
        "",
        "| baseline | ms an iteration | MiB that the peak grows by, compilation included |",
        "| --- | --- | --- |",
    ]
    for name in CASES:
        r = next(r for r in records if r["case"] == name)
        lines.append(
            f"| {name} | {r['milliseconds']:.1f} ({r['milliseconds'] / none['milliseconds']:.2f}x) | "
            f"{r['mebibytes']:.0f} |"
        )
    lines += ["", f"Measured {none['date']}, {', '.join(f'{k} {v}' for k, v in none['versions'].items())}."]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", help="one case, in this process: its JSON on the last line")
    parser.add_argument("--repeats", type=int, default=11)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measure(arguments.case, arguments.repeats)))
        return
    records = Records(RESULTS, key=lambda r: CASES.index(r["case"]))

    def run(name):
        found = run_apart(__file__, [f"--case={name}", f"--repeats={arguments.repeats}"])
        records.add({"case": name, "repeats": arguments.repeats, **found, **origin()})

    run_all(run, [(name,) for name in CASES], 1)
    RESULTS.with_suffix(".md").write_text(report(records.load()))


if __name__ == "__main__":
    main()
