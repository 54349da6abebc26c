"""Action masks: are they obeyed, and what do they cost beside Stable-Baselines3-Contrib's MaskablePPO?

    make bench-peers
    .venv/bin/python benchmarks/masked.py --repeats=3

Connect Four against an opponent who plays at random (`games.py`), which counts every move into a full column. Obeyed:
1,000,000 steps of training, then evaluation and play with the exported policy; the same, shorter, with memory. Speed:
`throughput.py`'s alternating runs, with one thread a side. Writes `results/masked.md` and `.json`.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path

from memory import PEERS
from records import ONE_THREAD as ONE_TENSORFLOW_THREAD
from records import origin
from throughput import ONE_THREAD, machine, measure
from throughput import table as speed_table

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "masked.json"
ENV = "games:ConnectFour-v0"
# Settings, steps of training, episodes of evaluation in either mode, steps with either signature of the export.
OBEYED = {
    "masked": ({"minibatch_size": 256, "update_epochs": 4}, 1_000_448, 1000, 10_000),
    "masked-recurrent": ({"minibatch_size": 256, "update_epochs": 4, "sequence_length": 16}, 51_200, 200, 0),
}
SPEED = {
    "algorithm": "maskable_ppo",
    "env": ENV,
    "num_envs": 8,
    "horizon": 128,
    "update_epochs": 4,
    "minibatch_size": 256,
    "gamma": 0.99,
    "gae_lambda": 0.95,
    "learning_rate": 1e-3,
    "clip_ratio": 0.2,
    "entropy_coef": 0.0,
    "value_coef": 0.5,
    "max_grad_norm": 0.5,
    "warmup": 2,
    "steps": 102_400,
}


def play(served, steps):
    """Steps of a SavedModel in the game, with the mode of its policy and with samples."""
    import gymnasium as gym
    import tensorflow as tf

    env = gym.make(ENV)
    for name in ("serving_default", "sample"):
        board, info = env.reset(seed=0)
        for step in range(steps):
            given = {"observation": tf.constant(board[None]), "action_mask": tf.constant(info["action_mask"][None])}
            if name == "sample":
                given["seed"] = tf.constant([0, step])
            action = served.signatures[name](**given)["action"].numpy()[0]
            board, _, over, _, info = env.step(action)
            if over:
                board, info = env.reset()


def obey(name):
    """Steps and illegal moves by place."""
    import keras
    import tensorflow as tf
    from games import ConnectFour

    import kerasrl_pg as pg

    settings, steps, episodes, served_steps = OBEYED[name]
    networks = pg.Networks((64,), memory=pg.models.GRU(64)) if "sequence_length" in settings else pg.Networks((64, 64))
    agent = pg.PPO(horizon=128, networks=networks, seed=0, **settings)
    agent.compile(keras.optimizers.Adam(1e-3, epsilon=1e-5, global_clipnorm=0.5))
    found, ends = {}, {}

    def counted(place, act):
        counters = ("steps", "limited", "illegal")
        for counter in counters:
            setattr(ConnectFour, counter, 0)
        result = act()
        found[place] = {counter: getattr(ConnectFour, counter) for counter in counters}
        print(name, place, found[place], flush=True)
        return result

    counted("training", lambda: agent.fit(ENV, total_steps=steps, num_envs=8, epochs=10, verbose=0))
    for deterministic in (True, False):
        place = f"evaluation, {'mode' if deterministic else 'samples'}"
        ends[place] = counted(
            place, lambda mode=deterministic: agent.evaluate(ENV, episodes, seed=1_000_000, deterministic=mode)
        )["return"]
    if served_steps:
        with tempfile.TemporaryDirectory() as folder:
            served = tf.saved_model.load(agent.export(str(Path(folder) / "1")))
            counted("exported policy, mode and samples", lambda: play(served, served_steps))
    return {"places": found, "returns": ends, **origin()}


def table(results):
    lines = [
        "# Action masks",
        "",
        "Connect Four against an opponent who plays at random; the agent begins, and is allowed the columns that are "
        "not full. The environment counts what was not allowed. Return: 1 for a game won, -1 lost.",
        "",
        "| run | place | steps | with a full column | illegal moves | return |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for name in OBEYED:
        for place, found in results.get(name, {"places": {}})["places"].items():
            end = f"{results[name]['returns'][place]:.2f}" if place in results[name]["returns"] else "-"
            lines.append(
                f"| {name} | {place} | {found['steps']:,} | {found['limited']:,} | {found['illegal']} | {end} |"
            )
    told = {name: results[name] for name in OBEYED if name in results}
    dates = sorted({record["date"] for record in told.values()})
    versions = sorted({f"{k} {v}" for record in told.values() for k, v in record["versions"].items()})
    host = machine()
    lines += [
        "",
        "PPO, 8 environments, horizon 128, 4 passes of 256, Adam with 1e-3, seed 0; networks 64 x 64 tanh, with memory "
        f"a tanh layer of 64 and a GRU of 64, sequences of 16. {', '.join(dates)}, {host['cpu']}, {host['cpus']} CPUs, "
        f"Python {host['python']}. Versions: {', '.join(versions)}.",
        "",
        "    python benchmarks/masked.py",
        "",
    ]
    if "speed" in results:
        lines.append(speed_table("speed", results["speed"], PEERS))
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--case", choices=[*OBEYED, "speed"], action="append", help="default: all")
    parser.add_argument("--repeats", type=int, default=3, help="of speed")
    parser.add_argument("--peers_python", default=str(HERE / ".venv/bin/python"))
    arguments = parser.parse_args()
    for name, value in ONE_TENSORFLOW_THREAD.items():
        os.environ.setdefault(name, value)
    for name in arguments.case or [*OBEYED, "speed"]:
        if name == "speed":
            result = measure(SPEED, ["ours", "sb3"], arguments.repeats, arguments.peers_python, ONE_THREAD)
        else:
            result = obey(name)
        results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        RESULTS.write_text(json.dumps({**results, name: result}, indent=1) + "\n")
        RESULTS.with_suffix(".md").write_text(table({**results, name: result}))


if __name__ == "__main__":
    main()
