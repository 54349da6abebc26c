import numpy as np
import pytest
import tensorflow as tf

from kerasrl_pg import ops

RNG = np.random.default_rng(4)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_merging_batches_gives_the_moments_of_all(jit_compile):
    x = RNG.normal([100.0, -3.0], [2.0, 0.1], size=(60, 2)).astype("float32")
    merge = tf.function(ops.merge_moments, jit_compile=jit_compile)
    moments = tf.zeros(2), tf.zeros(2), tf.constant(0.0)
    for batch in (x[:1], x[1:7], x[7:7], x[7:]):
        moments = merge(*moments, *ops.masked_moments(batch, np.ones(len(batch), bool)))
    mean, variance, count = moments
    np.testing.assert_allclose(mean, x.mean(0), rtol=1e-6)
    np.testing.assert_allclose(variance, x.var(0), rtol=1e-4)
    assert count == 60


def test_merging_nothing_changes_nothing():
    nothing = 0.0, 0.0, 0.0
    assert [float(x) for x in ops.merge_moments(*nothing, *nothing)] == [0, 0, 0]
    assert [float(x) for x in ops.merge_moments(5.0, 2.0, 3.0, *nothing)] == [5, 2, 3]
    assert [float(x) for x in ops.merge_moments(*nothing, 5.0, 2.0, 3.0)] == [5, 2, 3]


def test_merging_a_small_batch_into_a_long_count_keeps_its_digits():
    mean, variance, _ = ops.merge_moments(
        *(tf.constant(x) for x in (0.0, 1.0, 1e9)), *(tf.constant(x) for x in (0.0, 1.0, 2048.0))
    )
    assert (float(mean), float(variance)) == (0.0, 1.0)


def test_normalize():
    x = RNG.normal([3.0, -1.0], [2.0, 0.5], size=(9, 4, 2)).astype("float32")
    mean, variance = np.float32([3.0, -1.0]), np.float32([4.0, 0.25])
    expected = (x - mean) / np.sqrt(variance)
    np.testing.assert_allclose(ops.normalize(x, mean, variance), expected, rtol=1e-5, atol=1e-6)
    clipped = ops.normalize(x, mean, variance, clip=0.5)
    np.testing.assert_allclose(clipped, expected.clip(-0.5, 0.5), rtol=1e-5, atol=1e-6)
    far = tf.constant([1e6, -1e6])
    np.testing.assert_array_equal(ops.normalize(far, 0.0, 1.0), [10.0, -10.0])
    np.testing.assert_allclose(ops.normalize(far, 0.0, 1.0, clip=None), far)


def test_scaled_rewards_keep_sign_and_zero():
    rewards = tf.constant([0.0, 1.0, -2.0])
    np.testing.assert_allclose(ops.scale_rewards(rewards, 4.0), [0.0, 0.5, -1.0])
    np.testing.assert_array_equal(ops.scale_rewards(rewards, 1e-6), [0.0, 10.0, -10.0])
    np.testing.assert_allclose(ops.scale_rewards(rewards, 4.0, clip=None), [0.0, 0.5, -1.0])


def test_rewards_whose_returns_do_not_vary_are_left_alone_but_for_the_clip():
    rewards = tf.constant([0.0, 1.0, -20.0])
    for variance in (0.0, tf.constant(0.0, tf.float64)):
        np.testing.assert_array_equal(ops.scale_rewards(rewards, variance), [0.0, 1.0, -10.0])
        np.testing.assert_array_equal(ops.scale_rewards(rewards, variance, clip=None), rewards)


def test_a_first_sample_is_not_merged_with_an_invented_variance():
    mean, variance, count = ops.merge_moments(0.0, 1.0, 0.0, 3.0, 1e-12, 5.0)
    np.testing.assert_allclose([mean, variance, count], [3.0, 1e-12, 5.0])
    nothing = ops.merge_moments(0.0, 1.0, 0.0, 0.0, 0.0, 0.0)
    assert [float(x) for x in nothing] == [0, 1, 0]
