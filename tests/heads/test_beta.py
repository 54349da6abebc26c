import math

import numpy as np
import pytest
import tensorflow as tf

from kerasrl_pg.heads import Beta
from kerasrl_pg.heads.beta import LARGEST, MARGIN, PROPOSALS, InnerBeta, digamma_less_log, gamma, softplus, stirling
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


def remainder(z):
    """log Γ(z) less Stirling's formula, and ψ(z) - log z: by their series at z + 20, in extended precision."""
    z = np.asarray(z, np.longdouble)
    log_gamma, psi, top = 0 * z, 0 * z, z + 20
    for k in range(20):
        log_gamma += (z + k + np.longdouble(0.5)) * np.log1p(1 / (z + k)) - 1
        psi += np.log1p(1 / (z + k)) - 1 / (z + k)
    # psi sums ψ(z) - log z - (ψ(top) - log(top)), by ψ(z) = ψ(z + 1) - 1/z.
    log_gamma += 1 / (12 * top) - 1 / (360 * top**3) + 1 / (1260 * top**5) - 1 / (1680 * top**7)
    psi += -1 / (2 * top) - 1 / (12 * top**2) + 1 / (120 * top**4) - 1 / (252 * top**6)
    return log_gamma, psi


def exact(alpha, beta, x, to_alpha, to_beta):
    """log p(x), entropy and KL of Beta distributions in extended precision, from log-gammas and digammas."""
    a, b, x, c, d = (np.asarray(v, np.longdouble) for v in (alpha, beta, x, to_alpha, to_beta))

    def log_gamma(z):
        return (z - 0.5) * np.log(z) - z + 0.5 * np.log(2 * np.longdouble(np.pi)) + remainder(z)[0]

    def psi(z):
        return np.log(z) + remainder(z)[1]

    def log_beta(a, b):
        return log_gamma(a) + log_gamma(b) - log_gamma(a + b)

    log_prob = (a - 1) * np.log(x) + (b - 1) * np.log1p(-x) - log_beta(a, b)
    entropy = log_beta(a, b) - (a - 1) * psi(a) - (b - 1) * psi(b) + (a + b - 2) * psi(a + b)
    kl = log_beta(c, d) - log_beta(a, b) + (a - c) * psi(a) + (b - d) * psi(b) + (c + d - a - b) * psi(a + b)
    return [np.asarray(y, float) for y in (log_prob, entropy, kl)]


def test_stirlings_remainders():
    z = np.concatenate([np.linspace(1, 10, 200), np.geomspace(10, 1e6, 50)])
    log_gamma, psi = remainder(z)
    np.testing.assert_allclose(log_gamma[0], 1 - 0.5 * np.log(2 * np.pi), rtol=1e-12)
    np.testing.assert_allclose(psi[0], -0.5772156649015329, rtol=1e-9)
    assert np.abs(stirling(tf.constant(z)) - log_gamma).max() < 5e-10  # float64
    assert np.abs(digamma_less_log(tf.constant(z)) - psi).max() < 1e-7


