"""How long a fit lasts: its budget of environment steps, shared out to epochs."""

import math
from typing import NamedTuple

import keras
import numpy as np


class Plan(NamedTuple):
    """What `fit` tells Keras: the epochs, how many iterations an epoch has at most (None: unknown), and the
    callbacks."""

    epochs: int
    steps_per_epoch: int
    callbacks: list


def budget_callbacks(rollout_steps, total_steps, epochs, steps_per_epoch, initial_epoch, anneal, whole_episodes=False):
    """Checks the budget of a fit and makes its callbacks.

    Args:
        rollout_steps: Environment steps of one rollout, at most.
        total_steps, epochs, steps_per_epoch, initial_epoch: As given to `fit`.
        anneal: Whether the learning rate falls linearly to 0 over the budget.
        whole_episodes: Whether a rollout may take fewer steps than `rollout_steps`.

    Returns:
        A `Plan`.

    Raises:
        ValueError: If the budget is missing, contradictory, or smaller than one rollout.

    >>> budget_callbacks(2048, 100_000, None, None, 0, False).steps_per_epoch
    5
    """
    for name, value in (("total_steps", total_steps), ("epochs", epochs), ("steps_per_epoch", steps_per_epoch)):
        if value is not None and (not isinstance(value, (int, np.integer)) or value < 1):
            raise ValueError(f"`{name}` must be a whole number of at least 1. Received: {name}={value!r}.")
    if total_steps is None:
        if epochs is None or steps_per_epoch is None:
            raise ValueError(
                "The budget must be `total_steps`, or `epochs` and `steps_per_epoch` together. "
                f"Received: total_steps=None, epochs={epochs}, steps_per_epoch={steps_per_epoch}."
            )
        iterations = epochs * steps_per_epoch
        callbacks = [LearningRateAnnealing(iterations, initial_epoch * steps_per_epoch)] if anneal else []
        return Plan(epochs, steps_per_epoch, callbacks)
    if steps_per_epoch is not None:
        raise ValueError(
            "`steps_per_epoch` must be left out with `total_steps`, which is shared out to `epochs`. "
            f"Received: total_steps={total_steps}, steps_per_epoch={steps_per_epoch}."
        )
    if total_steps < rollout_steps:
        raise ValueError(
            f"`total_steps` must be at least one rollout, horizon x num_envs = {rollout_steps}. "
            f"Received: total_steps={total_steps}. Give a larger budget, or fewer environments or a shorter horizon."
        )
    iterations = total_steps // rollout_steps
    epochs = min(epochs or 10, iterations)
    budget = Budget(total_steps, epochs, rollout_steps)
    callbacks = [budget]
    if anneal:
        # In steps, because where rollouts are shorter than `rollout_steps` nobody knows how many the budget is enough
        # for.
        whole = total_steps if whole_episodes else iterations * rollout_steps
        callbacks.append(LearningRateAnnealing(whole, budget.share(initial_epoch), in_steps=True))
    return Plan(epochs, None if whole_episodes else math.ceil(iterations / epochs), callbacks)


class Budget(keras.callbacks.Callback):
    """Ends each epoch after its share of environment steps, and the fit before a rollout could exceed the budget.

    Args:
        total_steps: The budget.
        epochs: Into how many equal shares it is cut.
        rollout_steps: The most steps that one rollout takes.
    """

    def __init__(self, total_steps, epochs, rollout_steps):
        super().__init__()
        self.total_steps = total_steps
        self.epochs = epochs
        self.rollout_steps = rollout_steps
        self._spent = None

    def share(self, epochs):
        """Steps that belong to the first `epochs` epochs, in whole rollouts."""
        rollouts = self.total_steps // self.rollout_steps
        return math.ceil(rollouts * epochs / self.epochs) * self.rollout_steps

    def on_epoch_begin(self, epoch, logs=None):
        runtime = self.model._runtime
        runtime.epoch_is_over = False
        self._epoch = epoch
        if self._spent is None:
            self._spent = self.share(epoch)

    def on_train_begin(self, logs=None):
        self._spent = None

    def on_train_batch_end(self, batch, logs=None):
        runtime = self.model._runtime
        self._spent += runtime.training.steps_taken
        if self._spent >= self.share(self._epoch + 1) or self._spent + self.rollout_steps > self.total_steps:
            runtime.epoch_is_over = True

    def on_epoch_end(self, epoch, logs=None):
        runtime = self.model._runtime
        runtime.epoch_is_over = False
        if self._spent + self.rollout_steps > self.total_steps:
            self.model.stop_training = True


class LearningRateAnnealing(keras.callbacks.Callback):
    """Lowers the learning rate linearly from its compiled value to 0 over a fit.

    Source: Engstrom et al. 2020 (arXiv 2005.12729), A.1, "Adam learning rate annealing".

    Args:
        budget: Of the fit, in iterations or in environment steps.
        done: How much of it is done before the fit starts, where it is resumed.
        in_steps: Whether both are environment steps.
    """

    def __init__(self, budget, done=0, in_steps=False):
        super().__init__()
        self.budget = budget
        self.in_steps = in_steps
        self._done = done

    def on_train_batch_begin(self, batch, logs=None):
        agent = self.model
        fraction = max(0.0, 1.0 - self._done / self.budget)
        for optimizer, rate in zip(agent._optimizers(), agent._base_learning_rates, strict=True):
            optimizer.learning_rate.assign(rate * fraction)

    def on_train_batch_end(self, batch, logs=None):
        self._done += self.model._runtime.training.steps_taken if self.in_steps else 1
