import numpy as np
import pytest
import tensorflow as tf

from kerasrl_pg.heads import Bernoulli

LOGITS = np.float32([[0.3, -2.0], [4.0, 0.0]])
P = 1 / (1 + np.exp(-LOGITS.astype("float64")))


def test_closed_forms():
    head = Bernoulli(2)
    policy, q = head.distribution(LOGITS), P[::-1]
    other = head.distribution(LOGITS[::-1])
    log_prob = np.log(np.where([[1, 0], [0, 1]], P, 1 - P)).sum(-1)
    entropy = -(P * np.log(P) + (1 - P) * np.log(1 - P)).sum(-1)
    kl = (P * np.log(P / q) + (1 - P) * np.log((1 - P) / (1 - q))).sum(-1)
    np.testing.assert_allclose(policy.log_prob([[1, 0], [0, 1]]), log_prob, rtol=1e-5)
    np.testing.assert_allclose(policy.entropy(), entropy, rtol=1e-5)
    np.testing.assert_allclose(policy.kl_divergence(other), kl, rtol=1e-4)
    np.testing.assert_array_equal(policy.mode(), [[1, 0], [1, 0]])


def test_frequencies():
    head, count = Bernoulli(2), 20_000
    logits = np.repeat(LOGITS[:1], count, axis=0)
    actions = head.sample(head.distribution(logits), head.noise([0, 0], (count,))).numpy()
    assert (np.abs(actions.mean(0) - P[0]) < 4 * np.sqrt(P[0] * (1 - P[0]) / count)).all()


def test_environment_action():
    actions = Bernoulli(2).to_env(np.int32([[0, 1]]))
    assert actions.dtype == tf.int8
    np.testing.assert_array_equal(actions, [[0, 1]])


def test_refuses():
    with pytest.raises(ValueError, match="`shape` must hold sizes of at least 1. Received: shape="):
        Bernoulli((2, 0))
