import keras
import pytest

from kerasrl_pg.callbacks import Progress

LOGS = {"loss": 0.5, "entropy": 0.7, "episode_return": 21.0, "env_steps": 64, "steps_per_second": 1000.0}


@pytest.mark.parametrize("more", [{}, {"val_return": 33.0, "val_length": 5.0}])
def test_it_shows_what_a_trainer_looks_at(capsys, more):
    model = keras.Sequential([keras.layers.Dense(1)])
    callbacks = keras.callbacks.CallbackList([Progress()], model=model, verbose=1, epochs=3, steps=2)
    callbacks.on_train_begin()
    callbacks.on_epoch_begin(0)
    for batch in range(2):
        callbacks.on_train_batch_begin(batch)
        callbacks.on_train_batch_end(batch, {**LOGS, "env_steps": 32 * (batch + 1)})
    callbacks.on_epoch_end(0, {**LOGS, **more})
    shown = capsys.readouterr().out
    for name in ("Epoch 1/3", "episode_return: 21.0", "env_steps: 64.0", "steps_per_second: 1000.0"):
        assert name in shown
    assert ("val_return: 33.0" in shown) == bool(more)
    for name in ("loss", "entropy", "val_length"):
        assert name not in shown


def test_it_is_silent_without_logs():
    assert Progress()._short(None) == {}
