"""One battery for every policy head: what `Head` promises, whatever the family."""

import gymnasium
import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasrl_pg import heads
from kerasrl_pg.heads.head import DistributionLayer

spaces = gymnasium.spaces
BOX = spaces.Box(np.float32([-1, 0]), np.float32([1, 4]))


def composite(kernel_initializer=None, **kwargs):
    """A nested composite; heads hold weights, so that each call makes them anew."""
    arm = heads.Gaussian(2, kernel_initializer=kernel_initializer), heads.Bernoulli(3, kernel_initializer)
    hand = {"grip": heads.MultiCategorical([2, 3], kernel_initializer=kernel_initializer), "arm": arm}
    return heads.Composite({"walk": heads.Categorical(4, 2, kernel_initializer), "body": hand}, **kwargs)


def composite_tuple(kernel_initializer=None, **kwargs):
    beta = heads.Beta([-1, 0], [1, 4], kernel_initializer=kernel_initializer)
    return heads.Composite((beta, heads.Gaussian((), kernel_initializer=kernel_initializer)), **kwargs)


CASES = {
    "categorical": (heads.Categorical, {"num_actions": 4, "start": 2}),
    "multi_categorical": (heads.MultiCategorical, {"nvec": [2, 4, 3], "start": [0, -1, 5]}),
    "multi_categorical_2d": (heads.MultiCategorical, {"nvec": [[2, 3], [3, 1]]}),
    "bernoulli": (heads.Bernoulli, {"shape": 3}),
    "gaussian": (heads.Gaussian, {"shape": 3, "low": [-1, -2, -np.inf], "high": 1}),
    "gaussian_scalar": (heads.Gaussian, {"shape": ()}),
    "gaussian_state_std": (heads.Gaussian, {"shape": (2, 2), "state_dependent_std": True}),
    "tanh_gaussian": (heads.TanhGaussian, {"low": [-1, 0], "high": [1, 4]}),
    "tanh_gaussian_state_std": (
        heads.TanhGaussian,
        {"low": -2, "high": 2, "shape": (1, 2), "state_dependent_std": True},
    ),
    "beta": (heads.Beta, {"low": [-1, 0], "high": [1, 4]}),
    "beta_2d": (heads.Beta, {"low": 0, "high": 1, "shape": (2, 1)}),
    "mixture": (heads.GaussianMixture, {"shape": 2, "num_components": 3, "high": 2}),
    "mixture_2d": (heads.GaussianMixture, {"shape": (2, 2), "num_components": 2}),
    "composite": (composite, {}),
    "composite_tuple": (composite_tuple, {}),
}

SPACES = {
    heads.Categorical: spaces.Discrete(4, start=-1),
    heads.MultiCategorical: spaces.MultiDiscrete([3, 2], start=[1, 0]),
    heads.Bernoulli: spaces.MultiBinary((2, 2)),
    heads.Gaussian: BOX,
    heads.TanhGaussian: BOX,
    heads.Beta: BOX,
    heads.GaussianMixture: BOX,
    heads.Composite: spaces.Dict(
        [("z", spaces.Discrete(3, start=1)), ("a", spaces.Tuple([BOX, spaces.MultiBinary(2)]))]
    ),
}

all_heads = pytest.mark.parametrize("name", CASES)
# Compiling takes seconds a head, so those tests leave out the other shapes of the same family.
one_of_each = pytest.mark.parametrize(
    "name", [name for name in CASES if not name.endswith(("_2d", "_scalar", "tanh_gaussian_state_std"))]
)


def make(case, seed=0, stddev=0.5, **kwargs):
    """A head of the case, with weights large enough for states to differ."""
    head_class, arguments = CASES[case]
    initializer = keras.initializers.RandomNormal(stddev=stddev, seed=seed)
    return head_class(**arguments, kernel_initializer=initializer, **kwargs)


def features(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=(*shape, 5)).astype("float32")


def rows(nest):
    """The single actions of a batch of them."""
    count = len(tf.nest.flatten(nest)[0])
    return [tf.nest.map_structure(lambda x, i=i: x[i].numpy(), nest) for i in range(count)]


