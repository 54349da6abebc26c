"""Run by test_mirrored.py, `two_devices.py FOLDER NAME...`: trainings on one CPU and on two virtual ones, as JSON.

A process of its own, since virtual devices must be made before TensorFlow does anything.
"""

import contextlib
import functools
import json
import sys

import gymnasium as gym
import keras
import numpy as np
import tensorflow as tf

import kerasrl_pg as pg


def cases():
    """The trainings: an agent's class and its settings."""
    remembering = {"networks": {"memory": pg.models.GRU(4)}}
    return {
        "a2c": (pg.A2C, {"normalize_advantages": True}),
        "a2c-decreasing": (pg.A2C, {"anneal_learning_rate": True, "entropy_coef": pg.schedules.linear(0.1)}),
        "ppo": (pg.PPO, {}),
        "ppo-batch": (pg.PPO, {"normalize_advantages": "batch", "value_clip": 0.2}),
        "ppo-stops": (pg.PPO, {"target_kl": 1e-7}),
        "ppo-memory": (pg.PPO, {**remembering, "sequence_length": 8}),
        "a2c-memory": (pg.A2C, {**remembering, "horizon": 8}),
        "ppo-normalized": (pg.PPO, {"networks": {"normalize_observations": True}, "reward_scaling": True}),
        "ppo-regularized": (pg.PPO, {"own": True}),
    }


def own_networks():
    """A policy and a critic of the user's, with a regularizer; made where the weights are."""
    penalty = keras.regularizers.L2(1e-2)
    networks = []
    for head in (pg.heads.Categorical(2), pg.heads.NormalValue()):
        observations = keras.Input((4,))
        start = keras.initializers.HeNormal(1)
        hidden = keras.layers.Dense(8, "tanh", kernel_initializer=start, kernel_regularizer=penalty)(observations)
        networks.append(keras.Model(observations, head(hidden)))
    return networks


def make(case, strategy, optimizer=None, **compiled):
    cls, settings = cases()[case]
    settings = dict(settings)
    networks = pg.Networks(hidden_units=(8,), **settings.pop("networks", {}))
    if cls is pg.PPO:
        settings = {"horizon": 16, "minibatch_size": 32, "update_epochs": 3, **settings}
    keras.utils.set_random_seed(0)
    with strategy.scope() if strategy else contextlib.nullcontext():
        if settings.pop("own", False):
            policy, critic = own_networks()
            agent = cls(policy, critic, seed=0, **settings)
        else:
            agent = cls(networks=networks, seed=0, **settings)
        agent.compile(optimizer and optimizer(), jit_compile=False, **compiled)
    return agent


def weights(agent):
    return np.concatenate([np.ravel(keras.ops.convert_to_numpy(w)) for w in agent.get_weights()])


def difference(one, two):
    return float(np.abs(weights(one) - weights(two)).max())


def moved(agent, env):
    """How far a fit takes the weights of the networks."""
    agent.bind(env.observation_space, env.action_space)
    before = [v.numpy() for v in agent.policy.trainable_variables]
    agent.fit("CartPole-v1", num_envs=4, **SPENT)
    after = agent.policy.trainable_variables
    return max(float(np.abs(v.numpy() - w).max()) for v, w in zip(after, before, strict=True))


SPENT = {"total_steps": 512, "epochs": 1, "verbose": 0, "seed": 0}


def fitted(strategy, case):
    """How the weights of two devices differ from those of one, how far they have moved, and the program's traces."""
    one, two = make(case, None), make(case, strategy)
    env = gym.make("CartPole-v1")
    distance = min(moved(one, env), moved(two, env))
    traces = two.programs.latest.experimental_get_tracing_count()
    return {"difference": difference(one, two), "moved": distance, "traces": traces}


def clipped(strategy):
    """The same with a gradient of which little is left, and two optimizers."""
    one, two = (
        make("a2c", s, lambda: keras.optimizers.SGD(1.0, global_clipnorm=1e-2), critic_optimizer="adam")
        for s in (None, strategy)
    )
    for agent in (one, two):
        agent.fit("CartPole-v1", num_envs=4, **SPENT)
    return difference(one, two)


