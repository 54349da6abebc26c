"""Searching without gradients: what it learns beside the policy gradient, how fast populations play, and HalfCheetah.

    .venv/bin/python benchmarks/search.py
    .venv/bin/python benchmarks/search.py --case=table --env=Acrobot --method=HillClimbing --steps=100000
    .venv/bin/python benchmarks/search.py --case=speed
    make bench-peers; .venv/bin/python benchmarks/search.py --case=half-cheetah --steps=10000000

`table`: ten seeds of each method at equal environment steps, those of every member of every population included, in
one process for each row, on the compiled environments, which equal gymnasium's step by step; each final policy plays
100 deterministic episodes. `speed`: episodes a second of a population of 256. `half-cheetah`: gymnasium's
HalfCheetah-v5, beside sb3-contrib's ARS, which runs in the peers' own environment. Every process has one thread. What
is finished is written to `results/search.json` at once, and not run again. At the end `results/search.md` is made.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from records import ONE_THREAD, Records, origin, run_all, run_apart
from throughput import machine

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "search.json"
PEER = HERE / ".venv" / "bin" / "python"
PACKAGES = ("kerasrl-pg", "tensorflow", "keras", "tensorflow-probability", "gymnasium", "mujoco", "cma")
ENVS = {"CartPole": "CartPole-v1", "Acrobot": "Acrobot-v1"}
STEPS = (100_000, 1_000_000)
SEEDS = 10
# Policies linear in the observation: unit 4's source searches such ones, and they are enough here.
SEARCHES = {
    "HillClimbing": ("HillClimbing", {}, None),
    "SimulatedAnnealing": ("SimulatedAnnealing", {}, None),
    "EvolutionStrategies": ("EvolutionStrategies", {"population_size": 16, "noise": 0.3}, 0.1),
    "EvolutionStrategies, diagonal": (
        "EvolutionStrategies",
        {"population_size": 16, "noise": 0.3, "covariance": "diagonal"},
        None,
    ),
    "EvolutionStrategies, full": (
        "EvolutionStrategies",
        {"population_size": 16, "noise": 0.3, "covariance": "full"},
        None,
    ),
}
GRADIENTS = ("REINFORCE", "A2C", "PPO", "TRPO")
METHODS = (*SEARCHES, *GRADIENTS)
CHEETAH = ("EvolutionStrategies", "ARS")
RECORDS = Records(RESULTS, lambda r: (r["case"], r.get("env", ""), r.get("steps", 0), r.get("method", ""), r["seed"]))


def preset_of(method, env):
    """A preset's name: of this environment, or where there is none, of CartPole-v1."""
    from kerasrl_pg import presets

    name = f"{method}_{env.upper()}"
    return name if name in presets.ALL else f"{method}_CARTPOLE"


def maker(method, env):
    """`(function from a seed to a compiled agent, environments side by side)`."""
    import keras

    import kerasrl_pg as pg

    if method in SEARCHES:
        name, settings, rate = SEARCHES[method]

        def make(seed):
            agent = getattr(pg, name)(networks=pg.Networks(()), seed=seed, **settings)
            agent.compile(None if rate is None else keras.optimizers.Adam(rate), steps_per_execution=20)
            return agent

        return make, 16
    preset = pg.presets.ALL[preset_of(method, env)]

    def make(seed):
        agent = preset.agent(seed)
        agent.compile(type(agent.optimizer).from_config(agent.optimizer.get_config()), steps_per_execution=20)
        return agent

    return make, preset.num_envs


def table_row(env, method, steps):
    """All seeds of a method, in this process; one record."""
    import kerasrl_pg as pg
    from kerasrl_pg import envs

    make, num_envs = maker(method, env)
    start = time.perf_counter()
    runs = pg.fit_seeds(
        make, getattr(envs, env)(num_envs=num_envs), SEEDS, total_steps=steps, epochs=1, episodes=100, verbose=0
    )
    return {
        "case": "table",
        "env": env,
        "method": method,
        "steps": steps,
        "seed": 0,
        "returns": [round(float(value), 2) for value in runs.returns],
        "env_steps": [int(history["env_steps"][-1]) for history in runs.histories],
        "seconds": round(time.perf_counter() - start, 1),
        **origin(PACKAGES),
    }