def with_bounded_scales(head, parameters):
    """Parameters in which each log σ, which is bounded already when it comes there, is so."""
    leaves = head.leaves() if isinstance(head, heads.Composite) else [((), head)]
    parts = np.split(np.array(parameters), np.cumsum([leaf.num_parameters for _, leaf in leaves])[:-1], axis=-1)
    for (_, leaf), part in zip(leaves, parts, strict=True):
        if isinstance(leaf, heads.Gaussian):
            half = leaf.num_parameters // 2
            part[..., half:] = np.clip(part[..., half:], -5, 2)
    return np.concatenate(parts, axis=-1)


def drawn(head, batch=6):
    """Parameters of a policy and of another one near it, noise, and actions of the first."""
    old = head.parameters(features(batch))
    new = old + 0.1 * np.random.default_rng(1).normal(size=old.shape).astype("float32")
    noise = head.noise([3, 4], (batch,))
    return old, new, noise, head.sample(head.distribution(old), noise)


@all_heads
@pytest.mark.parametrize("batch", [(6,), (3, 2)])
def test_shapes_and_dtypes(name, batch):
    head = make(name)
    policy, other = head(features(*batch)), head(features(*batch, seed=1))
    noise = head.noise([0, 1], batch)
    actions = head.sample(policy, noise)
    assert noise.shape == (*batch, *head.noise_shape)
    for raw in (actions, policy.mode(), policy.sample(seed=1)):
        tf.nest.assert_same_structure(raw, head.action_spec)
        for tensor, spec in zip(tf.nest.flatten(raw), tf.nest.flatten(head.action_spec), strict=True):
            assert tensor.shape == (*batch, *spec.shape)
            assert tensor.dtype == spec.dtype
    assert policy.batch_shape == batch
    for number in (policy.log_prob(actions), policy.entropy(), policy.kl_divergence(other)):
        assert number.shape == batch
        assert number.dtype == tf.float32
    sent = head.to_env(actions)
    tf.nest.assert_same_structure(sent, actions)
    assert [x.shape for x in tf.nest.flatten(sent)] == [x.shape for x in tf.nest.flatten(actions)]
    assert policy.event_shape == tf.nest.map_structure(lambda spec: spec.shape, head.action_spec)
    assert head.parameters(features(*batch)).shape == (*batch, head.num_parameters)
    tf.nest.assert_same_structure(list(head.named(actions).values()), tf.nest.flatten(actions))


@all_heads
def test_leading_dimensions_do_not_mix(name):
    head = make(name)
    x = features(6)
    flat, folded = head(x), head(x.reshape(3, 2, 5))
    np.testing.assert_allclose(folded.entropy().numpy().ravel(), flat.entropy(), rtol=1e-5, atol=1e-6)


@all_heads
def test_parameters_rebuild_the_distribution(name):
    head = make(name)
    x = features(4)
    policy = head(x)
    rebuilt = head.distribution(tf.gather(head.parameters(x), [2, 0]))
    actions = tf.nest.map_structure(lambda mode: tf.gather(mode, [2, 0]), policy.mode())
    np.testing.assert_allclose(rebuilt.log_prob(actions), tf.gather(policy.log_prob(policy.mode()), [2, 0]), rtol=1e-6)


class Subclassed(keras.Model):
    def __init__(self, head):
        super().__init__()
        self.dense, self.head = keras.layers.Dense(5, "tanh"), head

    def call(self, x):
        return self.head(self.dense(x))


@all_heads
@pytest.mark.parametrize("time", [False, True])
def test_functional_model_saves_and_loads(name, time, tmp_path):
    inputs = keras.Input((None, 5) if time else (5,))
    model = keras.Model(inputs, make(name)(keras.layers.Dense(5, "tanh")(inputs)))
    x = features(3, 2) if time else features(3)
    policy = model(x)
    action_shape = model.layers[-1].action_shape
    if action_shape is None:  # of several tensors
        action_shape = (model.layers[-1].num_parameters,)
    assert model.output_shape == (None, *([None] if time else []), *action_shape)
    model.save(tmp_path / "policy.keras")
    loaded = keras.models.load_model(tmp_path / "policy.keras")
    assert keras.models.clone_model(model).layers[-1].get_config() == model.layers[-1].get_config()
    raw = policy.mode()
    np.testing.assert_allclose(loaded(x).log_prob(raw), policy.log_prob(raw), atol=1e-6)
    assert loaded.layers[-1].get_config() == model.layers[-1].get_config()


