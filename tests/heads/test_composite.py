"""One head of several: for Dict and Tuple spaces, nested."""

import gymnasium
import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasrl_pg import heads
from kerasrl_pg.envs import ObservationSpec
from kerasrl_pg.rollouts.actor import Actor

spaces = gymnasium.spaces


def features(count, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 5)).astype("float32")


def random_leaf(rng):
    shape = tuple(rng.integers(1, 3, rng.integers(0, 3)).tolist())
    kind = rng.integers(5)
    if kind == 0:
        return spaces.Discrete(
            int(rng.integers(1, 6)), start=int(rng.integers(-5, 5)), dtype=rng.choice(["int8", "int64"])
        )
    if kind == 1:
        return spaces.MultiDiscrete(rng.integers(1, 5, shape or (2,)), dtype="int32")
    if kind == 2:
        return spaces.MultiBinary(shape or 2)
    if kind == 3:
        return spaces.Box(-1, 1, shape, rng.choice(["float16", "float32", "float64"]))
    low = rng.integers(0, 9, shape)
    return spaces.Box(low, low + rng.integers(0, 5, shape), shape, rng.choice(["int16", "uint8", "int64"]))


def random_space(rng, depth=3):
    """A Dict or Tuple, nested; keys in any order, texts or whole numbers, some no words."""
    size = int(rng.integers(1, 4))
    parts = [
        random_leaf(rng) if depth == 1 or rng.uniform() < 0.6 else random_space(rng, depth - 1) for _ in range(size)
    ]
    if rng.uniform() < 0.4:
        return spaces.Tuple(parts)
    keys = [["zeta", "a b", "c/d", "class"], [7, 3, 11, 0]][int(rng.uniform() < 0.3)]
    return spaces.Dict(list(zip(rng.permutation(keys)[:size].tolist(), parts, strict=True)))


def rows(nest, count):
    return [tf.nest.map_structure(lambda x, i=i: np.asarray(x)[i], nest) for i in range(count)]


def check_contains(space, action):
    """`space.contains`, which takes arrays for boxes only as arrays."""
    if isinstance(space, spaces.Dict):
        assert set(action) == set(space.spaces)
        for key in space.spaces:
            check_contains(space[key], action[key])
    elif isinstance(space, spaces.Tuple):
        assert isinstance(action, tuple)
        assert len(action) == len(space.spaces)
        for part, each in zip(space.spaces, action, strict=True):
            check_contains(part, each)
    else:
        assert space.contains(np.asarray(action) if isinstance(space, spaces.Box) else action), (space, action)
        assert np.asarray(action).dtype == space.dtype


