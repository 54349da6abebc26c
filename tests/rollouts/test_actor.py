import gymnasium as gym
import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasrl_pg import heads
from kerasrl_pg.envs import ObservationSpec
from kerasrl_pg.models import Networks, RunningNormalization
from kerasrl_pg.rollouts import Actor
from kerasrl_pg.rollouts import actor as actor_module
from kerasrl_pg.rollouts.actor import has_convolutions

S = gym.spaces
N = 5
BOX = S.Box(np.float32([-1, 0]), np.float32([1, 4]))

HEADS = {
    "categorical": heads.Categorical(4, start=2),
    "multi_categorical": heads.MultiCategorical([2, 4, 3], start=[0, -1, 5]),
    "bernoulli": heads.Bernoulli((2, 3)),
    "gaussian": heads.Gaussian(2, low=[-1, -np.inf], high=0.5),
    "gaussian_state_std": heads.Gaussian((2, 2), state_dependent_std=True),
    "tanh_gaussian": heads.TanhGaussian(low=[-1, 0], high=[1, 4]),
    "beta": heads.Beta(low=[-1, 0], high=[1, 4]),
    "mixture": heads.GaussianMixture(2, num_components=3, high=2),
}


def small_policy(head, seed=0):
    """Normaliser, one dense layer, head; every number of it random."""
    inputs = keras.Input((3,))
    x = RunningNormalization(clip=1.5)(inputs)
    policy = keras.Model(inputs, head(keras.layers.Dense(6, "tanh")(x)))
    stir(policy, seed)
    return policy


def stir(model, seed):
    """Other weights and other statistics."""
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        draw = 0.5 * rng.normal(size=variable.shape)
        variable.assign(np.abs(draw) + 0.1 if variable.name in ("variance", "count") else draw)


def observations(seed=0):
    return np.random.default_rng(seed).normal(size=(N, 3)).astype(np.float32)


def assert_acts_as(policy, head, actor, x, noise):
    distribution = policy(tf.nest.map_structure(tf.constant, x))
    actions = distribution.mode() if noise is None else head.sample(distribution, noise)
    received = actor(x, noise)
    for expected, got in zip((actions, distribution.log_prob(actions), head.to_env(actions)), received, strict=True):
        assert got.shape == expected.shape
        assert got.dtype == expected.dtype
        if got.dtype.kind == "f":
            # A mean that differs in its last digit is 1e-5 of a σ away where σ is e⁻⁵.
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=5e-5)
        else:
            np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("name", HEADS)
def test_litert_gives_what_the_policy_gives(name):
    head = HEADS[name]
    policy = small_policy(head)
    spec = ObservationSpec(S.Box(-1, 1, (3,)))
    actor = Actor(policy, head, spec, N)
    assert actor.kind == "litert"
    actor.sync()
    for seed in range(3):
        assert_acts_as(policy, head, actor, observations(seed), head.noise([1, seed], (N,)).numpy())
    # New weights and statistics count from the next sync on, and not before.
    x, noise = observations(), head.noise([2, 0], (N,)).numpy()
    before = actor(x, noise)
    stir(policy, seed=9)
    for left, right in zip(before, actor(x, noise), strict=True):
        np.testing.assert_array_equal(left, right)
    actor.sync()
    assert_acts_as(policy, head, actor, x, noise)
    assert not np.array_equal(before[1], actor(x, noise)[1])


def fresh(name):
    return type(HEADS[name]).from_config(HEADS[name].get_config())


