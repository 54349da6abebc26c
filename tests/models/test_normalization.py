import gymnasium as gym
import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasrl_pg as pg
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
    with pytest.raises(ValueError, match=rf"`clip` must be a number in \(0.0, inf\), or None. Received: clip={clip}"):
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


def merged(values, size, compiled=True):
    """A layer that has been given values [B, ...] in batches of `size`, and the values."""
    layer = RunningNormalization()
    layer.build((None, *values.shape[1:]))
    update = tf.function(layer.update, jit_compile=True) if compiled else layer.update
    for start in range(0, len(values), size):
        update(tf.constant(values[start : start + size]))
    return layer


@pytest.mark.parametrize("offset", [0.0, 1.0, -300.0, 1e6])
@pytest.mark.parametrize("deviation", [1e-9, 1e-4, 1.0, 1e25])
def test_every_mean_and_deviation_beside_numpy_in_float64(offset, deviation):
    rng = np.random.default_rng(0)
    values = (offset + deviation * rng.normal(size=(600, 2))).astype(np.float32)  # float32 rounds them, too
    layer, exact = merged(values, 8), values.astype(np.float64)
    np.testing.assert_allclose(layer.mean, exact.mean(0), rtol=1e-12)
    np.testing.assert_allclose(layer.variance, exact.var(0), rtol=1e-8)
    assert layer.count.numpy() == 600


def test_small_deviations_become_visible():
    values = np.random.default_rng(0).normal(0.0, 1e-3, (500, 1)).astype(np.float32)
    np.testing.assert_allclose(np.std(merged(values, 100)(values)), 1.0, rtol=0.01)


def test_a_long_count_goes_on_and_a_drifting_mean_follows():
    layer = RunningNormalization()
    layer.build((None, 1))
    layer.mean.assign([1e6])
    layer.count.assign(2**24)
    layer.update(np.full((1, 1), 1e6 + 1.0, np.float32))
    assert layer.count.numpy() == 2**24 + 1
    update = tf.function(layer.update, jit_compile=True)
    for _ in range(1000):
        update(tf.constant([[1e6 + 1.0]]))
    np.testing.assert_allclose(layer.mean - 1e6, [1001 / (2**24 + 1001)], rtol=1e-4)


def test_statistics_of_float32_files_are_loaded(tmp_path):
    class Float32(keras.layers.Layer):
        """The weights as they were: three of float32."""

        def build(self, input_shape):
            for name, shape in (("mean", (3,)), ("variance", (3,)), ("count", ())):
                self.add_weight(name=name, shape=shape, initializer="zeros", trainable=False)

        def call(self, x):
            return x

    def model(layer):
        return keras.Sequential([keras.Input((3,)), layer, keras.layers.Dense(2)])

    Float32.__name__ = "RunningNormalization"  # Files name layers by their class.
    old, new = model(Float32()), model(RunningNormalization())
    values = np.float32([1, 2, 3]), np.float32([4, 5, 0.1]), np.float32(7)
    old.layers[0].set_weights(values)
    old.save_weights(tmp_path / "old.weights.h5")
    new.load_weights(tmp_path / "old.weights.h5")
    for weight, value in zip(new.layers[0].weights, values, strict=True):
        assert weight.dtype == "float64"
        np.testing.assert_array_equal(weight, value)


def test_an_input_of_unknown_shape_is_refused():
    for inputs in (keras.Input((None, 3)), {"a": keras.Input((3,)), "b": keras.Input((2,))}):
        with pytest.raises(ValueError, match="`RunningNormalization` must be given one tensor, of known shape"):
            RunningNormalization()(inputs)


class Far(gym.Env):
    """Observations N(100, 10), each alone or in a dictionary; episodes of four steps."""

    action_space = gym.spaces.Discrete(2)

    def __init__(self, nested=False):
        self._box = gym.spaces.Box(-np.inf, np.inf, (2,))
        self.observation_space = gym.spaces.Dict(near=self._box, far=self._box) if nested else self._box
        self.nested, self.rng, self.seen = nested, np.random.default_rng(0), []

    def _observation(self):
        near, far = (self.rng.normal(mean, 10.0, 2).astype(np.float32) for mean in (0.0, 100.0))
        return {"near": near, "far": far} if self.nested else far

    def reset(self, seed=None, options=None):
        self.steps = 0
        self.now = self._observation()
        return self.now, {}

    def step(self, action):
        self.seen.append(self.now)
        self.steps, self.now = self.steps + 1, self._observation()
        return self.now, 1.0, False, self.steps == 4, {}


