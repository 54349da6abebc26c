import gymnasium as gym
import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasrl_pg import heads, ops
from kerasrl_pg.models import Linear, Networks, Tabular

S = gym.spaces
PLANE, ACTIONS = S.Box(-1, 1, (2,)), S.Discrete(3, start=1)
X = np.random.default_rng(0).normal(size=(5, 2)).astype("float32")
WAYS = np.float32([[1, 0], [0, 1], [-1, -1]])


@keras.saving.register_keras_serializable("tests")
def along(x):
    """φ(s, a) [B, 3, 2]: the observation times each action's way."""
    return x[:, None] * WAYS


@keras.saving.register_keras_serializable("tests")
def squares(x):
    return tf.concat([tf.ones_like(x[:, :1]), x, x**2], -1)  # TensorFlow's operations do, too.


@keras.saving.register_keras_serializable("tests")
def of_two(x):
    return x["numbers"] * keras.ops.cast(x["choice"], "float32")[:, None]


def unregistered(x):
    return x


def dense(policy):
    return policy.layers[-1].dense


def test_features_of_state_and_action_have_one_theta():
    policy, critic = Linear(along, initializer=[0.5, -2.0]).build(PLANE, ACTIONS, seed=0)
    expected = (X[:, None] * WAYS) @ np.float32([0.5, -2.0])
    np.testing.assert_allclose(policy(X).logits, expected, rtol=1e-5)
    assert policy.count_params() == 2 and critic.count_params() == 3 * 2 + 1
    np.testing.assert_array_equal(critic(X).mean(), np.zeros(5))


def test_its_gradient_is_the_score():
    policy, _ = Linear(along, initializer=[0.5, -2.0]).build(PLANE, ACTIONS, seed=0)
    actions = np.int32([0, 1, 2, 0, 1])
    scores = ops.linear_softmax_score(along(X), policy(X).probs_parameter(), actions)
    for row in range(5):
        with tf.GradientTape() as tape:
            log_prob = policy(X[row : row + 1]).log_prob(actions[row : row + 1])
        gradient = tape.gradient(log_prob, dense(policy).kernel.value)
        np.testing.assert_allclose(gradient[:, 0], scores[row], atol=1e-6)


def test_features_of_the_state_have_a_theta_for_each_action():
    theta = np.random.default_rng(1).normal(size=(5, 3)).astype("float32")
    policy, critic = Linear(squares, initializer=theta).build(PLANE, ACTIONS, seed=0)
    np.testing.assert_allclose(policy(X).logits, squares(X) @ theta, rtol=1e-4)
    assert policy.count_params() == 15 and critic.count_params() == 6
    policy, _ = Linear(squares).build(PLANE, S.Box(-1, 1, (2,)), seed=0)
    assert isinstance(policy.layers[-1], heads.Gaussian) and dense(policy).kernel.shape == (5, 2)


def test_without_features_it_is_linear_in_the_observation():
    space = S.Dict(action_mask=S.MultiBinary(3), at=S.MultiDiscrete([2, 3]), box=PLANE, on=S.MultiBinary(2))
    policy, critic = Linear().build(space, ACTIONS, seed=0)
    assert dense(policy).kernel.shape == (5 + 2 + 2, 3) and dense(policy).bias.shape == (3,)
    assert critic.count_params() == 10
    x = {"action_mask": np.ones((1, 3)), "at": np.int32([[1, 2]]), "box": X[:1], "on": np.float32([[0, 1]])}
    dense(policy).kernel.assign(np.eye(9, 3, -6))  # Rows 6 to 8: the second number, and both bits.
    np.testing.assert_allclose(policy(x).logits[0], [X[0, 1], 0.0, 1.0], rtol=1e-6)