@all_heads
def test_sequential_and_subclassed_models(name):
    x = features(3)
    for model in (
        keras.Sequential([keras.Input((5,)), keras.layers.Dense(5), make(name)]),
        Subclassed(make(name)),
    ):
        policy = model(x)
        returned = tf.function(model, autograph=False)(x)  # a distribution leaves the graph whole
        np.testing.assert_allclose(returned.entropy(), policy.entropy(), rtol=1e-5, atol=1e-5)
        assert len(model.trainable_variables) > 2


@all_heads
def test_config_round_trip(name):
    head = make(name, name="actor")
    again = type(head).from_config(head.get_config())
    assert again.get_config() == head.get_config()
    assert again.name == "actor"
    x = features(4)
    np.testing.assert_array_equal(again.parameters(x), head.parameters(x))  # seeded initializer


@one_of_each
@pytest.mark.quick("composite")
def test_eager_graph_and_xla_agree(name):
    head = make(name)
    old, new, noise, actions = drawn(head)

    def everything(old, new, noise, actions):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(new)
            policy = head.distribution(new)
            log_prob = policy.log_prob(actions)
            entropy = policy.entropy()
            kl = head.distribution(old).kl_divergence(policy)
        gradients = [tape.gradient(y, new) for y in (log_prob, entropy, kl)]
        return tf.nest.flatten([head.sample(policy, noise), policy.mode(), log_prob, entropy, kl, *gradients])

    # A mixture's sigma points lie many σ away from its narrow components: large terms cancel.
    atol = 1e-4 if isinstance(head, heads.GaussianMixture) else 2e-5
    eager = everything(old, new, noise, actions)
    graph = tf.function(everything)(old, new, noise, actions)
    xla = tf.function(everything, jit_compile=True)(old, new, noise, actions)
    for expected, *others in zip(eager, graph, xla, strict=True):
        assert np.isfinite(expected).all()
        for other in others:
            scale = max(1, np.abs(expected).max())
            np.testing.assert_allclose(other / scale, expected / scale, atol=atol)


@all_heads
def test_noise_is_the_same_in_xla(name):
    head = make(name)

    def noise():
        return head.noise([7, 8], (4, 2))

    expected = head.noise([7, 8], (4, 2))
    np.testing.assert_allclose(tf.function(noise, jit_compile=True)(), expected, atol=1e-5)
    assert np.abs(expected - head.noise([7, 9], (4, 2))).max() > 0.1


@one_of_each
@pytest.mark.quick("categorical", "gaussian", "tanh_gaussian", "composite")
def test_fisher_product_by_double_backprop(name):
    """At p = q the KL and its gradient are 0, and its Hessian H is no less than 0: v'Hv >= 0."""
    head = make(name)
    old = drawn(head)[0]
    v = tf.constant(np.random.default_rng(2).normal(size=old.shape), tf.float32)

    def fisher_product(old, v):
        new = tf.identity(old)
        with tf.GradientTape() as outer:
            outer.watch(new)
            with tf.GradientTape() as inner:
                inner.watch(new)
                policy = head.distribution(new)
                kl = head.distribution(tf.stop_gradient(old)).kl_divergence(policy)
            gradient = inner.gradient(kl, new)
            product = tf.reduce_sum(gradient * v)
        return kl, gradient, outer.gradient(product, new)

    eager = fisher_product(old, v)
    kl, gradient, product = eager
    np.testing.assert_allclose(kl, 0, atol=2e-6)
    np.testing.assert_allclose(gradient, 0, atol=1e-5)
    curvature = tf.reduce_sum(product * v, axis=-1)
    assert (curvature.numpy() > 0).all()
    xla = tf.function(fisher_product, jit_compile=True)(old, v)
    np.testing.assert_allclose(xla[2], product, rtol=1e-3, atol=1e-4)


@all_heads
def test_samples_follow_the_distribution(name):
    """Noise-driven samples and TFP's own have the moments and log-probabilities of each other."""
    head, count = make(name), 20_000
    policy = head(np.repeat(features(1, seed=3), count, axis=0))
    ours = head.sample(policy, head.noise([1, 2], (count,)))
    theirs = policy.sample(seed=5)
    pairs = list(zip(tf.nest.flatten(ours), tf.nest.flatten(theirs), strict=True))
    statistics = [tf.cast(x, tf.float32) ** power for power in (1, 2) for pair in pairs for x in pair]
    statistics += [policy.log_prob(actions) for actions in (ours, theirs)]
    for mine, other in zip(statistics[::2], statistics[1::2], strict=True):
        mine, other = mine.numpy().reshape(count, -1), other.numpy().reshape(count, -1)
        error = np.sqrt((mine.var(0) + other.var(0)) / count)
        assert (np.abs(mine.mean(0) - other.mean(0)) < 4.5 * error + 1e-6).all()


