"""PPO on pixels: steps a second on Pong, and what the convolutional network itself costs.

    pip install ale-py opencv-python-headless envpool
    TF_NUM_INTRAOP_THREADS=1 .venv/bin/python benchmarks/pong.py --iterations=4 --output=benchmarks/results/pong.json

Three measurements, in one process; compilation is off the clock, and each number is the median of its repeats:

- `ale`, `envpool`: environment steps a second of `fit`, in gymnasium's ALE with `AtariPreprocessing` and
  `FrameStackObservation`, and in EnvPool's Pong. The settings are CleanRL's `ppo_atari.py`, but for the learning rate's
  annealing, which costs nothing: 8 environments, 128 steps, 4 passes of minibatches of 256, one trunk under both heads.
- `environment`: the same environments with random actions, nothing learned.
- `forward`, `update`: milliseconds of a forward pass of 8 observations, and of a loss's gradient and a step of Adam on
  256 of them, of our network; and of CleanRL's network (`ppo_atari.py`: three convolutions, 512, two heads), in PyTorch
  where it is installed, else written down once more in plain Keras. The loss is the same sum on both sides.
"""

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path

import gymnasium as gym
import keras
import numpy as np
import tensorflow as tf

import kerasrl_pg as pg

ENVS, HORIZON, MINIBATCH, PASSES = 8, 128, 256, 4
FRAMES = gym.spaces.Box(0, 255, (4, 84, 84), np.uint8)
ACTIONS = gym.spaces.Discrete(6)


def ale():
    import ale_py

    gym.register_envs(ale_py)
    env = gym.make("ALE/Pong-v5", frameskip=1, repeat_action_probability=0.0)
    return gym.wrappers.FrameStackObservation(gym.wrappers.AtariPreprocessing(env), 4)


def envpool():
    import envpool

    return envpool.make("Pong-v5", env_type="gymnasium", num_envs=ENVS, seed=0)


def fit_rate(env, iterations):
    """Environment steps a second of `fit`, of each iteration but the first."""
    agent = pg.PPO(
        networks=pg.Networks(shared=True),
        horizon=HORIZON,
        minibatch_size=MINIBATCH,
        update_epochs=PASSES,
        clip_ratio=0.1,
        entropy_coef=0.01,
        seed=0,
    )
    agent.compile(keras.optimizers.Adam(2.5e-4, epsilon=1e-5, global_clipnorm=0.5))
    times = []
    watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: times.append(time.perf_counter()))
    steps = ENVS * HORIZON
    agent.fit(
        env, total_steps=steps * (iterations + 1), num_envs=ENVS, epochs=iterations + 1, callbacks=[watch], verbose=0
    )
    return steps / statistics.median(np.diff(times))


def environment_rate(make, steps=256):
    env = make() if make is envpool else gym.vector.SyncVectorEnv([make] * ENVS)
    env.reset()
    actions = np.random.default_rng(0).integers(0, 6, (steps, ENVS)).astype(np.int32)
    start = time.perf_counter()
    for row in actions:
        env.step(row)
    rate = steps * ENVS / (time.perf_counter() - start)
    env.close()
    return rate


def milliseconds(call, repeats=20):
    for _ in range(3):
        call()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds)


def keras_times(model, read):
    """Forward and update of a Keras model; `read` gives logits and values of its outputs."""
    rng = np.random.default_rng(0)
    few, many = (tf.constant(rng.integers(0, 256, (n, 4, 84, 84), np.uint8)) for n in (ENVS, MINIBATCH))
    actions = tf.constant(rng.integers(0, 6, MINIBATCH))
    optimizer = keras.optimizers.Adam(2.5e-4, epsilon=1e-5)
    optimizer.build(model.trainable_variables)

    @tf.function(jit_compile=False)  # As an agent on a CPU, where XLA's convolutions are slower.
    def update():
        with tf.GradientTape() as tape:
            logits, values = read(model(many))
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(actions, logits) + values**2)
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss

    forward = tf.function(lambda: read(model(few)), jit_compile=False)
    return {"forward": milliseconds(lambda: forward()[0].numpy()), "update": milliseconds(lambda: update().numpy())}


def cleanrl_keras():
    """CleanRL's network, in plain Keras."""
    layers = keras.layers

    def orthogonal(gain):
        return keras.initializers.Orthogonal(gain)

    inputs = keras.Input((4, 84, 84), dtype="uint8")
    x = keras.ops.cast(keras.ops.transpose(inputs, (0, 2, 3, 1)), "float32") / 255.0
    for filters, size, stride in ((32, 8, 4), (64, 4, 2), (64, 3, 1)):
        x = layers.Conv2D(filters, size, stride, activation="relu", kernel_initializer=orthogonal(2**0.5))(x)
    x = layers.Dense(512, activation="relu", kernel_initializer=orthogonal(2**0.5))(layers.Flatten()(x))
    return keras.Model(inputs, [layers.Dense(6)(x), layers.Dense(1)(x)])


def cleanrl_torch():
    """Forward and update of CleanRL's network in PyTorch; None where it is not installed."""
    try:
        import torch
    except ImportError:
        return None
    from torch import nn

    torch.set_num_threads(int(os.environ.get("TF_NUM_INTRAOP_THREADS", os.cpu_count())))
    trunk = nn.Sequential(
        nn.Conv2d(4, 32, 8, stride=4), nn.ReLU(), nn.Conv2d(32, 64, 4, stride=2), nn.ReLU(),
        nn.Conv2d(64, 64, 3, stride=1), nn.ReLU(), nn.Flatten(), nn.Linear(64 * 7 * 7, 512), nn.ReLU(),
    )  # fmt: skip
    actor, critic = nn.Linear(512, 6), nn.Linear(512, 1)
    weights = [*trunk.parameters(), *actor.parameters(), *critic.parameters()]
    optimizer = torch.optim.Adam(weights, lr=2.5e-4, eps=1e-5)
    few, many = (torch.randint(0, 256, (n, 4, 84, 84), dtype=torch.uint8) for n in (ENVS, MINIBATCH))
    actions = torch.randint(0, 6, (MINIBATCH,))

    def forward():
        with torch.no_grad():
            features = trunk(few / 255.0)
            return actor(features).numpy(), critic(features).numpy()

    def update():
        features = trunk(many / 255.0)
        loss = nn.functional.cross_entropy(actor(features), actions) + (critic(features) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return {"forward": milliseconds(forward), "update": milliseconds(update)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=4)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    shared, _ = pg.Networks(shared=True).build(FRAMES, ACTIONS, seed=0)
    ours = keras_times(shared, lambda outputs: (outputs["policy"].logits, outputs["value"].mean()))
    peer = cleanrl_torch()
    report = {
        "machine": platform.processor() or platform.machine(),
        "threads": os.environ.get("TF_NUM_INTRAOP_THREADS", "default"),
        "ours_ms": ours,
        "cleanrl_ms": peer or keras_times(cleanrl_keras(), lambda outputs: (outputs[0], outputs[1][:, 0])),
        "cleanrl_in": "PyTorch" if peer else "Keras",
        "steps_per_second": {make.__name__: fit_rate(make, options.iterations) for make in (ale, envpool)},
        "environment_steps_per_second": {make.__name__: environment_rate(make) for make in (ale, envpool)},
    }
    text = json.dumps(report, indent=1)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
