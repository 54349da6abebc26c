"""Workers of Ray: what A3C learns beside A2C, how speed grows with workers, and what a round costs.

    .venv/bin/python benchmarks/workers.py
    .venv/bin/python benchmarks/workers.py --case=scaling

Cases: `learning` (CartPole-v1 and Pendulum-v1, A2C, and A3C with 2 and 4 workers, five seeds), `scaling` (an
environment whose step waits 1 ms, for rollouts and gradients, 1 to 16 workers; one whose step computes;
HalfCheetah-v5), `round` (milliseconds of a rollout by two workers beside the same in one process, by width of the
networks), `leaks` (what 200 fits of one agent leave behind), and `rllib` (PPO beside Ray's own library, in an
environment of its own: `make bench-rllib`). Each run is a process of its own; a finished one is kept in
`results/workers.json`, from which `workers.md` and `workers.png` are drawn.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from records import Records, origin, run_all, run_apart

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "workers.json"
SEEDS = range(5)
SIDES = {"A2C": None, "A3C, 2 workers": 2, "A3C, 4 workers": 4}
LEARNING = {
    # As A2C_CARTPOLE, each worker with eight environments.
    "CartPole-v1": {
        "total_steps": 500_000,
        "settings": {"horizon": 5, "entropy_coef": 0.0, "value_coef": 1.0},
        "networks": {},
        "optimizer": ("RMSprop", {"learning_rate": 7e-4, "rho": 0.99, "epsilon": 1e-5}),
    },
    # Chosen on A2C, seed 0, of seven settings (learning rate, optimizer, activation, horizon).
    "Pendulum-v1": {
        "total_steps": 500_000,
        "settings": {"horizon": 8, "gamma": 0.9, "entropy_coef": 0.0, "reward_scaling": True},
        "gae_lambda": 0.9,
        "networks": {"normalize_observations": True, "activation": "relu"},
        "optimizer": ("Adam", {"learning_rate": 1e-3, "epsilon": 1e-5}),
    },
}
EACH = 8  # Environments of a worker, or of A2C.
WAITING = {"rollouts": "A2C", "gradients": "A3C"}
WORKERS = (1, 2, 4, 8, 16)
WIDTHS = (64, 256, 1024)
PPO = {
    "num_envs": 8,
    "horizon": 128,
    "update_epochs": 10,
    "minibatch_size": 64,
    "learning_rate": 3e-4,
    "hidden": [64, 64],
    "iterations": 10,
}
RAY = Path(sys.executable).with_name("ray")
RLLIB = HERE / ".venv-rllib" / "bin" / "python"


class Waiting:
    """Makes an environment whose step takes a millisecond in which no core is needed."""

    def __call__(self):
        import gymnasium as gym

        class Waits(gym.Wrapper):
            def step(self, action):
                time.sleep(0.001)
                return self.env.step(action)

        return Waits(gym.make("CartPole-v1"))


class Computing:
    """Makes an environment whose step computes for about a millisecond."""

    def __call__(self):
        import gymnasium as gym

        class Computes(gym.Wrapper):
            def step(self, action):
                sum(range(60_000))
                return self.env.step(action)

        return Computes(gym.make("CartPole-v1"))


ENVS = {"waiting": Waiting, "computing": Computing, "HalfCheetah-v5": lambda: "HalfCheetah-v5"}


def learn(env, side, seed):
    """One run: the final return, its curve over steps and seconds, and the staleness."""
    import keras

    import kerasrl_pg as pg

    case, workers = LEARNING[env], SIDES[side]
    settings = dict(case["settings"])
    if "gae_lambda" in case:
        settings["estimator"] = pg.estimators.GAE(case["gae_lambda"])
    networks = pg.Networks(**case["networks"])
    agent = (pg.A2C if workers is None else pg.A3C)(networks=networks, anneal_learning_rate=True, seed=seed, **settings)
    name, optimizer = case["optimizer"]
    agent.compile(getattr(keras.optimizers, name)(**optimizer, global_clipnorm=0.5))
    begun, seconds = [], []
    clock = keras.callbacks.LambdaCallback(
        on_train_begin=lambda logs: begun.append(time.perf_counter()),
        on_epoch_end=lambda epoch, logs: seconds.append(time.perf_counter() - begun[0]),
    )
    more = {} if workers is None else {"workers": workers}
    history = agent.fit(
        env,
        total_steps=case["total_steps"],
        num_envs=EACH * (workers or 1),
        epochs=20,
        callbacks=clock,
        verbose=0,
        **more,
    ).history
    return {
        "return": agent.evaluate(env, episodes=100)["return"],
        "steps": history["env_steps"],
        "seconds": [round(s, 2) for s in seconds],
        "curve": [round(r, 1) for r in history["episode_return"]],
        "staleness": statistics.mean(history.get("staleness", [0.0])),
    }


def speed(env, kind, workers, seed):
    """Environment steps a second of the last epochs: first programs are compiled, and Ray is still starting."""
    import kerasrl_pg as pg

    if env == "HalfCheetah-v5":
        agent, num_envs = pg.PPO(horizon=256, minibatch_size=64, seed=seed), 8
    else:
        agent, num_envs = getattr(pg, kind)(horizon=64, seed=seed), EACH * workers
    agent.compile()
    steps = 6 * num_envs * agent.horizon
    more = {} if workers == 0 else {"workers": workers}
    epochs = 3 if env == "waiting" else 8
    fit = {"total_steps": epochs * steps, "epochs": epochs, "num_envs": num_envs, "verbose": 0}
    history = agent.fit(ENVS[env](), **fit, **more).history
    return {"steps_per_second": statistics.median(history["steps_per_second"][epochs // 2 :])}


def one_round(width, workers):
    """Milliseconds of a rollout of 8 x 128 on CartPole-v1, the update left out."""
    import keras

    import kerasrl_pg as pg

    agent = pg.A2C(horizon=128, networks=pg.Networks((width, width)), seed=0)
    agent.compile(keras.optimizers.SGD(0.0))
    seconds = []

    class Timed(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            collector = self.model._rooms.fit._training._collector
            collect = collector.collect

            def timed():
                begun = time.perf_counter()
                rollout = collect()
                seconds.append(time.perf_counter() - begun)
                return rollout

            collector.collect = timed

    more = {} if workers == 0 else {"workers": workers}
    agent.fit("CartPole-v1", epochs=1, steps_per_epoch=60, num_envs=8, callbacks=Timed(), verbose=0, **more)
    return {"milliseconds": 1000 * statistics.median(seconds[10:])}


def leaks(fits):
    """Processes, objects in Ray's store, and this process's memory, after fits of one agent, each with a worker."""
    import re
    import resource

    import ray

    import kerasrl_pg as pg

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    agent = pg.A2C(seed=0)
    agent.compile()
    found = []
    for number in range(1, fits + 1):
        agent.fit("CartPole-v1", total_steps=40, num_envs=2, epochs=1, verbose=0, workers=1)
        if number in (1, 10) or number % 50 == 0:
            time.sleep(2.0)  # Ray ends a killed worker in its own time.
            said = subprocess.run([RAY, "memory", "--stats-only"], capture_output=True, text=True, check=True)
            (store,) = re.findall(r"Plasma memory usage (\d+) MiB, (\d+) objects", said.stdout)
            workers = sum(b"ray::Worker" in command for command in commands())
            mine = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() >> 20
            found.append({"fits": number, "workers": workers, "store": [int(x) for x in store], "mib": mine})
    ray.shutdown()
    return {"found": found}


def commands():
    """The command lines of all processes of this machine."""
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # It has ended.
            yield place.read_bytes()


def beside_rllib(side, workers, seed):
    """Steps a second of PPO, its update included, ours and RLlib's: 8 CartPoles, rollouts of 8 x 128."""
    if side == "RLlib":
        script = HERE / "peers" / "rllib_run.py"
        command = [str(RLLIB), str(script), json.dumps({**PPO, "workers": workers, "seed": seed})]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        if done.returncode:
            raise RuntimeError(f"{script.name} must end well. Received:\n{done.stderr[-3000:]}")
        return json.loads(done.stdout.splitlines()[-1])
    import keras

    import kerasrl_pg as pg

    agent = pg.PPO(
        horizon=PPO["horizon"],
        minibatch_size=PPO["minibatch_size"],
        update_epochs=PPO["update_epochs"],
        networks=pg.Networks(PPO["hidden"]),
        seed=seed,
    )
    agent.compile(keras.optimizers.Adam(PPO["learning_rate"]))
    more = {} if workers == 0 else {"workers": workers}
    fit = {"epochs": 4, "steps_per_epoch": PPO["iterations"], "num_envs": PPO["num_envs"], "verbose": 0}
    history = agent.fit("CartPole-v1", **fit, **more).history
    return {"steps_per_second": statistics.median(history["steps_per_second"][1:])}


