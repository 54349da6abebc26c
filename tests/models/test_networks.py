import random

import gymnasium as gym
import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasrl_pg import heads
from kerasrl_pg.envs import ObservationSpec
from kerasrl_pg.models import Networks, cnn, normalizers

S = gym.spaces
ACTIONS = S.Discrete(2)
NESTED = S.Dict(
    goal=S.Discrete(3, start=-1),
    image=S.Box(0, 255, (10, 10, 4), np.uint8),
    rest=S.Tuple([S.MultiDiscrete([2, 3], start=[0, 5]), S.MultiBinary((2, 2)), S.Box(-1, 1, (2, 3))]),
)
KINDS = {
    "box": S.Box(-1, 1, (3,)),
    "box_2d": S.Box(-1, 1, (2, 3)),
    "box_scalar": S.Box(-1, 1, ()),
    "box_uint8_vector": S.Box(0, 255, (5,), np.uint8),
    "discrete": S.Discrete(4, start=1),
    "multi_discrete": S.MultiDiscrete([2, 3]),
    "multi_discrete_2d": S.MultiDiscrete([[2, 3], [3, 1]]),
    "multi_binary": S.MultiBinary(3),
    "tuple": S.Tuple([S.Discrete(2), S.Box(-1, 1, (1,))]),
    "nested": NESTED,
}


def batch(space, size=5):
    """Samples of a space as the tensors that networks take."""
    space.seed(0)
    spec = ObservationSpec(space)
    rows = [spec.flatten(space.sample()) for _ in range(size)]
    return spec.map(lambda leaf, *leaves: tf.cast(np.stack(leaves), leaf.dtype), *rows)


def encoding(space, **kwargs):
    """The model from observations to what the first dense layer would see."""
    policy, _ = Networks(hidden_units=(), **kwargs).build(space, ACTIONS, seed=0)
    return keras.Model(policy.input, policy.layers[-1].input)


def weights(model):
    return [np.array(w) for w in model.get_weights()]


@pytest.mark.parametrize("kind", KINDS)
def test_policy_and_critic_of_every_kind(kind, tmp_path):
    policy, critic = Networks(hidden_units=(8,), normalize_observations=True).build(KINDS[kind], ACTIONS, seed=0)
    x = batch(KINDS[kind])
    assert policy(x).logits.shape == (5, 2)
    assert critic(x).mean().shape == (5,)
    assert critic(x).batch_shape == (5,)
    assert not {id(v) for v in policy.variables} & {id(v) for v in critic.variables}
    policy.save(tmp_path / "policy.keras")
    loaded = keras.models.load_model(tmp_path / "policy.keras")
    np.testing.assert_array_equal(loaded(x).logits, policy(x).logits)


def test_discrete_observations_become_one_hot():
    encoded = encoding(S.Discrete(4, start=-2))
    np.testing.assert_array_equal(encoded(np.int32([-2, -1, 0, 1])), np.eye(4))


def test_multi_discrete_observations_become_one_hots_side_by_side():
    encoded = encoding(S.MultiDiscrete([2, 3], start=[0, 5]))
    expected = [[1, 0, 1, 0, 0], [0, 1, 0, 0, 1]]
    np.testing.assert_array_equal(encoded(np.int32([[0, 5], [1, 7]])), expected)
    encoded = encoding(S.MultiDiscrete([[2, 1], [1, 3]]))
    np.testing.assert_array_equal(encoded(np.int32([[[1, 0], [0, 2]]])), [[0, 1, 1, 1, 0, 0, 1]])


def test_other_observations_are_flattened():
    np.testing.assert_array_equal(encoding(S.MultiBinary((2, 2)))(np.float32([[[0, 1], [1, 1]]])), [[0, 1, 1, 1]])
    np.testing.assert_array_equal(encoding(S.Box(-1, 1, (2, 1)))(np.float32([[[3], [4]]])), [[3, 4]])
    np.testing.assert_array_equal(encoding(S.Box(-1, 1, ()))(np.float32([3, 4])), [[3], [4]])


