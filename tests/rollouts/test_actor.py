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
