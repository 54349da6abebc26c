"""Recurrent cells along the steps of an episode, whose weights' gradient is one product and not a sum in a loop."""

import contextlib
import contextvars

import tensorflow as tf
from tensorflow.python.framework import ops as framework

_noted = contextvars.ContextVar("noted", default=None)  # The names of `recur`'s gradients, while a program is traced.


def lstm_step(inputs, recurrent, states):
    """One step of a long short-term memory.

    i, f, g, o = split(W x_t + b + U h_{t-1}), of which all but g, by tanh, pass through the sigmoid;
    c_t = f c_{t-1} + i g, h_t = o tanh(c_t).

    Args:
        inputs: float [S, 4 U], W x_t + b.
        recurrent: float [S, 4 U], U h_{t-1}.
        states: h_{t-1} and c_{t-1}, float [S, U].

    Returns:
        h_t and c_t.

    Source: Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000; the order is Keras's.

    >>> h, c = lstm_step(tf.zeros((1, 4)), tf.zeros((1, 4)), (tf.zeros((1, 1)), tf.ones((1, 1))))
    >>> c.numpy().tolist()
    [[0.5]]
    """
    i, f, g, o = tf.split(inputs + recurrent, 4, -1)
    c = tf.sigmoid(f) * states[1] + tf.sigmoid(i) * tf.tanh(g)
    return tf.sigmoid(o) * tf.tanh(c), c


def gru_step(inputs, recurrent, states):
    """One step of a gated recurrent unit.

    z = σ(x_z + u_z), r = σ(x_r + u_r), h_t = z h_{t-1} + (1 - z) tanh(x_h + r u_h), with x = W x_t + b and
    u = U h_{t-1} + b': the form in which the reset gate is applied after the product.

    Args:
        inputs: float [S, 3 U], x.
        recurrent: float [S, 3 U], u.
        states: h_{t-1} alone, float [S, U].

    Returns:
        h_t alone.

    Source: Cho et al. 2014 (arXiv 1406.1078), equations 5 to 8; z is 1 - z there, and the order is Keras's.

    >>> gru_step(tf.zeros((1, 3)), tf.zeros((1, 3)), (tf.ones((1, 1)),))[0].numpy().tolist()
    [[0.5]]
    """
    (xz, xr, xh), (uz, ur, uh) = tf.split(inputs, 3, -1), tf.split(recurrent, 3, -1)
    z = tf.sigmoid(xz + uz)
    return (z * states[0] + (1.0 - z) * tf.tanh(xh + tf.sigmoid(xr + ur) * uh),)


def recur(step, inputs, kernel, bias, starts, states):
    """Runs a cell along L steps of S sequences.

    TensorFlow's gradient of a loop adds U's gradient up step by step, which reads and writes a matrix as large as U
    each time, and costs several times the rest. Here the loop back finds the gradient of what U makes of each state;
    U's own is then one product over all steps. It can be differentiated again, but for XLA's loops.

    Args:
        step: `lstm_step` or `gru_step`.
        inputs: float [L, S, Z], W x_t + b.
        kernel: float [U, Z], U.
        bias: float [Z], b'.
        starts: bool [L, S], where an episode starts, before whose first step the states are 0.
        states: Tuple of float [S, U], before the first step; h is the first.

    Returns:
        Tuple of float [L, S, U], the states after each step.

    >>> begin = (tf.ones((1, 1)),)
    >>> states = recur(gru_step, tf.zeros((2, 1, 3)), tf.ones((1, 3)), tf.zeros(3), [[False], [True]], begin)
    >>> states[0].numpy().round(3).tolist()
    [[[0.8989999890327454]], [[0.0]]]
    """
    keep = 1.0 - tf.cast(starts, inputs.dtype)[..., None]
    length = inputs.shape[0]

    @tf.custom_gradient
    def run(inputs, kernel, bias, *states):
        def forward(t, now, arrays):
            now = [keep[t] * x for x in now]
            now = list(step(inputs[t], now[0] @ kernel + bias, now))
            return t + 1, now, [array.write(t, x) for array, x in zip(arrays, now, strict=True)]

        after = _looped(length, forward, states, [x.shape for x in states], inputs.dtype)

        def gradient(*upstream):
            before = [keep * tf.concat([x[None], rest[:-1]], 0) for x, rest in zip(states, after, strict=True)]
            recurrent = tf.tensordot(before[0], kernel, 1) + bias

            def backward(k, late, arrays):
                t = length - 1 - k
                given = inputs[t], recurrent[t], *(x[t] for x in before)
                with tf.GradientTape() as tape:
                    tape.watch(given)
                    new = step(given[0], given[1], given[2:])
                late = [x + y[t] for x, y in zip(late, upstream, strict=True)]
                zero = tf.UnconnectedGradients.ZERO
                of_inputs, of_recurrent, *late = tape.gradient(new, given, late, unconnected_gradients=zero)
                late[0] += tf.matmul(of_recurrent, kernel, transpose_b=True)
                found = zip(arrays, (of_inputs, of_recurrent), strict=True)
                return k + 1, [keep[t] * x for x in late], [array.write(t, x) for array, x in found]

            zeros, shapes = [tf.zeros_like(x) for x in states], [inputs.shape[1:]] * 2
            first, (of_inputs, of_recurrent) = _looped(length, backward, zeros, shapes, inputs.dtype, last=True)
            rows = [tf.reshape(x, [-1, x.shape[-1]]) for x in (before[0], of_recurrent)]
            return of_inputs, tf.matmul(*rows, transpose_a=True), tf.reduce_sum(rows[1], 0), *first

        return tuple(after), gradient

    with _noting():
        return run(inputs, kernel, bias, *states)


def _registry():
    """TensorFlow's custom gradients by name; empty where it keeps them elsewhere than it used to."""
    return getattr(getattr(framework, "gradient_registry", None), "_registry", {})


@contextlib.contextmanager
def _noting():
    if _noted.get() is None:
        yield
        return
    before = {*_registry()}
    yield
    _noted.get().update({*_registry()} - before)


@contextlib.contextmanager
def gradients_forgotten():
    """Traces a whole program, with the gradients in it, and lets TensorFlow forget those of `recur`.

    It registers each custom gradient for ever, and with it the graph that it was traced in.
    """
    names = set()
    token = _noted.set(names)
    try:
        yield
    finally:
        _noted.reset(token)
        for name in names:
            _registry().pop(name, None)


def _looped(length, body, start, shapes, dtype, last=False):
    """What a loop of `length` steps writes, stacked; with `last`, what it carries at the end before it."""
    arrays = [tf.TensorArray(dtype, length, element_shape=shape) for shape in shapes]
    _, carried, arrays = tf.while_loop(
        lambda t, *_: t < length, body, (0, list(start), arrays), maximum_iterations=length
    )
    stacked = [array.stack() for array in arrays]
    return (carried, stacked) if last else stacked
