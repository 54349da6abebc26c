"""What the worlds teach: PixelCopter and the vacuum cleaner learnt, and how fast they run.

    .venv/bin/python benchmarks/worlds.py
    .venv/bin/python benchmarks/worlds.py --case=ppo-copter --seeds=5
    .venv/bin/python benchmarks/worlds.py --case=speed

Every (case, seed) is a process of its own, with one TensorFlow thread, which trains on the compiled world and then
plays in gymnasium's (copter: 100 deterministic episodes) or in the compiled one (vacuum cleaner: 10,000 sampled ones,
since the last percent counts there). Each finished run is written to `results/worlds.json` at once, and not run again.
Speed: steps a second with random actions, one thread, kept in `results/worlds_speed.json`. At the end
`results/worlds.md` is made from both, and `results/worlds.png` drawn.
"""

import argparse
import json
import time
from pathlib import Path

from records import Records, origin, run_all, run_apart
from throughput import machine

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "worlds.json"
SPEED_RESULTS = HERE / "results" / "worlds_speed.json"
PACKAGES = ("kerasrl-pg", "tensorflow", "keras", "tensorflow-probability", "gymnasium")
DRAWING, REMEMBERING = 0.775, 0.85  # The vacuum cleaner's exact values, as tests/envs/test_vacuum.py has them.
# By case: world, method, networks, steps, seeds, the return to be reached.
CASES = {
    "reinforce-copter": ("PixelCopter", "REINFORCE", "64, 128 relu", 2_000_000, 5, 20.0),
    "reinforce-copter-normalised": ("PixelCopter", "REINFORCE", "64, 128 relu, on normalised", 2_000_000, 5, 20.0),
    "ppo-copter": ("PixelCopter", "PPO", "64, 64 tanh, on normalised", 2_000_000, 5, 100.0),
    "ppo-copter-long": ("PixelCopter", "PPO", "64, 64 tanh, on normalised", 8_000_000, 5, 140.0),
    "ppo-vacuum": ("Vacuum", "PPO", "32 tanh", 300_000, 5, 0.98 * DRAWING),
    "ppo-vacuum-memory": ("Vacuum", "PPO", "32 tanh and GRU(32)", 300_000, 5, DRAWING),
}
COPTER = {
    "horizon": 128,
    "minibatch_size": 1024,
    "update_epochs": 4,
    "entropy_coef": 0.01,
    "reward_scaling": True,
    "anneal_learning_rate": True,
}
VACUUM = {"horizon": 64, "minibatch_size": 512, "update_epochs": 4, "anneal_learning_rate": True}
# Returns standardised, no baseline, as in the course; there each update had one episode.
REINFORCE = {"normalize_advantages": True}
SETTINGS = {
    "reinforce-copter": REINFORCE,
    "reinforce-copter-normalised": REINFORCE,
    "ppo-copter": COPTER,
    "ppo-copter-long": COPTER,
    "ppo-vacuum": VACUUM,
    "ppo-vacuum-memory": VACUUM,
}
SPEED = {
    "PixelCopter": {},
    "PixelCopterPixels": {"pixels": True},
    "Vacuum": {},
    "Corridor": {},
    "RandomMDP": {},
}
RECORDS = Records(RESULTS, lambda record: (list(CASES).index(record["case"]), record["seed"]))


def num_envs(case):
    return 16 if case.startswith("reinforce") else 64


def rate(case):
    return 3e-3 if "vacuum" in case else 1e-3


def make_agent(case, seed):
    import keras

    import kerasrl_pg as pg

    settings = dict(SETTINGS[case])
    if case.startswith("reinforce"):  # The course's network.
        networks = pg.Networks((64, 128), activation="relu", normalize_observations=case.endswith("-normalised"))
    elif "copter" in case:
        networks = pg.Networks((64, 64), normalize_observations=True)
    else:
        networks = pg.Networks((32,), memory=pg.models.GRU(32) if case.endswith("-memory") else None)
    method = CASES[case][1]
    agent = getattr(pg, method)(networks=networks, seed=seed, **settings)
    clip = {"epsilon": 1e-5, "global_clipnorm": 0.5} if method == "PPO" else {}
    agent.compile(keras.optimizers.Adam(rate(case), **clip))
    return agent