def test_the_parts_of_a_nested_observation_stand_side_by_side():
    space = S.Dict(a=S.Discrete(2), b=S.Tuple([S.Box(-9, 9, (2,)), S.MultiBinary(1)]))
    encoded = encoding(space)
    x = {"a": np.int32([1]), "b_item0": np.float32([[3, 4]]), "b_item1": np.float32([[1]])}
    np.testing.assert_array_equal(encoded(x), [[0, 1, 3, 4, 1]])


@pytest.mark.parametrize(
    "shape, convolutions",
    [
        ((84, 84, 4), [(84, 84, 4), (20, 20, 32), (9, 9, 64)]),
        ((4, 84, 84), [(84, 84, 4), (20, 20, 32), (9, 9, 64)]),
        ((84, 84), [(84, 84, 1), (20, 20, 32), (9, 9, 64)]),
        ((96, 96, 3), [(96, 96, 3), (23, 23, 32), (10, 10, 64)]),
        ((10, 10, 4), [(10, 10, 4)]),
        ((4, 10, 10), [(10, 10, 4)]),
        ((10, 10, 10), [(10, 10, 10)]),
        ((8, 8), [(8, 8, 1)]),
    ],
)
def test_images_are_put_channels_last_and_between_0_and_1(shape, convolutions):
    inputs = keras.Input(shape, dtype="uint8")
    features = cnn(inputs, lambda gain: "zeros")
    assert features.shape == (None, 512 if len(convolutions) == 3 else 128)
    model = keras.Model(inputs, features)
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert [layer.input.shape[1:] for layer in layers] == convolutions
    images = np.random.default_rng(0).integers(0, 256, (2, *shape), np.uint8)
    seen = keras.Model(inputs, layers[0].input)(images)
    if len(shape) == 2:
        expected = images[..., None]
    elif shape[0] == 4:
        expected = np.moveaxis(images, 1, -1)
    else:
        expected = images
    np.testing.assert_allclose(seen, expected / 255.0, rtol=1e-6)


def test_the_seed_decides_the_weights():
    build = Networks(hidden_units=(4,)).build
    (policy, critic), (again, critic_again), (other, _) = (build(KINDS["box"], ACTIONS, seed) for seed in (1, 1, 2))
    for left, right in zip(weights(policy) + weights(critic), weights(again) + weights(critic_again), strict=True):
        np.testing.assert_array_equal(left, right)
    assert not np.array_equal(weights(policy)[0], weights(other)[0])
    assert not np.array_equal(weights(policy)[0], weights(critic)[0])


def test_orthogonal_weights_and_their_gains():
    policy, critic = Networks(hidden_units=(8, 8)).build(KINDS["box"], ACTIONS, seed=0)
    for model, last in ((policy, 0.01), (critic, 1.0)):
        kernels = [w for w in weights(model) if w.ndim == 2]
        assert [k.shape[1] for k in kernels] == [8, 8, 2 if model is policy else 1]
        for kernel, gain in zip(kernels, (np.sqrt(2), np.sqrt(2), last), strict=True):
            gram = kernel @ kernel.T if kernel.shape[0] < kernel.shape[1] else kernel.T @ kernel
            np.testing.assert_allclose(gram, gain**2 * np.eye(len(gram)), atol=1e-6)
    policy, _ = Networks(hidden_units=(8,), orthogonal=False).build(KINDS["box"], ACTIONS, seed=0)
    kernel = weights(policy)[0]
    assert np.abs(kernel).max() <= np.sqrt(6 / 11)  # Glorot's bound
    assert not np.allclose(kernel @ kernel.T, 2 * np.eye(3), atol=1e-2)


def test_the_activation_is_that_of_the_dense_layers():
    policy, _ = Networks(hidden_units=(4,), activation="relu").build(KINDS["box"], ACTIONS, seed=0)
    assert [x.activation for x in policy.layers if isinstance(x, keras.layers.Dense)] == [keras.activations.relu]


def test_normalisers_stand_before_float_boxes_only():
    policy, critic = Networks(hidden_units=(4,), normalize_observations=True, observation_clip=3.0).build(
        NESTED, ACTIONS, seed=0
    )
    for model in (policy, critic):
        (layer,) = normalizers(model)
        assert (layer.key, layer.clip, layer.mean.shape) == ("rest_item2", 3.0, (2, 3))
    (layer,) = normalizers(Networks(normalize_observations=True).build(KINDS["box"], ACTIONS, seed=0)[0])
    assert (layer.key, layer.clip) == (None, 10.0)
    assert not normalizers(Networks().build(KINDS["box"], ACTIONS, seed=0)[0])
    assert not normalizers(Networks(normalize_observations=True).build(KINDS["discrete"], ACTIONS, seed=0)[0])


