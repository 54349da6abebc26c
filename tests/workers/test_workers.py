"""What workers collect together is what one process collects; and what befalls them costs no more than a rollout."""

import os
import signal
import sys
import threading
import time
import types

import cloudpickle
import gymnasium as gym
import keras
import numpy as np
import pytest

import kerasrl_pg as pg
from kerasrl_pg.workers.crew import Crew
from kerasrl_pg.workers.players import Dated
from kerasrl_pg.workers.settings import as_workers, shares
from kerasrl_pg.workers.worker import check_versions, plan_for

by_ray = pytest.mark.usefixtures("one_ray")


def made(kind, **settings):
    networks = pg.Networks(hidden_units=(8,), normalize_observations=True)
    agent = kind(**{"networks": networks, "seed": 3, **settings})
    agent.compile()
    return agent


def assert_same(one, other):
    for mine, theirs in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


MEMORY = {"networks": pg.Networks(hidden_units=(8,), memory=pg.models.GRU(4))}


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        pytest.param(pg.PPO, {"minibatch_size": 8, "update_epochs": 2, "reward_scaling": True}, id="ppo"),
        pytest.param(pg.TRPO, {"minibatch_size": 8}, id="trpo"),
        pytest.param(pg.A2C, MEMORY, id="a2c-memory"),
    ],
)
@pytest.mark.quick("ppo")
@by_ray
def test_workers_learn_what_one_process_learns(kind, settings):
    alone, together = made(kind, horizon=8, **settings), made(kind, horizon=8, **settings)
    fit = {"env": "CartPole-v1", "total_steps": 480, "num_envs": 3, "epochs": 2, "verbose": 0}
    logs, more = alone.fit(**fit).history, together.fit(**fit, workers=2).history
    assert_same(alone, together)
    assert more["workers"] == [2, 2]
    assert more["replaced"] == [0, 0]
    for name in set(logs) - {"steps_per_second"}:
        np.testing.assert_array_equal(logs[name], more[name])


@by_ray
def test_gradients_of_one_worker_are_never_stale_and_learn_what_a2c_learns():
    settings = {"horizon": 8, "gamma": 0.9, "reward_scaling": True, "anneal_learning_rate": True}
    a2c, a3c = made(pg.A2C, **settings), made(pg.A3C, **settings)
    fit = {"env": "CartPole-v1", "total_steps": 480, "num_envs": 3, "epochs": 2, "verbose": 0}
    logs, more = a2c.fit(**fit).history, a3c.fit(**fit, workers=1).history
    for mine, theirs in zip(a2c.get_weights(), a3c.get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)
    assert more["staleness"] == [0, 0]
    assert more["dropped"] == [0, 0]
    for name in set(logs) - {"steps_per_second"}:
        np.testing.assert_allclose(logs[name], more[name], rtol=1e-4, atol=1e-6)
    assert a3c.programs.latest.experimental_get_tracing_count() == 1


@pytest.mark.slow
@by_ray
def test_an_environment_that_cannot_be_sent_is_refused():
    lock = threading.Lock()
    with pytest.raises(TypeError, match="cannot be pickled"):
        made(pg.A2C, horizon=8).fit(lambda: lock and gym.make("CartPole-v1"), total_steps=64, workers=2, verbose=0)


def test_a_plan_that_cannot_be_sent_is_refused():
    ray = types.SimpleNamespace(put=cloudpickle.dumps)  # As Ray's, of which none need run for this.
    with pytest.raises(TypeError, match="`env` and the agent's own classes must be.*cannot be pickled, TypeError"):
        Crew(ray, pg.Workers(2), 2).begin(threading.Lock(), lambda: 0)


class Trouble(gym.Wrapper):
    """CartPole, in which one worker comes to harm once, at a step of its life."""

    def __init__(self, what, place, driver):
        super().__init__(gym.make("CartPole-v1"))
        self._what, self._place, self._driver, self._steps = what, place, driver, 0

    def step(self, action):
        self._steps += 1
        if self._steps == 20 and os.getpid() != self._driver and self._is_first():
            if self._what == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            elif self._what == "hang":
                time.sleep(1000)
            raise OSError("the sensor is gone")
        return self.env.step(action)

    def _is_first(self):
        """Whether no other worker was; they come to their steps at the same time."""
        try:
            self._place.touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


class UntilAllAreBack(keras.callbacks.Callback):
    """Notes how many workers there are, and ends the fit when one has gone and another has come."""

    def __init__(self):
        super().__init__()
        self.workers = []

    def on_train_batch_end(self, batch, logs=None):
        self.workers.append(logs["workers"])
        self.model.stop_training = 1 in self.workers and logs["workers"] == 2


@pytest.mark.parametrize(
    ("kind", "what", "reason"),
    [
        pytest.param(pg.A2C, "kill", "its process or its machine is gone", id="a2c-kill"),
        pytest.param(pg.A3C, "raise", "the sensor is gone", id="a3c-raise"),
        pytest.param(pg.A2C, "hang", "gave no rollout for 60 seconds", id="a2c-hang"),
        pytest.param(pg.A3C, "kill", "its process or its machine is gone", id="a3c-kill"),
    ],
)
@pytest.mark.slow
@by_ray
def test_the_others_go_on(tmp_path, kind, what, reason):
    agent, until, place, driver = made(kind, horizon=8), UntilAllAreBack(), tmp_path / "happened", os.getpid()
    with pytest.warns(UserWarning, match=f"Worker . .*{reason}.*Another one takes its place"):
        history = agent.fit(
            lambda: Trouble(what, place, driver),
            total_steps=10_000_000,
            num_envs=2,
            epochs=1,
            verbose=0,
            workers=pg.Workers(2, restarts=1),
            callbacks=until,
        ).history
    (event,) = agent.worker_events
    assert reason in event.reason
    assert event.replaced
    assert until.workers[-1] == 2
    assert history["replaced"] == [1]
    assert history["env_steps"] == [int(agent.env_steps)]