def train(case, seed):
    """One run, in this process; its record."""
    from kerasrl_pg import envs

    world = CASES[case][0]
    env = getattr(envs, world)(num_envs=num_envs(case))
    agent = make_agent(case, seed)
    start = time.perf_counter()
    history = agent.fit(env, total_steps=CASES[case][3], epochs=20, verbose=0).history
    seconds = time.perf_counter() - start
    first = 1_000_000 + 1000 * seed
    if world == "PixelCopter":
        evaluation = agent.evaluate(f"kerasrl_pg/{world}-v0", episodes=100, seed=first)
    else:
        evaluation = agent.evaluate(env, episodes=10_000, deterministic=False, seed=first)
    return {
        "case": case,
        "seed": seed,
        "evaluation": evaluation,
        "seconds": round(seconds, 1),
        "env_steps": history["env_steps"],
        "episode_return": history["episode_return"],
        **origin(PACKAGES),
    }


def speed(name, steps=20_000, count=64, repeats=3):
    """Steps a second of a world with random actions: compiled, N at once, and gymnasium's; the best of `repeats`."""
    import gymnasium as gym
    import tensorflow as tf

    from kerasrl_pg import envs
    from kerasrl_pg.envs.compiled import advance, begin
    from kerasrl_pg.ops import random

    world = {"RandomMDP": envs.TabularMDP, "PixelCopterPixels": envs.PixelCopter}.get(name) or getattr(envs, name)
    env = world(num_envs=count, **SPEED[name])
    length, own = 1000, env.step_noise
    chance = own + env.reset_noise

    def play(seed):
        def body(t, running, total):
            noise = random.uniform([seed, t], (count, chance + 1))
            actions = tf.cast(noise[:, chance] * int(env.action_space.n), tf.int64)
            after, outcome = advance(env, running, actions, noise[:, :own], noise[:, own:chance])
            # What is seen counts, so that no compiler leaves it out.
            seen = tf.reduce_sum(tf.cast(outcome.next_observations, tf.float32))
            return t + 1, after, total + tf.reduce_sum(outcome.rewards) + 1e-9 * seen

        running = begin(env, random.uniform([seed, -1], (count, env.reset_noise)))
        return tf.while_loop(lambda t, *_: t < length, body, (0, running, 0.0))[2]

    compiled = tf.function(play, jit_compile=True, autograph=False)
    compiled(tf.constant(0)).numpy()
    found = {"compiled": 0.0, "gymnasium": 0.0}
    for repeat in range(repeats):
        start = time.perf_counter()
        compiled(tf.constant(1 + repeat)).numpy()
        found["compiled"] = max(found["compiled"], count * length / (time.perf_counter() - start))
        one = gym.make(f"kerasrl_pg/{name}-v0")
        one.reset(seed=repeat)
        one.action_space.seed(repeat)
        actions = [one.action_space.sample() for _ in range(steps)]
        start = time.perf_counter()
        for action in actions:
            _, _, terminated, truncated, _ = one.step(action)
            if terminated or truncated:
                one.reset()
        found["gymnasium"] = max(found["gymnasium"], steps / (time.perf_counter() - start))
    return {"num_envs": count, **{key: round(value) for key, value in found.items()}, **origin(PACKAGES)}