def jobs(case, repeats):
    """All runs of a case, as records without results."""
    if case == "leaks":
        return [{"case": case, "seed": 0}]
    if case == "rllib":
        return [
            {"case": case, "side": side, "workers": workers, "seed": repeat}
            for repeat in range(repeats)
            for workers in (0, 2)
            for side in ("kerasrl-pg", "RLlib")
        ]
    if case == "learning":
        return [
            {"case": case, "env": env, "side": side, "seed": seed}
            for seed in SEEDS
            for env in LEARNING
            for side in SIDES
        ]
    if case == "scaling":
        waiting = [("waiting", kind, workers) for kind in WAITING.values() for workers in WORKERS]
        others = [("computing", "A2C", 1), ("computing", "A2C", 2), ("computing", "A3C", 1), ("computing", "A3C", 2)]
        others += [("HalfCheetah-v5", "PPO", 0), ("HalfCheetah-v5", "PPO", 2)]
        return [
            {"case": case, "env": env, "kind": kind, "workers": workers, "seed": repeat}
            for repeat in range(repeats)
            for env, kind, workers in waiting + others
        ]
    return [
        {"case": case, "width": width, "workers": workers, "seed": repeat}
        for repeat in range(repeats)
        for width in WIDTHS
        for workers in (0, 2)
    ]


