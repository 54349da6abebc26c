"""Showing people what takes long: training, and compiling."""

import sys
import threading
import time

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


class Compiling:
    """Says on the screen, while a `with` block runs, that something is being compiled, and for how long.

    Args:
        what: What is compiled.
        show: Whether to say anything.
        interval: Seconds between two looks at the clock, where the screen can overwrite a line.

    >>> with Compiling("a program", show=False) as compiling:
    ...     _ = sum(range(10))
    >>> compiling.seconds < 1
    True
    """

    def __init__(self, what, show=True, interval=0.5):
        self.what = what
        self.seconds = 0.0
        self._show = show
        self._interval = interval

    def __enter__(self):
        self._started = time.perf_counter()
        self._done = threading.Event()
        # The compiler leaves Python's lock alone, so that a thread can go on counting.
        self._thread = threading.Thread(target=self._tick, daemon=True)
        if self._show:
            self._thread.start()
        return self

    def __exit__(self, *_):
        self.seconds = time.perf_counter() - self._started
        self._done.set()
        if self._show:
            self._thread.join()
            self._say(end="\n")

    def _tick(self):
        while sys.stdout.isatty() and not self._done.wait(self._interval):
            self._say(end="")

    def _say(self, end):
        start = "\r" if sys.stdout.isatty() else ""
        seconds = time.perf_counter() - self._started
        print(f"{start}Compiling {self.what}: {seconds:.1f} s", end=end, flush=True)