def table(groups, speeds):
    """`worlds.md`, from records by case."""
    from kerasrl_pg.seeds import bootstrap_interval, interquartile_mean

    lines = [
        "# Worlds",
        "",
        "Return of the final policy; IQM over seeds with its 95 % bootstrap interval. Trained on the compiled world. "
        "PixelCopter: mean of 100 deterministic episodes a seed in gymnasium's `kerasrl_pg/PixelCopter-v0`, of 1,000 "
        "steps at most, in which about 175 can be got. Vacuum: mean of 10,000 sampled episodes a seed; exactly, the "
        f"best policy that sees walls and does not draw has -0.8125, one that draws {DRAWING}, one that "
        f"remembers {REMEMBERING}, one that sees its cell 0.875.",
        "",
        "| case | world, method | networks | steps | target | IQM [95 %] | worst | reached by | each seed | s a run |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | --- | ---: |",
    ]
    for name, records in groups.items():
        world, method, networks, steps, wanted, target = CASES[name]
        digits = 1 if world == "PixelCopter" else 3
        values = [record["evaluation"]["return"] for record in records]
        told = f"{interquartile_mean(values):.{digits}f}"
        if len(values) > 1:
            told += " [{:.{d}f}, {:.{d}f}]".format(*bootstrap_interval(values), d=digits)
        reached = f"{sum(value >= target for value in values)} of {len(values)}"
        seeds = ", ".join(f"{r['seed']}: {value:.{digits}f}" for r, value in zip(records, values, strict=True))
        lines.append(
            f"| {name} | {world}, {method} | {networks} | {steps:,} | {target:g} | {told} | {min(values):.{digits}f} "
            f"| {reached}{'' if len(values) >= wanted else f', not yet {wanted}'} | {seeds} "
            f"| {sum(record['seconds'] for record in records) / len(records):.0f} |"
        )
    lines += ["", "Settings, beside the defaults; PPO's Adam has epsilon 1e-5 and gradient norm 0.5:", ""]
    for name, settings in SETTINGS.items():
        told = ", ".join(f"{key} {value}" for key, value in settings.items())
        lines.append(f"- {name}: {num_envs(name)} environments, Adam {rate(name):g}, {told}")
    if speeds:
        lines += [
            "",
            "Steps a second with random actions, one thread, best of three: compiled, 64 environments in one loop "
            "under XLA with their noise, resets and observations; gymnasium's, one environment from `gymnasium.make`.",
            "",
            "| world | compiled | gymnasium |",
            "| --- | ---: | ---: |",
            *(f"| {name} | {each['compiled']:,} | {each['gymnasium']:,} |" for name, each in speeds.items()),
        ]
    everything = [*(record for records in groups.values() for record in records), *speeds.values()]
    versions = sorted({f"{k} {v}" for record in everything for k, v in record["versions"].items()})
    host = machine()
    lines += [
        "",
        f"One TensorFlow thread a run, {host['cpu']}, {host['cpus']} CPUs shared with other work. "
        f"{min(r['date'] for r in everything)} to {max(r['date'] for r in everything)}, Python {host['python']}, "
        f"{', '.join(versions)}.",
        "",
        "    python benchmarks/worlds.py",
        "",
    ]
    return "\n".join(lines)


def draw(filepath):
    """What the worlds look like after a few steps, side by side."""
    import gymnasium as gym

    from kerasrl_pg import figures

    figure = figures.figure(9, 2.0, extra="plot")
    names = ("Vacuum", "PixelCopter", "RandomMDP", "Corridor")
    for name, axes in zip(names, figure.subplots(1, 4, width_ratios=(448, 256, 256, 448)), strict=True):
        env = gym.make(f"kerasrl_pg/{name}-v0", render_mode="rgb_array")
        env.reset(seed=1)
        for t in range(26 if name == "PixelCopter" else 2):
            env.step(int(t % 11 > 0) if name == "PixelCopter" else 1)
        axes.imshow(env.render())
        axes.set_title(name, fontsize=9)
        axes.axis("off")
    figures.write(figure, filepath)


def report():
    records = RECORDS.load()
    groups = {name: [record for record in records if record["case"] == name] for name in CASES}
    speeds = json.loads(SPEED_RESULTS.read_text()) if SPEED_RESULTS.exists() else {}
    RESULTS.with_suffix(".md").write_text(table({name: group for name, group in groups.items() if group}, speeds))
    draw(RESULTS.with_suffix(".png"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--case", choices=[*CASES, "speed"], action="append", help="default: all")
    parser.add_argument("--seeds", type=int, help="how many, 0 for the report only; default: the case's")
    parser.add_argument("--processes", type=int, default=1, help="runs of learning side by side")
    parser.add_argument("--only_seed", type=int, help=argparse.SUPPRESS)  # a run's own process
    parser.add_argument("--only_world", help=argparse.SUPPRESS)  # the same, of speed
    arguments = parser.parse_args()
    if arguments.only_world is not None:
        print(json.dumps(speed(arguments.only_world)))
        return
    if arguments.only_seed is not None:
        print(json.dumps(train(arguments.case[0], arguments.only_seed)))
        return
    done = {(record["case"], record["seed"]) for record in RECORDS.load()}
    runs = []
    for name in arguments.case or [*CASES, "speed"]:
        if name == "speed":
            speeds = {world: run_apart(__file__, [f"--only_world={world}"]) for world in SPEED}
            SPEED_RESULTS.write_text(json.dumps(speeds, indent=1) + "\n")
        else:
            seeds = range(CASES[name][4] if arguments.seeds is None else arguments.seeds)
            runs += [(name, seed) for seed in seeds if (name, seed) not in done]

    def run(name, seed):
        record = run_apart(__file__, [f"--case={name}", f"--only_seed={seed}"])
        RECORDS.add(record)
        print(f"{name}, seed {seed}: {record['evaluation']['return']:.3f} ({record['seconds']:.0f} s)", flush=True)

    try:
        run_all(run, runs, arguments.processes)
    finally:
        report()


if __name__ == "__main__":
    main()
