"""A3C: at no staleness it is A2C; what is stale is counted, and dropped where that was asked for."""

import gymnasium as gym
import keras
import numpy as np
import pytest
from test_constrained import OBSERVATIONS, rollout

import kerasrl_pg as pg


def made(kind, optimizer=None, **settings):
    networks = pg.Networks(hidden_units=(8,), normalize_observations=True)
    agent = kind(**{"networks": networks, "seed": 3, "gamma": 0.9, **settings})
    agent.compile(optimizer)
    return agent


def assert_close(one, other):
    for mine, theirs in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


SPACES = {"discrete": gym.spaces.Discrete(3), "box": gym.spaces.Box(-1.0, 1.0, (2,), np.float32)}


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.quick("box")
def test_both_steps_are_a2cs(name):
    agents = [made(kind, reward_scaling=True) for kind in (pg.A2C, pg.A3C)]
    recorded = rollout(np.random.default_rng(0), SPACES[name], invalid=0.2)
    logs = []
    for agent in agents:
        agent.bind(OBSERVATIONS, SPACES[name])
        before = agent.get_weights()
        logs.append(agent.train_on(recorded))
    assert any((a != b).any() for a, b in zip(before, agent.get_weights(), strict=True))
    assert logs[0] == pytest.approx(logs[1], rel=1e-5)
    assert_close(*agents)


def test_it_is_saved_and_made_anew(tmp_path):
    agent = made(pg.A3C, max_staleness=4)
    agent.bind(OBSERVATIONS, SPACES["box"])
    agent.save(tmp_path / "agent.keras")
    loaded = keras.models.load_model(tmp_path / "agent.keras")
    assert type(loaded) is pg.A3C
    assert loaded.max_staleness == 4
    assert_close(agent, loaded)
    with pytest.raises(ValueError, match="`max_staleness` must be a whole number of at least 0, or None"):
        agent.max_staleness = -1


@pytest.mark.slow
def test_what_is_stale_is_counted_and_may_be_dropped(one_ray):
    agent = made(pg.A3C, horizon=8, max_staleness=0)
    history = agent.fit("CartPole-v1", total_steps=960, num_envs=2, workers=2, epochs=2, verbose=0).history
    assert history["staleness"][-1] == 0
    assert history["dropped"][-1] > 0
    # All that was played counts, and what was dropped moved nothing.
    assert history["env_steps"][-1] == int(agent.env_steps) == 8 * (int(agent.iterations) + history["dropped"][-1])
    assert history["env_steps"][-1] <= 960


@pytest.mark.slow
def test_nothing_is_dropped_where_nobody_asks(one_ray):
    agent = made(pg.A3C, horizon=8)
    history = agent.fit("CartPole-v1", total_steps=960, num_envs=2, workers=2, epochs=2, verbose=0).history
    assert history["staleness"][-1] > 0
    assert history["dropped"] == [0, 0]


class OnlyTheFirst(gym.Wrapper):
    """CartPole that allows its first action alone."""

    def allowed(self, info):
        return {**info, "action_mask": np.array([1, 0], np.int8)}

    def reset(self, **kwargs):
        observation, info = self.env.reset(**kwargs)
        return observation, self.allowed(info)

    def step(self, action):
        if action != 0:
            raise ValueError("It was forbidden.")
        *rest, info = self.env.step(action)
        return *rest, self.allowed(info)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["memory", "masks"])
def test_workers_remember_and_obey(one_ray, kind):
    networks = pg.Networks((8,), memory=pg.models.GRU(4) if kind == "memory" else None)
    env = (lambda: OnlyTheFirst(gym.make("CartPole-v1"))) if kind == "masks" else "CartPole-v1"
    agent = made(pg.A3C, networks=networks)
    before = fitted(agent, env, 40)
    after = fitted(agent, env, 400)
    assert any((a != b).any() for a, b in zip(before, after, strict=True))
    assert not agent.worker_events
    assert agent.evaluate(env, episodes=2)["length"] >= 8.0


def fitted(agent, env, steps):
    """The weights after a fit by two workers."""
    agent.fit(env, total_steps=steps, num_envs=2, epochs=1, verbose=0, workers=2)
    return agent.get_weights()
