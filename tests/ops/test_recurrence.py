"""Cells along a sequence: what Keras's cells do step by step, and the gradients of that."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasrl_pg import ops

S, L, F, U = 3, 5, 2, 4


def problem(kind):
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    cell = {"lstm": keras.layers.LSTMCell, "gru": keras.layers.GRUCell}[kind](
        U, bias_initializer=keras.initializers.RandomNormal(seed=1)
    )
    cell.build((None, F))
    starts = rng.random((L, S)) < 0.3
    starts[0] = [True, False, False]
    states = tuple(tf.constant(rng.normal(size=(S, U)), tf.float32) for _ in range(2 if kind == "lstm" else 1))
    return cell, tf.constant(rng.normal(size=(L, S, F)), tf.float32), tf.constant(starts), states


def by_steps(cell, features, starts, states):
    """Keras's own cell, step by step."""
    outputs = []
    for t in range(L):
        keep = 1.0 - tf.cast(starts[t], tf.float32)[:, None]
        states = [keep * x for x in states]
        _, states = cell(features[t], states if len(states) > 1 else states[0])
        states = list(states) if isinstance(states, (list, tuple)) else [states]
        outputs.append(states)
    return tuple(tf.stack(each) for each in zip(*outputs, strict=True))


def at_once(cell, features, starts, states):
    inputs, bias = features @ cell.kernel.value, tf.zeros(cell.recurrent_kernel.shape[-1])
    if len(states) == 1:
        inputs, bias = inputs + cell.bias.value[0], cell.bias.value[1]
    else:
        inputs += cell.bias.value
    step = ops.gru_step if len(states) == 1 else ops.lstm_step
    return ops.recur(step, inputs, cell.recurrent_kernel.value, bias, starts, states)


def slopes(way, cell, features, starts, states, twice=False):
    """The gradient of a crooked function of all states; with `twice`, of its gradient's squared norm."""
    weights = [v.value for v in cell.trainable_variables]
    with tf.GradientTape() as outer:
        outer.watch((features, states))
        with tf.GradientTape() as tape:
            tape.watch((features, states))
            after = way(cell, features, starts, states)
            rows = tf.reshape(tf.range(1.0, L * S * U + 1.0), (L, S, U)) / (L * S * U)
            loss = tf.add_n([tf.reduce_sum(tf.sin(3.0 * x) * rows) for x in after])
        found = tape.gradient(loss, [*weights, features, *states])
        norm = tf.add_n([tf.reduce_sum(g**2) for g in found])
    return outer.gradient(norm, [*weights, features, *states]) if twice else [*after, *found]


@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize("compiled", ["eager", "graph", "xla"])
@pytest.mark.quick("graph-lstm", "xla-gru")
def test_states_and_gradients_are_those_of_the_cell(kind, compiled):
    given = problem(kind)
    wanted = slopes(by_steps, *given)
    run = tf.function(jit_compile=compiled == "xla") if compiled != "eager" else lambda f: f
    got = run(lambda: slopes(at_once, *given))()
    assert np.abs(wanted[-1]).max() > 0.01
    for mine, theirs in zip(got, wanted, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_it_can_be_differentiated_again(kind):
    given = problem(kind)
    wanted = slopes(by_steps, *given, twice=True)
    got = tf.function(lambda: slopes(at_once, *given, twice=True))()
    for mine, theirs in zip(got, wanted, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-4)
