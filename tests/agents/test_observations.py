"""Every kind of observation trains, acts, is saved and exported, end to end."""

import gymnasium as gym
import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasrl_pg as pg

SPACES = {
    "vector": gym.spaces.Box(-1.0, 1.0, (2, 3), np.float64),
    "image": gym.spaces.Box(0, 255, (10, 10, 4), np.uint8),
    "image_channels_first": gym.spaces.Box(0, 255, (4, 40, 40), np.uint8),
    "discrete": gym.spaces.Discrete(4, start=2),
    "multi_discrete": gym.spaces.MultiDiscrete([2, 3]),
    "multi_binary": gym.spaces.MultiBinary(3),
    "dict": gym.spaces.Dict(
        camera=gym.spaces.Box(0, 255, (10, 10, 1), np.uint8),
        robot=gym.spaces.Tuple((gym.spaces.Discrete(3), gym.spaces.Box(-1.0, 1.0, (2,), np.float32))),
    ),
}


class Noise(gym.Env):
    """Random observations of a space; episodes of six steps."""

    action_space = gym.spaces.Discrete(2)

    def __init__(self, space):
        self.observation_space = space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        self.steps += 1
        return self.observation_space.sample(), float(action), self.steps == 6, False, {}


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.quick("dict")
def test_observations_of_every_space(name, tmp_path):
    def make():
        return Noise(SPACES[name])

    networks = pg.Networks((8,), normalize_observations=True)
    agent = pg.PPO(networks=networks, horizon=8, minibatch_size=8, update_epochs=1, seed=0)
    agent.compile(jit_compile=False)
    agent.fit(make, epochs=1, steps_per_epoch=2, num_envs=2, verbose=0)
    agent.save(tmp_path / "agent.keras")
    loaded = keras.models.load_model(tmp_path / "agent.keras")
    observation, _ = make().reset(seed=1)
    assert agent.act(observation) == loaded.act(observation) in (0, 1)
    assert loaded.evaluate(make, episodes=2)["length"] == 6.0
    folder = agent.export(tmp_path / "1", verify=False)
    flat = agent.observation_spec.flatten(observation)
    named = {"observation": flat} if agent.observation_spec.single else flat
    specs = agent.observation_spec.specs
    tensors = {
        key: tf.constant(value[None], (specs if agent.observation_spec.single else specs[key]).dtype)
        for key, value in named.items()
    }
    served = tf.saved_model.load(folder).signatures["serving_default"](**tensors)["action"]
    assert served.numpy()[0] == agent.act(observation)


@pytest.mark.xla
def test_convolutions_are_not_compiled_by_xla_on_a_cpu():
    def compiled(space):
        agent = pg.PPO(seed=0)
        agent.compile()
        agent.bind(space, gym.spaces.Discrete(2))
        return agent.compiled_with_xla

    on_cpu = not tf.config.list_physical_devices("GPU")
    assert compiled(SPACES["vector"])
    assert compiled(SPACES["image"]) != on_cpu


def pong(kind):
    """Two environments of Pong, as their makers give it."""
    if kind == "envpool":
        return pytest.importorskip("envpool").make("Pong-v5", env_type="gymnasium", num_envs=2, seed=0)
    pytest.importorskip("cv2")
    gym.register_envs(pytest.importorskip("ale_py"))

    def make():
        env = gym.wrappers.AtariPreprocessing(gym.make("ALE/Pong-v5", frameskip=1))
        return gym.wrappers.FrameStackObservation(env, 4)

    return gym.vector.SyncVectorEnv([make] * 2)


@pytest.mark.parametrize("kind", ["ale", "envpool"])
@pytest.mark.quick("ale")
def test_pong_goes_through_the_convolutions_of_mnih_and_others(kind):
    env = pong(kind)
    agent = pg.PPO(networks=pg.Networks(shared=True), horizon=4, minibatch_size=8, update_epochs=1, seed=0)
    agent.compile()
    history = agent.fit(env, epochs=1, steps_per_epoch=2, verbose=0).history
    assert history["env_steps"] == [16] and np.isfinite(history["loss"]).all()
    kernels = [tuple(w.shape) for w in agent.policy.weights if w.path.endswith("kernel")]
    assert kernels == [(8, 8, 4, 32), (4, 4, 32, 64), (3, 3, 64, 64), (3136, 512), (512, 6)]
    observation = env.reset()[0]
    assert observation.shape == (2, 4, 84, 84) and agent.act(observation).shape == (2,)
    env.close()
