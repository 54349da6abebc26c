import itertools

import numpy as np
import pytest
import tensorflow as tf

from kerasrl_pg import ops

RNG = np.random.default_rng(1)
ADVANTAGES = RNG.normal(size=(7, 3)).astype("float32")
OLD = RNG.normal(-1, 0.5, size=(7, 3)).astype("float32")
NEW = (OLD + RNG.normal(0, 0.3, size=(7, 3))).astype("float32")


def gradients(objective, *inputs):
    inputs = [tf.constant(x) for x in inputs]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        total = tf.reduce_sum(objective(*inputs))
    return tape.gradient(total, inputs)


@pytest.mark.parametrize(
    "objective",
    [
        ops.score_function_objective,
        lambda new, a: ops.importance_objective(ops.importance_ratio(new, OLD), a),
        lambda new, a: ops.clipped_objective(ops.importance_ratio(new, OLD), a, 0.2),
    ],
    ids=["score_function", "importance", "clipped"],
)
def test_at_the_old_policy_all_have_the_score_functions_gradient(objective):
    with_respect_to_log_probs, with_respect_to_advantages = gradients(objective, OLD, ADVANTAGES)
    np.testing.assert_array_equal(with_respect_to_log_probs, ADVANTAGES)
    assert with_respect_to_advantages is None


def test_ratio_is_exactly_one_and_has_no_gradient_to_the_old_policy():
    np.testing.assert_array_equal(ops.importance_ratio(OLD, OLD), np.ones_like(OLD))
    np.testing.assert_allclose(ops.importance_ratio(NEW, OLD), np.exp(NEW - OLD), rtol=1e-6)
    to_new, to_old = gradients(ops.importance_ratio, NEW, OLD)
    np.testing.assert_allclose(to_new, np.exp(NEW - OLD), rtol=1e-6)
    assert to_old is None


def test_clipped_objective_and_its_gradient():
    """Case by case: the gradient dies only where the ratio has gone the way A asks for."""
    ratio, to_ratio = np.exp(NEW - OLD), np.zeros_like(NEW)
    expected = np.zeros_like(NEW)
    for index, (r, a) in enumerate(zip(ratio.flat, ADVANTAGES.flat, strict=True)):
        if (a > 0 and r > 1.2) or (a < 0 and r < 0.8):
            expected.flat[index] = a * (1.2 if a > 0 else 0.8)
        else:
            expected.flat[index] = a * r
            to_ratio.flat[index] = a
    assert (to_ratio == 0).any() and (to_ratio != 0).any()
    objective = lambda r: ops.clipped_objective(r, ADVANTAGES, 0.2)  # noqa: E731
    np.testing.assert_allclose(objective(ratio), expected, rtol=1e-6)
    np.testing.assert_allclose(gradients(objective, ratio)[0], to_ratio)
    outside = (ratio < 0.8) | (ratio > 1.2)
    np.testing.assert_array_equal(ops.clip_fraction(ratio, 0.2), outside)


def kl_of_normals(mean, std, other_mean, other_std):
    return np.log(other_std / std) + (std**2 + (mean - other_mean) ** 2) / (2 * other_std**2) - 0.5


def normal_log_prob(x, mean, std):
    return -0.5 * ((x - mean) / std) ** 2 - np.log(std) - 0.5 * np.log(2 * np.pi)


@pytest.mark.parametrize(
    ("estimator", "mean", "std"),
    [
        (ops.kl_k1, 0.5, 1.3),
        (ops.kl_k3, 0.5, 1.3),
        (ops.kl_k1, 0.02, 1.01),
        (ops.kl_k3, 0.02, 1.01),
    ],
)
def test_k1_and_k3_are_unbiased(estimator, mean, std):
    x = ops.random.normal([0, 5], (200_000,)).numpy().astype("float64")
    kls = np.asarray(estimator(normal_log_prob(x, mean, std), normal_log_prob(x, 0.0, 1.0)))
    error = abs(kls.mean() - kl_of_normals(0.0, 1.0, mean, std))
    assert error < 4 * kls.std() / np.sqrt(kls.size)
    assert (kls >= 0).all() == (estimator is ops.kl_k3)