class Broken(gym.Wrapper):
    def __init__(self, driver):
        super().__init__(gym.make("CartPole-v1"))
        self._driver = driver

    def step(self, action):
        if os.getpid() != self._driver:
            raise OSError("it never worked")
        return self.env.step(action)


@pytest.mark.slow
@by_ray
def test_when_nobody_is_left_the_last_reason_is_raised():
    agent, driver = made(pg.A2C, horizon=8), os.getpid()
    with (
        pytest.warns(UserWarning, match="The others go on without it"),
        pytest.raises(RuntimeError, match="Workers must be there to go on.*it never worked"),
    ):
        agent.fit(lambda: Broken(driver), total_steps=64, num_envs=2, verbose=0, workers=pg.Workers(2, restarts=0))
    assert [event.replaced for event in agent.worker_events] == [False, False]
    assert int(agent.env_steps) == 0


def test_workers_are_refused_in_sentences():
    agent = made(pg.A2C, horizon=8)
    fit = {"env": "CartPole-v1", "total_steps": 64, "verbose": 0}
    for arguments, words in [
        ({"workers": 0}, "`workers` must be a whole number of at least 1"),
        ({"workers": 3, "num_envs": 2}, "`num_envs` must be at least 3, the number of workers"),
        ({"workers": 2, "env": gym.make("CartPole-v1")}, "`env` must be a gymnasium id, a function"),
    ]:
        with pytest.raises(ValueError, match=words):
            agent.fit(**{**fit, **arguments})
    with pytest.raises(ValueError, match="`num_envs` must be a multiple of 2, the number of workers"):
        made(pg.A3C).fit(**fit, workers=2, num_envs=3)
    with pytest.raises(ValueError, match="`workers` must be left out, since a population"):
        pg.HillClimbing().fit(**fit, workers=2)


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r'pip install "kerasrl-pg\[ray\]"'):
        made(pg.A2C, horizon=8).fit("CartPole-v1", total_steps=64, workers=2, verbose=0)


@pytest.mark.parametrize(("name", "value"), [("count", 0), ("timeout", 0.0), ("restarts", -1), ("cpus", -1.0)])
def test_workers_settings_are_checked(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        pg.Workers(**{"count": 2, name: value})


def test_of_the_users_own_classes_those_are_sent_that_the_agent_has():
    @keras.saving.register_keras_serializable("tests")
    class Mine(keras.layers.Layer):
        def call(self, x):
            return x

    keras.saving.register_keras_serializable("tests", name="NotMine")(Mine)
    observation = keras.Input((3,))
    hidden = Mine()(observation)
    model = keras.Model(
        observation, {"policy": pg.heads.Categorical(2)(hidden), "value": pg.heads.NormalValue()(hidden)}
    )
    agent = pg.A2C(model, seed=0)
    agent.compile()
    agent.bind(gym.spaces.Box(-1.0, 1.0, (3,)), gym.spaces.Discrete(2))
    plan = plan_for(agent, "CartPole-v1", False, 2, 5, 0, [1, 1])
    assert plan.custom_objects == {"tests>NotMine": Mine}  # The later name of the two.
    assert cloudpickle.loads(cloudpickle.dumps(plan)).specs["CartPole-v1"].id == "CartPole-v1"


def test_shares_are_all_and_even():
    assert shares(7, 3) == [3, 2, 2]
    assert as_workers(2) == pg.Workers(2)


def test_dated_episodes_know_row_and_environment():
    statistics = Dated(2, first=4)
    for rewards, ended in ([[1, 1], [False, False]], [[2, 2], [True, False]], [[3, 3], [True, True]]):
        statistics.add(np.array(rewards, float), np.array(ended))
    assert statistics.dated == [(1, 4, 3.0, 2), (2, 4, 3.0, 1), (2, 5, 6.0, 3)]


def test_another_version_is_refused():
    check_versions({"keras": "3.15.1"}, {"keras": "3.15.1", "tensorflow": "2"}, 0)
    with pytest.raises(RuntimeError, match="Worker 1 must have .*keras 3.15.1. Received: keras 3.14.0"):
        check_versions({"keras": "3.15.1"}, {"keras": "3.14.0"}, 1)


@pytest.mark.slow
@by_ray
def test_seeds_side_by_side_are_those_one_after_the_other(tmp_path):
    def make_agent(seed):
        agent = pg.A2C(seed=seed, networks=pg.Networks((8,)))
        agent.compile()
        return agent

    given = {"env": "CartPole-v1", "seeds": [4, 2, 7], "episodes": 4, "total_steps": 400, "num_envs": 2, "verbose": 0}
    alone = pg.fit_seeds(make_agent, **given)
    together = pg.fit_seeds(make_agent, **given, side_by_side=2, filepath=tmp_path / "{seed}.keras")
    assert together.seeds == alone.seeds
    assert list(together.evaluations) == alone.evaluations
    np.testing.assert_array_equal(together.curve(), alone.curve())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2.keras", "4.keras", "7.keras"]