def invalid_rows(strategy):
    """The same on a rollout whose second half has few valid rows."""
    rng = np.random.default_rng(0)
    agents = [make("a2c", s) for s in (None, strategy)]
    shape, logs = (8, 4), []
    valid = np.ones(shape, bool)
    valid[4:, 1:] = False
    inputs = [pg.rollouts.Inputs(rng.normal(size=(*shape, 4)).astype("float32")) for _ in range(2)]
    no = np.zeros(shape, bool)
    rewards = rng.normal(size=shape).astype("float32")
    actions = rng.integers(2, size=shape).astype("int32")
    rollout = pg.rollouts.Rollout(inputs[0], actions, 0 * rewards, rewards, no, no, inputs[1], valid)
    for agent in agents:
        agent.bind(gym.spaces.Box(-np.inf, np.inf, (4,)), gym.spaces.Discrete(2))
        logs.append(agent.train_on(rollout))
    return {"difference": difference(*agents), "logs": max(abs(logs[0][name] - logs[1][name]) for name in logs[0])}


def compiled_env(strategy):
    """On a compiled environment, whose rollouts are made in the same program."""
    agents = [make("ppo", s) for s in (None, strategy)]
    for agent in agents:
        agent.fit(pg.envs.CartPole(4), **SPENT)
    return difference(*agents)


def kept(strategy, folder):
    """What is saved of two devices, loaded on one and trained on."""
    agent = make("ppo", strategy)
    agent.fit("CartPole-v1", num_envs=4, **SPENT)
    agent.save(f"{folder}/agent.keras")
    loaded = keras.models.load_model(f"{folder}/agent.keras")
    before = difference(agent, loaded)
    for each in (agent, loaded):
        each.fit("CartPole-v1", num_envs=4, **SPENT)
    agent.export(f"{folder}/exported")
    action = int(agent.act(np.ones(4, "float32")))
    served = tf.saved_model.load(f"{folder}/exported")
    outputs = served.signatures["serving_default"](tf.ones((1, 4)))
    answers = [int(np.ravel(outputs[name])[0]) for name in outputs if "action" in name]
    played = [each.evaluate("CartPole-v1", episodes=4)["return"] for each in (agent, loaded)]
    trained = difference(agent, loaded)
    return {"loaded": before, "trained": trained, "action": action, "served": answers, "played": played}


def refused(strategy):
    """The sentences of what is refused."""

    def made(cls):
        with strategy.scope():
            cls(horizon=4) if cls is pg.TRPO else cls()

    def inside():
        agent = make("ppo", strategy)
        with strategy.scope():
            agent.fit("CartPole-v1", num_envs=4, **SPENT)

    def outside():
        agent = make("ppo", strategy)
        agent.compile(keras.optimizers.Adam())

    def odd():
        with strategy.scope():
            agent = pg.A2C(horizon=5, seed=0)
            agent.compile()
        agent.fit("CartPole-v1", num_envs=1, **SPENT)

    tries = {
        "TRPO": lambda: made(pg.TRPO),
        "REINFORCE": lambda: made(pg.REINFORCE),
        "A3C": lambda: made(pg.A3C),
        "HillClimbing": lambda: made(pg.HillClimbing),
        "XLA": lambda: make("ppo", strategy).compile(jit_compile=True),
        "inside": inside,
        "outside": outside,
        "odd": odd,
    }
    sentences = {}
    for name, attempt in tries.items():
        try:
            attempt()
        except ValueError as error:
            sentences[name] = str(error)
    return sentences


def main(folder, names):
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    others = {
        "clipped": clipped,
        "invalid_rows": invalid_rows,
        "compiled_env": compiled_env,
        "kept": functools.partial(kept, folder=folder),
        "refused": refused,
    }
    made = {name: others[name](strategy) if name in others else fitted(strategy, name) for name in names}
    print(json.dumps(made))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
