import gymnasium as gym
import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasrl_pg as pg
from kerasrl_pg.envs import ObservationSpec
from kerasrl_pg.models import Networks, cnn

S = gym.spaces
ACTIONS = S.Discrete(2)
MINIGRID = S.Dict(
    direction=S.Discrete(4),
    image=S.Box(0, 255, (7, 7, 3), np.uint8),
    mission=S.Text(9, charset="abc"),
)
KINDS = {
    "bytes": S.Box(0, 255, (10, 10, 4), np.uint8),
    "floats": S.Box(0, 1, (4, 40, 40)),
    "planes": S.Box(0, 1, (10, 10, 4), bool),
    "frames": S.Box(0, 255, (2, 12, 12, 3), np.uint8),
    "bounds": S.Box(-2, 2, (8, 8, 3)),
    "grid": S.Box(0, 10, (7, 7, 3), np.uint8),
    "many": S.Discrete(2000, start=-5),
    "several": S.MultiDiscrete([3, 2000], start=[1, -7]),
    "text": S.Text(9, charset="abc"),
    "long": S.Text(200),
    "minigrid": MINIGRID,
}
TOLD = {
    "bytes": "categories",
    "bounds": "image",
    "minigrid": {"image": "categories", "mission": "omit", "direction": "numbers"},
}


def batch(space, size=5):
    space.seed(0)
    spec = ObservationSpec(space)
    rows = [spec.flatten(space.sample()) for _ in range(size)]
    return spec.map(lambda leaf, *leaves: tf.cast(np.stack(leaves), leaf.dtype), *rows)


def encoding(space, encoders=None, hidden_units=(), **kwargs):
    """The model from observations to what the head sees."""
    networks = Networks(hidden_units=hidden_units, encoders=encoders, **kwargs)
    policy, _ = networks.build(space, ACTIONS, seed=0)
    return keras.Model(policy.input, policy.layers[-1].input)


def layers(space, *kinds, **settings):
    policy, _ = Networks(**settings).build(space, ACTIONS, seed=0)
    return [x for x in policy.layers if isinstance(x, kinds or (keras.layers.Conv2D, keras.layers.Dense))]


class Playing(gym.Env):
    def __init__(self, space):
        self.observation_space, self.action_space = space, ACTIONS

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 1.0, bool(self.np_random.random() < 0.2), False, {}


@pytest.mark.parametrize("kind, told", [*((kind, False) for kind in KINDS), *((kind, True) for kind in TOLD)])
@pytest.mark.quick("bytes-False")
def test_an_agent_learns_saves_and_loads_with_every_kind(kind, told, tmp_path):
    space = KINDS[kind]
    networks = Networks(encoders=TOLD[kind] if told else None)
    agent = pg.A2C(networks=networks, horizon=4, seed=0)
    agent.compile(keras.optimizers.Adam(1e-3), jit_compile=False)
    agent.fit(lambda: Playing(space), total_steps=16, num_envs=2, epochs=1, verbose=0)
    agent.evaluate(lambda: Playing(space), episodes=2)
    agent.save(tmp_path / "agent.keras")
    again = keras.models.load_model(tmp_path / "agent.keras")
    x = batch(space)
    np.testing.assert_allclose(again.policy(x).logits, agent.policy(x).logits, atol=1e-6)
    assert again.get_config()["networks"] == agent.get_config()["networks"]
    again.fit(lambda: Playing(space), total_steps=16, num_envs=2, epochs=1, verbose=0)
    space.seed(1)
    assert again.act(space.sample()) in (0, 1)


@pytest.mark.parametrize(
    "space, expected",
    [
        (S.Box(0, 255, (36, 40, 2), np.uint8), lambda x: x / 255),
        (S.Box(0, 1, (8, 8, 2)), lambda x: x),
        (S.Box(0, 1, (8, 8, 2), bool), lambda x: x.astype(float)),
        (S.Box(0, 255, (2, 36, 40)), lambda x: np.moveaxis(x, 1, -1) / 255),
        (S.Box(0, 255, (5, 36, 40, 3), np.uint8), lambda x: np.moveaxis(x, 1, 3).reshape(-1, 36, 40, 15) / 255),
        (S.Box(0, 255, (5, 3, 36, 40), np.uint8), lambda x: np.moveaxis(x, (3, 4), (1, 2)).reshape(-1, 36, 40, 15)
         / 255),
        (S.Box(-2, 2, (8, 8, 2)), lambda x: (x + 2) / 4),
        (S.Box(np.full((8, 8), -1.0), np.arange(64.0).reshape(8, 8)), lambda x: (x + 1)[..., None]
         / (np.arange(64.0).reshape(8, 8, 1) + 1)),
    ],
)  # fmt: skip
def test_images_are_put_between_0_and_1_by_their_bounds(space, expected):
    policy, _ = Networks(encoders="image").build(space, ACTIONS, seed=0)
    convolution = next(layer for layer in policy.layers if isinstance(layer, keras.layers.Conv2D))
    space.seed(0)
    x = np.stack([space.sample() for _ in range(3)])
    seen = keras.Model(policy.input, convolution.input)(tf.cast(x, policy.input.dtype))
    np.testing.assert_allclose(seen, expected(x), rtol=1e-5, atol=1e-6)


