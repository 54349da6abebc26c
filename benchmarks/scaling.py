"""How the cost of a compiled iteration grows: `python benchmarks/scaling.py`, about ten minutes.

PPO on the compiled CartPole: environment steps per second over the number of environments and over the width of the
networks, beside what the machine's arithmetic would allow; and the memory that a rollout takes.
"""

import datetime
import json
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

from throughput import machine

RESULTS = Path(__file__).parent / "results"
PASSES = 4
BASE = {"num_envs": 64, "horizon": 128, "width": 64}
ENVS = [{**BASE, "num_envs": n} for n in (1, 4, 16, 64, 256, 1024, 4096)]
WIDTHS = [{**BASE, "width": w} for w in (16, 32, 64, 128, 256, 512, 1024)]
MEMORY = [{**BASE, "num_envs": n, "horizon": t} for n in (64, 512, 4096) for t in (32, 128, 512)]


def flops_per_step(width, observations=4, actions=2):
    """Multiplications and additions of the matrix products, by environment step.

    The policy acts once, is recomputed once for the ratio; the critic values s and s'; each pass runs both forwards
    and backwards, three products for one. What is not a matrix product (tanh, Adam, sorting) is left out.
    """
    policy = 2 * (observations * width + width * width + width * actions)
    critic = 2 * (observations * width + width * width + width)
    return 2 * policy + 2 * critic + PASSES * 3 * (policy + critic)


def peak_flops(size=2048, repeats=10):
    """Operations per second of one large float32 product in XLA: the most that the machine was seen to do."""
    import tensorflow as tf

    product = tf.function(lambda x: x @ x, jit_compile=True)
    x = tf.random.normal((size, size))
    product(x).numpy()
    best = 0.0
    for _ in range(repeats):
        started = time.perf_counter()
        product(x).numpy()
        best = max(best, 2 * size**3 / (time.perf_counter() - started))
    return best


def run(case):
    """One case in this process."""
    import keras

    import kerasrl_pg as pg

    n, horizon, width = case["num_envs"], case["horizon"], case["width"]
    agent = pg.PPO(
        horizon=horizon,
        minibatch_size=n * horizon // 4,
        update_epochs=PASSES,
        networks=pg.Networks(hidden_units=(width, width)),
        seed=0,
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    agent.compile(keras.optimizers.Adam(2.5e-4, epsilon=1e-5, global_clipnorm=0.5), steps_per_execution=1000)
    env = pg.envs.CartPole(num_envs=n)

    def seconds(iterations):
        started = time.perf_counter()
        agent.fit(env, epochs=1, steps_per_epoch=iterations, verbose=0)
        return time.perf_counter() - started

    first = seconds(1)
    once = seconds(1)
    iterations = max(2, min(2000, int(3.0 / once)))
    rates = [iterations * n * horizon / seconds(iterations) for _ in range(3)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {**case, "steps_per_second": sorted(rates)[1], "rates": rates, "first_call": first, "memory": peak - before}


def apart(case):
    """One case in a process of its own, so that its memory is its own."""
    # Without the cache, so that every case compiles, and its memory holds that, too.
    environment = {**os.environ, "KERASRL_PG_CACHE": ""}
    command = [sys.executable, __file__, json.dumps(case)]
    out = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return json.loads(out.stdout.splitlines()[-1])


def figure(result, path):
    """Three pictures: over environments, over width, and memory."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(12, 3.6), layout="constrained")
    left, middle, right = drawing.subplots(1, 3)
    for axes, rows, name, label in (
        (left, result["envs"], "num_envs", "environments"),
        (middle, result["widths"], "width", "units of each of two hidden layers"),
    ):
        x = [row[name] for row in rows]
        bound = [result["peak_flops"] / flops_per_step(row["width"]) for row in rows]
        axes.loglog(x, [row["steps_per_second"] for row in rows], "o-", label="measured")
        axes.loglog(x, bound, "--", color="gray", label="the machine's arithmetic")
        axes.set(xlabel=label, ylabel="environment steps per second")
        axes.legend()
    for n in sorted({row["num_envs"] for row in result["memory"]}):
        rows = [row for row in result["memory"] if row["num_envs"] == n]
        sizes = [row["num_envs"] * row["horizon"] for row in rows]
        right.loglog(sizes, [row["memory"] / 2**20 for row in rows], "o-", label=f"{n} environments")
    right.set(xlabel="horizon x environments", ylabel="MiB beyond the imported library")
    right.legend()
    drawing.savefig(path, dpi=110)


def table(result):
    """The record as Markdown."""
    lines = [
        "# How the cost grows",
        "",
        f"PPO on the compiled CartPole, {PASSES} passes in 4 minibatches, two tanh networks of two hidden layers; "
        f"horizon {BASE['horizon']}, {BASE['num_envs']} environments and {BASE['width']} units where not said "
        "otherwise. Medians of three fits of about 3 s, compilation apart. Share: of the matrix products that the "
        f"machine was seen to do, {result['peak_flops'] / 1e9:.0f} GFLOP/s (one product of 2048 x 2048 in XLA).",
        "",
        f"{result['date']}, {result['machine']['cpu']}, {result['machine']['cpus']} CPUs, load average "
        f"{result['machine']['load_average']:.1f} before it began, Python {platform.python_version()}.",
        "",
        "    python benchmarks/scaling.py",
        "",
        "![Steps per second over environments and width; memory over the size of the rollout](scaling.png)",
    ]
    for key, name in (("envs", "num_envs"), ("widths", "width")):
        lines += [
            "",
            f"| {name} | env steps/s | share of the arithmetic | first call, s |",
            "| ---: | ---: | ---: | ---: |",
        ]
        for row in result[key]:
            share = row["steps_per_second"] * flops_per_step(row["width"]) / result["peak_flops"]
            lines.append(f"| {row[name]} | {row['steps_per_second']:,.0f} | {share:.0%} | {row['first_call']:.1f} |")
    lines += ["", "| num_envs | horizon | MiB | bytes by transition |", "| ---: | ---: | ---: | ---: |"]
    for row in result["memory"]:
        size = row["num_envs"] * row["horizon"]
        lines.append(
            f"| {row['num_envs']} | {row['horizon']} | {row['memory'] / 2**20:,.0f} | {row['memory'] / size:,.0f} |"
        )
    return "\n".join(lines) + "\n"


def main():
    if len(sys.argv) > 1:
        print(json.dumps(run(json.loads(sys.argv[1]))))
        return
    result = {"machine": machine(), "date": datetime.date.today().isoformat(), "peak_flops": peak_flops()}
    for key, cases in (("envs", ENVS), ("widths", WIDTHS), ("memory", MEMORY)):
        result[key] = []
        for case in cases:
            result[key].append(apart(case))
            print(key, case, f"{result[key][-1]['steps_per_second']:,.0f} steps/s", flush=True)
    (RESULTS / "scaling.json").write_text(json.dumps(result, indent=1) + "\n")
    (RESULTS / "scaling.md").write_text(table(result))
    figure(result, RESULTS / "scaling.png")


if __name__ == "__main__":
    main()
