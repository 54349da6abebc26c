"""What the presets reach: final return by seed, its interquartile mean, and the learning curves.

    .venv/bin/python benchmarks/learning.py --processes=2
    .venv/bin/python benchmarks/learning.py --preset=PPO_CARTPOLE --seeds=10

Every (preset, seed) is a process of its own, with one TensorFlow thread, so that two run side by
side. It trains for the preset's budget, then plays 100 deterministic episodes with the final
policy, on new environments with seeds of their own. Each finished run is written to
`results/learning.json` at once; runs that are there already, with the same settings, are not run
again. At the end `results/learning.md` and `learning.png` are made from that file.
"""

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path

from records import Records, fingerprint, origin, run_all, run_apart, told

RESULTS = Path(__file__).parent / "results" / "learning.json"
# (seeds, the return that the final policy should reach)
TARGETS = {
    "PPO_CARTPOLE": (10, 475),
    "A2C_CARTPOLE": (5, 475),
    "REINFORCE_CARTPOLE": (5, 450),
    "PPO_ACROBOT": (10, -85),
    "PPO_PENDULUM": (5, -180),
    "PPO_LUNAR_LANDER": (5, 240),
    "PPO_HALF_CHEETAH": (5, 4000),
    "PPO_HOPPER": (5, 2400),
    "TRPO_CARTPOLE": (5, 500),
    "NPG_CARTPOLE": (5, 500),
    "TRPO_ACROBOT": (5, -85),
    "NPG_ACROBOT": (5, -85),
    "TRPO_HALF_CHEETAH": (5, 4471),
    "TRPO_HOPPER": (5, 3372),
    "TRPO_WALKER": (5, 4502),
    "TRPO_SWIMMER": (5, 359),
    "TRPO_INVERTED_DOUBLE_PENDULUM": (5, 8435),
    "NPG_HALF_CHEETAH": (5, 3485),
    "NPG_HOPPER": (5, 1915),
    "NPG_WALKER": (5, 2503),
    "NPG_SWIMMER": (5, 32),
    "NPG_INVERTED_DOUBLE_PENDULUM": (5, 9243),
}
# After 1M steps: Tianshou's examples/mujoco (maximum over training of the mean of ten seeds' evaluations; MuJoCo v3,
# InvertedDoublePendulum v2), and Stable-Baselines3-Contrib's docs/modules/trpo.rst (final policy, three seeds).
PUBLISHED = {
    "TRPO_HALF_CHEETAH": (4471, 1803),
    "TRPO_HOPPER": (2046, 3372),
    "TRPO_WALKER": (3827, 4502),
    "TRPO_SWIMMER": (41, 359),
    "TRPO_INVERTED_DOUBLE_PENDULUM": (8435, None),
    "NPG_HALF_CHEETAH": (3485, None),
    "NPG_HOPPER": (1915, None),
    "NPG_WALKER": (2503, None),
    "NPG_SWIMMER": (32, None),
    "NPG_INVERTED_DOUBLE_PENDULUM": (9243, None),
}
# What was tried first, and what it gave: the return of the final policy, a number for each seed.
TRIED = {
    "REINFORCE_CARTPOLE": "without annealing: 412, 500, 500, 500, 500 (seeds 0 to 4).",
    "PPO_ACROBOT": "observations normalised, minibatches of 256: -89 (seed 0) without entropy "
    "bonus, -82, -83, -86, -160, -92 (0 to 4) with 0.01; ReLU, horizon 64: -170, -85 (3, 4); "
    "not normalised, minibatches of 128, bonus 0.02, 10 passes: -84, -95, -85, -82, -86 (0 to 4).",
    "PPO_PENDULUM": "observations normalised, horizon 512, γ 0.9: -189, -168 (seeds 0, 1); not "
    "normalised, horizon 256, annealed: -177, -168, -178 (0 to 2); with ReLU too: -167, -167, "
    "-172; with γ 0.95 and tanh: -164, -150, -147.",
    "TRPO_WALKER": "δ = 0.02, nothing falling: 4574, 2753, 4432, 3894, 4692 (seeds 0 to 4), of which 1 and 3 were "
    "tried again with δ and rate falling before all were.",
    "TRPO_SWIMMER": "without entropy bonus: 361, 363, 120 (seeds 0 to 2, 50 episodes), with γ 0.995, too: 153, 363 "
    "(0, 1).",
    "TRPO_INVERTED_DOUBLE_PENDULUM": "with scaled rewards 3900 to 9200, by settings and seeds; γ 0.99, log σ = -2 at "
    "first, or observations as they are: worse (single seeds, half of them with the natural gradient).",
    "PPO_LUNAR_LANDER": "8 environments of 512 steps, 6 passes, minibatches of 128, half the "
    "entropy bonus and critic's weight: 228 (seed 0, 50 episodes).",
    "PPO_HALF_CHEETAH": "tanh, σ = 1 at first, γ 0.99, λ 0.95, clipping 0.2, 3e-4 annealed: 1706 "
    "(seed 0, 50 episodes).",
    "PPO_HOPPER": "γ 0.999, λ 0.99, ReLU, log σ = -2 at first: 983, it stood still (seed 0); log σ "
    "= -1, γ 0.99, λ 0.95, ReLU: 729 after 500,000 steps (seed 1); σ = 1, tanh, γ 0.99, λ 0.95: "
    "2339 (seed 0, 50 episodes), 1771 after 500,000 steps (seed 1).",
}
EPISODES = 100
EPOCHS = 50  # points of a learning curve