def enlarge(policy, factor):
    for variable in policy.trainable_variables:
        if "log_std" not in variable.path:
            variable.assign(factor * variable)


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("factor", [1e2, 1e4, 1e6])
@pytest.mark.quick(
    "100.0-gaussian", "10000.0-mixture", "1000000.0-categorical", "1000000.0-tanh_gaussian", "1000000.0-beta"
)
def test_litert_gives_what_the_policy_gives_for_large_features_too(name, factor):
    """LiteRT's own softplus is infinite above 88: Beta sent NaN, and TanhGaussian's log-probabilities ended the fit."""
    head = fresh(name)
    inputs = keras.Input((3,))
    policy = keras.Model(inputs, head(inputs))
    stir(policy, seed=3)
    actor = Actor(policy, head, ObservationSpec(S.Box(-1, 1, (3,))), N)
    enlarge(policy, factor)
    actor.sync()
    for seed in range(3):
        x, noise = observations(seed), head.noise([1, seed], (N,)).numpy()
        distribution = policy(tf.constant(x))
        actions = head.sample(distribution, noise)
        received = actor(x, noise)
        for e, r in zip((actions, distribution.log_prob(actions), head.to_env(actions)), received, strict=True):
            assert np.isfinite(r).all()
            # Far from zero the last digit of a normal variable is a part of σ, and LiteRT may round it otherwise.
            if r is not received[1] or name in ("categorical", "multi_categorical", "bernoulli", "beta"):
                np.testing.assert_allclose(r, e, rtol=1e-3, atol=1e-4)
    assert actor.kind == "litert"


@pytest.mark.parametrize("activation", ["tanh", "relu", "elu", "silu", "gelu", "leaky_relu"])
@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.quick("True-tanh", "False-silu", "True-relu")
def test_ordinary_policies_act_by_litert(activation, deterministic):
    """Large observations and weights are tried, too; none of them is a reason to act slowly."""
    for name in HEADS if activation == "tanh" else ("gaussian", "categorical"):
        head, inputs = fresh(name), keras.Input((3,))
        x = RunningNormalization()(inputs) if name == "gaussian" else inputs
        x = keras.layers.Dense(16, activation)(x)
        x = keras.layers.LayerNormalization()(x) if name == "categorical" else x
        policy = keras.Model(inputs, head(keras.layers.Dense(16, activation)(x)))
        assert Actor(policy, head, ObservationSpec(S.Box(-1, 1, (3,))), N, deterministic).kind == "litert", name


@keras.saving.register_keras_serializable("tests")
class SoftplusGaussian(heads.Gaussian):
    """A user's head with σ by softplus."""

    def _normal(self, parameters, family=None):
        loc, x = tf.split(parameters, 2, axis=-1)
        return super()._normal(tf.concat([loc, tf.math.log(1e-3 + tf.nn.softplus(x))], -1))

    def parameters(self, features):
        return heads.Head.parameters(self, features)


def softplus_policies():
    inputs = keras.Input((3,))
    hidden = keras.layers.Dense(6, "softplus")(inputs)
    late = keras.layers.Dense(4, "softplus")(keras.layers.Dense(6, "tanh")(inputs))
    narrow = SoftplusGaussian(1, state_dependent_std=True)
    return [
        keras.Model(inputs, heads.Gaussian(2)(hidden)),
        keras.Model(inputs, heads.Categorical(3)(late)),
        keras.Model(inputs, narrow(keras.layers.Dense(6, "tanh")(inputs))),
    ]


