"""How long a fit lasts: its budget of environment steps or iterations, shared out to epochs."""

import math
import warnings

import keras

from kerasrl_pg.checks import check_whole


class Budget(keras.callbacks.Callback):
    """Ends each epoch after its share of the budget, and the fit before a rollout could exceed it.

    What a fit has spent is the agent's weight `progress`, [iterations, environment steps], so that a fit goes on
    exactly where a checkpoint found it.

    Args:
        rollout_steps: Environment steps of one rollout, at most.
        total_steps, epochs, steps_per_epoch: As given to `fit`.
        whole_episodes: Whether a rollout may take fewer steps than `rollout_steps`.
        steps_per_execution: Iterations that run between two looks at the callbacks, at most.

    Attributes:
        epochs: How many there are.
        executions_per_epoch: How many times an epoch's progress bar moves, at most; None where nobody knows.
        total: The budget, in environment steps or, without `total_steps`, in iterations.
        epoch_is_over: Whether the present epoch has had its share.

    Raises:
        ValueError: If the budget is missing, contradictory, or smaller than one rollout.

    >>> budget = Budget(2048, total_steps=100_000)
    >>> budget.epochs, budget.executions_per_epoch
    (10, 5)
    """

    def __init__(
        self,
        rollout_steps,
        total_steps=None,
        epochs=None,
        steps_per_epoch=None,
        whole_episodes=False,
        steps_per_execution=1,
    ):
        super().__init__()
        for name, value in (("total_steps", total_steps), ("epochs", epochs), ("steps_per_epoch", steps_per_epoch)):
            if value is not None:
                check_whole(name, value)
        self.epoch_is_over = False
        self.rollout_steps = rollout_steps
        self.steps_per_execution = steps_per_execution
        self._in_steps = int(total_steps is not None)  # Index into `progress`.
        if self._in_steps:
            self._check_steps(total_steps, steps_per_epoch)
            self._unit, self.total = rollout_steps, total_steps
            self.epochs = min(epochs or 10, total_steps // rollout_steps)
            if epochs is not None and self.epochs < epochs:
                warnings.warn(
                    f"`epochs` is lowered from {epochs} to {self.epochs}, the rollouts of {rollout_steps} steps that "
                    f"total_steps={total_steps} are enough for.",
                    stacklevel=3,
                )
        else:
            if epochs is None or steps_per_epoch is None:
                raise ValueError(
                    "The budget must be `total_steps`, or `epochs` and `steps_per_epoch` together. "
                    f"Received: total_steps=None, epochs={epochs}, steps_per_epoch={steps_per_epoch}."
                )
            self._unit, self.total, self.epochs = 1, epochs * steps_per_epoch, epochs
        # Where rollouts are shorter than `rollout_steps` nobody knows how many the budget is enough for.
        unknown = whole_episodes and self._in_steps
        iterations = math.ceil(self.total // self._unit / self.epochs)
        self.executions_per_epoch = None if unknown else math.ceil(iterations / steps_per_execution)
        self._reach = self.total if unknown else self.total // self._unit * self._unit

    def _check_steps(self, total_steps, steps_per_epoch):
        if steps_per_epoch is not None:
            raise ValueError(
                "`steps_per_epoch` must be left out with `total_steps`, which is shared out to `epochs`. "
                f"Received: total_steps={total_steps}, steps_per_epoch={steps_per_epoch}."
            )
        if total_steps < self.rollout_steps:
            raise ValueError(
                f"`total_steps` must be at least one rollout, horizon x num_envs = {self.rollout_steps}. "
                f"Received: total_steps={total_steps}. Give a larger budget, or fewer environments or a shorter "
                "horizon."
            )

    def check_start(self, initial_epoch):
        """Refuses an `initial_epoch` that is none of this budget's epochs."""
        check_whole("initial_epoch", initial_epoch, at_least=0)
        if initial_epoch >= self.epochs:
            raise ValueError(
                f"`initial_epoch` must be below the number of epochs, {self.epochs}, or nothing is trained. "
                f"Received: initial_epoch={initial_epoch}."
            )

    def check_validation(self, freq):
        """`validation_freq` as Keras takes it; refuses one that names none of this budget's epochs."""
        if isinstance(freq, (list, tuple)):
            for epoch in freq:
                check_whole("validation_freq", epoch)
            freq = [int(epoch) for epoch in freq]
            some = any(epoch <= self.epochs for epoch in freq)
        else:
            check_whole("validation_freq", freq)
            freq = int(freq)
            some = freq <= self.epochs
        if not some:
            raise ValueError(
                f"`validation_freq` must name one of the {self.epochs} epochs at least, or nothing is evaluated. "
                f"Received: validation_freq={freq}."
            )
        return freq

    def share(self, epochs):
        """What belongs to the first `epochs` epochs, in whole rollouts."""
        return math.ceil(self.total // self._unit * epochs / self.epochs) * self._unit

    def progress_at(self, epoch):
        """`[iterations, environment steps]` when an epoch begins."""
        iterations = self.share(epoch) // self._unit
        return [iterations, iterations * self.rollout_steps]

    def epoch_at(self, progress):
        """The epoch that `[iterations, environment steps]` lie in; `epochs` where all is spent."""
        spent = progress[self._in_steps]
        if self._is_spent(spent):
            return self.epochs
        return max(epoch for epoch in range(self.epochs) if self.share(epoch) <= spent)

    def annealing(self):
        """`[reach, index]`: where a falling learning rate reaches 0, and whether that counts iterations (0) or
        environment steps (1)."""
        return [self._reach, self._in_steps]

    def iterations(self, progress):
        """How many iterations the next execution runs, at `[iterations, environment steps]`: `steps_per_execution`, or
        what is left of epoch and budget; none where a callback has restored what has spent it."""
        self.spend(progress)
        if self.epoch_is_over:
            return 0
        epoch = (self.share(self._epoch + 1) - self._spent) // self._unit
        budget = (self.total - self._spent) // self._unit
        return max(1, min(self.steps_per_execution, epoch, budget))

    def spend(self, progress):
        """Notes what is spent, `[iterations, environment steps]`, and whether the epoch is over."""
        self._spent = progress[self._in_steps]
        self.epoch_is_over = self._spent >= self.share(self._epoch + 1) or self._is_spent(self._spent)

    def _is_spent(self, spent):
        return spent + self._unit > self.total

    def on_train_begin(self, logs=None):
        self._spent = None

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch_is_over = False
        self._epoch = epoch

    def on_epoch_end(self, epoch, logs=None):
        self.epoch_is_over = False
        if self._spent is not None and self._is_spent(self._spent):
            self.model.stop_training = True

    def on_train_end(self, logs=None):
        spent = int(self.model.progress.numpy()[self._in_steps]) if self._spent is None else self._spent
        if not self._is_spent(spent) and not self.model.stop_training:
            raise RuntimeError(
                f"The budget of {self.total} {'environment steps' if self._in_steps else 'iterations'} must be spent, "
                f"unless a callback sets `stop_training`. Received: {spent}. Something raised StopIteration, which "
                "Keras takes for the end of the data."
            )