def speed(size=256, repeats=3):
    """Episodes and steps a second of a population, compiled and on gymnasium's environments, in this process."""
    import gymnasium as gym
    import keras

    import kerasrl_pg as pg

    agent = pg.EvolutionStrategies(population_size=size, seed=0)
    agent.compile(keras.optimizers.Adam(1e-3))
    worlds = {
        "compiled": lambda: pg.envs.CartPole(num_envs=size),
        "gymnasium, one Env each": lambda: "CartPole-v1",
        "gymnasium, its vector of NumPy arrays": lambda: gym.make_vec(
            "CartPole-v1", size, vectorization_mode="vector_entry_point"
        ),
    }
    found = []
    for stage, fast in (("untrained", 20), ("trained", 5)):
        if stage == "trained":
            agent.compile(keras.optimizers.Adam(0.03))
            agent.fit(worlds["compiled"](), epochs=1, steps_per_epoch=60, verbose=0)
            agent.compile(keras.optimizers.Adam(1e-6))  # From here on it plays as it does now.
        for make in worlds.values():
            agent.fit(make(), epochs=1, steps_per_epoch=1, verbose=0)  # Compiles.
        for _ in range(repeats):
            for name, make in worlds.items():
                env, count = make(), fast if name == "compiled" else 1
                before, start = int(agent.env_steps.numpy()), time.perf_counter()
                history = agent.fit(env, epochs=1, steps_per_epoch=count, verbose=0).history
                seconds = time.perf_counter() - start
                steps = int(agent.env_steps.numpy()) - before
                found.append(
                    {
                        "stage": stage,
                        "world": name,
                        "episodes_per_second": round(count * size / seconds, 1),
                        "steps_per_second": round(steps / seconds),
                        "episode_length": round(history["episode_length"][-1], 1),
                    }
                )
    return {"case": "speed", "seed": 0, "population": size, "runs": found, **origin(PACKAGES)}


def marks_of(steps):
    """Where a run on HalfCheetah-v5 is judged: 1, 2, 5, 10 ... million steps, and its end."""
    return [m for m in (1_000_000, 2_000_000, 5_000_000, 10_000_000) if m < steps] + [steps]


def cheetah(steps, seed):
    """A run of ours on HalfCheetah-v5, in this process; a line of JSON at each mark."""
    import keras

    import kerasrl_pg as pg

    agent = pg.EvolutionStrategies(
        population_size=32, noise=0.05, networks=pg.Networks((), normalize_observations=True), seed=seed
    )
    agent.compile(keras.optimizers.Adam(0.03))
    seconds = 0.0
    for mark in marks_of(steps):
        start = time.perf_counter()
        agent.fit("HalfCheetah-v5", total_steps=mark - int(agent.env_steps.numpy()), epochs=1, verbose=0)
        seconds += time.perf_counter() - start
        episodes = 100 if mark == steps else 20
        evaluation = agent.evaluate("HalfCheetah-v5", episodes=episodes, seed=1_000_000 + 1000 * seed)
        told = {"steps": mark, "env_steps": int(agent.env_steps.numpy()), "seconds": round(seconds, 1)}
        print(json.dumps({**told, "evaluation": evaluation, **origin(PACKAGES)}), flush=True)