def test_small_grids_of_bytes_do_not_depend_on_how_far_below_255_they_stay():
    space = S.Box(0, 255, (7, 7, 3), np.uint8)
    policy, _ = Networks().build(space, ACTIONS, seed=0)
    convolution = next(layer for layer in policy.layers if isinstance(layer, keras.layers.Conv2D))
    seen = keras.Model(policy.input, convolution.input)
    x = np.random.default_rng(0).integers(0, 11, (2, 7, 7, 3), np.uint8)
    once, again = np.array(seen(x)), np.array(seen(x * 20))
    np.testing.assert_allclose(once, again, rtol=0.02)
    np.testing.assert_allclose(np.square(once).mean((1, 2, 3)), 1, rtol=0.05)
    np.testing.assert_array_equal(once == 0, x == 0)
    np.testing.assert_array_equal(seen(np.zeros_like(x)), 0)


@pytest.mark.parametrize(
    "shape, filters, features",
    [((84, 84, 4), [(32, 8, 4), (64, 4, 2), (64, 3, 1)], 512), ((10, 10, 4), [(16, 3, 1)], 128)],
)
def test_one_image_passes_through_the_trunk_of_its_source_and_nothing_else(shape, filters, features):
    *convolutions, dense = layers(S.Box(0, 255, shape, np.uint8))
    assert [(c.filters, c.kernel_size[0], c.strides[0]) for c in convolutions] == filters
    assert [c.padding for c in convolutions] == ["valid"] * len(filters)
    assert dense.units == features
    assert {layer.activation for layer in (*convolutions, dense)} == {keras.activations.relu}


def test_hidden_units_and_the_activation_are_what_the_user_says():
    built = layers(S.Box(0, 255, (10, 10, 4), np.uint8), hidden_units=(32,), activation="tanh")
    assert [x.units for x in built if isinstance(x, keras.layers.Dense)] == [128, 32]
    assert {x.activation for x in built} == {keras.activations.tanh}


def test_beside_other_leaves_an_image_passes_dense_layers_too():
    built = layers(MINIGRID, keras.layers.Dense)
    assert [(x.units, x.activation.__name__) for x in built] == [(128, "relu"), (64, "tanh"), (64, "tanh")]
    built = layers(MINIGRID, keras.layers.Dense, encoders={"direction": "omit", "mission": "omit"})
    assert [x.units for x in built] == [128]
    assert [x.units for x in layers(S.Discrete(3), keras.layers.Dense)] == [64, 64]


def test_bytes_may_be_numbers():
    x = np.uint8(np.random.default_rng(0).integers(0, 256, (2, 7, 7, 3)))
    encoded = encoding(KINDS["bytes"].__class__(0, 255, (7, 7, 3), np.uint8), "numbers")
    np.testing.assert_array_equal(encoded(x), x.reshape(2, -1))


def test_numbers_are_normalised_whatever_they_were_before():
    policy, _ = Networks(encoders="numbers", normalize_observations=True).build(
        S.Box(0, 255, (7, 7, 3), np.uint8), ACTIONS, seed=0
    )
    assert len(pg.models.normalizers(policy)) == 1


def test_cells_of_a_grid_become_one_hot_side_by_side():
    space = S.Box(2, 5, (3, 4, 2), np.int64)
    policy, _ = Networks(encoders="categories").build(space, ACTIONS, seed=0)
    (convolution,) = (layer for layer in policy.layers if isinstance(layer, keras.layers.Conv2D))
    x = np.random.default_rng(0).integers(2, 6, (2, 3, 4, 2))
    seen = keras.Model(policy.input, convolution.input)(x.astype(np.float32))
    np.testing.assert_array_equal(seen, np.eye(4)[x - 2].reshape(2, 3, 4, 8))
    encoded = encoding(S.Box(-1, 1, (2,), np.int8), "categories")
    np.testing.assert_array_equal(encoded(np.float32([[-1, 1]])), [[1, 0, 0, 0, 0, 1]])
    encoded = encoding(S.MultiBinary(2), "categories")
    np.testing.assert_array_equal(encoded(np.float32([[1, 0]])), [[0, 1, 1, 0]])


