"""Optimizers as rooms have them: refused, annealed, and stepped along gradients that are those of a plain tape."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasrl_pg.schedules import linear
from kerasrl_pg.training import optimizers
from kerasrl_pg.training.optimizers import Annealing, check_annealing, check_factor, check_optimizer


def move(optimizer, *shapes):
    """A move of its own variables, of ones."""
    variables = [keras.Variable(np.ones(shape, "float32")) for shape in shapes]
    optimizer.build(variables)
    return optimizer, variables


def squares(moves):
    """Σ k x² over all variables, the k-th by its place, recorded; and its tape."""
    variables = [variable for _, mine in moves for variable in mine]
    with tf.GradientTape() as tape:
        loss = tf.add_n([(k + 1.0) * tf.reduce_sum(v.value**2) for k, v in enumerate(variables)])
    return tape, loss


def test_each_move_gets_its_own_gradients():
    moves = [move(keras.optimizers.SGD(0.1), (2,)), move(keras.optimizers.SGD(0.01), (3,), ())]
    first, (second, third) = optimizers.gradients(*squares(moves), moves)
    np.testing.assert_array_equal(first[0], np.full(2, 2.0))
    np.testing.assert_array_equal(second, np.full(3, 4.0))
    np.testing.assert_array_equal(third, 6.0)
    optimizers.descend(*squares(moves), moves)
    np.testing.assert_allclose(moves[0][1][0], np.full(2, 0.8), rtol=1e-6)
    np.testing.assert_allclose(moves[1][1][0], np.full(3, 0.96), rtol=1e-6)
    np.testing.assert_allclose(moves[1][1][1], 0.94, rtol=1e-6)


def test_what_the_loss_does_not_depend_on_has_gradient_0():
    moves = [move(keras.optimizers.SGD(0.1), (2,), (2,))]
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(moves[0][1][0].value)
    assert [g.numpy().tolist() for g in optimizers.gradients(tape, loss, moves)[0]] == [[1.0, 1.0], [0.0, 0.0]]


@pytest.mark.parametrize("scales", [(1024.0, 1.0), (1.0, 256.0), (64.0, 4096.0)])
def test_scaled_losses_move_as_far_as_plain_ones(scales):
    """Each optimizer divides by its own scale, whatever the other's."""
    results = []
    for scaled in (False, True):
        moves = []
        for scale in scales:
            one = keras.optimizers.SGD(0.1)
            moves.append(move(keras.optimizers.LossScaleOptimizer(one, initial_scale=scale) if scaled else one, (2,)))
        optimizers.descend(*squares(moves), moves)
        results.append([mine[0].numpy() for _, mine in moves])
    np.testing.assert_allclose(results[1], results[0], rtol=1e-6)
    assert results[0][0][0] == pytest.approx(0.8) and results[0][1][0] == pytest.approx(0.6)


@pytest.mark.parametrize("compiled", [False, True])
def test_rates_are_annealed_while_an_update_runs_and_no_longer(compiled):
    pair = [move(keras.optimizers.SGD(rate), ())[0] for rate in (0.4, 0.1)]
    progress = tf.Variable([3, 40], dtype=tf.int64)

    def rates(budget):
        with Annealing(pair).annealed(progress, tf.constant(budget, tf.int64)) as log:
            return log["learning_rate"], *(tf.identity(each.learning_rate.value) for each in pair)

    run = tf.function(rates, autograph=False) if compiled else rates
    np.testing.assert_allclose(run([4, 0]), [0.1, 0.1, 0.025], rtol=1e-6)  # 3 of 4 iterations are done,
    np.testing.assert_allclose(run([80, 1]), [0.2, 0.2, 0.05], rtol=1e-6)  # and 40 of 80 steps.
    assert [float(each.learning_rate) for each in pair] == pytest.approx([0.4, 0.1])
    with Annealing([]).annealed(progress, tf.constant([4, 0], tf.int64)) as log:
        assert log == {}


def test_factors_over_the_budget_take_the_place_of_the_line():
    optimizer, _ = move(keras.optimizers.SGD(0.4), ())
    progress = tf.constant([1, 0], tf.int64)
    with Annealing([optimizer], linear(1.0, 0.5)).annealed(progress, tf.constant([4, 0], tf.int64)) as log:
        assert float(log["learning_rate"]) == pytest.approx(0.4 * 0.875)


def test_what_cannot_be_annealed_or_serve_is_refused():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)
    check_annealing(False, [keras.optimizers.SGD(schedule)])
    with pytest.raises(ValueError, match="`anneal_learning_rate` must be False with an optimizer that has a schedule"):
        check_annealing(True, [keras.optimizers.SGD(0.1), keras.optimizers.SGD(schedule)])
    with pytest.raises(ValueError, match="`rate` must be True, False or a schedules.OverBudget of factors"):
        check_factor("rate", 0.5)
    built, _ = move(keras.optimizers.SGD(0.1), ())
    check_optimizer(built, [built])
    with pytest.raises(ValueError, match="`optimizer` must be a fresh one"):
        check_optimizer(built, [])
    with pytest.raises(ValueError, match="`optimizer` must have `use_ema=False`"):
        check_optimizer(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1, use_ema=True)), [])