@all_heads
def test_entropy_and_kl_match_monte_carlo(name):
    head, count = make(name), 20_000
    repeat = [np.repeat(features(1, seed=s), count, axis=0) for s in (3, 4)]
    p, q = head(repeat[0]), head(0.7 * repeat[0] + 0.3 * repeat[1])
    actions = head.sample(p, head.noise([1, 2], (count,)))
    log_p, log_q = p.log_prob(actions).numpy(), q.log_prob(actions).numpy()
    kl = p.kl_divergence(q).numpy()[0]
    errors = [np.std(x) / np.sqrt(count) for x in (log_p, log_p - log_q)]
    if isinstance(head, heads.GaussianMixture):  # estimates; measured in test_gaussian_mixture.py
        assert abs(p.entropy().numpy()[0] + log_p.mean()) < 0.1 + 4.5 * errors[0]
        assert kl > (log_p - log_q).mean() - 4.5 * errors[1]
    else:
        np.testing.assert_allclose(-log_p.mean(), p.entropy()[0], atol=4.5 * errors[0] + 1e-5)
        np.testing.assert_allclose((log_p - log_q).mean(), kl, atol=4.5 * errors[1] + 1e-5)


@all_heads
@pytest.mark.parametrize("level", [-30.0, 30.0])
def test_gradients_stay_finite_at_extremes(name, level):
    head = make(name)
    size = head.parameters(features(1)).shape[-1]
    signs = np.where(np.arange(size) % 3, level, -level)
    parameters = tf.constant(np.stack([signs, np.full(size, level), signs / 30]), tf.float32)
    parameters = tf.constant(with_bounded_scales(head, parameters))
    noise = head.noise([3, 4], (3,))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(parameters)
        policy = head.distribution(parameters)
        actions = tf.nest.map_structure(tf.stop_gradient, head.sample(policy, noise))
        other = head.distribution(tf.stop_gradient(parameters[::-1]))
        outputs = [
            policy.log_prob(actions),
            policy.log_prob(policy.mode()),
            policy.entropy(),
            policy.kl_divergence(other),
            other.kl_divergence(policy),
        ]
    for output in outputs:
        assert np.isfinite(output).all()
        assert np.isfinite(tape.gradient(output, parameters)).all()


@pytest.mark.filterwarnings("ignore")  # tf.lite announces its successor
@all_heads  # Of the others, the test of sizes converts all but the layer.
@pytest.mark.quick("multi_categorical_2d", "gaussian_scalar", "tanh_gaussian_state_std", "beta_2d", "mixture_2d")
def test_litert_with_builtins_only(name, litert_program):
    head = make(name)
    x, noise = features(6), head.noise([3, 4], (6,)).numpy()
    head.parameters(x)
    weights = [weight.numpy() for weight in head.trainable_variables]

    def act(x, noise, *weights):
        with keras.StatelessScope(list(zip(head.trainable_variables, weights, strict=True))):
            policy = head(x)
        raw = head.sample(policy, noise)
        log_prob = tf.expand_dims(policy.log_prob(raw), 0)  # a shape of its own, to find it by
        floats = tf.nest.map_structure(lambda x: tf.cast(x, tf.float32), raw)
        # An output must be its own tensor: LiteRT merges outputs that are one and the same.
        return [tf.identity(x) for x in tf.nest.flatten([floats, log_prob, policy.mode(), head.to_env(raw)])]

    expected = act(x, noise, *weights)
    outputs = litert_program(act)(x, noise, *weights)

    def order(values):
        return sorted(values, key=lambda v: (v.ndim, str(v.dtype), float(np.sum(v))))

    for ours, theirs in zip(order(outputs), order([e.numpy() for e in expected]), strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore")  # tf.lite announces its successor
@one_of_each
def test_litert_and_graphs_act_as_the_policy_at_any_size_of_its_parameters(name, litert_program):
    head = make(name)
    size = head.parameters(features(1)).shape[-1]
    noise = head.noise([3, 4], (6,)).numpy()

    def act(parameters, noise):
        policy = head.distribution(parameters)
        raw = head.sample(policy, noise)
        results = raw, policy.log_prob(raw), policy.mode(), head.to_env(raw)
        return [tf.cast(x, tf.float32) for x in tf.nest.flatten(results)]

    program = litert_program(lambda *arguments: tf.concat([tf.reshape(x, [-1]) for x in act(*arguments)], 0))
    graph = tf.function(act, autograph=False)
    draws = np.random.default_rng(0).normal(size=(6, size)).astype("float32")
    for scale in (1, 100, 1e4, 1e8, 1e30):
        parameters = with_bounded_scales(head, np.float32(scale) * draws)
        expected = act(parameters, noise)
        converted = program(parameters, noise)[0]
        for e, g in zip(expected, graph(parameters, noise), strict=True):
            e, c = e.numpy(), converted[: e.numpy().size].reshape(e.shape)
            converted = converted[e.size :]
            assert np.isfinite(e).all()
            for other in (g, c):
                np.testing.assert_allclose(other, e, rtol=1e-3, atol=1e-4 * max(1, np.abs(e).max()), err_msg=scale)


SPACE_DTYPES = {"whole": ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]}
SPACE_DTYPES["real"] = ["float16", "float32", "float64", "longdouble"]


