"""Keras's callbacks in a fit: the columns of a CSV file, what a restored fit still has to spend, and its counters."""

import csv

import keras
import numpy as np
import pytest

import kerasrl_pg as pg


def tiny():
    agent = pg.A2C(horizon=8, networks=pg.Networks(hidden_units=(8,)), seed=0)
    agent.compile(keras.optimizers.Adam(1e-3), jit_compile=False)
    return agent


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("freq, evaluated", [(2, [1, 3]), (3, [2]), ([1, 4], [0, 3])])
@pytest.mark.quick("freq2-evaluated2")
def test_a_csv_file_has_the_columns_of_a_validation_from_the_start(walk, tmp_path, freq, evaluated):
    agent = tiny()
    best = keras.callbacks.ModelCheckpoint(tmp_path / "b.weights.h5", "val_return", mode="max", save_weights_only=True)
    stop = keras.callbacks.EarlyStopping("val_return", mode="max", patience=9)
    plateau = keras.callbacks.ReduceLROnPlateau("val_return", mode="max", patience=9)
    callbacks = [best, stop, plateau, keras.callbacks.CSVLogger(tmp_path / "log.csv")]
    history = agent.fit(
        walk,
        epochs=4,
        steps_per_epoch=1,
        validation_env=walk,
        validation_freq=freq,
        validation_episodes=2,
        callbacks=callbacks,
        verbose=0,
    ).history
    table = rows(tmp_path / "log.csv")
    assert [i for i, row in enumerate(table) if row["val_return"] != "NA"] == evaluated
    assert len(history["val_return"]) == len(evaluated) and np.isfinite(stop.best)
    assert {name for name in table[0] if name.startswith("val_")} == {n for n in history if n.startswith("val_")}
    assert "learning_rate" in table[0]


def test_without_validation_there_are_no_columns_for_it_and_appending_keeps_those_of_the_file(walk, tmp_path):
    agent = tiny()
    for append in (False, True):
        callback = keras.callbacks.CSVLogger(tmp_path / "log.csv", append=append)
        agent.fit(walk, epochs=2, steps_per_epoch=1, callbacks=callback, verbose=0)
    table = rows(tmp_path / "log.csv")
    assert len(table) == 4 and not any(name.startswith("val_") for name in table[0])
    validated = {"validation_env": walk, "validation_episodes": 1, "verbose": 0}
    callback = keras.callbacks.CSVLogger(tmp_path / "log.csv", append=True)
    with pytest.warns(UserWarning, match="has no column for val_deterministic"):
        agent.fit(walk, epochs=1, steps_per_epoch=1, callbacks=callback, **validated)
    assert [float(row["env_steps"]) for row in rows(tmp_path / "log.csv")] == [8, 16, 24, 32, 40]


class Interrupt(keras.callbacks.Callback):
    def __init__(self, hook, epoch):
        super().__init__()
        self.hook, self.at, self.epoch = hook, epoch, 0

    def _stop(self, hook, epoch):
        if (hook, epoch) == (self.hook, self.at):
            raise KeyboardInterrupt

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch, self.batches = epoch, 0
        self._stop("begin", epoch)

    def on_train_batch_end(self, batch, logs=None):
        self.batches += 1
        self._stop("first", self.epoch)
        self._stop("last", self.epoch if self.model.stop_training else None)

    def on_epoch_end(self, epoch, logs=None):
        self._stop("end", epoch)

    def on_train_end(self, logs=None):
        self._stop("over", 0)


TOTAL, SHARES = {"total_steps": 330, "epochs": 5}, {"epochs": 5, "steps_per_epoch": 2}


@pytest.mark.parametrize(
    "kind, per_execution, budget",
    [
        ("host", 1, TOTAL),
        ("host", 3, SHARES),
        ("compiled", 1, SHARES),
        ("compiled", 3, TOTAL),
        pytest.param("host", 1, SHARES, marks=pytest.mark.slow),
        pytest.param("host", 3, TOTAL, marks=pytest.mark.slow),
        pytest.param("compiled", 1, TOTAL, marks=pytest.mark.slow),
        pytest.param("compiled", 3, SHARES, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("save_freq", [1, "epoch"])
@pytest.mark.quick("epoch-compiled-3-budget3")
def test_a_restored_fit_never_exceeds_its_budget(walk, tmp_path, kind, per_execution, budget, save_freq):
    env = walk if kind == "host" else pg.envs.CartPole(num_envs=4)
    agent = tiny()
    agent.compile(jit_compile=False, steps_per_execution=per_execution)
    settings = {"num_envs": 4, "verbose": 0, **budget}
    points = [("last", 0), ("last", 4), ("end", 4), ("over", 0)]
    for number, point in enumerate(points):
        spent = int(agent.env_steps)
        for extra in ([Interrupt(*point)], []):
            backup = keras.callbacks.BackupAndRestore(tmp_path / str(number), save_freq=save_freq)
            before = int(agent.progress[1])
            try:
                agent.fit(env, callbacks=[backup, *extra], **settings)
            except KeyboardInterrupt:
                continue
        assert int(agent.progress[1]) == 320, (point, before, spent)


@pytest.mark.parametrize("how", ["early stopping", "set_weights", "load_weights"])
@pytest.mark.quick("early stopping")
def test_weights_set_within_a_fit_leave_what_was_spent(walk, tmp_path, how):
    agent = tiny()

    class Back(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 0:
                self.policy, self.weights = self.model.policy.get_weights(), self.model.get_weights()
                self.model.save_weights(tmp_path / "first.weights.h5")
            elif how == "set_weights":
                self.model.set_weights(self.weights)
            elif how == "load_weights":
                self.model.load_weights(tmp_path / "first.weights.h5")

    back = Back()
    stop = keras.callbacks.EarlyStopping("env_steps", mode="min", patience=9, restore_best_weights=True)
    callbacks = [back, stop] if how == "early stopping" else back
    history = agent.fit(walk, total_steps=64, epochs=4, callbacks=callbacks, verbose=0).history
    assert history["env_steps"] == [16, 32, 48, 64]
    assert int(agent.env_steps) == 64 and agent.progress.numpy().tolist() == [8, 64]
    for a, b in zip(back.policy, agent.policy.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    agent.set_weights(back.weights)  # After a fit, all is set.
    assert int(agent.env_steps) == 16


def test_a_finished_fit_restored_when_its_first_epoch_begins_runs_nothing_more(walk, tmp_path):
    def fitted(*callbacks):
        agent = pg.A2C(networks=pg.Networks((4,)), seed=0)
        agent.compile()
        agent.fit(walk, total_steps=30, epochs=3, num_envs=2, verbose=0, callbacks=[make(agent) for make in callbacks])
        return agent

    finished = fitted()
    finished.save_weights(tmp_path / "finished.weights.h5")

    def restore(agent):
        def load(epoch, logs):
            if epoch == 0:
                agent.load_weights(tmp_path / "finished.weights.h5")

        return keras.callbacks.LambdaCallback(on_epoch_begin=load)

    again = fitted(restore)
    assert int(again.env_steps) == int(finished.env_steps) == 30
    for one, other in zip(again.get_weights(), finished.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
