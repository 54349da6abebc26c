import gymnasium as gym
import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasrl_pg import heads
from kerasrl_pg.envs import ObservationSpec
from kerasrl_pg.models import Linear, Networks, Tabular

S = gym.spaces
ACTIONS = S.Discrete(3, start=1)
JOINT = S.Dict(a=S.Discrete(2, start=5), b=S.Tuple([S.MultiDiscrete([2, 3], start=[0, 1]), S.MultiBinary(1)]))


def theta_of(policy):
    return policy.layers[-1].dense.kernel


def test_it_starts_uniform_and_a_state_s_row_is_its_own():
    policy, critic = Tabular().build(S.Discrete(4, start=-1), ACTIONS, seed=0)
    states = np.int32([-1, 0, 1, 2])
    np.testing.assert_allclose(policy(states).probs_parameter(), np.full((4, 3), 1 / 3), rtol=1e-6)
    np.testing.assert_array_equal(critic(states).mean(), np.zeros(4))
    assert [tuple(w.shape) for w in policy.weights + critic.weights] == [(4, 3), (4, 1)]
    theta = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    theta_of(policy).assign(theta)
    critic.layers[-1].dense.kernel.assign(np.arange(4)[:, None])
    np.testing.assert_allclose(policy(states).logits, theta)
    np.testing.assert_array_equal(critic(states).mean(), np.arange(4))
    with tf.GradientTape() as tape:
        log_prob = policy(np.int32([1])).log_prob([2])
    gradient = tf.convert_to_tensor(tape.gradient(log_prob, theta_of(policy).value)).numpy()
    np.testing.assert_array_equal(np.flatnonzero(np.abs(gradient).sum(1)), [2])


def test_every_combination_of_choices_is_a_state():
    policy, _ = Tabular(initializer=np.arange(2 * 2 * 3 * 2)[:, None] * [0.0, 1.0]).build(JOINT, S.Discrete(2), seed=0)
    spec, found = ObservationSpec(JOINT), []
    for a in (5, 6):
        for b in (0, 1):
            for c in (1, 2, 3):
                for d in (0, 1):
                    flat = spec.flatten({"a": a, "b": (np.array([b, c]), np.array([d], np.int8))})
                    x = spec.map(lambda leaf, value: tf.cast(np.asarray(value)[None], leaf.dtype), flat)
                    found.append(float(policy(x).logits[0, 1]))
    assert found == list(range(24))


def test_the_leaf_of_action_masks_is_no_part_of_the_state():
    space = S.Dict(action_mask=S.MultiBinary(2), place=S.Discrete(3), colour=S.Discrete(5))
    assert theta_of(Tabular().build(space, S.Discrete(2), 0)[0]).shape == (15, 2)
    assert theta_of(Tabular(omit=["action_mask", "colour"]).build(space, S.Discrete(2), 0)[0]).shape == (3, 2)
    assert theta_of(Tabular(omit=[]).build(space, S.Discrete(2), 0)[0]).shape == (60, 2)


@pytest.mark.parametrize(
    "space, head, size",
    [
        (S.MultiDiscrete([2, 3]), heads.MultiCategorical, 6),
        (S.Box(-1, 1, (2,)), heads.Gaussian, 2),
        (S.Tuple([S.Discrete(2), S.MultiBinary(2)]), heads.Composite, 2),
    ],
)
def test_other_actions_get_the_parameters_of_their_head(space, head, size):
    policy, _ = Tabular().build(S.Discrete(4), space, seed=0)
    assert isinstance(policy.layers[-1], head)
    kernels = [w for w in policy.weights if w.name == "kernel"]
    assert kernels[0].shape == (4, size) and not any(np.abs(w).max() for w in kernels)
    assert not any(w.name == "bias" for w in policy.weights)


def test_initial_values_come_from_the_seed():
    build = Tabular(initializer=keras.initializers.RandomNormal()).build
    first, again, other = (np.array(theta_of(build(S.Discrete(4), ACTIONS, seed)[0])) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    "critic, size",
    [(Networks(hidden_units=(8,)), 4 * 8 + 8 + 8 + 1), (Linear(), 4 + 1), (Tabular(), 4)],
    ids=["networks", "linear", "tabular"],
)
def test_another_critic_beside_the_table(critic, size):
    networks = Tabular(critic=critic)
    policy, critic = networks.build(S.Discrete(4), ACTIONS, seed=0)
    assert theta_of(policy).shape == (4, 3) and critic.count_params() == size
    again = Tabular.from_config(networks.get_config())
    assert again.get_config() == networks.get_config()
    assert again.build(S.Discrete(4), ACTIONS, seed=0)[1].count_params() == size


@pytest.mark.parametrize(
    "arguments, error, sentence",
    [
        ({"initializer": "zeroes"}, ValueError, "`initializer` must be an array, or an initializer that Keras knows"),
        ({"initializer": [[np.nan]]}, ValueError, "`initializer` must hold finite numbers"),
        ({"initializer": lambda shape, dtype: 0}, ValueError, "`initializer` must be an array, or a Keras initializer"),
        ({"critic": heads.NormalValue()}, TypeError, "`critic` must be None, or what builds one"),
        ({"critic": Networks(shared=True)}, ValueError, "`critic` must be a model of its own"),
        ({"omit": "place"}, TypeError, "`omit` must be None or a list of names"),
        ({"hidden_units": (8,)}, TypeError, "`Tabular` has no argument `hidden_units`"),
    ],
)
def test_wrong_arguments_are_refused(arguments, error, sentence):
    with pytest.raises(error, match=sentence):
        Tabular(**arguments)


@pytest.mark.parametrize(
    "arguments, observations, actions, sentence",
    [
        ({}, S.Box(-1, 1, (2,)), ACTIONS, "`observation_space` must be Discrete, MultiDiscrete or MultiBinary"),
        ({}, S.Dict(x=S.Box(-1, 1, (2,))), ACTIONS, r"`observation_space\['x'\]` must be .* omit=\['x'\]"),
        ({}, S.MultiDiscrete([200, 100]), ACTIONS, "at most 16,384 states for a table. Received: 20,000"),
        ({"initializer": np.zeros((3, 4))}, S.Discrete(4), ACTIONS, r"shape \(4, 3\), states and actions"),
        ({"initializer": np.zeros((4, 2))}, S.Discrete(4), S.MultiBinary(2), "must be a Keras initializer where"),
        (
            {"omit": ["y"]},
            S.Dict(x=S.Discrete(2)),
            ACTIONS,
            "`omit` must name leaves of the observation, which has 'x'",
        ),
        ({"omit": ["x"]}, S.Dict(x=S.Discrete(2)), ACTIONS, "`omit` must leave a leaf to see"),
    ],
)
def test_spaces_that_do_not_fit_are_refused(arguments, observations, actions, sentence):
    with pytest.raises(ValueError, match=sentence):
        Tabular(**arguments).build(observations, actions, seed=0)
