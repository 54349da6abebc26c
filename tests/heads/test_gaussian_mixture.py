import numpy as np
import pytest
import tensorflow as tf

from kerasrl_pg.heads import Gaussian, GaussianMixture
from kerasrl_pg.heads.gaussian_mixture import sigma_points


def mixture(size, spread, batch=20, components=3, seed=0):
    """Random parameters of mixtures whose means lie `spread` apart; σ from about 0.2 to 3."""
    rng = np.random.default_rng(seed)
    sizes = [components, components * size, components * size]
    parts = [rng.normal(size=(batch, n)) * s for n, s in zip(sizes, (0.7, spread, 0.2), strict=True)]
    return np.concatenate(parts, axis=-1).astype("float32")


def make(size, components=3):
    return GaussianMixture(size, components, initial_spread=0.0)


def test_log_prob_is_that_of_the_weighted_sum():
    parameters = mixture(2, 1.0)
    policy = make(2).distribution(parameters)
    actions = np.random.default_rng(1).normal(size=(20, 2)).astype("float32")
    weights = np.exp(parameters[:, :3]) / np.exp(parameters[:, :3]).sum(-1, keepdims=True)
    normal = policy.components_distribution.distribution
    z = (actions[:, None] - normal.loc.numpy()) / normal.scale.numpy()
    densities = np.exp(-0.5 * (z**2).sum(-1)) / normal.scale.numpy().prod(-1) / (2 * np.pi)
    np.testing.assert_allclose(policy.log_prob(actions), np.log((weights * densities).sum(-1)), rtol=1e-4, atol=1e-5)
    mean = (weights[..., None] * normal.loc.numpy()).sum(1)
    np.testing.assert_allclose(policy.mean(), mean, rtol=1e-4, atol=1e-5)


def test_components_far_from_zero_keep_their_digits():
    head = GaussianMixture(1, num_components=2)
    parameters, x = np.float32([[0.0, 0.0, 1e6, -1e6, 0.0, 0.0]]), np.float32([[1e6 - 0.5]])
    expected = -0.5 * 0.5**2 - 0.5 * np.log(2 * np.pi) - np.log(2)  # the first mean is 1e6 less the initial spread
    for compiled in (False, True):
        log_prob = tf.function(lambda p, x: head.distribution(p).log_prob(x), jit_compile=compiled)(parameters, x)
        np.testing.assert_allclose(log_prob, [expected], rtol=1e-5)


def test_one_component_is_a_gaussian():
    parameters = mixture(3, 1.0, components=1)
    head = make(3, components=1)
    policy, other = head.distribution(parameters), head.distribution(parameters[::-1])
    normal = policy.components_distribution.distribution
    flat = np.concatenate([normal.loc[:, 0], np.log(normal.scale[:, 0])], axis=-1)
    gaussian, gaussian_other = Gaussian(3).distribution(flat), Gaussian(3).distribution(flat[::-1])
    np.testing.assert_allclose(policy.entropy(), gaussian.entropy(), rtol=1e-4)
    np.testing.assert_allclose(policy.kl_divergence(other), gaussian.kl_divergence(gaussian_other), rtol=1e-3)
    np.testing.assert_allclose(policy.mode(), gaussian.mode(), rtol=1e-6)
    np.testing.assert_allclose(policy.log_prob(policy.mode()), gaussian.log_prob(gaussian.mode()), rtol=1e-4)


@pytest.mark.parametrize("size", [1, 2, 6])
@pytest.mark.parametrize("spread", [0.0, 1.0, 4.0])
def test_entropy_estimate_against_monte_carlo(size, spread):
    """The errors stated in the docstring of NormalMixture."""
    count = 10_000
    policy = make(size).distribution(mixture(size, spread))
    log_probs = policy.log_prob(policy.sample(count, seed=1)).numpy()
    noise = log_probs.std(0) / np.sqrt(count)
    error = np.abs(policy.entropy() + log_probs.mean(0))
    assert (error < 0.16 + 4 * noise).all()
    assert error.mean() < 0.05