@pytest.mark.parametrize("seed", range(12))
def test_random_nested_spaces(seed):
    rng, count = np.random.default_rng(seed), 4
    space = random_space(rng)
    head = heads.default_head(space, kernel_initializer=keras.initializers.HeNormal(seed))
    old, new = head.parameters(features(count)), head.parameters(features(count, seed=1))
    policy, other = head.distribution(old), head.distribution(new)
    drawn = head.sample(policy, head.noise([0, seed], (count,)))
    for raw in (drawn, policy.mode(), policy.sample(seed=seed)):
        for action in rows(head.to_env(raw), count):
            check_contains(space, action)
    # The parts by themselves, in the order of `leaves`, add up.
    leaves = [leaf for _, leaf in head.leaves()]
    split = [tf.split(x, [leaf.num_parameters for leaf in leaves], axis=-1) for x in (old, new)]
    ours, theirs = ([leaf.distribution(x) for leaf, x in zip(leaves, part, strict=True)] for part in split)
    actions = list(head.named(drawn).values())
    log_prob = sum(p.log_prob(a).numpy() for p, a in zip(ours, actions, strict=True))
    np.testing.assert_allclose(policy.log_prob(drawn), log_prob, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(policy.entropy(), sum(p.entropy().numpy() for p in ours), rtol=1e-5, atol=1e-5)
    kl = sum(p.kl_divergence(q).numpy() for p, q in zip(ours, theirs, strict=True))
    np.testing.assert_allclose(policy.kl_divergence(other), kl, rtol=1e-5, atol=1e-5)
    modes = tf.nest.map_structure(np.asarray, list(head.named(policy.mode()).values()))
    np.testing.assert_equal(modes, [np.asarray(p.mode()) for p in ours])
    # Made of float tensors, which can be taken apart and put together.
    parts = tf.nest.flatten(policy, expand_composites=True)
    assert all(part.dtype == tf.float32 for part in parts)
    again = tf.nest.pack_sequence_as(policy, parts, expand_composites=True)
    np.testing.assert_array_equal(again.log_prob(drawn), policy.log_prob(drawn))
    copy = heads.Composite.from_config(head.get_config())
    assert copy.get_config() == head.get_config()
    np.testing.assert_array_equal(copy.parameters(features(count)), old)  # seeded initializers
    assert tf.nest.map_structure(lambda s: s, copy.action_spec) == head.action_spec


def nested(**kwargs):
    return heads.Composite(
        {
            "walk": heads.Categorical(3, start=1),
            "arm": (heads.Gaussian(2, low=-1, high=1), heads.MultiCategorical([2, 4])),
            "legs": {1: heads.TanhGaussian([-1], [1]), 0: heads.Bernoulli(2)},
        },
        **kwargs,
    )


def test_a_closed_form():
    head = heads.Composite({"b": heads.Categorical(2), "a": heads.Gaussian(1)})
    # Sorted: loc, log σ, logits.
    policy = head.distribution(np.float32([[1.0, 0.5, 0.0, np.log(3.0)]]))
    density = -0.5 * ((2.0 - 1.0) / np.exp(0.5)) ** 2 - 0.5 - 0.5 * np.log(2 * np.pi)
    action = {"b": np.int32([1]), "a": np.float32([[2.0]])}
    np.testing.assert_allclose(policy.log_prob(action), [density + np.log(0.75)], rtol=1e-6)
    entropy = 0.5 + 0.5 * np.log(2 * np.pi) + 0.5 - 0.25 * np.log(0.25) - 0.75 * np.log(0.75)
    np.testing.assert_allclose(policy.entropy(), [entropy], rtol=1e-6)


def test_the_order_of_keys_changes_nothing():
    leaves = [("z", spaces.Discrete(3)), ("a", spaces.Box(-1, 1, (2,))), ("m", spaces.MultiBinary(2))]
    initializer = keras.initializers.HeNormal(0)
    one, two = (heads.Composite.from_space(spaces.Dict(order)) for order in (leaves, leaves[::-1]))
    assert one.get_config()["heads"]["parts"] == two.get_config()["heads"]["parts"]
    head = heads.Composite.from_space(spaces.Dict(leaves), kernel_initializer=initializer)
    policy = head(features(3))
    action = policy.mode()
    turned = dict(reversed(action.items()))
    assert list(turned) != list(action)
    np.testing.assert_array_equal(policy.log_prob(turned), policy.log_prob(action))
    tf.nest.assert_same_structure(head.to_env(turned), action)


def test_each_part_draws_its_own_kind_of_noise():
    head = heads.Composite(
        {"a": heads.Gaussian(1), "b": heads.Gaussian(1), "c": heads.Categorical(1), "d": (heads.Gaussian(1),)}
    )
    noise = head.noise([0, 1], (20_000,)).numpy()
    assert noise.shape == (20_000, 4)
    normal, uniform = noise[:, [0, 1, 3]], noise[:, 2]
    assert (np.abs(normal.mean(0)) < 0.03).all()
    assert (np.abs(normal.std(0) - 1) < 0.03).all()
    assert uniform.min() > 0
    assert uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < 0.01
    # Neither the parts nor the next draws of an agent, whose counter goes up by one, repeat each other.
    following = [head.noise([0, counter], (20_000,)).numpy() for counter in (2, 3)]
    columns = np.concatenate([normal, *[x[:, [0, 1, 3]] for x in following]], axis=1)
    correlation = np.corrcoef(columns.T) - np.eye(columns.shape[1])
    assert np.abs(correlation).max() < 0.04


def test_noise_and_samples_in_any_leading_shape():
    head = nested()
    flat = head.noise([1, 2], (6,))
    x = features(6)
    expected = head.sample(head(x), flat)
    folded = head.sample(head(x.reshape(2, 3, 5)), tf.reshape(flat, (2, 3, -1)))
    for one, two in zip(tf.nest.flatten(folded), tf.nest.flatten(expected), strict=True):
        np.testing.assert_array_equal(tf.reshape(one, two.shape), two)
    count = tf.constant(4)
    assert tf.function(lambda: head.noise([1, 2], (count,)))().shape == (4, *head.noise_shape)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_graphs_loops_and_gradients(jit_compile):
    head = nested()
    x = tf.constant(features(6))
    head(x)

    @tf.function(jit_compile=jit_compile)
    def loop(x, noise):
        with tf.GradientTape() as tape:
            policy = head(x)
            fixed = tf.nest.map_structure(tf.stop_gradient, head.sample(policy, noise))
            _, kept, total = tf.while_loop(
                lambda i, kept, total: i < 3,
                lambda i, kept, total: (i + 1, kept, total + kept.log_prob(fixed)),
                (tf.constant(0), policy, tf.zeros(6)),
                maximum_iterations=3,
            )
            loss = tf.reduce_sum(total + kept.entropy())
        return total, tape.gradient(loss, [v.value for v in head.trainable_variables])

    noise = head.noise([3, 4], (6,))
    policy = head(x)
    total, gradients = loop(x, noise)
    np.testing.assert_allclose(total, 3 * policy.log_prob(head.sample(policy, noise)), rtol=1e-5)
    assert len(gradients) == 2 * 5 + 2  # a kernel and a bias a leaf, and two log σ
    assert all(np.isfinite(g).all() and np.abs(g).max() > 0 for g in gradients)


def test_two_outputs_save_load_and_clone(tmp_path):
    inputs = keras.Input((5,))
    trunk = keras.layers.Dense(8, "tanh")(inputs)
    model = keras.Model(inputs, {"policy": nested()(trunk), "value": heads.NormalValue()(trunk)})
    x = features(3)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    action = model(x)["policy"].mode()
    assert set(action["legs"]) == {0, 1}
    for other in (loaded, clone):
        tf.nest.assert_same_structure(other(x)["policy"].mode(), action)
        np.testing.assert_allclose(other(x)["policy"].log_prob(action), model(x)["policy"].log_prob(action), rtol=1e-6)
        np.testing.assert_allclose(other(x)["value"].mean(), model(x)["value"].mean(), rtol=1e-6)
    model.save_weights(tmp_path / "model.weights.h5")
    clone.set_weights([np.zeros_like(w) for w in model.get_weights()])
    clone.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_allclose(clone(x)["policy"].log_prob(action), model(x)["policy"].log_prob(action), rtol=1e-6)


def test_parts_of_one_kind_start_out_different_and_reproducibly():
    space = spaces.Tuple([spaces.Discrete(3), spaces.Tuple([spaces.Discrete(3), spaces.Discrete(3)])])
    for initializer in (
        keras.initializers.Orthogonal(0.01, seed=7),
        keras.initializers.Orthogonal(0.01),
        "he_normal",
        None,
    ):
        kernels = []
        for _ in range(2):
            head = heads.Composite.from_space(space, kernel_initializer=initializer)
            head(features(1))
            kernels.append([leaf.dense.kernel.numpy() for _, leaf in head.leaves()])
        for i in range(3):
            for j in range(i):
                assert np.abs(kernels[0][i] - kernels[0][j]).max() > 1e-4
        same = all((a == b).all() for a, b in zip(*kernels, strict=True))
        assert same == (getattr(initializer, "seed", None) == 7)


def test_names():
    head = heads.Composite(
        {
            "log_prob": heads.Categorical(2),
            "class": heads.Categorical(2),
            "a b": (heads.Categorical(2), {3: heads.Categorical(2)}),
        }
    )
    assert list(head.named(head.action_spec)) == ["a_b_item0", "a_b_item1_item3", "class_", "log_prob_"]
    assert [path for path, _ in head.leaves()] == [("a b", 0), ("a b", 1, 3), ("class",), ("log_prob",)]
    actions = {"log_prob": 1, "class": 2, "a b": (3, {3: 4})}
    assert list(head.named(actions).values()) == [3, 4, 2, 1]
    assert heads.Categorical(2).named(5) == {"action": 5}
    assert heads.Categorical(2).action_spec == tf.TensorSpec((), "int32")
    assert heads.Gaussian((2, 1)).action_spec == tf.TensorSpec((2, 1), "float32")


def test_dtypes_of_a_space_are_taken_where_nobody_said_one():
    head = heads.Composite(
        {"a": heads.Categorical(2), "b": (heads.Gaussian(1), heads.Categorical(2, env_dtype="int16"))}
    )
    parts = spaces.Tuple([spaces.Box(-1, 1, (1,), np.float64), spaces.Discrete(2, dtype="int8")])
    head.take_env_dtype(spaces.Dict(a=spaces.Discrete(2, dtype="int8"), b=parts))
    assert [leaf.env_dtype for _, leaf in head.leaves()] == ["int8", "float64", "int16"]
    sent = head.to_env(head(features(1)).mode())
    assert [x.dtype.name for x in tf.nest.flatten(sent)] == ["int8", "float64", "int16"]


def test_weights_are_those_of_the_leaves():
    head = nested()
    assert not head.built
    policy = head(features(2))
    assert head.built
    assert policy.batch_shape == (2,)
    assert len(head.trainable_variables) == 12
    again = heads.Composite.from_config(head.get_config())
    again.build((None, 5))
    assert [w.shape for w in again.trainable_variables] == [w.shape for w in head.trainable_variables]


class Misfit(heads.Gaussian):
    """Says another number of parameters than it gives."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.num_parameters = 7


TWICE = heads.Categorical(2)


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ({}, r"`heads` must be a dictionary or a tuple of heads, of at least one. Received: heads=\{\}"),
        ((), "of at least one"),
        (heads.Categorical(2), "`heads` must be a dictionary or a tuple"),
        ({"a": heads.Categorical(2), 0: heads.Categorical(2)}, r"keys that are all texts.*the keys \['a', 0\]"),
        ({("a", 1): heads.Categorical(2)}, "keys that are all texts"),
        ({"a": 3}, "`heads` must hold layers of kerasrl_pg.heads.*Received: 3"),
        ({"a": heads.NormalValue()}, "`heads` must hold layers of kerasrl_pg.heads"),
        ({"a": TWICE, "b": (TWICE,)}, r"`heads` must hold each head once.*a second time, as heads\['b'\]\[0\]"),
        (
            {"a_b": heads.Categorical(2), "a": {"b": heads.Categorical(2)}},
            r"the same name 'a_b'. Received: heads\['a'\]\['b'\] and heads\['a_b'\]",
        ),
    ],
)
def test_refuses(parts, sentence):
    with pytest.raises(ValueError, match=sentence):
        heads.Composite(parts)


def test_refuses_parameters_of_another_size():
    with pytest.raises(
        ValueError, match=r"`num_parameters` must be.*num_parameters=7, 4 parameters, from heads\['a'\]"
    ):
        heads.Composite({"a": Misfit(2)})(features(1))


def test_a_part_without_head_is_named():
    space = spaces.Dict(a=spaces.Tuple([spaces.Discrete(2), spaces.Text(3)]))
    with pytest.raises(
        ValueError, match=r"No head is known.*Received: space=Text.*the part 1 of Tuple.*the part 'a' of Dict"
    ):
        heads.default_head(space)
    with pytest.raises(ValueError, match="of at least one"):
        heads.default_head(spaces.Dict())


@pytest.mark.parametrize("deterministic", [False, True])
def test_acts_as_a_litert_program(deterministic):
    """Of builtin operations only, and as TensorFlow does on large observations and weights too: see `Actor`."""
    space = spaces.Dict(
        z=spaces.Discrete(3, start=1),
        a=spaces.Tuple([spaces.Box(-1, 1, (2,)), spaces.MultiDiscrete([2, 4]), spaces.Box(3, 5, (2,), np.int16)]),
        m=spaces.Dict({0: spaces.MultiBinary(2), 1: spaces.Box(-1, 1, (), np.float64)}),
    )
    spec, head = ObservationSpec(spaces.Box(-1, 1, (5,))), heads.default_head(space)
    inputs = keras.Input((5,))
    policy = keras.Model(inputs, head(keras.layers.Dense(16, "tanh")(inputs)))
    actor = Actor(policy, head, spec, 4, deterministic)
    assert actor.kind == "litert"
    x, noise = features(4), head.noise([0, 1], (4,))
    raw, log_probs, _ = actor(x, None if deterministic else noise.numpy())
    distribution = policy(x)
    actions = distribution.mode() if deterministic else head.sample(distribution, noise)
    tf.nest.map_structure(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), raw, actions)
    np.testing.assert_allclose(log_probs, distribution.log_prob(actions), rtol=1e-4)
