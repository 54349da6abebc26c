"""Callbacks of a trial's seeds: their share of the budget, their evaluations, and the end of those without hope."""

import math

import keras
import numpy as np

from kerasrl_pg.checks import check_number, check_whole


class Share(keras.callbacks.Callback):
    """Ends a fit after a part of its epochs: Hyperband's rung of a longer fit that may be gone on with.

    Args:
        epochs: How many of `of`.
        of: The whole fit's epochs, before `fit` lowered them, if it did.
    """

    def __init__(self, epochs, of):
        super().__init__()
        self.share = epochs / of

    def on_epoch_begin(self, epoch, logs=None):
        if epoch >= self._last():
            self.model.stop_training = True

    def on_epoch_end(self, epoch, logs=None):
        if epoch + 1 >= self._last():
            self.model.stop_training = True

    def _last(self):
        return math.ceil(self.share * self.params["epochs"] - 1e-9)


class Evaluations(keras.callbacks.Callback):
    """Evaluates after each epoch, in the same episodes for every agent, and logs it as `val_return` and so on.

    `fit`'s own `validation_env` has episodes that depend on the agent's seed, as two trials may not.

    Args:
        env: As of `Agent.evaluate`.
        episodes, seed: Of each evaluation.

    Attributes:
        returns: Mean returns, one an epoch.
        env_steps: Environment steps until then.
        last: The last evaluation, a dictionary; None before.
    """

    def __init__(self, env, episodes, seed):
        super().__init__()
        self.env, self.episodes, self.seed = env, episodes, seed
        self.returns, self.env_steps, self.last = [], [], None

    def evaluate(self, logs=None):
        """Evaluates the agent as it is."""
        self.last = self.model.evaluate(self.env, episodes=self.episodes, deterministic=True, seed=self.seed)
        if not math.isfinite(self.last["return"]):
            raise ValueError(
                f"An evaluation's return must be finite. Received: {self.last['return']}, after "
                f"{int(self.model.env_steps)} environment steps."
            )
        self.returns.append(float(self.last["return"]))
        self.env_steps.append(int(self.model.env_steps))
        if logs is not None:
            logs.update({f"val_{name}": value for name, value in self.last.items()})

    def on_epoch_end(self, epoch, logs=None):
        self.evaluate(logs)


class MedianStopping(keras.callbacks.Callback):
    """Ends a trial that has no hope: the median stopping rule of Google Vizier.

    After an epoch, a trial ends if its best `val_return` so far is below the median, over the trials before it that
    have come this far, of the mean of their `val_return` up to this epoch.

    Args:
        curves: Of the trials before, lists of `val_return` by epoch.
        warmup: Epochs that any trial is given, at least 1.
        least: Trials that there must be before one is judged by them, at least 1.
        start: `val_return` of epochs that the fit has already had.

    Attributes:
        stopped: None, or the sentence that says why the trial was ended.

    Source: Golovin et al. 2017, "Google Vizier: A Service for Black-Box Optimization", section 3.2.2.

    >>> MedianStopping([[100.0, 200.0], [50.0, 70.0], [10.0, 20.0]], warmup=1, least=3).threshold(2)
    60.0
    """

    def __init__(self, curves, warmup, least, start=()):
        super().__init__()
        check_whole("warmup", warmup)
        check_whole("least", least)
        self.curves, self.warmup, self.least = [list(curve) for curve in curves], warmup, least
        self.seen, self.stopped = list(start), None

    def threshold(self, epochs):
        """What a trial must have reached after so many epochs; -inf where too few trials have come this far."""
        means = [np.mean(curve[:epochs]) for curve in self.curves if len(curve) >= epochs]
        return float(np.median(means)) if len(means) >= self.least else -math.inf

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(float(logs["val_return"]))
        count = len(self.seen)
        threshold = self.threshold(count)
        if count >= self.warmup and max(self.seen) < threshold:
            self.stopped = (
                f"Ended after epoch {count}: its best return, {max(self.seen):.1f}, is below the median of the "
                f"trials before it, {threshold:.1f}."
            )
            self.model.stop_training = True


class Median:
    """When `MedianStopping` ends trials.

    Args:
        warmup: The part of its epochs that any trial is given, in (0, 1]. 0.5: ours, because learning curves cross
            early on. (RL Baselines3 Zoo's pruner waits for a third.)
        least: Trials before any is judged. 5, as Optuna's `MedianPruner`.

    Raises:
        ValueError: If one is out of range.

    >>> Median(0.25).warmup
    0.25
    """

    def __init__(self, warmup=0.5, least=5):
        check_number("warmup", warmup, 0.0, 1.0, exclusive=True)
        check_whole("least", least)
        self.warmup, self.least = warmup, least

    def callback(self, curves, epochs):
        """The callback for a seed of a trial."""
        return MedianStopping(curves, max(1, math.ceil(self.warmup * epochs)), self.least)
