"""What searches make of returns: against loops, exact gradients, and what must be in the mean."""

import numpy as np
import pytest
import tensorflow as tf

from kerasrl_pg import ops

RNG = np.random.default_rng(0)


def test_antithetic_noise_has_no_even_part():
    noise = RNG.normal(size=(4, 3)).astype("float32")
    both = ops.antithetic(noise).numpy()
    assert both.shape == (8, 3) and np.array_equal(both[4:], -noise)
    np.testing.assert_allclose(both.sum(0), np.zeros(3), atol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 1e-20, 1e20])
def test_ranks_see_the_order_alone(scale):
    returns = RNG.permutation(7).astype("float32")
    found = ops.centred_ranks(returns * np.float32(scale)).numpy()
    np.testing.assert_allclose(found, np.argsort(np.argsort(returns)) / 6 - 0.5, atol=1e-6)
    assert abs(found.sum()) < 1e-6


def test_equals_share_their_rank_and_one_alone_has_none():
    assert ops.centred_ranks(tf.constant([3.0, 3.0, 3.0])).numpy().tolist() == [0.0, 0.0, 0.0]
    assert ops.centred_ranks(tf.constant([3.0])).numpy().tolist() == [0.0]
    found = ops.centred_ranks(tf.constant([1.0, 2.0, 2.0, 5.0])).numpy()
    np.testing.assert_allclose(found, [-0.5, 0.0, 0.0, 0.5])


def test_the_smoothed_gradient_is_unbiased():
    """Of F(x) = 10 + x'Ax + b'x, whose smoothed gradient at θ is that of F; pairs do not see the constant."""
    theta, b = np.array([0.3, -0.2], "float32"), np.array([1.0, 2.0], "float32")
    a, scale = np.array([[2.0, 0.5], [0.5, -1.0]], "float32"), 0.5
    exact = 2 * a @ theta + b
    estimates = {"pairs": [], "alone": []}
    for _ in range(1500):
        for name in estimates:
            noise = RNG.normal(size=(4 if name == "pairs" else 8, 2)).astype("float32")
            noise = ops.antithetic(noise).numpy() if name == "pairs" else noise
            x = theta + scale * noise
            values = 10.0 + np.einsum("pi,ij,pj->p", x, a, x) + x @ b
            estimates[name].append(ops.smoothed_gradient(noise, values, scale).numpy())
    for found in map(np.array, estimates.values()):
        error = 4 * found.std(0) / np.sqrt(len(found))
        assert (np.abs(found.mean(0) - exact) < error).all()
    variances = {name: np.array(found).var(0).sum() for name, found in estimates.items()}
    assert variances["pairs"] < 0.3 * variances["alone"]


def test_sizes_that_differ_are_refused():
    with pytest.raises(ValueError, match="`utilities`.*`noise`"):
        ops.smoothed_gradient(tf.zeros((4, 2)), tf.zeros(3), 1.0)


def test_acceptance_is_metropolis():
    changes = np.array([-3.0, -0.1, 0.0, 2.0], "float32")
    np.testing.assert_allclose(
        ops.metropolis_probability(changes, 1.5), np.minimum(1.0, np.exp(changes / 1.5)), rtol=1e-6
    )
    assert ops.metropolis_probability(changes, 0.0).numpy().tolist() == [0.0, 0.0, 1.0, 1.0]
    assert np.isfinite(ops.metropolis_probability(tf.constant([-1e38, 1e38]), 1e-30)).all()


def test_noise_stays_within_its_bounds():
    sigma = 1.0
    for improved, wanted in [(True, 0.5), (True, 0.3), (False, 0.9), (False, 2.0), (False, 2.0)]:
        sigma = float(ops.adapted_noise(sigma, improved, 0.5, 3.0, 0.3, 2.0))
        assert sigma == pytest.approx(wanted)
