"""Keras's progress bar, showing what a policy's trainer looks at."""

import keras


class Progress(keras.callbacks.ProgbarLogger):
    """One line of live progress: return, environment steps, steps per second, and an evaluation where there is one.

    `fit` adds it. Pass Keras's own `ProgbarLogger` among the callbacks to see every log instead.
    """

    shown = ("episode_return", "env_steps", "steps_per_second")

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, self._short(logs))

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, self._short(logs))

    def _short(self, logs):
        logs = logs or {}
        return {name: logs[name] for name in (*self.shown, "val_return") if name in logs}