def random_space(rng):
    """An action space of any kind, dtype, shape and bounds that the heads serve."""
    whole, real = (str(rng.choice(SPACE_DTYPES[kind])) for kind in ("whole", "real"))
    shape = tuple(rng.integers(1, 3, rng.integers(0, 3)).tolist())
    start = int(rng.integers(0, 100)) - (50 if whole.startswith("i") else 0)
    kind = rng.integers(4)
    if kind == 0:
        return spaces.Discrete(int(rng.integers(1, 20)), start=start, dtype=whole)
    if kind == 1:
        shape = shape or (1,)
        return spaces.MultiDiscrete(rng.integers(1, 9, shape), start=np.full(shape, start), dtype=whole)
    if kind == 2:
        return spaces.MultiBinary(shape or 3)
    largest = min(float(np.finfo(real).max), 1e300)
    within = min(largest, 3e38)  # of what float32 knows, in which heads compute
    ends = np.sort(rng.normal(size=(2, *shape)) * within ** rng.uniform(-0.3, 1.0), axis=0)
    low, high = np.clip(ends, -within, within).astype(real)
    low, high = np.where(low < high, low, -1).astype(real), np.where(low < high, high, 1).astype(real)
    edges = [(low, high), (low, np.full(shape, np.inf, real)), (np.full(shape, -np.inf, real), high)]
    edges += [(np.full(shape, -np.inf, real), np.full(shape, np.inf, real)), (low * 0 - largest, low * 0 + largest)]
    low, high = edges[rng.choice(5, p=[0.6, 0.1, 0.1, 0.1, 0.1])]
    return spaces.Box(np.asarray(low, real), np.asarray(high, real), shape, real)


def test_every_head_sends_elements_of_the_space():
    """Its dtype and bounds included, for spaces of every kind; the space is the judge."""
    rng, seen = np.random.default_rng(0), set()
    for trial in range(120):
        space = random_space(rng)
        families = [type(heads.default_head(space))]
        if isinstance(space, spaces.Box):
            families += [heads.GaussianMixture]
            if np.isfinite(np.float64(space.low)).all() and np.isfinite(np.float64(space.high)).all():
                families += [heads.TanhGaussian, heads.Beta]
        for family in families:
            head = family.from_space(space, kernel_initializer="he_normal")
            policy = head(np.float32(10.0 ** rng.uniform(-1, 8)) * features(4, seed=trial))
            for raw in (head.sample(policy, head.noise([0, trial], (4,))), policy.mode()):
                for action in head.to_env(raw).numpy():
                    action = np.asarray(action) if isinstance(space, spaces.Box) else action
                    assert space.contains(action), (family, space, space.dtype, action, action.dtype)
                    assert np.isfinite(action).all()
            seen.add((family, head.env_dtype))
            assert family.from_config(head.get_config()).env_dtype == head.env_dtype
    assert {family for family, _ in seen} == set(SPACES) - {heads.Composite}  # in test_composite.py
    assert len(seen) > 25


