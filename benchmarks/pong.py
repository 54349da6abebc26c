"""PPO on Pong's pixels: steps a second beside Stable-Baselines3, and what the network costs beside CleanRL's.

    make bench-peers
    .venv/bin/python benchmarks/pong.py --repeats=5

Every measured run is a process of its own; sides alternate, each in the faster of its thread settings. Compilation is
off the clock.

- `ale`: environment steps a second of training in gymnasium's ALE, with `AtariPreprocessing` and
  `FrameStackObservation`, on both sides; `envpool`: ours in EnvPool's Pong. The settings are CleanRL's `ppo_atari.py`
  but for the learning rate's annealing, which costs nothing.
- `network`: milliseconds of a forward pass of one step's observations, and of a loss's gradient and a step of Adam on
  one minibatch; the loss is the same sum on both sides. CleanRL's network, three convolutions, 512 and two heads, is in
  PyTorch; Stable-Baselines3's is the same.

Writes `results/pong.md` and `.json`.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from throughput import check_peers, in_turns, machine

HERE = Path(__file__).parent
RESULTS = HERE / "results"
CASE = {
    "num_envs": 8,
    "horizon": 128,
    "rows": 256,
    "update_epochs": 4,
    "clip_ratio": 0.1,
    "entropy_coef": 0.01,
    "iterations": 4,
}
OURS = {"1 TensorFlow thread": ([], {"TF_NUM_INTRAOP_THREADS": "1"}), "default threads": ([], {})}
THEIRS = {"1 torch thread": (["1"], {}), "default threads": (["0"], {})}
# By name: the program, its settings.
SIDES = {
    "ours": ("pong.py --only=ale", OURS),
    "ours, EnvPool": ("pong.py --only=envpool", OURS),
    "Stable-Baselines3": ("peers/sb3_pong.py", THEIRS),
    "our network": ("pong.py --only=network", OURS),
    "CleanRL's network": ("peers/cleanrl_network.py", THEIRS),
}
PACKAGES = ("kerasrl-pg", "tensorflow", "keras", "gymnasium", "ale-py", "envpool")


def ale():
    import ale_py
    import gymnasium as gym

    gym.register_envs(ale_py)
    env = gym.make("ALE/Pong-v5", frameskip=1, repeat_action_probability=0.0)
    return gym.wrappers.FrameStackObservation(gym.wrappers.AtariPreprocessing(env), 4)


def envpool(case):
    import envpool

    return envpool.make("Pong-v5", env_type="gymnasium", num_envs=case["num_envs"], seed=case["seed"])


def trained(case, what):
    """Environment steps a second of `fit`, after the first iteration; in this process."""
    import keras

    import kerasrl_pg as pg

    agent = pg.PPO(
        networks=pg.Networks(shared=True),
        horizon=case["horizon"],
        minibatch_size=case["rows"],
        update_epochs=case["update_epochs"],
        clip_ratio=case["clip_ratio"],
        entropy_coef=case["entropy_coef"],
        seed=case["seed"],
    )
    agent.compile(keras.optimizers.Adam(2.5e-4, epsilon=1e-5, global_clipnorm=0.5))
    env, num_envs = (ale, case["num_envs"]) if what == "ale" else (envpool(case), None)
    times = []
    watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: times.append(time.perf_counter()))

    steps, epochs = case["num_envs"] * case["horizon"], case["iterations"] + 1
    agent.fit(env, total_steps=epochs * steps, epochs=epochs, num_envs=num_envs, callbacks=[watch], verbose=0)
    return {"steps_per_second": case["iterations"] * steps / (times[-1] - times[0])}


def network(case):
    """Milliseconds of our network's forward pass and update, as an agent compiles them; in this process."""
    import gymnasium as gym
    import keras
    import numpy as np
    import tensorflow as tf

    import kerasrl_pg as pg

    sys.path.insert(0, str(HERE / "peers"))
    from milliseconds import milliseconds

    frames = gym.spaces.Box(0, 255, (4, 84, 84), np.uint8)
    model, _ = pg.Networks(shared=True).build(frames, gym.spaces.Discrete(6), seed=case["seed"])
    rng = np.random.default_rng(0)
    few, many = (tf.constant(rng.integers(0, 256, (n, 4, 84, 84), np.uint8)) for n in (case["num_envs"], case["rows"]))
    actions = tf.constant(rng.integers(0, 6, case["rows"]))
    optimizer = keras.optimizers.Adam(2.5e-4, epsilon=1e-5)
    optimizer.build(model.trainable_variables)

    @tf.function(jit_compile=False)  # As an agent on a CPU, where XLA's convolutions are slower.
    def update():
        with tf.GradientTape() as tape:
            outputs = model(many)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(actions, outputs["policy"].logits)
            loss = tf.reduce_mean(losses + outputs["value"].mean() ** 2)
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss

    @tf.function(jit_compile=False)
    def forward():
        outputs = model(few)
        return outputs["policy"].logits, outputs["value"].mean()

    def read(call):
        return lambda: [each.numpy() for each in tf.nest.flatten(call())]

    return {"forward": milliseconds(read(forward)), "update": milliseconds(read(update))}


