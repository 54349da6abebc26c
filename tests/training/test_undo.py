"""What is undone is all or nothing, and names the first that is not finite."""

import numpy as np
import pytest
import tensorflow as tf

from kerasrl_pg.training.undo import undo_unless_finite

INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    ("witnesses", "weight", "bias", "bad"),
    [
        ((0.0, 1.0), 1.0, 2.0, 0),
        ((0.0, -3e38), 3e38, -3e38, 0),
        ((NAN, 1.0), 1.0, 2.0, 1),
        ((0.0, -INF), NAN, 2.0, 2),
        ((0.0, 1.0), INF, NAN, 3),
        ((0.0, 1.0), 1.0, NAN, 4),
    ],
)
def test_all_or_nothing(witnesses, weight, bias, bad, compiled):
    # The counter is no float, and has no place among those that are judged.
    variables = [tf.Variable(np.zeros((2, 2), "float32")), tf.Variable(7), tf.Variable(np.zeros(3, "float64"))]

    def update():
        variables[0].assign([[1.0, weight], [1.0, 1.0]])
        variables[1].assign_add(1)
        variables[2].assign([2.0, 2.0, tf.cast(bias, tf.float64)])
        return variables[0][0, 0], [tf.constant(w) for w in witnesses]

    def run():
        return undo_unless_finite(update, variables)

    result, found = (tf.function(run, autograph=False) if compiled else run)()
    assert (float(result), int(found)) == (1.0, bad)
    after = [variable.numpy().tolist() for variable in variables]
    if bad:
        assert after == [[[0.0, 0.0]] * 2, 7, [0.0] * 3]
    else:
        np.testing.assert_allclose(after[0], [[1.0, weight], [1.0, 1.0]])
        assert after[1] == 8
        np.testing.assert_allclose(after[2], [2.0, 2.0, bias], rtol=1e-6)