def run_cheetah(method, steps, seed):
    """A run on HalfCheetah-v5 in a process of its own, whose marks are recorded as they are reached."""
    if method == "ARS":
        case = {"env": "HalfCheetah-v5", "seed": seed, "marks": marks_of(steps)}
        command = [str(PEER), str(HERE / "peers" / "sb3_ars.py"), json.dumps(case)]
    else:
        command = [sys.executable, __file__, "--case=half-cheetah", f"--steps={steps}", f"--only_seed={seed}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **ONE_THREAD})
    for line in process.stdout:
        told = json.loads(line)
        peer = {"date": origin(())["date"]} if method == "ARS" else {}
        RECORDS.add({"case": "half-cheetah", "method": method, "seed": seed, **told, **peer})
        print(
            f"{method}, {told['steps']:,} steps: {told['evaluation']['return']:.0f} ({told['seconds']:.0f} s)",
            flush=True,
        )
    if process.wait():
        raise RuntimeError(f"{' '.join(command)} must end well. Received: exit code {process.returncode}.")


def report():
    """Writes `search.md`."""
    from kerasrl_pg.seeds import bootstrap_interval, interquartile_mean

    records = RECORDS.load()
    lines = ["# Searching without gradients", ""]
    lines += [
        "Ten seeds (0 to 9), the interquartile mean of their final policies' returns with its 95 % interval, and the "
        "worst seed; 100 deterministic episodes each. Steps count every step of every member of every population. "
        "The searches' policies are linear in the observation, acting by their mode, 16 members; REINFORCE, A2C, PPO "
        "and TRPO are the presets of that name, with networks of 64 x 64; where there is none for Acrobot-v1 "
        "(REINFORCE, A2C) CartPole-v1's. None of them was tuned for a budget other than its preset's.",
        "",
    ]
    rows = {(r["env"], r["method"], r["steps"]): r for r in records if r["case"] == "table"}
    columns = [(env, steps) for env in ENVS for steps in STEPS]
    lines += [
        "| method | " + " | ".join(f"{ENVS[env]}, {steps:,}" for env, steps in columns) + " |",
        "| --- |" + " ---: |" * len(columns),
    ]
    for method in METHODS:
        cells = []
        for env, steps in columns:
            record = rows.get((env, method, steps))
            if record is None:
                cells.append("")
                continue
            low, high = bootstrap_interval(record["returns"])
            middle = interquartile_mean(record["returns"])
            cells.append(f"{middle:.1f} [{low:.1f}, {high:.1f}], {min(record['returns']):.1f}")
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    lines += ["", "    .venv/bin/python benchmarks/search.py --case=table", ""]
    lines += speed_lines(records) + cheetah_lines(records)
    host = machine()
    versions = sorted({f"{k} {v}" for r in records for k, v in r.get("versions", {}).items()})
    lines += [
        f"One thread a process, {host['cpu']}, {host['cpus']} CPUs shared with other work. "
        f"{min(r['date'] for r in records)} to {max(r['date'] for r in records)}, Python {host['python']}, "
        f"{', '.join(versions)}.",
        "",
    ]
    RESULTS.with_suffix(".md").write_text("\n".join(lines))


def speed_lines(records):
    """The part of `search.md` about speed."""
    import statistics

    lines = []
    for record in (r for r in records if r["case"] == "speed"):
        lines += [
            "## Speed",
            "",
            f"A population of {record['population']} of EvolutionStrategies, networks of 64 x 64, on CartPole: "
            "episodes and steps a second of `fit`, medians of alternating runs in one process, compilation off the "
            "clock.",
            "",
            "| policy | environments | mean steps of an episode | episodes/s | steps/s | compiled is |",
            "| --- | --- | ---: | ---: | ---: | ---: |",
        ]
        for stage in ("untrained", "trained"):
            fastest = None
            for world in dict.fromkeys(run["world"] for run in record["runs"]):
                runs = [run for run in record["runs"] if (run["stage"], run["world"]) == (stage, world)]
                episodes, steps, length = (
                    statistics.median(run[key] for run in runs)
                    for key in ("episodes_per_second", "steps_per_second", "episode_length")
                )
                fastest = fastest or episodes
                lines.append(
                    f"| {stage} | {world} | {length:.0f} | {episodes:,.0f} | {steps:,} | {fastest / episodes:.1f} x |"
                )
        lines += ["", "    .venv/bin/python benchmarks/search.py --case=speed", ""]
    return lines


def cheetah_lines(records):
    """The part of `search.md` about HalfCheetah-v5."""
    found = [r for r in records if r["case"] == "half-cheetah"]
    if not found:
        return []
    lines = [
        "## HalfCheetah-v5",
        "",
        "Return of the policy at so many environment steps of one run, its mean over 20 deterministic episodes, over "
        "100 at the run's end. Both policies linear in normalised observations. Ours: 32 members, σ 0.05, Adam 0.03. "
        "ARS: RL Baselines3 Zoo's settings for HalfCheetah-v3, which are the paper's (Mania et al. 2018). Seconds are "
        "no comparison, since both ran beside other work.",
        "",
        "| method | seed | steps | return | episodes | seconds |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for r in found:
        mean, deviation, episodes = (r["evaluation"][key] for key in ("return", "return_std", "episodes"))
        lines.append(
            f"| {r['method']} | {r['seed']} | {r['steps']:,} | {mean:.0f} ± {deviation:.0f} | {episodes} | "
            f"{r['seconds']:,.0f} |"
        )
    return [*lines, "", "    .venv/bin/python benchmarks/search.py --case=half-cheetah --steps=10000000", ""]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--case", choices=["table", "speed", "half-cheetah", "report"], action="append")
    parser.add_argument("--env", choices=ENVS, action="append", help="of the table; default: all")
    parser.add_argument("--method", choices=[*METHODS, "ARS"], action="append", help="default: all")
    parser.add_argument(
        "--steps", type=int, help="of the table, default 100,000 and 1,000,000; of HalfCheetah, 10,000,000"
    )
    parser.add_argument("--seeds", type=int, default=1, help="of HalfCheetah-v5")
    parser.add_argument("--only_seed", type=int, help=argparse.SUPPRESS)  # a run's own process
    arguments = parser.parse_args()
    cases = arguments.case or ["table", "speed", "half-cheetah"]
    if arguments.only_seed is not None:
        return alone(cases[0], arguments)
    done = {RECORDS.key(record) for record in RECORDS.load()}
    runs = []
    if "table" in cases:
        for env in arguments.env or ENVS:
            for steps in [arguments.steps] if arguments.steps else STEPS:
                for method in arguments.method or METHODS:
                    if ("table", env, steps, method, 0) not in done:
                        runs.append((env, method, steps))

    def run(env, method, steps):
        record = run_apart(
            __file__, ["--case=table", f"--env={env}", f"--method={method}", f"--steps={steps}", "--only_seed=0"]
        )
        RECORDS.add(record)
        print(f"{env}, {method}, {steps:,}: {sorted(record['returns'])} ({record['seconds']:.0f} s)", flush=True)

    try:
        run_all(run, runs, 1)
        if "speed" in cases:
            RECORDS.add(run_apart(__file__, ["--case=speed", "--only_seed=0"]))
        if "half-cheetah" in cases:
            for seed in range(arguments.seeds):
                for method in arguments.method or CHEETAH:
                    run_cheetah(method, arguments.steps or 10_000_000, seed)
    finally:
        report()


def alone(case, arguments):
    """What a run's own process does."""
    if case == "table":
        print(json.dumps(table_row(arguments.env[0], arguments.method[0], arguments.steps)))
    elif case == "speed":
        print(json.dumps(speed()))
    else:
        cheetah(arguments.steps, arguments.only_seed)


if __name__ == "__main__":
    main()
