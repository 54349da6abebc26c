"""The callbacks of one fit: Keras's list, and what Keras's own callbacks need to be told here."""

import csv
import pathlib
import warnings

import keras

from kerasrl_pg.callbacks.budget import Budget


def as_list(callbacks):
    """Callbacks as `fit` takes them, None, one, or nested lists, as a flat list.

    Raises:
        TypeError: If one is no Keras callback.

    >>> len(as_list(keras.callbacks.TerminateOnNaN()))
    1
    """
    if callbacks is None:
        return []
    flat = keras.tree.flatten(getattr(callbacks, "callbacks", callbacks))  # A `CallbackList` has its own.
    for callback in flat:
        if not isinstance(callback, keras.callbacks.Callback):
            remedy = " Make one of this class." if isinstance(callback, type) else ""
            raise TypeError(f"`callbacks` must be Keras callbacks. Received: {callback!r}.{remedy}")
    return flat


class FitCallbacks(keras.callbacks.CallbackList):
    """Keras's `CallbackList`, which starts a fit where a callback has restored it, and heads every CSV file.

    Args:
        callbacks: A flat list; its first one is the fit's `Budget`.
        validation_names: What an evaluation logs, with `val_`; empty where there is none.
        kwargs: Keras's own.
    """

    def __init__(self, callbacks, validation_names=(), **kwargs):
        (self._budget,) = (callback for callback in callbacks if isinstance(callback, Budget))
        headed = []
        for callback in callbacks:
            # Just before the logger, when other callbacks have added to the logs.
            is_logger = isinstance(callback, keras.callbacks.CSVLogger)
            headed += [_Columns(callback, validation_names), callback] if is_logger else [callback]
        super().__init__(headed, **kwargs)

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        # Keras reads it next. By what is spent, since a checkpoint within an epoch names that epoch even when nothing
        # is left of it, and Keras plays at least one iteration of every epoch that it begins.
        self.model._initial_epoch = self._budget.epoch_at(self.model.progress.numpy())


class _Columns(keras.callbacks.Callback):
    """Tells a `CSVLogger` its columns. It would fix them at the first epoch, and guess those of a validation."""

    def __init__(self, logger, validation_names):
        super().__init__()
        self._logger = logger
        self._validation_names = validation_names

    def on_epoch_end(self, epoch, logs=None):
        logger = self._logger
        if logger.keys is not None:
            return
        logger.keys = sorted({*(logs or {}), *self._validation_names})
        if logger.append and not logger.append_header:
            with pathlib.Path(logger.filename).open(newline="", encoding="utf8") as file:
                columns = next(csv.reader(file, delimiter=logger.sep))
            lost = [name for name in logger.keys if name not in columns]
            if lost:
                warnings.warn(
                    f"CSVLogger appends to {logger.filename!r}, which has no column for {', '.join(lost)}: left out.",
                    stacklevel=2,
                )
            logger.keys = columns[1:]
