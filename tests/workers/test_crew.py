"""Workers that are killed again and again."""

import os
import random
import signal
import time

import gymnasium as gym
import keras
import pytest

import kerasrl_pg as pg

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_ray")]


def exists(pid):
    """Whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


class Known(gym.Wrapper):
    """CartPole that leaves a file named after its process."""

    def __init__(self, folder, driver):
        super().__init__(gym.make("CartPole-v1"))
        if os.getpid() != driver:
            (folder / "pids" / str(os.getpid())).touch()
        self._done = folder / "done"

    def step(self, action):
        if not self._done.exists():
            time.sleep(0.003)  # So that the budget lasts while others begin.
        return self.env.step(action)


class KillsAtRandom(keras.callbacks.Callback):
    """Kills a worker whenever all are there, so many times."""

    def __init__(self, folder, kills):
        super().__init__()
        self.folder, self.kills, self.killed, self.random = folder, kills, [], random.Random(0)

    def on_train_batch_end(self, batch, logs=None):
        alive = [pid for pid in map(int, os.listdir(self.folder / "pids")) if exists(pid)]
        if logs["workers"] == 2 and len(alive) == 2 and len(self.killed) < self.kills:
            self.killed.append(self.random.choice(alive))
            os.kill(self.killed[-1], signal.SIGKILL)
            while exists(self.killed[-1]):  # Until Ray has seen it.
                time.sleep(0.01)
        if len(self.killed) == self.kills:
            (self.folder / "done").touch()


@pytest.mark.filterwarnings("ignore:Worker")
@pytest.mark.parametrize(("kind", "steps"), [(pg.A2C, 400_000), (pg.A3C, 600_000)])
def test_twenty_workers_are_killed_and_the_whole_budget_is_spent(tmp_path, kind, steps):
    agent, kills, driver = kind(horizon=8, networks=pg.Networks((8,)), seed=0), KillsAtRandom(tmp_path, 20), os.getpid()
    agent.compile()
    (tmp_path / "pids").mkdir()
    history = agent.fit(
        lambda: Known(tmp_path, driver),
        total_steps=steps,
        num_envs=2,
        epochs=1,
        verbose=0,
        workers=pg.Workers(2, restarts=20),
        callbacks=kills,
    ).history
    assert len(kills.killed) == 20
    assert [event.reason for event in agent.worker_events] == ["ended: its process or its machine is gone"] * 20
    assert history["replaced"] == [20]
    assert steps - 16 < history["env_steps"][0] <= steps
    end = time.monotonic() + 20
    while any(map(exists, map(int, os.listdir(tmp_path / "pids")))) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(map(exists, map(int, os.listdir(tmp_path / "pids"))))