@pytest.mark.parametrize("index", range(3))
@pytest.mark.parametrize("num_envs", [1, 8])
@pytest.mark.quick("1-2", "8-0")
def test_a_softplus_of_the_users_is_found_when_the_program_is_made(index, num_envs):
    policy = softplus_policies()[index]
    actor = Actor(policy, policy.layers[-1], ObservationSpec(S.Box(-1, 1, (3,))), num_envs)
    assert actor.kind == "function"


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_program_that_overflows_later_is_replaced(monkeypatch, deterministic):
    monkeypatch.setattr(actor_module, "TRIALS", ((1, None),))
    policy = softplus_policies()[0]
    head = policy.layers[-1]
    actor = Actor(policy, head, ObservationSpec(S.Box(-1, 1, (3,))), N, deterministic)
    assert actor.kind == "litert"
    actor.sync()
    x, noise = observations(), None if deterministic else head.noise([0, 0], (N,)).numpy()
    assert_acts_as(policy, head, actor, x, noise)
    assert actor.kind == "litert"
    distribution = policy(tf.constant(1e4 * x))
    actions = distribution.mode() if deterministic else head.sample(distribution, noise)
    np.testing.assert_allclose(actor(1e4 * x, noise)[2], head.to_env(actions), rtol=1e-4)
    assert actor.kind == "function"
    assert_acts_as(policy, head, actor, x, noise)


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("name", ["categorical", "gaussian", "beta"])
@pytest.mark.quick("beta-True", "categorical-True")
def test_a_policy_that_is_not_finite_sends_nothing(name, deterministic):
    head = fresh(name)
    policy = small_policy(head)
    actor = Actor(policy, head, ObservationSpec(S.Box(-1, 1, (3,))), N, deterministic)
    x, noise = observations(), None if deterministic else head.noise([0, 0], (N,)).numpy()
    actor.sync()
    actor(x, noise)
    good = policy.get_weights()
    policy.trainable_variables[0].assign(np.full((3, 6), np.nan))
    actor.sync()
    with pytest.raises(ValueError, match="`log_probs` must be finite. Received: nan from environment 0 in step 0 "):
        actor(x, noise)
    policy.set_weights(good)
    actor.sync()
    assert actor.kind == "litert"
    assert_acts_as(policy, head, actor, x, noise)


def test_an_observation_that_is_not_a_number_is_named_before_anything_is_sent():
    space = S.Dict(goal=S.Discrete(3), robot=S.Box(-np.inf, np.inf, (2,)))
    policy, _ = Networks(hidden_units=(), head=heads.Gaussian(1)).build(space, S.Box(-1, 1, (1,)), seed=0)
    actor = Actor(policy, policy.layers[-1], ObservationSpec(space), 3)
    actor.sync()
    x = {"goal": np.zeros(3, np.int32), "robot": np.zeros((3, 2), np.float32)}
    noise = np.zeros((3, 1), np.float32)
    for _ in range(2):
        actor(x, noise)
    x["robot"][1, 0] = np.nan
    with pytest.raises(ValueError, match=r"`observations\['robot'\]` must be finite.*environment 1 in step 2"):
        actor(x, noise)


@pytest.mark.parametrize(
    "space",
    [
        S.Discrete(3, start=2, dtype=np.int32),
        S.Discrete(3, dtype=np.uint8),
        S.MultiDiscrete([3, 4], dtype=np.int16),
        S.MultiBinary(3),
        S.Box(-0.1, 0.3, (2,), np.float16),
        S.Box(-0.1, 0.3, (2,), np.float64),
    ],
    ids=lambda space: f"{type(space).__name__}-{space.dtype}",
)
def test_actions_are_elements_of_the_space_by_litert_too(space):
    head = heads.default_head(space)
    policy = small_policy(head)
    actor = Actor(policy, head, ObservationSpec(S.Box(-1, 1, (3,))), N)
    assert actor.kind == "litert"
    actor.sync()
    env_actions = actor(observations(), head.noise([0, 0], (N,)).numpy())[2]
    assert env_actions.dtype == space.dtype
    assert all(space.contains(action) for action in env_actions)


@pytest.mark.parametrize("name", ["categorical", "gaussian", "mixture"])
def test_a_deterministic_actor_takes_the_mode(name):
    head = HEADS[name]
    policy = small_policy(head, seed=4)
    actor = Actor(policy, head, ObservationSpec(S.Box(-1, 1, (3,))), N, deterministic=True)
    assert actor.kind == "litert"
    actor.sync()
    assert_acts_as(policy, head, actor, observations(3), None)