@pytest.mark.parametrize(
    ("largest", "error", "kl_error"),
    [(3.0, 1e-5, 1e-6), (30.0, 2e-5, 1e-6), (1e3, 5e-5, 2e-6), (1e4, 1e-4, 1e-5), (1e6, 1e-3, 1e-3)],
)
@pytest.mark.quick("1000000.0-0.001-0.001", "3.0-1e-05-1e-06")
def test_concentrated_policies_keep_their_digits(largest, error, kl_error):
    """α = β = 1e4 among them, whose entropy was off by 0.02 nats and whose KL divergences could be negative."""
    rng = np.random.default_rng(0)
    alpha, beta = np.float32(np.exp(rng.uniform(0, np.log(largest), (2, 500))))
    alpha[:100] = beta[:100] = np.float32(largest)
    mean, width = alpha / (alpha + beta), np.sqrt(alpha * beta / (alpha + beta) ** 3)
    x = np.float32(np.clip(mean + width * rng.normal(size=500), MARGIN, 1 - MARGIN))
    # Another policy near it, and a narrower one of the same mean.
    to_alpha = np.maximum(np.float32(alpha + np.sqrt(alpha) * 0.2 * rng.normal(size=500)), 1)
    to_beta = np.maximum(np.float32(beta + np.sqrt(beta) * 0.2 * rng.normal(size=500)), 1)
    to_alpha[:50], to_beta[:50] = 1.1 * alpha[:50], 1.1 * beta[:50]

    def numbers(alpha, beta, x, to_alpha, to_beta):
        p, q = InnerBeta(alpha, beta), InnerBeta(to_alpha, to_beta)
        return p.log_prob(x), p.entropy(), p.kl_divergence(q)

    arguments = alpha, beta, x, np.float32(to_alpha), np.float32(to_beta)
    expected = exact(*arguments)
    for function in (numbers, tf.function(numbers, jit_compile=True)):
        log_prob, entropy, kl = function(*map(tf.constant, arguments))
        np.testing.assert_allclose(log_prob, expected[0], atol=error)
        np.testing.assert_allclose(entropy, expected[1], atol=1e-5)
        np.testing.assert_allclose(kl, expected[2], rtol=0.01, atol=kl_error)
        assert kl.numpy().min() > -1e-6


def test_gradients_against_finite_differences():
    rng = np.random.default_rng(1)
    alpha, beta, x = np.exp(rng.uniform(0, 6, 60)), np.exp(rng.uniform(0, 6, 60)), rng.uniform(0.01, 0.99, 60)
    points = [alpha + 0.01, beta + 0.01, x, alpha[::-1] + 0.01, beta[::-1] + 0.01]
    variables = [tf.constant(np.float32(point)) for point in points]
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(variables)
        p, q = InnerBeta(*variables[:2]), InnerBeta(*variables[3:])
        outputs = p.log_prob(variables[2]), p.entropy(), p.kl_divergence(q)
    for index in (0, 1, 3, 4):
        step = 1e-4 * points[index]
        above, below = ([p + s * step if i == index else p for i, p in enumerate(points)] for s in (1, -1))
        for output, up, down in zip(outputs, exact(*above), exact(*below), strict=True):
            slope = tape.gradient(output, variables[index], unconnected_gradients="zero")
            np.testing.assert_allclose(slope, (up - down) / (2 * step), rtol=2e-3, atol=1e-5)


def test_softplus_and_its_derivative():
    x = tf.constant([-3e38, -1e4, -90.0, -1.0, 0.0, 1.0, 88.2, 90.0, 1e4, 3e38])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = softplus(x)
    wide = np.float64(x)
    np.testing.assert_allclose(y, np.logaddexp(0, wide), rtol=1e-6, atol=1e-30)
    np.testing.assert_allclose(tape.gradient(y, x), 1 / (1 + np.exp(-np.clip(wide, -700, 700))), rtol=1e-6, atol=1e-7)


def test_concentrations_end_where_their_cubes_are_finite():
    policy = Beta([-1.0], [1.0]).distribution(np.float32([[3e38, 3e38], [1e30, -5.0]]))
    assert policy.distribution.concentration1.numpy().max() == LARGEST
    for number in (policy.log_prob(policy.mode()), policy.entropy(), policy.variance(), policy.kl_divergence(policy)):
        assert np.isfinite(number).all()


def test_mode():
    alpha, beta = [1.0, 1.0, 3.0, 3.0, 1.01, 1.0 + 1e-6], [1.0, 2.0, 1.0, 2.0, 1.0, 1.0]
    mode = InnerBeta(alpha, beta).mode()
    np.testing.assert_allclose(mode, [0.5, MARGIN, 1 - MARGIN, 2 / 3, 1 - MARGIN, 0.5], atol=1e-7)


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
    with pytest.raises(ValueError, match="`low` must be below high"):
        Beta([1], [1])