def only(what, case):
    report = network(case) if what == "network" else trained(case, what)
    return {**report, "versions": {package: importlib.metadata.version(package) for package in PACKAGES}}


def run(side, seed, peers_python, setting):
    """One measured process; its report."""
    arguments, variables = setting
    program, *options = SIDES[side][0].split()
    command = [peers_python if program.startswith("peers") else sys.executable, str(HERE / program)]
    case = json.dumps({**CASE, "seed": seed})
    command += [case, *arguments] if not options else [*options, f"--case={case}"]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **variables}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"{program} must end well. Received:\n{done.stderr[-3000:]}")
    report = json.loads(done.stdout.splitlines()[-1])
    print(side, seed, {key: round(value, 1) for key, value in report.items() if key != "versions"}, flush=True)
    return report


def cost(report):
    """Of a report, what is better when it is less."""
    return report["update"] if "update" in report else 1.0 / report["steps_per_second"]


def told(values, digits):
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f} ... {max(values):,.{digits}f})"


def table(result):
    """`pong.md`."""
    runs, settings = result["runs"], result["settings"]

    def values(side, key):
        return [report[key] for report in runs[side]]

    def pairs(one, other, key):
        return [b / a for a, b in zip(values(one, key), values(other, key), strict=True)]

    lines = ["# Pong from pixels", "", "| side | env steps/s | ours / theirs, by pairs |", "| --- | ---: | ---: |"]
    for side in ("ours", "ours, EnvPool", "Stable-Baselines3"):
        ratio = "-" if side != "ours" else told(pairs("Stable-Baselines3", "ours", "steps_per_second"), 2)
        lines.append(f"| {side} ({settings[side]}) | {told(values(side, 'steps_per_second'), 0)} | {ratio} |")
    lines += [
        "",
        "| network | forward, ms | update, ms | theirs / ours, update, by pairs |",
        "| --- | ---: | ---: | ---: |",
    ]
    for side in ("our network", "CleanRL's network"):
        ratio = "-" if side != "our network" else told(pairs("our network", "CleanRL's network", "update"), 2)
        lines.append(
            f"| {side} ({settings[side]}) | {told(values(side, 'forward'), 1)} | {told(values(side, 'update'), 0)} "
            f"| {ratio} |"
        )
    host = result["machine"]
    versions = {name: version for reports in runs.values() for name, version in reports[0]["versions"].items()}
    case = ", ".join(f"{key} {value}" for key, value in CASE.items())
    return "\n".join(
        [
            *lines,
            "",
            "ALE/Pong-v5 through gymnasium's AtariPreprocessing and FrameStackObservation on both sides, one "
            "environment after the other in one process; EnvPool's own Pong steps them in threads. Settings of "
            f"CleanRL's `ppo_atari.py`: {case} (rows: of a minibatch). Stable-Baselines3's NatureCNN with nothing "
            f"between it and the heads is CleanRL's network. Forward: {CASE['num_envs']} observations; update: the "
            f"gradient of a loss and a step of Adam on {CASE['rows']}.",
            "",
            f"{len(runs['ours'])} alternating processes a side, seeds 0, 1, ...; median (lowest ... highest). "
            f"{result['date']}, {host['cpu']}, {host['cpus']} CPUs, load average {host['load_average']:.1f} before it "
            f"began, Python {host['python']}. Versions: {', '.join(f'{k} {v}' for k, v in versions.items())}.",
            "",
            f"    python benchmarks/pong.py --repeats={len(runs['ours'])}",
            "",
        ]
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peers_python", default=str(HERE / ".venv/bin/python"))
    parser.add_argument("--only", choices=("ale", "envpool", "network"), help=argparse.SUPPRESS)  # a run's own process
    parser.add_argument("--case", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(only(arguments.only, arguments.case)))
        return
    check_peers(parser, arguments.peers_python)
    host, choices = machine(), {side: settings for side, (_, settings) in SIDES.items()}

    def measured(side, seed, setting):
        return run(side, seed, arguments.peers_python, setting)

    chosen, runs = in_turns(choices, measured, cost, arguments.repeats)
    result = {
        "case": CASE,
        "date": datetime.date.today().isoformat(),
        "machine": host,
        "settings": chosen,
        "runs": runs,
    }
    (RESULTS / "pong.json").write_text(json.dumps(result, indent=1) + "\n")
    (RESULTS / "pong.md").write_text(table(result))


if __name__ == "__main__":
    main()