def test_one_trunk_under_both_heads():
    model, critic = Networks(hidden_units=(4,), shared=True).build(KINDS["box"], ACTIONS, seed=0)
    assert critic is None
    outputs = model(batch(KINDS["box"]))
    assert outputs["policy"].logits.shape == (5, 2)
    assert outputs["value"].mean().shape == (5,)
    assert len(model.trainable_variables) == 2 + 2 + 2


@pytest.mark.parametrize(
    "head, kind",
    [(None, heads.Gaussian), (heads.Beta, heads.Beta), (heads.TanhGaussian([-1, -1], [1, 1]), heads.TanhGaussian)],
)
def test_the_head(head, kind):
    policy, _ = Networks(hidden_units=(4,), head=head).build(KINDS["box"], S.Box(-1, 1, (2,)), seed=0)
    assert type(policy.layers[-1]) is kind


def test_the_critics_head():
    head = heads.HistogramValue(0.0, 1.0, num_bins=5)
    _, critic = Networks(hidden_units=(4,), critic_head=head).build(KINDS["box"], ACTIONS, seed=0)
    assert critic.layers[-1] is not head
    assert critic.layers[-1].get_config() == head.get_config()
    assert isinstance(Networks(hidden_units=(4,)).build(KINDS["box"], ACTIONS, 0)[1].layers[-1], heads.NormalValue)


RANDOM = keras.initializers.RandomUniform  # Without a seed of its own.
LAYERS = {
    "head": lambda: {"head": heads.Categorical(2)},
    "critic_head": lambda: {"critic_head": heads.HistogramValue(0.0, 1.0, num_bins=5)},
    "activation": lambda: {"activation": keras.layers.PReLU(RANDOM())},
    "shared": lambda: {"head": heads.Categorical(2), "activation": keras.layers.PReLU(RANDOM()), "shared": True},
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_given_layer_is_made_anew_for_every_network_with_weights_from_the_seed(name):
    networks = Networks(hidden_units=(4, 4), **LAYERS[name]())
    models = [[m for m in networks.build(KINDS["box"], ACTIONS, seed) if m is not None] for seed in (1, 1, 2)]
    variables = [[v for model in pair for v in model.trainable_variables] for pair in models]
    assert len({id(v) for group in variables for v in group}) == sum(map(len, variables))
    one, again, other = ([w for model in pair for w in weights(model)] for pair in models)
    for left, right, third in zip(one, again, other, strict=True):
        np.testing.assert_array_equal(left, right)
        assert not np.array_equal(left, third) or not left.any()  # biases are 0
    elsewhere = Networks(hidden_units=(4, 4), **LAYERS[name]()).build(KINDS["box"], ACTIONS, 1)
    for left, right in zip(one, [w for m in elsewhere if m is not None for w in weights(m)], strict=True):
        np.testing.assert_array_equal(left, right)


def test_an_initializers_own_seed_is_kept_and_the_users_random_state_left_alone():
    networks = Networks(hidden_units=(4,), head=heads.Categorical(2, kernel_initializer=RANDOM(seed=5)))
    random.seed(3)
    kernels = [networks.build(KINDS["box"], ACTIONS, seed)[0].layers[-1].dense.kernel for seed in (1, 2)]
    np.testing.assert_array_equal(*kernels)
    after = random.random()
    random.seed(3)
    assert after == random.random()


def test_convolutions_get_their_own_activation_layers():
    networks = Networks(hidden_units=(), activation=keras.layers.PReLU())
    policy, critic = networks.build(S.Box(0, 255, (10, 10, 4), np.uint8), ACTIONS, seed=0)
    layers = [layer for m in (policy, critic) for layer in m.layers if isinstance(layer, keras.layers.PReLU)]
    assert len({id(layer) for layer in layers}) == 4


class Forgetful(heads.Categorical):
    """Its config does not hold `temperature`, and what it holds builds another head."""

    def __init__(self, num_actions=2, temperature=1.0, **kwargs):
        super().__init__(num_actions, **kwargs)
        self.temperature = temperature

    def get_config(self):
        return {"name": self.name}


class Closed(heads.Categorical):
    def __init__(self):
        super().__init__(2)


@pytest.mark.parametrize(
    "settings, error, sentence",
    [
        (
            {"head": Forgetful(2, 3.0)},
            TypeError,
            "`head` must be .* every argument of its .* without num_actions, temp",
        ),
        (
            {"head": Closed()},
            TypeError,
            "`head` must be a layer that its config makes anew.*Closed.*fails with TypeErro",
        ),
        ({"activation": keras.layers.PReLU}, TypeError, "`activation` must be an activation's name,.*Pass an instance"),
        ({"activation": "tanhh"}, ValueError, "`activation` must be an activation that Keras knows. Received.*tanhh"),
        ({"shared": "yes"}, ValueError, "`shared` must be True or False. Received: shared='yes'"),
    ],
)
def test_what_cannot_be_made_is_refused_at_construction(settings, error, sentence):
    with pytest.raises(error, match=sentence):
        Networks(**settings)


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"activation": keras.layers.PReLU(), "head": heads.Beta},
        {"hidden_units": [8, 4], "activation": "relu", "orthogonal": False, "observation_clip": None},
        {"hidden_units": (), "activation": keras.activations.gelu, "normalize_observations": True, "shared": True},
        {"head": heads.Beta},
        {"head": heads.Gaussian(3, initial_log_std=-1.0), "critic_head": heads.HistogramValue(0.0, 1.0)},
        {"encoders": "numbers"},
        {"encoders": keras.layers.Dense(4, kernel_initializer="ones")},
        {"encoders": {"observation": keras.Sequential([keras.layers.Dense(4, kernel_initializer="ones")])}},
    ],
)
def test_config_round_trip(kwargs):
    networks = Networks(**kwargs)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(networks))
    assert again.get_config() == networks.get_config()
    assert type(again.head) is type(networks.head)
    assert type(again.critic_head) is type(networks.critic_head)
    left, right = (n.build(KINDS["box"], S.Box(-1, 1, (3,)), seed=0)[0](batch(KINDS["box"])) for n in (networks, again))
    if networks.shared:
        left, right = left["policy"], right["policy"]
    if not isinstance(networks.head, heads.Head):  # a head of one's own has its own, unseeded initial weights
        np.testing.assert_array_equal(left.mode(), right.mode())