@pytest.mark.parametrize(
    "features", [along, squares, keras.layers.Rescaling(2.0), keras.Sequential([keras.layers.Dense(4, "tanh")]), None]
)
def test_it_starts_uniform_and_comes_back_from_its_config_and_its_file(features, tmp_path):
    networks = Linear(features)
    policy, critic = networks.build(PLANE, ACTIONS, seed=0)
    np.testing.assert_allclose(policy(X).probs_parameter(), np.full((5, 3), 1 / 3), rtol=1e-6)
    again = Linear.from_config(networks.get_config())
    assert again.get_config() == networks.get_config()
    dense(policy).kernel.assign(np.random.default_rng(1).normal(size=dense(policy).kernel.shape))
    for model in (policy, critic):
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        for left, right in zip(loaded.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_array_equal(left, right)
    policy.save(tmp_path / "policy.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "policy.keras")(X).logits, policy(X).logits)


def test_the_weights_of_features_are_not_trained():
    policy, critic = Linear(keras.layers.Dense(4, "tanh")).build(PLANE, ACTIONS, seed=0)
    assert [tuple(v.shape) for v in policy.trainable_variables] == [(4, 3)]
    assert len(policy.variables) == 3 and len(critic.trainable_variables) == 2
    same, other = (Linear(keras.layers.Dense(4, "tanh")).build(PLANE, ACTIONS, seed)[0] for seed in (0, 1))
    np.testing.assert_array_equal(same.get_weights()[0], policy.get_weights()[0])
    assert not np.array_equal(other.get_weights()[0], policy.get_weights()[0])


def test_observations_of_several_leaves():
    space = S.Dict(choice=S.Discrete(3), numbers=PLANE, rest=S.Box(0, 255, (9, 9), np.uint8))
    policy, _ = Linear(of_two, omit=["rest"], critic=Tabular(omit=["numbers", "rest"])).build(space, ACTIONS, seed=0)
    x = {"choice": np.int32([2]), "numbers": X[:1], "rest": np.zeros((1, 9, 9))}
    dense(policy).kernel.assign(np.eye(2, 3))
    np.testing.assert_allclose(policy(x).logits[0, :2], 2.0 * X[0], rtol=1e-6)


@pytest.mark.parametrize(
    "features, error, sentence",
    [
        (keras.layers.Dense, TypeError, "`features` must be None, a Keras layer, or .* a class. Pass an instance"),
        (np.ones((3, 2)), TypeError, "`features` must be None, a Keras layer, or a registered function"),
        (unregistered, ValueError, "`features` must be a function that a file can name. .*which is not registered"),
        (lambda x: x, ValueError, "`features` must be a function that a file can name"),
    ],
)
def test_what_no_file_could_name_is_refused(features, error, sentence):
    with pytest.raises(error, match=sentence):
        Linear(features)


@pytest.mark.parametrize(
    "arguments, observations, actions, sentence",
    [
        (
            {"features": along},
            PLANE,
            S.Discrete(2),
            r"row for each action of a Discrete .* Received: 3 rows, \[B, 3, 2",
        ),
        (
            {"features": along},
            PLANE,
            S.MultiBinary(3),
            "`features` must give a row for each action of a Discrete space",
        ),
        (
            {"features": keras.layers.Reshape((5, 1))},
            PLANE,
            ACTIONS,
            r"must take what networks see of Box.*, \(None, 2\) of float32. Received: <Reshape.*fails with ValueError",
        ),
        ({"features": along}, S.Discrete(3), ACTIONS, "`features` must give floats .* Received: .* of int32"),
        ({"features": keras.layers.Reshape((1, 1, 2))}, PLANE, ACTIONS, r"must give one tensor, \[B, A, p\]"),
        ({"features": keras.layers.Reshape((2,), dtype="int32")}, S.MultiDiscrete([2, 2]), ACTIONS, "must give floats"),
        (
            {"features": along, "initializer": [1.0]},
            PLANE,
            ACTIONS,
            r"array of shape \(2,\), a number for each feature",
        ),
        ({"features": squares, "initializer": [1.0]}, PLANE, ACTIONS, r"shape \(5, 3\), features and actions"),
        ({}, S.Box(0, 255, (9, 9), np.uint8), ACTIONS, "`features` must be given where the observation is no vector"),
        ({}, S.Discrete(2000), ACTIONS, "at most 1,024 choices. Received: features=None, observation_space"),
    ],
)
def test_features_and_spaces_that_do_not_fit_are_refused(arguments, observations, actions, sentence):
    with pytest.raises(ValueError, match=sentence):
        Linear(**arguments).build(observations, actions, seed=0)


def test_another_critic():
    policy, critic = Linear(along, critic=Networks(hidden_units=(4,))).build(PLANE, ACTIONS, seed=0)
    assert critic.count_params() == 2 * 4 + 4 + 4 + 1