@pytest.mark.parametrize("shape", [(), (3,), (2, 2)])
def test_entropy_is_an_average_over_sigma_points(shape):
    """Its fast form equals the definition, also where TensorFlow knows no batch size."""
    head = GaussianMixture(shape, 2)
    size = int(np.prod(shape))
    parameters = mixture(size, 1.0, batch=4, components=2)
    policy = head.distribution(parameters)
    normal = policy.components_distribution.distribution
    weights = policy.mixture_distribution.probs_parameter().numpy()
    expected = np.zeros(4)
    for z in sigma_points(size).reshape(-1, *shape):
        for k in range(2):
            log_prob = policy.log_prob(normal.loc[:, k] + normal.scale[:, k] * z)
            expected -= weights[:, k] * log_prob / len(sigma_points(size))
    signature = [tf.TensorSpec([None, parameters.shape[-1]])]
    entropy = tf.function(lambda x: head.distribution(x).entropy(), input_signature=signature)
    np.testing.assert_allclose(entropy(parameters), expected, rtol=1e-4)


def test_entropy_is_exact_for_components_far_apart():
    head = GaussianMixture(2, 3, initial_log_std=-1.0, initial_spread=20.0)
    policy = head.distribution(np.zeros([1, 15], "float32"))
    one = 2 * (0.5 * np.log(2 * np.pi * np.e) - 1)
    np.testing.assert_allclose(policy.entropy(), [one + np.log(3)], rtol=1e-4)


@pytest.mark.parametrize("size", [1, 6])
@pytest.mark.parametrize("spread", [0.0, 1.0, 8.0])
def test_kl_bounds_the_divergence_from_above(size, spread):
    count, parameters = 10_000, mixture(size, spread)
    change = 0.1 * np.random.default_rng(5).normal(size=parameters.shape).astype("float32")
    p, q = make(size).distribution(parameters), make(size).distribution(parameters + change)
    actions = p.sample(count, seed=1)
    difference = (p.log_prob(actions) - q.log_prob(actions)).numpy()
    noise = difference.std(0) / np.sqrt(count)
    bound = p.kl_divergence(q).numpy()
    assert (bound > difference.mean(0) - 4 * noise).all()
    if spread == 8.0 and size == 6:  # components far apart: the bound is the divergence
        np.testing.assert_allclose(bound, difference.mean(0), rtol=0.05, atol=4 * noise.max())


def test_mode_is_the_best_component_mean():
    parameters = mixture(2, 2.0)
    policy = make(2).distribution(parameters)
    means = policy.components_distribution.mean().numpy()
    log_probs = np.stack([policy.log_prob(means[:, k]) for k in range(3)], axis=-1)
    np.testing.assert_allclose(policy.mode(), means[np.arange(20), log_probs.argmax(-1)], rtol=1e-6)


@pytest.mark.parametrize("size", [1, 3, 8, 20])
def test_sigma_points_have_the_moments_of_the_normal(size):
    z = sigma_points(size).astype("float64")
    assert len(z) == max(32, 4 * size)
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(z.T @ z / len(z), np.eye(size), atol=1e-5)


def test_components_start_apart():
    """With equal components every gradient would be equal, and they would stay equal."""
    head = GaussianMixture(1, num_components=2, initial_spread=1.0)
    head(np.zeros([1, 3]))
    with tf.GradientTape() as tape:
        loss = head(np.ones([1, 3])).log_prob([[0.5]])
    gradient = tape.gradient(loss, head.dense.bias.value).numpy()
    assert gradient[2] != pytest.approx(gradient[3], abs=1e-3)


def test_refuses():
    with pytest.raises(ValueError, match="`num_components` must be a whole number.*Received: num_components=0"):
        GaussianMixture(2, 0)
    with pytest.raises(ValueError, match="`initial_log_std` must be inside"):
        GaussianMixture(2, initial_log_std=-5.0)