def run(job):
    job = dict(job)
    case = job.pop("case")
    if case == "learning":
        return learn(**job)
    if case == "scaling":
        return speed(**job)
    if case == "leaks":
        return leaks(200)
    if case == "rllib":
        return beside_rllib(job["side"], job["workers"], job["seed"])
    return one_round(job["width"], job["workers"])


def report(records):
    lines = ["# Workers", ""]
    learned = [r for r in records if r["case"] == "learning"]
    if learned:
        lines += ["## A3C beside A2C", "", *learning_table(learned), ""]
        draw(learned)
    scaled = [r for r in records if r["case"] == "scaling"]
    if scaled:
        lines += ["## Steps a second", "", *scaling_table(scaled), ""]
    rounds = [r for r in records if r["case"] == "round"]
    if rounds:
        lines += ["## A round", "", *round_table(rounds), ""]
    for record in (r for r in records if r["case"] == "leaks"):
        lines += ["## What fits leave behind", "", *leaks_table(record["found"]), ""]
    beside = [r for r in records if r["case"] == "rllib"]
    if beside:
        lines += ["## Beside RLlib", "", *rllib_table(beside), ""]
    versions = ", ".join(f"{n} {v}" for n, v in records[-1]["versions"].items())
    lines += [
        f"Last run {max(r['date'] for r in records)}; {versions}.",
        "",
        "    .venv/bin/python benchmarks/workers.py",
    ]
    (HERE / "results" / "workers.md").write_text("\n".join(lines) + "\n")