def test_k2_has_little_bias_near_the_old_policy():
    """Between N(0, 1) and N(m, 1) the KL is m²/2 and the mean of k2 is m²/2 + m⁴/8."""
    x = ops.random.normal([0, 6], (200_000,)).numpy().astype("float64")
    for m in (1.0, 0.1):
        kls = ops.kl_k2(normal_log_prob(x, m, 1.0), normal_log_prob(x, 0.0, 1.0)).numpy()
        standard_error = kls.std() / np.sqrt(kls.size)
        assert abs(kls.mean() - (m**2 / 2 + m**4 / 8)) < 4 * standard_error
        assert (kls >= 0).all()


def test_k3_keeps_its_digits_near_ratio_one():
    log_ratio = np.float32(1e-3)
    np.testing.assert_allclose(ops.kl_k3(log_ratio, 0.0), 5.0017e-7, rtol=1e-3)


def test_entropy_estimate():
    x = ops.random.normal([0, 7], (200_000,)).numpy().astype("float64")
    estimates = ops.entropy_estimate(normal_log_prob(1.5 * x, 0.0, 1.5)).numpy()
    entropy = 0.5 * np.log(2 * np.pi * np.e * 1.5**2)
    assert abs(estimates.mean() - entropy) < 4 * estimates.std() / np.sqrt(estimates.size)


def test_gradient_discount_at_the_edges():
    steps = tf.constant([0, 1, 5])
    np.testing.assert_array_equal(ops.gradient_discount(steps, 0.0), [1, 0, 0])
    np.testing.assert_array_equal(ops.gradient_discount(steps, 1.0), [1, 1, 1])


# --- The estimate's expectation is the gradient of J, exactly: every trajectory is enumerated.

GAMMA, HORIZON = 0.7, 3
TRAJECTORIES = np.array(list(itertools.product([0, 1], repeat=HORIZON))).T  # [T, N = 2^T]
REWARDS = RNG.normal(size=TRAJECTORIES.shape).astype("float32")
for (t, n), _ in np.ndenumerate(REWARDS):  # a reward may depend on the past, not on the future
    same_past = (TRAJECTORIES[: t + 1] == TRAJECTORIES[: t + 1, n : n + 1]).all(0)
    REWARDS[t, n] = REWARDS[t, same_past.argmax()]
LOGITS = tf.constant(RNG.normal(size=(HORIZON, 2)), tf.float32)


def log_probs_of_trajectories(logits):
    return tf.gather(tf.nn.log_softmax(logits), TRAJECTORIES, batch_dims=1)


@pytest.fixture(scope="module")
def exact_gradient():
    with tf.GradientTape() as tape:
        tape.watch(LOGITS)
        probabilities = tf.exp(tf.reduce_sum(log_probs_of_trajectories(LOGITS), 0))
        discounted = tf.reduce_sum(REWARDS * np.float32(GAMMA) ** np.arange(HORIZON, dtype=np.float32)[:, None], 0)
        objective = tf.reduce_sum(probabilities * discounted)
    return tape.gradient(objective, LOGITS).numpy()


@pytest.mark.parametrize(("credit", "discounted"), [("whole", False), ("to_go", True), ("to_go_baseline", True)])
def test_expected_gradient_is_exact(exact_gradient, credit, discounted):
    ends = np.zeros(TRAJECTORIES.shape, bool)
    ends[-1] = True
    arguments = REWARDS, tf.zeros_like(REWARDS), ends, ends, GAMMA
    advantages = (ops.whole_returns if credit == "whole" else ops.rewards_to_go)(*arguments)
    if credit == "to_go_baseline":  # Any number for each step that these trajectories have no part in.
        advantages -= np.array([[3.0], [-1.0], [0.5]], "float32")
    with tf.GradientTape() as tape:
        tape.watch(LOGITS)
        log_probs = log_probs_of_trajectories(LOGITS)
        objective = ops.score_function_objective(log_probs, advantages)
        if discounted:
            objective *= ops.gradient_discount(ops.steps_in_episode(ends), GAMMA)
        probabilities = tf.stop_gradient(tf.exp(tf.reduce_sum(log_probs, 0)))
        expectation = tf.reduce_sum(probabilities * objective)
    estimate = tape.gradient(expectation, LOGITS).numpy()
    assert np.abs(exact_gradient).max() > 0.05
    np.testing.assert_allclose(estimate, exact_gradient, atol=1e-6)


