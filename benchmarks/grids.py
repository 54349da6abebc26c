"""PPO on MiniGrid, its dictionary of image, direction and mission as it comes: does it learn, and does it stay there?

    .venv/bin/python -m pip install -e ".[minigrid]"
    .venv/bin/python benchmarks/grids.py --processes=2
    .venv/bin/python benchmarks/grids.py --settings=preset --env=DoorKey --seeds=1

Each environment is learned with its preset, and with `PPO()` and `compile()` as they are from the preset's number
of environments and for as many steps. Every run is a process of its own, with one TensorFlow thread; the final policy
then plays 50 episodes on environments with seeds of their own, once deterministically and once sampled. `lowest` is
the least mean of a hundredth of training's episodes after the first that is above 0.9: whether what was learned was
lost on the way. Each finished run is written to `results/minigrid.json` at once, and is not run again with the same
settings; `results/minigrid.md` is made from it.
"""

import argparse
import importlib.util
import json
import platform
import statistics
import time
from pathlib import Path

from learning import settings as settings_of
from records import Records, fingerprint, origin, run_all, run_apart

RESULTS = Path(__file__).parent / "results" / "minigrid.json"
PRESETS = {"Empty": "PPO_MINIGRID_EMPTY", "DoorKey": "PPO_MINIGRID_DOOR_KEY"}
SETTINGS = ("preset", "defaults")
SEEDS, EPISODES, EPOCHS = 5, 50, 64
RECORDS = Records(
    RESULTS, lambda record: (list(PRESETS).index(record["env"]), SETTINGS.index(record["settings"]), record["seed"])
)


def chosen(env, settings):
    """The preset, or what has its environment and budget and nothing else of it."""
    import dataclasses

    import kerasrl_pg as pg

    preset = getattr(pg.presets, PRESETS[env])
    if settings == "preset":
        return preset
    return dataclasses.replace(preset, settings={}, optimizer=None, source="")


def train(env, settings, seed):
    """One run, in this process; its record."""
    preset = chosen(env, settings)
    agent = preset.agent(seed)
    start = time.perf_counter()
    history = preset.fit(agent, epochs=EPOCHS, verbose=0).history
    seconds = time.perf_counter() - start
    # Seeds of the evaluation's environments: far from one another and from the agents' seeds.
    returns = {
        name: agent.evaluate(preset.env, episodes=EPISODES, seed=1_000_000 + 1000 * seed, deterministic=which)["return"]
        for name, which in (("deterministic", True), ("sampled", False))
    }
    curve = [value for value in history["episode_return"] if value == value]
    solved = next((i for i, value in enumerate(curve) if value > 0.9), len(curve))
    return {
        "env": env,
        "settings": settings,
        "seed": seed,
        "fingerprint": fingerprint(settings_of(preset)),
        "id": preset.env,
        "total_steps": preset.total_steps,
        "num_envs": preset.num_envs,
        **returns,
        "lowest": min(curve[solved:], default=None),
        "episode_return": [round(value, 3) for value in curve],
        "seconds": round(seconds, 1),
        "command": f"benchmarks/grids.py --env={env} --settings={settings} --only_seed={seed}",
        **origin(("kerasrl-pg", "tensorflow", "keras", "gymnasium", "minigrid")),
    }


def table(records):
    """`minigrid.md`, from the records."""
    lines = [
        "# MiniGrid",
        "",
        f"PPO on the dictionary of image, direction and mission as it comes. Return of the final policy, {EPISODES} "
        "episodes, by seed 0, 1, ...; lowest: the least mean of training's last 100 episodes, looked at after each "
        f"of {EPOCHS} parts of training, once it has been above 0.9.",
        "",
        "| environment | settings | steps | deterministic | sampled | lowest | seconds a run |",
        "| --- | --- | ---: | --- | --- | --- | ---: |",
    ]
    groups = {}
    for record in records:
        groups.setdefault((record["id"], record["settings"], record["total_steps"]), []).append(record)
    for (env, settings, steps), runs in groups.items():
        told = (
            ", ".join("-" if run[name] is None else f"{run[name]:.3f}" for run in runs)
            for name in ("deterministic", "sampled", "lowest")
        )
        seconds = statistics.mean(run["seconds"] for run in runs)
        lines.append(f"| {env} | {settings} | {steps:,} | {' | '.join(told)} | {seconds:.0f} |")
    versions = sorted({f"{k} {v}" for record in records for k, v in record["versions"].items()})
    dates = {record["date"] for record in records}
    return "\n".join(
        [
            *lines,
            "",
            f"One thread a run, on a busy machine. {min(dates)} to {max(dates)}, Python {platform.python_version()}, "
            f"{', '.join(versions)}.",
            "",
            "    python benchmarks/grids.py --processes=2",
            "",
        ]
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--env", choices=PRESETS, action="append", help="default: all")
    parser.add_argument("--settings", choices=SETTINGS, action="append", help="default: both")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="how many, 0 for the report only")
    parser.add_argument("--processes", type=int, default=1, help="runs side by side")
    parser.add_argument("--only_seed", type=int, help=argparse.SUPPRESS)  # a run's own process
    arguments = parser.parse_args()
    if importlib.util.find_spec("minigrid") is None:
        parser.error('minigrid must be installed: .venv/bin/python -m pip install -e ".[minigrid]"')
    if arguments.only_seed is not None:
        print(json.dumps(train(arguments.env[0], arguments.settings[0], arguments.only_seed)))
        return
    pairs = [(s, e) for s in arguments.settings or SETTINGS for e in arguments.env or PRESETS]
    current = {(e, s): fingerprint(settings_of(chosen(e, s))) for s, e in pairs}
    done = {(r["env"], r["settings"], r["seed"], r["fingerprint"]) for r in RECORDS.load()}
    runs = [(e, s, seed) for s, e in pairs for seed in range(arguments.seeds)]

    def run(env, settings, seed):
        record = run_apart(__file__, [f"--env={env}", f"--settings={settings}", f"--only_seed={seed}"])
        RECORDS.add(record)
        names = "deterministic", "sampled", "lowest", "seconds"
        print(env, settings, seed, *(f"{name} {record[name]}" for name in names), flush=True)

    try:
        run_all(run, [r for r in runs if (*r, current[r[:2]]) not in done], arguments.processes)
    finally:
        if records := RECORDS.load():
            RESULTS.with_suffix(".md").write_text(table(records))


if __name__ == "__main__":
    main()