def test_the_same_number_means_something_else_in_each_channel():
    policy, _ = Networks(encoders="categories").build(S.Box(0, 255, (7, 7, 3), np.uint8), ACTIONS, seed=0)
    (table,) = (layer for layer in policy.layers if isinstance(layer, keras.layers.Embedding))
    (convolution,) = (layer for layer in policy.layers if isinstance(layer, keras.layers.Conv2D))
    rows = np.array(table.embeddings)
    assert rows.shape == (768, 8)
    assert 0.9 < np.sqrt((rows**2).sum(1).mean()) < 1.1
    x = np.random.default_rng(0).integers(0, 256, (2, 7, 7, 3), np.uint8)
    seen = keras.Model(policy.input, convolution.input)(x)
    np.testing.assert_array_equal(seen, rows[x.astype(int) + [0, 256, 512]].reshape(2, 7, 7, 24))


def test_many_choices_are_embedded():
    assert encoding(S.Discrete(1024)).output.shape == (None, 1024)
    model = encoding(S.Discrete(1025, start=-3))
    (table,) = (layer for layer in model.layers if isinstance(layer, keras.layers.Embedding))
    np.testing.assert_array_equal(model(np.int32([-3, 1021])), np.array(table.embeddings)[[0, 1024]])
    model = encoding(S.MultiDiscrete([3, 2000], start=[1, -7]))
    (table,) = (layer for layer in model.layers if isinstance(layer, keras.layers.Embedding))
    encoded = np.array(model(np.int32([[3, -5]])))
    np.testing.assert_array_equal(encoded[0], [0, 0, 1, *np.array(table.embeddings)[2]])


def test_texts_become_one_hot_or_embedded_characters():
    space = S.Text(3, charset="ab")
    encoded = encoding(space)(ObservationSpec(space).flatten(["ba"]))
    np.testing.assert_array_equal(encoded, [[0, 0, 1, 0, 1, 0, 1, 0, 0]])
    assert encoding(S.Text(128)).output.shape == (None, 128 * 8)


def test_a_leaf_is_left_out():
    x = {k: v.numpy() for k, v in batch(MINIGRID).items()}
    policy, critic = Networks(encoders={"mission": "omit"}).build(MINIGRID, ACTIONS, seed=0)
    logits, values = policy(x).logits, critic(x).mean()
    x["mission"] = x["mission"][::-1].copy()
    np.testing.assert_array_equal(policy(x).logits, logits)
    np.testing.assert_array_equal(critic(x).mean(), values)
    x["direction"] = (x["direction"] + 1) % 4
    assert not np.array_equal(policy(x).logits, logits)


@keras.saving.register_keras_serializable("tests")
def halved(x):
    return x / 2.0


def test_a_layer_and_a_function_of_the_users():
    space = S.Dict(a=S.Box(0, 255, (4, 4), np.uint8), b=S.Discrete(9), c=S.Box(-1, 1, ()))
    layer = keras.layers.Embedding(9, 3)
    encoders = {"a": halved, "b": layer, "c": "numbers"}
    networks = Networks(hidden_units=(), encoders=encoders)
    policy, critic = networks.build(space, ACTIONS, seed=0)
    tables = [x for m in (policy, critic) for x in m.layers if isinstance(x, keras.layers.Embedding)]
    assert len({id(table) for table in (*tables, layer)}) == 3
    assert not np.array_equal(*(np.array(t.embeddings) for t in tables))
    model = keras.Model(policy.input, policy.layers[-1].input)
    x = {"a": np.full((1, 4, 4), 255, np.uint8), "b": np.int32([4]), "c": np.float32([0.5])}
    expected = [*[127.5] * 16, *np.array(tables[0].embeddings)[4], 0.5]
    np.testing.assert_allclose(model(x)[0], expected)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(networks))
    assert again.encoders["a"] is halved
    assert again.get_config() == networks.get_config()
    np.testing.assert_array_equal(again.build(space, ACTIONS, seed=0)[0](x).logits, policy(x).logits)
    (same,) = {len(Networks((), encoders={"x": layer, "y": layer}).build(
        S.Dict(x=S.Discrete(9), y=S.Discrete(9)), ACTIONS, seed=0)[0].trainable_variables)}  # fmt: skip
    assert same == 4


def integers(x):
    return keras.ops.cast(x, "int32")