@pytest.mark.parametrize("head_class", [c for c in SPACES if c is not heads.Composite], ids=lambda c: c.__name__)
def test_a_head_saved_before_it_knew_its_dtype_sends_what_it_sent(head_class):
    config = head_class.from_space(SPACES[head_class]).get_config()
    assert config.pop("env_dtype") == SPACES[head_class].dtype.name
    head = head_class.from_config(config)
    assert head.env_dtype is None
    raw = tf.zeros((2, *head.action_shape), head.action_dtype)
    sent = {heads.Categorical: "int64", heads.MultiCategorical: "int64", heads.Bernoulli: "int8"}
    assert head.to_env(raw).dtype == sent.get(head_class, "float32")


@pytest.mark.parametrize("head_class", SPACES, ids=lambda c: c.__name__)
def test_from_space_gives_actions_of_the_space(head_class):
    space = SPACES[head_class]
    check_actions(space, head_class)


@pytest.mark.parametrize("head_class", [heads.Gaussian, heads.TanhGaussian, heads.Beta])
def test_float64_bounds_are_rounded_inwards(head_class):
    """float32(-0.1) is below -0.1, and a space of float64 would refuse it."""
    check_actions(spaces.Box(-0.1, 0.1, (2,), np.float64), head_class, scale=100)


def check_actions(space, head_class, scale=3):
    head = head_class.from_space(space, kernel_initializer="he_normal", name="actor")
    policy = head(scale * features(50))
    for raw in (head.sample(policy, head.noise([0, 0], (50,))), policy.mode()):
        for action in rows(head.to_env(raw)):
            assert space.contains(action)
    assert head.name == "actor"


@pytest.mark.parametrize("head_class", SPACES, ids=lambda c: c.__name__)
def test_from_space_refuses_other_spaces(head_class):
    nested = spaces.MultiDiscrete([2]) if head_class is heads.Composite else spaces.Tuple([BOX])
    for space in (spaces.Text(3), spaces.Box(0, 256, (2,), np.uint16), spaces.Box(0, 256, (), np.uint16), nested):
        with pytest.raises(ValueError, match=f"{head_class.__name__} serves .*Received: space="):
            head_class.from_space(space)


@all_heads
def test_float32_under_a_mixed_precision_policy(name):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        head = make(name)
        model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(5), head])
        assert model(features(3)).entropy().dtype == tf.float32
        assert {weight.dtype for weight in head.weights} == {"float32"}
    finally:
        keras.config.set_dtype_policy(before)


@all_heads
def test_other_dtypes_are_refused(name):
    with pytest.raises(ValueError, match="Heads compute in float32.*Received: dtype='bfloat16'"):
        make(name, dtype="bfloat16")


@all_heads
def test_a_new_policy_hardly_depends_on_the_state(name):
    head_class, arguments = CASES[name]
    head = head_class(**arguments)
    x = features(20)
    head.parameters(x)
    for _, leaf in head.leaves() if isinstance(head, heads.Composite) else [((), head)]:
        kernel = leaf.dense.kernel.numpy()
        gram = kernel.T @ kernel if kernel.shape[0] >= kernel.shape[1] else kernel @ kernel.T
        np.testing.assert_allclose(gram, 1e-4 * np.eye(len(gram)), atol=1e-9)
    assert head(x).kl_divergence(head(x[::-1])).numpy().max() < 0.05


def test_base_class_says_what_is_missing():
    head = heads.Head((), 1)
    with pytest.raises(NotImplementedError, match="Head must implement distribution"):
        head.distribution(tf.zeros([1, 1]))
    with pytest.raises(NotImplementedError, match="Head must implement sample"):
        head.sample(None, None)
    with pytest.raises(NotImplementedError, match="Head must implement from_space"):
        heads.Head.from_space(BOX)
    assert issubclass(heads.Head, DistributionLayer)
    assert head.to_env(np.float32([1.5])).dtype == tf.float32


def test_every_family_is_in_this_battery():
    families = {getattr(heads, name) for name in heads.__all__ if isinstance(getattr(heads, name), type)}
    families -= {heads.Head} | {f for f in families if issubclass(f, heads.ValueHead)}
    families -= {heads.ScoredCategorical}  # Of features [..., A, p]: test_scored_categorical.
    assert families == {type(make(name)) for name in CASES} == set(SPACES)
    assert list(heads.__all__) == sorted(heads.__all__)