RECORDS = Records(RESULTS, lambda record: (list(TARGETS).index(record["preset"]), record["seed"]))


def settings(preset):
    """All that determines a run but its seed, as JSON can hold it."""
    budget = {"env": preset.env, "total_steps": preset.total_steps, "num_envs": preset.num_envs}
    return {"method": preset.method.__name__, **budget, **told(preset.agent(seed=0))}


def train(name, seed):
    """One run, in this process; its record."""
    from kerasrl_pg import presets

    preset = presets.ALL[name]
    agent = preset.agent(seed)
    record = {"preset": name, "seed": seed, "settings": fingerprint(settings(preset))}
    # What the published tables hold is the best evaluation of a run.
    validation = {"validation_env": preset.env, "validation_freq": 2} if name in PUBLISHED else {}
    start = time.perf_counter()
    history = preset.fit(agent, epochs=EPOCHS, verbose=0, **validation).history
    seconds = time.perf_counter() - start
    # Seeds of the evaluation's environments: far from one another and from the agents' seeds.
    evaluation = agent.evaluate(preset.env, episodes=EPISODES, seed=1_000_000 + 1000 * seed)
    if validation:
        record["val_return"] = history["val_return"]
    return {
        **record,
        "evaluation": evaluation,
        "seconds": round(seconds, 1),
        "env_steps": history["env_steps"],
        "episode_return": history["episode_return"],
        **origin(),
    }