def fitted(policy, critic=None, nested=False, method=pg.A2C, **settings):
    """The observations that an agent with this policy was trained on."""
    env = Far(nested)
    agent = method(policy, critic, horizon=16, seed=0, **settings)
    agent.compile(jit_compile=False)
    agent.fit(env, epochs=1, steps_per_epoch=3, verbose=0)
    return agent, env.seen


def critic_of(space=2):
    return keras.Sequential([keras.Input((space,)), pg.heads.NormalValue()])


def check(layer, inputs):
    inputs = np.asarray(inputs, np.float64)
    np.testing.assert_allclose(layer.mean, inputs.mean(0), rtol=1e-4)
    np.testing.assert_allclose(layer.variance, inputs.var(0), rtol=1e-4)
    assert layer.count.numpy() == len(inputs)


class Subclassed(keras.Model):
    def __init__(self, layers):
        super().__init__()
        self.all = layers

    def call(self, x):
        for layer in self.all:
            x = layer(x)
        return x


def nested_model(layers):
    return keras.Sequential([keras.Input((2,)), keras.Sequential([keras.Input((2,)), *layers[:-1]]), layers[-1]])


@pytest.mark.parametrize(
    "make", [lambda layers: keras.Sequential([keras.Input((2,)), *layers]), nested_model, Subclassed]
)
def test_a_normaliser_learns_its_own_input(make):
    layer = RunningNormalization()
    policy = make([keras.layers.Rescaling(0.01), layer, pg.heads.Categorical(2)])
    _, seen = fitted(policy, critic_of())
    check(layer, 0.01 * np.stack(seen))


def test_normalisers_in_a_row_and_a_shared_one():
    first, second = RunningNormalization(clip=None), RunningNormalization(clip=None)
    inputs = keras.Input((2,))
    x = second(keras.layers.Rescaling(3.0)(first(inputs)))
    shared = keras.Model(inputs, {"policy": pg.heads.Categorical(2)(x), "value": pg.heads.NormalValue()(x)})
    _, seen = fitted(shared)
    check(first, seen)  # once for both heads
    assert second.count.numpy() == len(seen)
    twice = RunningNormalization()
    inputs = keras.Input((2,))
    x = keras.layers.Concatenate()([twice(inputs), twice(keras.layers.Rescaling(2.0)(inputs))])
    _, seen = fitted(keras.Model(inputs, pg.heads.Categorical(2)(x)), critic_of())
    check(twice, [*seen, *(2.0 * np.stack(seen))])


@pytest.mark.parametrize("keys", [(None, None), ("near", "far")])
def test_leaves_of_a_dictionary_with_and_without_keys(keys):
    layers = [RunningNormalization(key) for key in keys]
    inputs = {name: keras.Input((2,), name=name) for name in ("near", "far")}
    x = keras.layers.Concatenate()([layers[0](inputs["near"]), layers[1](keras.layers.Rescaling(0.1)(inputs["far"]))])
    policy = keras.Model(inputs, pg.heads.Categorical(2)(x))
    _, seen = fitted(policy, nested=True, method=pg.A2C, critic=critic_of_both())
    check(layers[0], [each["near"] for each in seen])
    check(layers[1], [0.1 * each["far"] for each in seen])


def critic_of_both():
    inputs = {name: keras.Input((2,), name=name) for name in ("near", "far")}
    return keras.Model(inputs, pg.heads.NormalValue()(keras.layers.Concatenate()(list(inputs.values()))))


def test_acting_stays_quick_with_statistics_in_float64():
    policy = keras.Sequential([keras.Input((2,)), RunningNormalization(), pg.heads.Categorical(2)])
    agent, _ = fitted(policy, critic_of())
    assert agent.actor(1, deterministic=False).kind == "litert"


@pytest.mark.parametrize("reward", [1.0, 0.1, -100.1])
def test_constant_returns_leave_rewards_alone(reward):
    layer, carry = RewardScaling(0.99), tf.zeros(3)
    rewards = tf.fill((7, 3), reward)
    for _ in range(5):
        carry = layer.update(rewards, tf.ones((7, 3), tf.bool), tf.ones((7, 3), tf.bool), carry)
    assert layer.variance.numpy() == 0.0
    np.testing.assert_array_equal(layer(rewards), rewards)


def test_returns_that_vary_by_rounding_only_leave_rewards_alone():
    layer = RewardScaling(0.0)
    rewards = np.float32(100.0) + np.float32(1e-5) * np.arange(12, dtype=np.float32).reshape(4, 3)
    assert np.unique(rewards).size > 1
    layer.update(rewards, tf.ones((4, 3), tf.bool), tf.ones((4, 3), tf.bool), tf.zeros(3))
    assert layer.variance.numpy() > 0
    np.testing.assert_array_equal(layer(rewards), rewards)
