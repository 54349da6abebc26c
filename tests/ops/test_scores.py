import numpy as np
import pytest
import tensorflow as tf

from kerasrl_pg import ops
from kerasrl_pg.ops import scores

RNG = np.random.default_rng(3)
X = tf.constant(RNG.normal(size=(13, 4)), tf.float32)
ACTIONS = tf.constant(RNG.integers(3, size=13))
VARIABLES = [tf.Variable(RNG.normal(size=(4, 3)), dtype=tf.float32), tf.Variable(RNG.normal(size=3), dtype=tf.float32)]


def log_prob(row):
    x, action = row
    log_probs = tf.nn.log_softmax(x @ VARIABLES[0] + VARIABLES[1])
    return tf.gather(log_probs, action, batch_dims=1)


def expected():
    """In closed form: the score of a softmax is (1[a] - π) for the bias, and that times x for the kernel."""
    probabilities = tf.nn.softmax(X @ VARIABLES[0] + VARIABLES[1]).numpy()
    of_logits = np.sum((np.eye(3)[ACTIONS] - probabilities) ** 2, -1)
    return of_logits * (1.0 + np.sum(X.numpy() ** 2, -1))


@pytest.mark.parametrize("jit_compile", [None, False, True])
@pytest.mark.parametrize("most", [10**9, 60, 1])
@pytest.mark.quick("60-None", "1000000000-True")
def test_norms_are_those_of_each_rows_own_gradient(jit_compile, most, monkeypatch):
    """Whether rows are differentiated all together, by four, the last of which are filled up, or one by one."""
    monkeypatch.setattr(scores, "MOST_NUMBERS", most)

    def norms():
        return ops.squared_score_norms(log_prob, (X, ACTIONS), VARIABLES)

    found = norms() if jit_compile is None else tf.function(norms, jit_compile=jit_compile)()
    np.testing.assert_allclose(found, expected(), rtol=1e-5)


def test_a_variable_that_the_policy_does_not_use_adds_nothing():
    found = ops.squared_score_norms(log_prob, (X, ACTIONS), [*VARIABLES, tf.Variable([1.0])])
    np.testing.assert_allclose(found, expected(), rtol=1e-5)


def test_no_gradient_flows_through_them():
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(ops.squared_score_norms(log_prob, (X, ACTIONS), VARIABLES))
    assert tape.gradient(total, VARIABLES) == [None, None]


def test_nothing_to_differentiate_is_refused():
    with pytest.raises(ValueError, match="`rows` must hold tensors.*Received: B=0"):
        ops.squared_score_norms(log_prob, (X[:0], ACTIONS[:0]), VARIABLES)
    with pytest.raises(ValueError, match="`variables` must hold at least one"):
        ops.squared_score_norms(log_prob, (X, ACTIONS), [])