def table(groups, presets):
    """`learning.md`, from records by preset."""
    from kerasrl_pg.seeds import bootstrap_interval, interquartile_mean

    lines = [
        "# Learning",
        "",
        f"Return of the final policy: mean of {EPISODES} deterministic episodes a seed, on new "
        "environments with seeds of their own. IQM: interquartile mean over seeds, with its 95 % "
        "bootstrap interval (percentile, 10,000 resamples of the seeds of a row).",
        "",
        "| preset | environment | steps | seeds | target | IQM [95 %] | mean | min | reached by | seconds a run |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, records in groups.items():
        preset, target = presets[name], TARGETS[name][1]
        values = [record["evaluation"]["return"] for record in records]
        told = f"{interquartile_mean(values):.1f}"
        if len(values) > 1:
            low, high = bootstrap_interval(values)
            told += f" [{low:.1f}, {high:.1f}]"
        wanted = TARGETS[name][0]
        seeds = str(len(values)) if len(values) >= wanted else f"{len(values)}, not yet {wanted}"
        seconds = sum(record["seconds"] for record in records) / len(records)
        reached = sum(value >= target for value in values)
        lines.append(
            f"| {name} | {preset.env} | {preset.total_steps:,} | {seeds} | {target} | {told} "
            f"| {sum(values) / len(values):.1f} | {min(values):.1f} | {reached} of {len(values)} "
            f"| {seconds:.0f} |"
        )
    compared = [name for name in groups if name in PUBLISHED]
    if compared:
        lines += [
            "",
            "## Beside published tables",
            "",
            "During training the policy plays 10 deterministic episodes every 40,000 steps, 25 times. Best of a run: "
            "the highest of the 25, mean over seeds. Best of the mean: the highest mean over seeds, never higher, "
            "and what Tianshou prints, of ten seeds. sb3-contrib prints final policies of three seeds. Their MuJoCo "
            "environments are v3 (Tianshou's double pendulum v2), ours v5: not one experiment.",
            "",
            "| preset | final policy, IQM [95 %] | best of a run | best of the mean | Tianshou, best of the mean "
            "| sb3-contrib |",
            "| --- | ---: | ---: | ---: | ---: | ---: |",
        ]
    for name in compared:
        values = [record["evaluation"]["return"] for record in groups[name]]
        low, high = bootstrap_interval(values)
        best = statistics.mean(r["maximum"] if "maximum" in r else max(r["val_return"]) for r in groups[name])
        curves = [r["val_return"] for r in groups[name] if "val_return" in r]
        mean = f"{max(map(statistics.mean, zip(*curves, strict=True))):.0f}" if len(curves) == len(values) else "-"
        peers = " | ".join("-" if value is None else f"{value}" for value in PUBLISHED[name])
        lines.append(
            f"| {name} | {interquartile_mean(values):.0f} [{low:.0f}, {high:.0f}] | {best:.0f} | {mean} | {peers} |"
        )
    lines += ["", "## Each seed", "", "| preset | seed: return |", "| --- | --- |"]
    for name, records in groups.items():
        told = ", ".join(f"{r['seed']}: {r['evaluation']['return']:.1f}" for r in records)
        lines.append(f"| {name} | {told} |")
    lines += ["", "## Where the settings come from", ""]
    lines += [f"- {name}: {presets[name].source}" for name in groups]
    tried = [f"- {name}: {TRIED[name]}" for name in groups if name in TRIED]
    if tried:
        lines += ["", "## What else was tried", "", *tried]
    everything = [record for records in groups.values() for record in records]
    versions = sorted({f"{k} {v}" for record in everything for k, v in record["versions"].items()})
    lines += [
        "",
        "Settings were chosen on some of the same seeds of agents, never on the evaluation's episodes.",
        "",
        "Seconds: training, and the evaluations in it where there are any, with one thread a run and two runs at once "
        "on a shared machine of "
        f"{os.cpu_count()} CPUs ({platform.machine()}). "
        f"{min(r['date'] for r in everything)} to {max(r['date'] for r in everything)}, "
        f"Python {platform.python_version()}, {', '.join(versions)}.",
        "",
        "    python benchmarks/learning.py --processes=2",
        "",
        "![Learning curves](learning.png)",
        "",
    ]
    return "\n".join(lines)


def figure(groups, presets):
    """`learning.png`: a panel for each preset, a thin line for each seed, their mean, the target."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np

    columns = 4
    rows = -(-len(groups) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(3.4 * columns, 2.7 * rows), squeeze=False, layout="constrained")
    for axis in axes.flat[len(groups) :]:
        axis.set_visible(False)
    for axis, (name, records) in zip(axes.flat, groups.items(), strict=False):
        preset = presets[name]
        grid = np.linspace(0, preset.total_steps, EPOCHS + 1)[1:]
        curves = []
        for record in records:
            steps, returns = np.array(record["env_steps"]), np.array(record["episode_return"])
            seen = np.isfinite(returns)
            axis.plot(steps[seen] / 1000, returns[seen], color="tab:blue", lw=0.7, alpha=0.5)
            curves.append(np.interp(grid, steps[seen], returns[seen], left=np.nan))
        axis.plot(grid / 1000, np.mean(curves, 0), color="tab:blue", lw=2, label="mean")
        axis.axhline(TARGETS[name][1], color="tab:orange", lw=1, ls="--", label="target")
        axis.set_title(f"{preset.method.__name__}, {preset.env}", fontsize=10)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.2)
    axes[0, 0].legend(fontsize=8, frameon=False, loc="lower right")
    figure.supxlabel("thousand environment steps", fontsize=10)
    figure.supylabel("return of the last 100 training episodes", fontsize=10)
    figure.savefig(RESULTS.with_suffix(".png"), dpi=110)


def report(presets):
    """Writes the table and the figure from the results file; stale runs are left out."""
    groups = {}
    for name in TARGETS:
        current = fingerprint(settings(presets[name]))
        records = [r for r in RECORDS.load() if r["preset"] == name and r["settings"] == current]
        if records:
            groups[name] = records
    if groups:
        RESULTS.with_suffix(".md").write_text(table(groups, presets))
        figure(groups, presets)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--preset", choices=TARGETS, action="append", help="default: all")
    parser.add_argument("--seeds", type=int, help="how many, 0 for the report only; default: the table's")
    parser.add_argument("--processes", type=int, default=1, help="runs side by side")
    parser.add_argument("--only_seed", type=int, help=argparse.SUPPRESS)  # a run's own process
    arguments = parser.parse_args()
    if arguments.processes < 1:
        parser.error(f"--processes must be at least 1. Received: {arguments.processes}.")
    if arguments.only_seed is not None:
        print(json.dumps(train(arguments.preset[0], arguments.only_seed)))
        return

    from kerasrl_pg import presets as module

    presets = {name: module.ALL[name] for name in TARGETS}
    done = {(r["preset"], r["seed"], r["settings"]) for r in RECORDS.load()}
    runs = []
    for name in arguments.preset or TARGETS:
        seeds = TARGETS[name][0] if arguments.seeds is None else arguments.seeds
        current = fingerprint(settings(presets[name]))
        runs += [(name, seed) for seed in range(seeds) if (name, seed, current) not in done]

    def run(name, seed):
        record = run_apart(__file__, [f"--preset={name}", f"--only_seed={seed}"])
        RECORDS.add(record)
        result = record["evaluation"]["return"]
        print(f"{name}, seed {seed}: {result:.1f} ({record['seconds']:.0f} s)", flush=True)

    try:
        run_all(run, runs, arguments.processes)
    finally:
        report(presets)


if __name__ == "__main__":
    main()