def test_reward_to_go_without_gamma_to_the_t_is_not_the_gradient(exact_gradient):
    ends = np.zeros(TRAJECTORIES.shape, bool)
    ends[-1] = True
    returns = ops.rewards_to_go(REWARDS, 0 * REWARDS, ends, ends, GAMMA)
    with tf.GradientTape() as tape:
        tape.watch(LOGITS)
        log_probs = log_probs_of_trajectories(LOGITS)
        probabilities = tf.stop_gradient(tf.exp(tf.reduce_sum(log_probs, 0)))
        objective = tf.reduce_sum(probabilities * ops.score_function_objective(log_probs, returns))
    assert np.abs(tape.gradient(objective, LOGITS) - exact_gradient).max() > 0.01


def elementwise(new, old, advantages):
    ratio = ops.importance_ratio(new, old)
    return {
        "score": ops.score_function_objective(new, advantages),
        "importance": ops.importance_objective(ratio, advantages),
        "clipped": ops.clipped_objective(ratio, advantages, 0.2),
        "fraction": ops.clip_fraction(ratio, 0.2),
        "k1": ops.kl_k1(new, old),
        "k2": ops.kl_k2(new, old),
        "k3": ops.kl_k3(new, old),
        "entropy": ops.entropy_estimate(new),
        "squared_error": ops.squared_error(new, advantages),
        "clipped_squared_error": ops.clipped_squared_error(new, old, advantages, 0.2),
        "explained_variance": ops.explained_variance(new, old, advantages > 0),
        "standardize": ops.standardize(new, advantages > 0),
        "average_baseline": ops.average_baseline(new, advantages > 1, advantages > 0),
        "time_dependent_baseline": ops.time_dependent_baseline(new, advantages > 1, advantages > 0),
    }


def test_eager_graph_and_xla_agree():
    arguments = tf.constant(NEW), tf.constant(OLD), tf.constant(ADVANTAGES)
    eager = elementwise(*arguments)
    graph = tf.function(elementwise)(*arguments)
    xla = tf.function(elementwise, jit_compile=True)(*arguments)
    for name, expected in eager.items():
        np.testing.assert_allclose(graph[name], expected, rtol=1e-6, atol=1e-6, err_msg=name)
        np.testing.assert_allclose(xla[name], expected, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("log_ratio", [31.0, 88.8, 200.0, 1e6])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_ratio_beyond_float32_gives_finite_gradients_of_the_right_sign(log_ratio, jit_compile):
    """0 times infinity is NaN: the clipped term of a ratio that overflows has gradient 0."""

    @tf.function(jit_compile=jit_compile)
    def at(new, advantage):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(new)
            ratio = ops.importance_ratio(new, [0.0])
            clipped = ops.clipped_objective(ratio, advantage, 0.2)
            plain = ops.importance_objective(ratio, advantage)
            kl = ops.kl_k3(new, [0.0])
        return [tape.gradient(target, new) for target in (clipped, plain, kl)]

    new = tf.constant([log_ratio])
    up, plain, kl = (float(gradient[0]) for gradient in at(new, tf.constant([1.0])))
    down = float(at(new, tf.constant([-1.0]))[0][0])
    assert up == 0.0 and -np.inf < down < -1e12 and 1e12 < plain < np.inf and 1e12 < kl < np.inf


def test_up_to_there_the_ratio_and_the_divergence_are_exact():
    log_ratios = np.array([-80.0, -1.0, 1e-4, 3.0, 29.9], "float32")
    exact = log_ratios.astype("float64")
    np.testing.assert_allclose(ops.importance_ratio(log_ratios, np.zeros(5, "float32")), np.exp(exact), rtol=1e-5)
    np.testing.assert_allclose(ops.kl_k3(log_ratios, np.zeros(5, "float32")), np.expm1(exact) - exact, rtol=1e-3)