@pytest.mark.parametrize(
    "error, kwargs, sentence",
    [
        (ValueError, {"hidden_units": (64, 0)}, r"`hidden_units` must be .* Received: hidden_units=\(64, 0\)"),
        (
            ValueError,
            {"hidden_units": 64},
            r"`hidden_units` must be a list .*Received: hidden_units=64\.",
        ),
        (ValueError, {"observation_clip": "a"}, "`observation_clip` must be a number"),
        (ValueError, {"hidden_units": (1.5,)}, r"`hidden_units` must be .* Received: hidden_units=\(1.5,\)"),
        (
            ValueError,
            {"observation_clip": 0.0},
            r"`observation_clip` must be a number in \(0.0, inf\), or None. Received: observation_clip=0",
        ),
        (TypeError, {"head": "gaussian"}, "`head` must be a Head class or a Head layer .* Received: head='gaussian'"),
        (TypeError, {"head": heads.NormalValue}, "`head` must be a Head class or a Head layer"),
        (
            TypeError,
            {"critic_head": heads.Gaussian(1)},
            "`critic_head` must be a ValueHead layer. Received: critic_head=<",
        ),
    ],
)
def test_wrong_settings_are_refused(error, kwargs, sentence):
    with pytest.raises(error, match=sentence):
        Networks(**kwargs)


def test_spaces_without_network_are_refused():
    with pytest.raises(ValueError, match="No head is known for this action space"):
        Networks().build(KINDS["box"], S.Text(3), seed=0)
    with pytest.raises(ValueError, match="An observation space must be Box"):
        Networks().build(S.Sequence(S.Discrete(2)), ACTIONS, seed=0)
    with pytest.raises(ValueError, match="Beta serves a gymnasium.spaces.Box"):
        Networks(head=heads.Beta).build(KINDS["box"], ACTIONS, seed=0)
