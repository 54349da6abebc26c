import numpy as np
import pytest
import tensorflow as tf

from kerasrl_pg.heads import TanhGaussian
from kerasrl_pg.heads.tanh_gaussian import TanhNormal, expected_log_tanh_slope, log_tanh_slope

Z = np.linspace(-12, 12, 4_001)
WEIGHTS = np.exp(-0.5 * Z**2) / np.sqrt(2 * np.pi) * (Z[1] - Z[0])


def log_slope(u):
    """log(1 - tanh² u) in double precision."""
    return 2 * (np.log(2) - np.abs(u) - np.log1p(np.exp(-2 * np.abs(u))))


def test_log_tanh_slope_survives_saturation():
    u = np.float32([-60, -20, -3, -0.01, 0, 0.01, 3, 20, 60])
    np.testing.assert_allclose(log_tanh_slope(u), log_slope(np.float64(u)), rtol=1e-5, atol=1e-6)


def test_log_tanh_slope_of_any_finite_number_is_finite_with_a_gradient():
    u = tf.constant([-1e38, -1e30, -100.0, -44.5, 0.0, 44.5, 100.0, 1e30, 1e38])
    with tf.GradientTape() as tape:
        tape.watch(u)
        slope = log_tanh_slope(u)
    np.testing.assert_allclose(slope, log_slope(np.float64(u)), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(tape.gradient(slope, u), -2 * np.tanh(u), atol=1e-6)


def test_expected_log_tanh_slope_against_a_fine_grid():
    """The error stated in the docstring, over all means and the whole range of σ."""
    loc, log_std = np.meshgrid(np.linspace(-12, 12, 33), np.linspace(-5, 2, 15))
    exact = (WEIGHTS * log_slope(loc[..., None] + np.exp(log_std)[..., None] * Z)).sum(-1)
    ours = expected_log_tanh_slope(tf.constant(loc), tf.constant(np.exp(log_std)))  # float64
    assert np.abs(ours - exact).max() < 7.2e-6
    single = expected_log_tanh_slope(np.float32(loc), np.float32(np.exp(log_std)))
    np.testing.assert_allclose(single, exact, rtol=1e-6, atol=1e-5)


def test_entropy_gradient_against_a_fine_grid():
    loc, scale = tf.constant([0.0, 0.7, -3.0]), tf.constant([0.5, 7.0, 1.0])
    with tf.GradientTape() as tape:
        tape.watch([loc, scale])
        expected = expected_log_tanh_slope(loc, scale)
    slope = -2 * np.tanh(loc.numpy()[:, None] + scale.numpy()[:, None] * Z)  # of log(1 - tanh² u)
    exact = [(WEIGHTS * slope).sum(-1), (WEIGHTS * slope * Z).sum(-1)]
    np.testing.assert_allclose(tape.gradient(expected, [loc, scale]), exact, atol=1e-4)


@pytest.mark.parametrize(("loc", "scale"), [(0.0, 0.3), (0.8, 1.0), (-0.5, 2.0)])
def test_density_of_the_action_sums_to_one_and_gives_the_entropy(loc, scale):
    """exp(log_prob) is a density over a = tanh u, not over u."""
    u = np.linspace(-15, 15, 200_001)
    a = np.tanh(u)
    log_p = TanhNormal(np.float64(loc), np.float64(scale)).log_prob(u).numpy()
    p, mid = np.exp(log_p), np.diff(a)
    assert abs(((p[1:] + p[:-1]) / 2 * mid).sum() - 1) < 1e-4
    h = -p * log_p
    entropy = TanhNormal(loc, scale).entropy()
    assert abs(((h[1:] + h[:-1]) / 2 * mid).sum() - entropy) < 1e-3


def test_kl_is_that_of_the_normals_below():
    head = TanhGaussian([-1, -1], [1, 1])
    parameters = np.float32([[0.0, 1.0, 0.0, -1.0], [0.5, 0.0, 0.3, 0.2]])
    p, q = head.distribution(parameters), head.distribution(parameters[::-1])
    loc, log_std = np.split(parameters, 2, axis=-1)
    ratio = np.exp(log_std - log_std[::-1])
    kl = 0.5 * (ratio**2 + ((loc - loc[::-1]) / np.exp(log_std[::-1])) ** 2 - 1) - np.log(ratio)
    np.testing.assert_allclose(p.kl_divergence(q), kl.sum(-1), rtol=1e-4)


def test_mode_is_the_median_action():
    head = TanhGaussian([0.0], [10.0], initial_log_std=1.0)
    policy = head.distribution(np.repeat(np.float32([[0.4, 1.0]]), 10_001, axis=0))
    actions = head.to_env(head.sample(policy, head.noise([0, 0], (10_001,)))).numpy()
    deterministic = head.to_env(policy.mode()).numpy()[0, 0]
    np.testing.assert_allclose(deterministic, 5 * (np.tanh(0.4) + 1), rtol=1e-5)
    assert abs((actions < deterministic).mean() - 0.5) < 4 * 0.5 / 100


def test_to_env_reaches_but_never_leaves_the_bounds():
    low, high = np.float32([-0.1, 0.3]), np.float32([0.7, 0.9])
    actions = TanhGaussian(low, high).to_env(np.float32([[-50, -50], [50, 50], [0, 0]])).numpy()
    np.testing.assert_array_equal(actions[:2], [low, high])
    np.testing.assert_allclose(actions[2], (low + high) / 2, rtol=1e-6)


def test_saturated_actions_keep_a_finite_gradient():
    parameters = tf.constant([[20.0, 0.0]])
    with tf.GradientTape() as tape:
        tape.watch(parameters)
        log_prob = TanhGaussian([-1], [1]).distribution(parameters).log_prob([[21.0]])
    np.testing.assert_allclose(tape.gradient(log_prob, parameters), [[1.0, 0.0]], atol=1e-5)


@pytest.mark.parametrize(("low", "high"), [(-np.inf, 1), ([0, 0], [1, np.inf]), (None, 1)])
def test_refuses_infinite_bounds(low, high):
    with pytest.raises(ValueError, match="low and high must be finite.*Received: low=.*heads.Gaussian"):
        TanhGaussian(low, high)
