"""Dict and Tuple actions, nested: the environment gets its own structure and dtypes, from every agent."""

import gymnasium as gym
import keras
import numpy as np
import pytest
import tensorflow as tf
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from test_action_masks import AGENTS, MODES, NETWORKS

import kerasrl_pg as pg

S = gym.spaces
SPACE = S.Dict(
    move=S.Discrete(3, start=1, dtype=np.int32),
    arm=S.Tuple((S.Box(-2, 1, (2,), np.float16), S.MultiBinary(2), S.Box(0, 3, (2,), np.uint8))),
)


class Body(gym.Env):
    """Asks for actions of its space; the reward is that of moving to 3."""

    observation_space, action_space = S.Box(-1, 1, (3,)), SPACE

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(3, np.float32), {}

    def step(self, action):
        if not self.action_space.contains(action):
            raise RuntimeError(f"{action} is not of the space")
        self.t += 1
        reward = float(action["move"] == 3) + float(action["arm"][1][0])
        return self.np_random.uniform(-1, 1, 3).astype("float32"), reward, False, self.t == 9, {}


def made(name="ppo", mode="graph", **kwargs):
    agent = AGENTS[name](networks=NETWORKS, seed=0, **kwargs)
    agent.compile(**MODES[mode])
    return agent


# How agents differ is seen where their actions are masked; the rest of these by `make slow`.
FAST = {("a2c", "graph"), ("ppo", "graph"), ("ppo", "xla"), ("trpo", "graph"), ("reinforce", "eager")}


@pytest.mark.parametrize(
    "name, mode",
    [pytest.param(n, m, marks=() if (n, m) in FAST else pytest.mark.slow) for n in AGENTS for m in MODES],
)
@pytest.mark.quick("reinforce-eager", "ppo-graph")
def test_every_agent_sends_the_environment_s_own_structure(name, mode):
    agent = made(name, mode)
    history = agent.fit(Body, num_envs=4, epochs=2, steps_per_epoch=1, verbose=0).history
    assert np.isfinite(history["loss"]).all()


@pytest.mark.parametrize("kind", [SyncVectorEnv, AsyncVectorEnv])
@pytest.mark.quick("AsyncVectorEnv")
def test_in_vector_environments(kind):
    env = kind([Body] * 3)
    try:
        made("a2c").fit(env, epochs=1, steps_per_epoch=4, verbose=0)
    finally:
        env.close()


@pytest.mark.slow
def test_it_learns():
    agent = pg.PPO(horizon=32, minibatch_size=64, update_epochs=4, networks=NETWORKS, seed=0)
    agent.compile(keras.optimizers.Adam(1e-2), jit_compile=False)
    agent.fit(Body, num_envs=4, epochs=1, steps_per_epoch=20, verbose=0)
    assert agent.evaluate(Body, episodes=5) == agent.evaluate(Body, episodes=5, num_envs=1)
    assert agent.evaluate(Body, episodes=5)["return"] == 18.0


def test_saved_acting_and_exported_alike(tmp_path):
    agent = made()
    agent.fit(Body, num_envs=4, epochs=1, steps_per_epoch=1, verbose=0)
    agent.save(tmp_path / "agent.keras")
    rows = np.random.default_rng(0).uniform(-1, 1, (5, 3)).astype("float32")
    expected = agent.act(rows)
    tf.nest.map_structure(
        np.testing.assert_array_equal, keras.models.load_model(tmp_path / "agent.keras").act(rows), expected
    )
    one = agent.act(rows[0])
    assert SPACE.contains(one)
    served = tf.saved_model.load(agent.export(str(tmp_path / "1"), verify=False)).signatures["serving_default"](
        observation=tf.constant(rows)
    )
    assert set(served) == {"move", "arm_item0", "arm_item1", "arm_item2"}
    for name, leaf in (
        ("move", expected["move"]),
        *((f"arm_item{i}", leaf) for i, leaf in enumerate(expected["arm"])),
    ):
        assert served[name].numpy().dtype == leaf.dtype
        np.testing.assert_allclose(served[name].numpy().astype(float), leaf.astype(float), atol=1e-3)