WORDS = keras.Sequential([keras.layers.TextVectorization(vocabulary=["go", "red"]), keras.layers.Embedding(4, 2)])


def fails(x):
    raise RuntimeError("no such thing")


@pytest.mark.parametrize(
    "encoders, error, sentence",
    [
        ("pixels", ValueError, "`encoders` must be one of 'image', 'categories', .* Received: encoders='pixels'"),
        (
            {"image": "pixels"},
            ValueError,
            r"`encoders\['image'\]` must be one of .* Received: encoders\['image'\]='pix",
        ),
        ({}, ValueError, r"`encoders` must name a leaf at least. Received: encoders=\{\}"),
        ("omit", ValueError, "`encoders` must leave something to see. Received: encoders='omit'"),
        ({"a": 3}, TypeError, r"`encoders\['a'\]` must be a kind, a Keras layer, or a function .* Received: .*=3\."),
        ({"a": None}, TypeError, r"`encoders\['a'\]` must be a kind"),
        ({3: "image"}, TypeError, "`encoders` must have names of leaves for keys. Received: the key 3"),
        (keras.layers.Flatten, TypeError, "`encoders` must be .* a class. Pass an instance of it"),
        (
            {"a": WORDS},
            TypeError,
            r"`encoders\['a'\]` must take numbers, since .* Vectorise the text in a gymnasium.Obs",
        ),
        ({"a": lambda x: x}, TypeError, r"`encoders\['a'\]` must be a function that a file can name.*a lambda"),
    ],
)
def test_contradictions_are_refused_at_construction(encoders, error, sentence):
    with pytest.raises(error, match=sentence):
        Networks(encoders=encoders)


@pytest.mark.parametrize(
    "space, encoders, sentence",
    [
        (MINIGRID, "categories", "`encoders` must say by name which leaf .*'direction', 'image', 'mission'. Received"),
        (MINIGRID, {"picture": "image"}, "`encoders` must name leaves .*'image', 'mission'. Received: .*'picture'"),
        (
            S.Dict(a=S.Tuple([S.Discrete(3), S.Text(3)])),
            {"a_item0": "image"},
            r"`encoders\['a_item0'\]` must fit its leaf: 'image' is for a Box.* Received: Discrete\(3\) as "
            r"observation_space\['a'\]\[0\]",
        ),
        (S.Box(-1, 1, (3,)), "image", "'image' is for a Box of 2 to 4 dimensions. Received: Box"),
        (S.Box(-np.inf, 1, (30, 30)), "image", "'image' is for a Box of finite bounds"),
        (S.Box(0, 9, (2, 8)), "image", r"`observation_space` must have sides of at least 3, .*\{'observation': 'num"),
        (S.Box(0, 1, (30, 30)), "categories", "'categories' is for .* whole numbers with one low and one high"),
        (S.Box(0, 2**30, (3,), np.int64), "categories", "`observation_space` must have at most 16,777,216 choices"),
        (S.Box(0, 1, (30, 30)), "text", "'text' is for a Text. Received: Box"),
        (S.Text(3), "numbers", "'numbers' is for a space of numbers. Received: Text.* Its own kind is 'text'"),
        (MINIGRID, dict.fromkeys(MINIGRID, "omit"), "`encoders` must leave a leaf to see"),
        (S.Discrete(3), integers, "`encoders.*` must give one tensor of floats .* Whole numbers want an Embedding"),
        (S.Discrete(3), fails, "must take its leaf's tensor, .* which fails with RuntimeError: no such thing"),
    ],
)
def test_what_does_not_fit_the_observation_is_refused_by_its_place(space, encoders, sentence):
    with pytest.raises(ValueError, match=sentence):
        Networks(encoders=encoders).build(space, ACTIONS, seed=0)


def test_cnn_is_relu_unless_told_otherwise():
    features = cnn(keras.Input((10, 10, 4), dtype="uint8"), lambda gain: "ones")
    assert (
        keras.Model(features._keras_history.operation.input, features).layers[-1].activation is keras.activations.relu
    )


def test_networks_of_earlier_files_are_built_as_they_were():
    config = {**Networks(hidden_units=(64, 64), activation="tanh").get_config()}
    del config["encoders"]
    policy, _ = Networks.from_config(config).build(S.Box(0, 255, (10, 10, 4), np.uint8), ACTIONS, seed=0)
    built = [x for x in policy.layers if isinstance(x, (keras.layers.Conv2D, keras.layers.Dense))]
    assert [getattr(x, "units", None) for x in built] == [None, 128, 64, 64]
    assert {x.activation for x in built} == {keras.activations.tanh}
