"""The passes: every row once a pass, shuffled anew, in all compilers."""

import numpy as np
import pytest
import tensorflow as tf

from kerasrl_pg.agents.minibatches import for_each_minibatch

COMPILERS = {
    "eager": lambda f: f,
    "graph": lambda f: tf.function(f, autograph=False),
    "xla": lambda f: tf.function(f, autograph=False, jit_compile=True),
}


def passes(wrap, size, minibatch_size, update_epochs, keep_going=None):
    """The rows in the order they are met, and the logs."""
    met = tf.Variable(tf.fill([update_epochs * size], -1.0))
    step = tf.Variable(0)

    def update(batch):
        place = step * minibatch_size + tf.range(minibatch_size)
        met.assign(tf.tensor_scatter_nd_update(met, place[:, None], batch["row"]))
        step.assign_add(1)
        return {"mean": tf.reduce_mean(batch["row"]), "step": tf.cast(step, tf.float32)}

    def run():
        rows = {"row": tf.range(size, dtype=tf.float32)}
        return for_each_minibatch(update, rows, tf.constant([1, 2]), update_epochs, minibatch_size, keep_going)

    logs = {name: float(value) for name, value in wrap(run)().items()}
    return met.numpy().reshape(update_epochs, size), logs


@pytest.mark.parametrize("compiler", COMPILERS)
def test_every_row_once_a_pass_in_a_new_order(compiler):
    met, logs = passes(COMPILERS[compiler], 24, 6, 3)
    for order in met:
        np.testing.assert_array_equal(np.sort(order), np.arange(24))
    assert not np.array_equal(met[0], np.arange(24)) and not np.array_equal(met[0], met[1])
    assert logs == {"mean": pytest.approx(11.5), "step": pytest.approx(6.5), "updates": 12.0}


def test_compilers_shuffle_alike():
    eager, graph, xla = (passes(wrap, 24, 6, 3)[0] for wrap in COMPILERS.values())
    np.testing.assert_array_equal(eager, graph)
    np.testing.assert_array_equal(eager, xla)


@pytest.mark.parametrize("compiler", COMPILERS)
def test_one_minibatch_of_all_rows(compiler):
    met, logs = passes(COMPILERS[compiler], 8, 8, 2)
    np.testing.assert_array_equal(met, [np.arange(8)] * 2)
    assert logs["updates"] == 2.0


@pytest.mark.parametrize("compiler", COMPILERS)
def test_ends_when_told_to(compiler):
    met, logs = passes(COMPILERS[compiler], 24, 6, 3, lambda logs: logs["step"] < 5.0)
    assert logs == {"mean": pytest.approx(met.reshape(-1)[:30].mean()), "step": 3.0, "updates": 5.0}
    assert (met.reshape(-1)[30:] == -1.0).all()
