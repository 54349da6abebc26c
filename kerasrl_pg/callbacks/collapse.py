"""Seeing that stored trajectories say nothing any more of the policy that learns from them."""

import warnings

import keras

from kerasrl_pg.checks import check_choice, check_number


class Collapse(keras.callbacks.Callback):
    """Ends a fit on stored trajectories, or warns once, where too few of them count.

    The mean of the log `effective_sample_size` over the epoch so far is compared after each iteration.

    Args:
        least: The effective sample size, in trajectories, below which it is too few, above 1.
        action: "stop", or "warn".

    Raises:
        ValueError: If an argument is out of range, or, when a fit begins, the agent's logs hold no such thing.

    >>> Collapse(least=8.0).action
    'stop'
    """

    def __init__(self, least, action="stop"):
        super().__init__()
        check_number("least", least, 1.0)
        check_choice("action", action, ("stop", "warn"))
        self.least, self.action = least, action
        self._warned = False

    def on_train_begin(self, logs=None):
        self._warned = False
        if not getattr(self.model, "needs_log_probs", False):
            raise ValueError(
                "`Collapse` must be given to a method that weighs stored trajectories. "
                f"Received: {self.model!r}. Leave it out."
            )

    def on_train_batch_end(self, batch, logs=None):
        size = (logs or {}).get("effective_sample_size", self.least)
        if size >= self.least:
            return
        if self.action == "stop":
            self.model.stop_training = True
        elif not self._warned:
            self._warned = True
            warnings.warn(
                f"`effective_sample_size` should be at least {self.least}. Received: {size:.3g} of "
                f"{self.model.episodes} trajectories: what is stored says little of this policy. Stop earlier, clip "
                "weights, lower the learning rate, or begin with BehaviorCloning.",
                stacklevel=2,
            )
