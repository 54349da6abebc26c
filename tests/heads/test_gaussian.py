import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasrl_pg.heads import Gaussian
from kerasrl_pg.heads.gaussian import LOG_STD_MAX, LOG_STD_MIN, LogStdBounds, Normal, bounded_log_std

LOC = np.array([[0.5, -1.0], [2.0, 0.0]])
LOG_STD = np.array([[0.1, -1.0], [-5.0, 2.0]])
PARAMETERS = np.float32(np.concatenate([LOC, LOG_STD], axis=-1))


def test_closed_forms():
    head = Gaussian(2)
    policy, other = head.distribution(PARAMETERS), head.distribution(PARAMETERS[::-1])
    std, x = np.exp(LOG_STD), LOC + 0.7 * np.exp(LOG_STD)
    log_prob = (-0.5 * ((x - LOC) / std) ** 2 - LOG_STD - 0.5 * np.log(2 * np.pi)).sum(-1)
    entropy = (LOG_STD + 0.5 * np.log(2 * np.pi * np.e)).sum(-1)
    mean, ratio = LOC[::-1] - LOC, std / std[::-1]
    kl = (0.5 * (ratio**2 + (mean / std[::-1]) ** 2 - 1) - np.log(ratio)).sum(-1)
    np.testing.assert_allclose(policy.log_prob(np.float32(x)), log_prob, rtol=1e-4)
    np.testing.assert_allclose(policy.entropy(), entropy, rtol=1e-5)
    np.testing.assert_allclose(policy.kl_divergence(other), kl, rtol=1e-4)
    np.testing.assert_array_equal(policy.mode(), np.float32(LOC))


@pytest.mark.parametrize("magnitude", [1.0, 1e5, 1e7, 1e30])
def test_no_digits_are_lost_far_from_zero(magnitude):
    """loc/σ up to 1e32, in eager code and in XLA, whose products are not rounded before they are subtracted."""
    scale = np.float32(np.exp([-5.0, -1.0, 2.0]))
    loc = np.float32(magnitude * np.array([1.7, -0.3, 0.9]))
    x, other = loc + np.float32([0.01, -0.5, 3.0]), loc - np.float32([0.02, 0.1, 1.0])

    def numbers(loc, scale, x, other):
        p = Normal(loc, scale)
        return p.log_prob(x), p.log_prob(loc), p.kl_divergence(Normal(other, 2.0 * scale))

    z = (x.astype(float) - loc) / scale
    norm = np.log(scale.astype(float)) + 0.5 * np.log(2 * np.pi)
    distance = (loc.astype(float) - other) / (2.0 * scale)
    expected = -0.5 * z**2 - norm, -norm, 0.5 * distance**2 + 0.5 * (0.25 - 1) + np.log(2)
    for function in (numbers, tf.function(numbers, jit_compile=True)):
        for received, exact in zip(function(loc, scale, x, other), expected, strict=True):
            np.testing.assert_allclose(received, exact, rtol=1e-5, atol=1e-5)


def test_sample_is_mean_plus_std_times_noise():
    head = Gaussian(2)
    noise = np.float32([[1.0, -2.0], [0.0, 3.0]])
    actions = head.sample(head.distribution(PARAMETERS), noise)
    np.testing.assert_allclose(actions, LOC + np.exp(LOG_STD) * noise, rtol=1e-5)


@pytest.mark.parametrize("state_dependent_std", [False, True])
def test_initial_std(state_dependent_std):
    head = Gaussian(3, state_dependent_std=state_dependent_std, initial_log_std=-1.5, kernel_initializer="zeros")
    np.testing.assert_allclose(head(np.ones([2, 4])).stddev(), np.exp(-1.5) * np.ones([2, 3]), rtol=1e-5)
    assert len(head.trainable_variables) == (2 if state_dependent_std else 3)


def test_log_std_weight_comes_back_from_its_bounds():
    """An optimizer that pushes past a bound is put back on it, and can leave again at once."""
    head = Gaussian(2)
    head(np.zeros([1, 3]))
    optimizer = keras.optimizers.SGD(100.0)
    variables = head.trainable_variables
    for direction, bound in ((-1.0, LOG_STD_MAX), (1.0, LOG_STD_MIN)):
        optimizer.apply([direction * tf.ones(v.shape) for v in variables], variables)
        np.testing.assert_allclose(head.log_std, [bound, bound])
        with tf.GradientTape() as tape:
            entropy = tf.reduce_sum(head(np.zeros([1, 3])).entropy())
        np.testing.assert_allclose(tape.gradient(entropy, head.log_std.value), [1.0, 1.0])


def test_state_dependent_log_std_is_bounded_with_a_gradient():
    x = tf.constant([-6.0, -1.0, 0.0, 1.0, 6.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        log_std = bounded_log_std(x, initial=0.5)
    assert (np.abs(log_std - [LOG_STD_MIN, 0, 0, 0, LOG_STD_MAX])[[0, 4]] < 1e-3).all()
    assert LOG_STD_MIN <= log_std.numpy().min() <= log_std.numpy().max() <= LOG_STD_MAX
    np.testing.assert_allclose(log_std[2], 0.5, rtol=1e-6)
    assert (tape.gradient(log_std, x).numpy() > 0).all()


def test_constraint_leaves_what_is_inside():
    np.testing.assert_array_equal(LogStdBounds()(tf.constant([-9.0, 0.3, 4.0])), np.float32([-5, 0.3, 2]))


def test_to_env_clips_only_where_there_are_bounds():
    head = Gaussian(3, low=[-1, -np.inf, -2], high=[1, 5, np.inf])
    actions = head.to_env(np.float32([[-9, -9, -9], [9, 9, 9]]))
    np.testing.assert_array_equal(actions, [[-1, -9, -2], [1, 5, 9]])
    assert Gaussian(3).get_config()["low"] is None


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"low": 1, "high": [2, 0.5]}, "`low` must be below high in every dimension.*Received: low="),
        ({"low": [0, 0, 0], "high": 1}, r"low and high must broadcast to the action shape \(2,\)"),
        ({"initial_log_std": "a"}, "`initial_log_std` must be inside .*Received: initial_log_std='a'"),
        ({"initial_log_std": 2.0}, "`initial_log_std` must be inside .*Received: initial_log_std=2.0"),
    ],
)
def test_refuses(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        Gaussian(2, **arguments)
