"""A run that is killed loses a minute at most."""

import contextlib
import signal
import threading
import time

import keras

from kerasrl_pg.checks import check_number


class Checkpoint(keras.callbacks.Callback):
    """Saves the agent every so many seconds while a fit runs, and ends the fit with a last one when asked to.

    `keras.models.load_model(filepath).fit(..., resume=True)` goes on from there, with the same budget. The file is
    written beside, read back and renamed: a full disk or a kill leaves the one before. Where the disk takes none, the
    run goes on, and a warning says so.

    Args:
        filepath: Where, ending in `.keras`.
        seconds: Between saves, above 0; one is made after the iteration in which they have passed. 60: ours, because
            a minute is little to lose, and a save takes some hundredths of it.

    Raises:
        ValueError: If `seconds` is out of range.

    >>> Checkpoint("runs/cartpole/checkpoint.keras").seconds
    60.0
    """

    def __init__(self, filepath, seconds=60.0):
        super().__init__()
        check_number("seconds", seconds, 0.0, exclusive=True)
        self.filepath, self.seconds = filepath, float(seconds)
        self.stopped = None  # The number of the signal that ended the fit.

    def stop(self, number):
        """Asks the fit to end after the present iteration, with a save."""
        self.stopped = number

    def on_train_begin(self, logs=None):
        self._saved = time.monotonic()

    def on_train_batch_end(self, batch, logs=None):
        if self.stopped is not None:
            self.model.save(self.filepath)
            self.model.stop_training = True
        elif time.monotonic() - self._saved >= self.seconds:
            try:
                self.model.save(self.filepath)
            except OSError as error:
                print(f"\nNo checkpoint was written: {error} The one before is kept.")
            self._saved = time.monotonic()

    @contextlib.contextmanager
    def listening(self):
        """While it is open, Ctrl-C and SIGTERM end the fit after the present iteration; the second one ends it at once.

        Outside the main thread, where Python hears no signals, it does nothing.
        """
        if threading.current_thread() is not threading.main_thread():
            yield self
            return

        def heard(number, frame):
            if self.stopped is not None:
                raise KeyboardInterrupt
            self.stop(number)
            print("\nStopping after this iteration; once more stops at once.")

        before = {number: signal.signal(number, heard) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
