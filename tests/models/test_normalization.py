import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasrl_pg.models import RewardScaling, RunningNormalization, normalizers


def batches(seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(3.0 * i, 1.0 + i, (7 + 5 * i, 2, 3)).astype(np.float32) for i in range(4)]


def filled(clip=10.0):
    layer = RunningNormalization(clip=clip)
    layer.build((None, 2, 3))
    for batch in batches():
        layer.update(batch)
    return layer


@pytest.mark.parametrize("compiled", [False, True])
def test_the_statistics_are_those_of_all_batches_together(compiled):
    layer = RunningNormalization()
    layer.build((None, 2, 3))
    update = tf.function(layer.update, jit_compile=True) if compiled else layer.update
    for batch in batches():
        update(tf.constant(batch))
    everything = np.concatenate(batches())
    np.testing.assert_allclose(layer.mean, everything.mean(0), rtol=1e-5)
    np.testing.assert_allclose(layer.variance, everything.var(0), rtol=1e-5)
    assert layer.count.numpy() == len(everything)


def test_a_large_mean_does_not_spoil_the_variance():
    layer = RunningNormalization()
    layer.build((None, 1))
    values = 1e4 + np.random.default_rng(0).normal(size=(2000, 1)).astype(np.float32)
    for batch in np.split(values, 20):
        layer.update(batch)
    np.testing.assert_allclose(layer.variance, values.astype(float).var(0), rtol=1e-2)


def test_invalid_rows_do_not_count():
    layer, clean = filled(), filled()
    batch = batches(1)[1]
    valid = np.random.default_rng(0).random(len(batch)) < 0.5
    dirty = np.where(valid[:, None, None], batch, np.float32(1e6))
    layer.update(dirty, tf.constant(valid))
    clean.update(batch[valid])
    for left, right in zip(layer.weights, clean.weights, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5)
    before = [w.numpy() for w in layer.weights]
    layer.update(dirty, tf.zeros(len(dirty), tf.bool))  # a rollout without any valid row
    for left, right in zip(before, layer.weights, strict=True):
        np.testing.assert_array_equal(left, right)


def test_calling_changes_nothing():
    layer = filled()
    before = [w.numpy() for w in layer.weights]
    layer(batches(3)[0], training=True)
    for left, right in zip(before, layer.weights, strict=True):
        np.testing.assert_array_equal(left, right)
    assert not layer.trainable_weights


@pytest.mark.parametrize("clip", [10.0, 0.5, None])
def test_what_it_gives(clip):
    layer, x = filled(clip), 20.0 * batches(2)[0]
    expected = (x - layer.mean.numpy()) / np.sqrt(layer.variance.numpy() + 1e-8)
    assert np.abs(expected).max() > 10
    if clip is not None:
        expected = np.clip(expected, -clip, clip)
    np.testing.assert_allclose(layer(x), expected, rtol=1e-4, atol=1e-5)


def test_an_untouched_layer_gives_its_inputs():
    layer = RunningNormalization()
    np.testing.assert_allclose(layer(np.float32([[3, -4]])), [[3, -4]], rtol=1e-6)


def test_a_constant_observation_becomes_zero():
    layer = RunningNormalization()
    layer.build((None, 1))
    layer.update(np.full((9, 1), 5.0, np.float32))
    assert layer(np.float32([[5.0]])).numpy().tolist() == [[0.0]]


def test_statistics_are_saved_and_restored(tmp_path):
    inputs = keras.Input((2, 3))
    layer = RunningNormalization(key="arm", clip=2.0)
    model = keras.Model(inputs, layer(inputs))
    for batch in batches():
        layer.update(batch)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    (again,) = normalizers(loaded)
    assert (again.key, again.clip) == ("arm", 2.0)
    assert again.count.numpy() == layer.count.numpy() > 0
    np.testing.assert_array_equal(loaded(batches(1)[0]), model(batches(1)[0]))


def test_normalizers_of_nested_models():
    inner = keras.Sequential([keras.Input((3,)), RunningNormalization(), keras.layers.Dense(2)])
    outer = keras.Sequential([keras.Input((3,)), RunningNormalization(), inner])
    assert len(normalizers(outer)) == 2
    assert normalizers(keras.Sequential([keras.layers.Dense(2)])) == []


@pytest.mark.parametrize("clip", [0, -1.0])
def test_a_clip_that_is_not_positive_is_refused(clip):
    with pytest.raises(ValueError, match=f"`clip` must be positive, or None for no clipping. Received: clip={clip}"):
        RunningNormalization(clip=clip)


GAMMA = 0.9


def rollout(seed, horizon=12, num_envs=3):
    rng = np.random.default_rng(seed)
    rewards = rng.normal(1.0, 2.0, (horizon, num_envs)).astype(np.float32)
    valid = rng.random((horizon, num_envs)) < 0.9
    # A row that is no transition stands between two episodes.
    return rewards * valid, (rng.random((horizon, num_envs)) < 0.2) | ~valid, valid


@pytest.mark.parametrize("compiled", [False, True])
def test_reward_scaling_is_that_of_a_naive_loop(compiled):
    layer = RewardScaling(GAMMA)
    update = tf.function(layer.update, jit_compile=True) if compiled else layer.update
    carry, running, seen = tf.zeros(3), np.zeros(3), []
    for seed in range(3):
        rewards, ends, valid = rollout(seed)
        carry = update(tf.constant(rewards), tf.constant(ends), tf.constant(valid), carry)
        for t in range(len(rewards)):
            running = rewards[t] + GAMMA * running
            seen.extend(running[valid[t]])
            running = np.where(ends[t], 0.0, running)
        np.testing.assert_allclose(carry, running, rtol=1e-5, atol=1e-6)
        assert layer.count.numpy() == len(seen)
        np.testing.assert_allclose(layer.variance, np.var(seen), rtol=1e-5)
        np.testing.assert_allclose(layer(rewards), rewards / np.std(seen), rtol=1e-4)


def test_scaled_rewards_keep_their_mean_and_may_be_clipped():
    rewards, ends, valid = rollout(0)
    free, clipped = RewardScaling(GAMMA), RewardScaling(GAMMA, clip=0.5)
    for layer in (free, clipped):
        layer.update(rewards, ends, valid, tf.zeros(3))
    assert np.abs(free(rewards)).max() > 0.5
    np.testing.assert_allclose(clipped(rewards), np.clip(free(rewards), -0.5, 0.5), rtol=1e-6)
    before = [w.numpy() for w in free.weights]
    free(rewards)  # calling changes nothing
    for left, right in zip(before, free.weights, strict=True):
        np.testing.assert_array_equal(left, right)
    assert (np.sign(free(rewards)) == np.sign(rewards)).all()


def test_reward_scaling_round_trip():
    layer = RewardScaling(GAMMA, clip=3.0, name="scaling")
    again = RewardScaling.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert not layer.trainable_weights
    assert len(layer.weights) == 3
