import math

import numpy as np
import pytest
import tensorflow as tf

from kerasrl_pg.heads import Beta
from kerasrl_pg.heads.beta import MARGIN, PROPOSALS, InnerBeta, gamma
from kerasrl_pg.ops import random

X = (np.arange(200_000) + 0.5) / 200_000


def density(alpha, beta):
    constant = math.lgamma(alpha + beta) - math.lgamma(alpha) - math.lgamma(beta)
    return np.exp(constant + (alpha - 1) * np.log(X) + (beta - 1) * np.log1p(-X))


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (1.7, 1.2), (5.0, 2.0), (40.0, 60.0)])
def test_against_numerical_integration(alpha, beta):
    p, q = density(alpha, beta), density(2.0, 3.0)
    policy, other = InnerBeta(alpha, beta), InnerBeta(2.0, 3.0)
    at = [20_000, 100_000, 150_000]
    np.testing.assert_allclose(policy.log_prob(X[at]), np.log(p[at]), rtol=1e-4, atol=1e-4)
    safe = np.maximum(p, 1e-300)
    np.testing.assert_allclose(policy.entropy(), -(p * np.log(safe)).mean(), atol=2e-4)
    np.testing.assert_allclose(policy.kl_divergence(other), (p * np.log(safe / q)).mean(), rtol=1e-3, atol=1e-4)


def test_mode():
    alpha, beta = [1.0, 1.0, 3.0, 3.0, 1.0 + 1e-6], [1.0, 2.0, 1.0, 2.0, 1.0]
    mode = InnerBeta(alpha, beta).mode()
    np.testing.assert_allclose(mode, [0.5, MARGIN, 1 - MARGIN, 2 / 3, 1 - MARGIN], atol=1e-7)


def test_parameters_give_one_peak():
    head = Beta([-1.0], [1.0])
    beta = head.distribution(np.float32([[0.0, 0.0], [-50.0, 20.0]])).distribution
    np.testing.assert_allclose(beta.concentration1[:, 0], [1 + np.log(2), 1], rtol=1e-6)
    np.testing.assert_allclose(beta.concentration0[:, 0], [1 + np.log(2), 21], rtol=1e-6)
    assert np.isfinite(head.distribution(np.float32([[-50, -50]])).log_prob([[0.5]])).all()


@pytest.mark.parametrize("shape", [1.0, 1.69, 10.0])
def test_gamma_moments_and_acceptance(shape):
    count = 100_000
    uniform = random.uniform([1, int(shape)], (2 * PROPOSALS, count))
    normals = tf.unstack(tf.math.ndtri(uniform[:PROPOSALS]))
    uniforms = tf.unstack(uniform[PROPOSALS:])
    draws = gamma(tf.fill([count], shape), normals, uniforms).numpy().astype("float64")
    assert (draws > 0).all()
    for power in (1, 2, 3):
        moment = math.gamma(shape + power) / math.gamma(shape)
        error = np.std(draws**power) / np.sqrt(count)
        assert abs((draws**power).mean() - moment) < 4 * error
    first = gamma(tf.fill([count], shape), normals[:1], uniforms[:1]).numpy()
    refused = (first == np.float32(shape) - np.float32(1 / 3)).mean()  # the fallback value
    expected = {1.0: 0.0484, 1.69: 0.0229, 10.0: 0.0029}[shape]  # by numerical integration
    assert abs(refused - expected) < 4 * np.sqrt(expected / count)


def test_samples_have_the_distribution_function_of_beta():
    count, alpha, beta = 20_000, 1.3, 2.5
    head = Beta([0.0], [1.0])
    inverse_softplus = [math.log(math.expm1(alpha - 1)), math.log(math.expm1(beta - 1))]
    policy = head.distribution(np.float32([inverse_softplus] * count))
    draws = np.sort(head.sample(policy, head.noise([5, 6], (count,))).numpy()[:, 0])
    cdf = np.cumsum(density(alpha, beta)) / len(X)
    distance = np.abs(np.interp(draws, X, cdf) - (np.arange(count) + 0.5) / count).max()
    assert distance < 1.63 / np.sqrt(count)  # Kolmogorov-Smirnov, 1 %


def test_samples_stay_off_the_ends():
    head = Beta([0.0], [1.0])
    policy = head.distribution(np.float32([[-30.0, 300.0], [300.0, -30.0]] * 500))
    for draws in (head.sample(policy, head.noise([0, 0], (1000,))), policy.sample(seed=1), policy.mode()):
        assert MARGIN <= draws.numpy().min() <= draws.numpy().max() <= 1 - MARGIN
        assert np.isfinite(policy.log_prob(draws)).all()


def test_refuses():
    with pytest.raises(ValueError, match="low and high must be finite.*Received: low=-inf"):
        Beta(-np.inf, 1)
    with pytest.raises(ValueError, match="low must be below high"):
        Beta([1], [1])