def learning_table(records):
    lines = [
        "Final policy, mean of 100 deterministic episodes; eight environments a worker (eight of A2C); the same budget",
        "of environment steps, learning rate falling to 0. Seconds are of seed 0's fit, workers' start included, on",
        "two cores that did nothing else; the other seeds ran beside other work.",
        "",
        "| environment | side | steps | seeds | mean | worst | staleness | seconds, seed 0 |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for env in LEARNING:
        for side in SIDES:
            mine = [r for r in records if r["env"] == env and r["side"] == side]
            if mine:
                returns = [r["return"] for r in mine]
                steps = LEARNING[env]["total_steps"]
                lines.append(
                    f"| {env} | {side} | {steps:,} | {len(mine)} | {statistics.mean(returns):.1f} "
                    f"| {min(returns):.1f} | {statistics.mean(r['staleness'] for r in mine):.2f} "
                    f"| {mine[0]['seconds'][-1]:.0f} |"
                )
    return lines


def scaling_table(records):
    lines = [
        "Rollouts of 64 steps, eight environments a worker, updates included (HalfCheetah-v5: PPO, 8 environments, 256",
        "steps; 0 workers is one process). Ratios to one worker, or to one process; two cores.",
        "",
        "| environment | method | workers | steps/s, median | ratio | of linear |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    keys = list(dict.fromkeys((r["env"], r["kind"], r["workers"]) for r in records))
    for env, kind, workers in keys:
        first = min(w for e, k, w in keys if (e, k) == (env, kind))
        pairs = {}
        for r in records:
            if (r["env"], r["kind"]) == (env, kind):
                pairs.setdefault(r["seed"], {})[r["workers"]] = r["steps_per_second"]
        ratios = [p[workers] / p[first] for p in pairs.values() if workers in p and first in p]
        speeds = [p[workers] for p in pairs.values() if workers in p]
        ratio = statistics.median(ratios)
        linear = f"{ratio / workers:.2f}" if first == 1 else "-"
        lines.append(f"| {env} | {kind} | {workers} | {statistics.median(speeds):,.0f} | {ratio:.2f} | {linear} |")
    return lines


def round_table(records):
    lines = [
        "A rollout of 8 x 128 on CartPole-v1, weights out and rollout back, by two workers and in one process.",
        "",
        "| hidden layers | one process, ms | two workers, ms |",
        "| --- | ---: | ---: |",
    ]
    for width in WIDTHS:
        times = [
            statistics.median([r["milliseconds"] for r in records if (r["width"], r["workers"]) == (width, workers)])
            for workers in (0, 2)
        ]
        lines.append(f"| {width} x {width} | {times[0]:.1f} | {times[1]:.1f} |")
    return lines


def leaks_table(found):
    lines = [
        "One Ray, one agent, one fit with a worker after the other.",
        "",
        "| fits | workers alive after it | objects in the store | MiB in the store | memory of this process, MiB |",
        "| ---: | ---: | ---: | ---: | ---: |",
    ]
    rows = [(r["fits"], r["workers"], r["store"][1], r["store"][0], r["mib"]) for r in found]
    return lines + [f"| {' | '.join(str(x) for x in row)} |" for row in rows]


def rllib_table(records):
    versions = next(r["rllib"] for r in records if "rllib" in r)
    lines = [
        f"PPO on CartPole-v1 with its update, rollouts of {PPO['num_envs']} x {PPO['horizon']}, {PPO['update_epochs']}",
        f"passes in minibatches of {PPO['minibatch_size']}, hidden layers {PPO['hidden']}; medians of repeats.",
        f"RLlib of Ray {versions['ray']} on torch {versions['torch']}.",
        "",
        "| workers | kerasrl-pg, steps/s | RLlib, steps/s | ratio |",
        "| ---: | ---: | ---: | ---: |",
    ]
    for workers in (0, 2):
        sides = [
            {r["seed"]: r["steps_per_second"] for r in records if (r["side"], r["workers"]) == (side, workers)}
            for side in ("kerasrl-pg", "RLlib")
        ]
        ratio = statistics.median(sides[0][seed] / sides[1][seed] for seed in sides[0] if seed in sides[1])
        speeds = [statistics.median(side.values()) for side in sides]
        lines.append(f"| {workers} | {speeds[0]:,.0f} | {speeds[1]:,.0f} | {ratio:.1f} |")
    return lines


def draw(records):
    """Returns over steps and over seconds, A3C beside A2C."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    envs = [env for env in LEARNING if any(r["env"] == env for r in records)]
    figure, axes = pyplot.subplots(len(envs), 2, figsize=(9, 3.2 * len(envs)), squeeze=False, sharey="row")
    for row, env in zip(axes, envs, strict=True):
        for axis, over in zip(row, ("steps", "seconds"), strict=True):
            for side, color, style in zip(SIDES, ("black", "tab:blue", "tab:orange"), ("-", "--", ":"), strict=True):
                mine = [r for r in records if r["env"] == env and r["side"] == side]
                for index, r in enumerate(mine if over == "steps" else mine[:1]):
                    label = side if index == 0 else None
                    axis.plot(r[over], r["curve"], color=color, linestyle=style, alpha=0.7, linewidth=1, label=label)
            axis.set(
                xlabel="environment steps" if over == "steps" else "seconds",
                title=env if over == "steps" else f"{env}, seed 0",
            )
        row[0].set_ylabel("training return")
    axes[0, 0].legend()
    figure.tight_layout()
    figure.savefig(HERE / "results" / "workers.png", dpi=110)


def key(record):
    return tuple(str(record.get(n, "")).zfill(4) for n in ("case", "env", "kind", "side", "width", "workers", "seed"))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", choices=("learning", "scaling", "round", "leaks", "rllib"), action="append")
    parser.add_argument("--env", action="append", help="of `learning` and `scaling`: these alone")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--job", help="one run, as JSON; prints its result")
    parser.add_argument("--report", action="store_true", help="write the tables anew, and run nothing")
    arguments = parser.parse_args()
    if arguments.job:
        print(json.dumps(run(json.loads(arguments.job))))
        return
    records = Records(RESULTS, key)
    wanted = [] if arguments.report else arguments.case or ("learning", "scaling", "round", "leaks", "rllib")
    done = {key(r) for r in records.load()}
    todo = [job for case in wanted for job in jobs(case, arguments.repeats) if key(job) not in done]
    todo = [job for job in todo if not arguments.env or job.get("env") in arguments.env]

    def apart(job):
        records.add({**job, **run_apart(Path(__file__), [f"--job={json.dumps(job)}"]), **origin()})

    run_all(apart, [(job,) for job in todo], processes=1)
    report(records.load())


if __name__ == "__main__":
    main()
