import numpy as np
import pytest
import tensorflow as tf

from kerasrl_pg import ops

RNG = np.random.default_rng(5)
FEATURES = RNG.normal(size=(6, 2, 4, 3)).astype("float32")  # [T, N, A, p]
THETA = RNG.normal(size=3).astype("float32")
ACTIONS = RNG.integers(0, 4, (6, 2)).astype("int32")
LOGITS = FEATURES @ THETA


def masked(logits):
    allowed = RNG.random(logits.shape) < 0.7
    allowed[..., 1] = True
    return np.where(allowed, logits, -1e9).astype("float32"), allowed


@pytest.mark.parametrize("limited", [False, True])
def test_the_score_is_the_gradient_of_log_pi(limited):
    """By automatic differentiation, one row at a time."""
    _, allowed = masked(LOGITS) if limited else (None, np.ones(LOGITS.shape, bool))
    probabilities = tf.nn.softmax(np.where(allowed, LOGITS, -1e9).astype("float32"))
    actions = np.where(np.take_along_axis(allowed, ACTIONS[..., None], -1)[..., 0], ACTIONS, 1)
    scores = ops.linear_softmax_score(FEATURES, probabilities, actions)
    assert scores.shape == (6, 2, 3)
    theta = tf.Variable(THETA)
    for t, n in np.ndindex(6, 2):
        with tf.GradientTape() as tape:
            logits = tf.where(allowed[t, n], tf.linalg.matvec(FEATURES[t, n], theta), -1e9)
            log_prob = tf.nn.log_softmax(logits)[actions[t, n]]
        np.testing.assert_allclose(scores[t, n], tape.gradient(log_prob, theta), atol=1e-5)


def test_compatible_features_are_centred_and_hold_the_scores():
    probabilities = tf.nn.softmax(LOGITS)
    compatible = ops.compatible_features(FEATURES, probabilities).numpy()
    np.testing.assert_allclose(np.einsum("tna,tnap->tnp", probabilities, compatible), 0.0, atol=1e-6)
    scores = ops.linear_softmax_score(FEATURES, probabilities, ACTIONS)
    np.testing.assert_array_equal(scores, np.take_along_axis(compatible, ACTIONS[..., None, None], 2)[:, :, 0])


def test_of_a_table_the_score_is_one_less_the_probability():
    """θ[s, a]: features are unit vectors, and the chapter's gradient is 1{a} - π(a)."""
    probabilities = tf.nn.softmax(LOGITS)
    features = np.broadcast_to(np.eye(4, dtype="float32"), (6, 2, 4, 4))
    scores = ops.linear_softmax_score(features, probabilities, ACTIONS)
    np.testing.assert_allclose(scores, np.eye(4)[ACTIONS] - probabilities, atol=1e-6)


def test_gradients_flow_into_features_and_probabilities():
    inputs = [tf.constant(FEATURES), tf.nn.softmax(LOGITS)]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        total = tf.reduce_sum(ops.linear_softmax_score(*inputs, ACTIONS) ** 2)
    assert all(np.abs(gradient).max() > 0 for gradient in tape.gradient(total, inputs))


def test_shapes_that_do_not_fit_are_refused():
    probabilities = np.full((6, 2, 4), 0.25, "float32")
    with pytest.raises(ValueError, match=r"`features` must be \[..., A, p\] where .* Received: .*\(6, 2, 3, 3\)"):
        ops.compatible_features(FEATURES[:, :, :3], probabilities)
    with pytest.raises(ValueError, match=r"`actions` must be \[...\] where .* Received: actions.shape=\(6,\)"):
        ops.linear_softmax_score(FEATURES, probabilities, ACTIONS[:, 0])