@pytest.mark.parametrize(
    "space",
    [
        S.Discrete(5, start=2),
        S.Dict(c=S.Box(-1, 1, (2,)), a=S.Discrete(3), b=S.Tuple([S.MultiBinary(3), S.MultiDiscrete([2, 3])])),
    ],
)
def test_other_observations(space):
    space.seed(0)
    policy, _ = Networks(hidden_units=(6,), normalize_observations=True).build(space, BOX, seed=0)
    stir(policy, seed=1)
    spec, head = ObservationSpec(space), policy.layers[-1]
    rows = [spec.flatten(space.sample()) for _ in range(N)]
    x = spec.map(lambda leaf, *leaves: np.stack(leaves).astype(leaf.dtype.as_numpy_dtype), *rows)
    actor = Actor(policy, head, spec, N)
    assert actor.kind == "litert"
    actor.sync()
    assert_acts_as(policy, head, actor, x, head.noise([0, 0], (N,)).numpy())


def test_convolutions_run_in_tensorflow():
    space = S.Box(0, 255, (10, 10, 4), np.uint8)
    policy, _ = Networks(hidden_units=(6,)).build(space, BOX, seed=0)
    assert has_convolutions(policy)
    head = policy.layers[-1]
    actor = Actor(policy, head, ObservationSpec(space), N)
    assert actor.kind == "function"
    x = np.random.default_rng(0).integers(0, 256, (N, 10, 10, 4), np.uint8)
    noise = head.noise([0, 0], (N,)).numpy()
    assert_acts_as(policy, head, actor, x, noise)
    stir(policy, seed=1)
    actor.sync()
    assert_acts_as(policy, head, actor, x, noise)


@keras.saving.register_keras_serializable("tests")
class Determinant(keras.layers.Layer):
    """Not among LiteRT's operations."""

    def call(self, x):
        return tf.linalg.det(x[:, :, None] * x[:, None, :] + tf.eye(3))[:, None]

    def compute_output_spec(self, x):
        return keras.KerasTensor((x.shape[0], 1), "float32")


def test_what_does_not_convert_runs_in_tensorflow():
    head = heads.Gaussian(2)
    inputs = keras.Input((3,))
    policy = keras.Model(inputs, head(Determinant()(inputs)))
    assert not has_convolutions(policy)
    actor = Actor(policy, head, ObservationSpec(S.Box(-1, 1, (3,))), N)
    assert actor.kind == "function"
    assert_acts_as(policy, head, actor, observations(), head.noise([0, 0], (N,)).numpy())


def test_the_order_of_the_programs_outputs_does_not_matter(monkeypatch):
    class Reversed:
        def __init__(self, interpreter):
            self._interpreter = interpreter

        def __getattr__(self, name):
            return getattr(self._interpreter, name)

        def get_output_details(self):
            return self._interpreter.get_output_details()[::-1]

    real = actor_module._interpreter
    monkeypatch.setattr(actor_module, "_interpreter", lambda content: Reversed(real(content)))
    head = HEADS["categorical"]
    policy = small_policy(head)
    actor = Actor(policy, head, ObservationSpec(S.Box(-1, 1, (3,))), N)
    assert actor.kind == "litert"
    assert_acts_as(policy, head, actor, observations(), head.noise([0, 0], (N,)).numpy())


def test_a_program_that_answers_otherwise_is_not_used(monkeypatch):
    real = Actor._agrees
    # Rigged at the reference of the comparison: TensorFlow's actions are others than the converted program's.
    monkeypatch.setattr(
        Actor, "_agrees", lambda self, function: real(self, lambda *arrays: [x + 1 for x in function(*arrays)])
    )
    head = HEADS["gaussian"]
    policy = small_policy(head)
    actor = Actor(policy, head, ObservationSpec(S.Box(-1, 1, (3,))), N)
    assert actor.kind == "function"
    assert_acts_as(policy, head, actor, observations(), head.noise([0, 0], (N,)).numpy())
