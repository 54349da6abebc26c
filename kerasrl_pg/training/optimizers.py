"""Who moves which weights: Keras optimizers, checked, built, annealed, and descended with.

A *move* is a pair of an optimizer and the variables that it moves; an agent's `moves()` are named.
"""

import contextlib
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from kerasrl_pg.checks import check_number
from kerasrl_pg.schedules import KerasSchedule, OverBudget


def check_optimizer(optimizer, mine):
    """Refuses an optimizer that could not serve an agent; `mine` are those that the agent has already.

    Raises:
        ValueError: If it is built for others' weights, averages weights, or has a schedule over a budget.
    """
    if optimizer.built and not any(optimizer is each for each in mine):
        raise ValueError(
            "`optimizer` must be a fresh one, since its memory belongs to the weights that it was built for. "
            f"Received: {optimizer!r}, which moves another agent's. Make one for each agent."
        )
    rate = getattr(optimizer, "inner_optimizer", optimizer)._learning_rate
    if isinstance(rate, OverBudget):
        raise ValueError(
            "The optimizer's `learning_rate` must be a number or a Keras schedule, since optimizers know of no budget. "
            f"Received: learning_rate={rate!r}. Give factors of it to the agent: anneal_learning_rate=OverBudget(...)."
        )
    if getattr(optimizer, "inner_optimizer", optimizer).use_ema:
        raise ValueError(
            "`optimizer` must have `use_ema=False`, since Keras would write its averages over the weights of "
            f"policy and critic alike, in order, whichever of them it moved. Received: {optimizer!r}."
        )


def check_factor(name, value):
    """Refuses what is neither a flag nor a schedule of factors over the budget."""
    if isinstance(value, OverBudget):
        check_number(name, value, 0.0, schedule=True)
        return
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(
            f"`{name}` must be True, False or a schedules.OverBudget of factors. Received: {name}={value!r}."
        )


def check_annealing(anneal_learning_rate, optimizers):
    """Refuses to anneal what has a schedule of its own."""
    for optimizer in optimizers:
        rate = getattr(optimizer, "inner_optimizer", optimizer)._learning_rate
        if anneal_learning_rate and isinstance(rate, KerasSchedule):
            raise ValueError(
                "`anneal_learning_rate` must be False with an optimizer that has a schedule of its own. "
                f"Received: anneal_learning_rate={anneal_learning_rate!r}, learning_rate={rate!r}."
            )


class Annealing(NamedTuple):
    """What learning rates are multiplied by over a fit.

    Args:
        optimizers: Those whose rates are; none where nothing is annealed.
        schedule: True for what falls linearly from 1 to 0, or an `OverBudget` of factors.

    Source: Engstrom et al. 2020 (arXiv 2005.12729), A.1, "Adam learning rate annealing".
    """

    optimizers: list
    schedule: Any = True

    @contextlib.contextmanager
    def annealed(self, progress, annealing):
        """While an update runs, the learning rates are annealed.

        Args:
            progress: int64[2], iterations and environment steps of the fit.
            annealing: int64[2], from `Budget.annealing`.

        Gives the first one's rate as a log, `{"learning_rate": rate}`, or nothing.
        """
        optimizers = self.optimizers
        rates = [tf.identity(optimizer.learning_rate.value) for optimizer in optimizers]
        if rates:
            done = tf.cast(tf.gather(progress, annealing[1]), tf.float64)
            fraction = tf.maximum(tf.zeros((), tf.float64), 1.0 - done / tf.cast(annealing[0], tf.float64))
            if isinstance(self.schedule, OverBudget):
                fraction = tf.cast(self.schedule(1.0 - fraction), tf.float64)
        for optimizer, rate in zip(optimizers, rates, strict=True):
            optimizer.learning_rate.assign(tf.cast(tf.cast(rate, tf.float64) * fraction, rate.dtype))
        yield {"learning_rate": tf.identity(optimizers[0].learning_rate.value)} if optimizers else {}
        for optimizer, rate in zip(optimizers, rates, strict=True):
            optimizer.learning_rate.assign(rate)


def gradients(tape, loss, moves):
    """The gradients of `loss`, recorded on `tape`, that each move gets: a list of lists of tensors.

    Args:
        tape: The `tf.GradientTape` that saw the loss.
        loss: Scalar.
        moves: A list of moves; weights that the loss does not depend on have gradient 0.
    """
    # What an optimizer divides gradients by again, against underflow in half precision; mostly 1.
    one = tf.ones_like(loss)
    scales = [optimizer.scale_loss(one) for optimizer, _ in moves]
    values = [[variable.value for variable in variables] for _, variables in moves]
    found = tape.gradient(loss, values, output_gradients=scales[0], unconnected_gradients=tf.UnconnectedGradients.ZERO)
    scaled = []
    for scale, mine in zip(scales, found, strict=True):
        mine = [tf.cast(g, tf.float32) for g in mine]  # Heads stay float32, and Keras clips one type jointly.
        if any(each is not one for each in scales):
            # An embedding's gradient is sparse, which Keras does not scale.
            mine = [tf.convert_to_tensor(g) * (scale / scales[0]) for g in mine]
        scaled.append(mine)
    return scaled


def descend(tape, loss, moves):
    """One step of each move's optimizer down the gradient of `loss`; arguments of `gradients`."""
    for move, mine in zip(moves, gradients(tape, loss, moves), strict=True):
        apply(move, mine)


def apply(move, gradients):
    """One step of a move's optimizer down gradients that `gradients` gave."""
    optimizer, variables = move
    if tf.distribute.has_strategy() or isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer.apply(gradients, variables)
        return
    # As seen from outside the one replica. Inside, Keras sums the gradients over all of one, by a custom gradient that
    # TensorFlow registers for ever, and with it the graph of the whole update.
    tf.distribute.get_replica_context().merge_call(lambda _: optimizer.apply(gradients, variables))
