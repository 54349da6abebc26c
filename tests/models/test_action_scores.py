import gymnasium as gym
import keras
import numpy as np
import pytest

from kerasrl_pg.models import GRU, Linear, Scored, normalizers
from kerasrl_pg.models.action_scores import PairDense

S = gym.spaces
PLANE, ACTIONS = S.Box(-1, 1, (2,)), S.Discrete(4)
RNG = np.random.default_rng(0)
X, FEATURES = RNG.normal(size=(5, 2)).astype("float32"), RNG.normal(size=(4, 3)).astype("float32")


def test_a_layer_of_pairs_is_a_dense_layer_of_what_stands_side_by_side():
    layer = PairDense(6, num_actions=4, action_features=FEATURES, activation="tanh", bias_initializer="ones")
    got = layer(X)
    dense = keras.layers.Dense(6, "tanh")
    dense.build((None, 5))
    dense.set_weights(layer.get_weights())
    pairs = np.concatenate([np.repeat(X[:, None], 4, 1), np.repeat(FEATURES[None], 5, 0)], -1)
    np.testing.assert_allclose(got, dense(pairs), atol=1e-6)
    layer = PairDense(6, num_actions=4)
    np.testing.assert_allclose(layer(X)[:, 1], X @ layer.kernel[:2] + layer.kernel[3], atol=1e-6)


@pytest.mark.parametrize("order", [[2, 0, 3, 1], [3, 1], [0, 0, 2, 1, 3, 2]])
def test_other_actions_in_another_order_are_scored_by_the_same_weights(order):
    scored = Scored(FEATURES, hidden_units=(8, 8))
    policy, _ = scored.build(PLANE, ACTIONS, seed=0)
    other, _ = Scored(FEATURES[order], hidden_units=(8, 8)).build(PLANE, S.Discrete(len(order)), seed=1)
    assert not np.allclose(other(X).logits, policy(X).logits.numpy()[:, order], atol=1e-4)
    other.set_weights(policy.get_weights())
    logits = policy(X).logits.numpy()[:, order]
    assert np.std(logits - logits.mean(1, keepdims=True), axis=0).min() > 1e-4  # Which state it is does matter.
    np.testing.assert_allclose(other(X).logits, logits, atol=1e-6)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(other(X).probs_parameter(), probabilities, rtol=1e-5)


def test_one_hot_vectors_tell_every_action_apart():
    policy, critic = Scored(hidden_units=(8,)).build(PLANE, ACTIONS, seed=0)
    assert [tuple(w.shape) for w in policy.weights] == [(2 + 4, 8), (8,), (8, 1)]
    assert [tuple(w.shape) for w in critic.weights] == [(2, 8), (8,), (8, 1), (1,)]
    assert np.std(policy(X).logits, axis=1).min() > 1e-4
    np.testing.assert_allclose(policy(X).probs_parameter(), np.full((5, 4), 0.25), atol=0.02)  # Nearly uniform.


def test_a_score_depends_on_its_own_action_alone():
    moved = FEATURES.copy()
    moved[1] += 1.0
    one, two = (Scored(features, hidden_units=(8,)).build(PLANE, ACTIONS, seed=0)[0] for features in (FEATURES, moved))
    changed = np.abs(one(X).logits - two(X).logits).max(0)
    assert changed[1] > 1e-4 and changed[[0, 2, 3]].max() == 0.0


def test_what_networks_can_it_can(tmp_path):
    space = S.Dict(place=S.Discrete(3), x=PLANE)
    scored = Scored(
        FEATURES, hidden_units=(8,), activation="relu", normalize_observations=True, memory=GRU(6), critic=Linear()
    )
    policy, critic = scored.build(space, ACTIONS, seed=0)
    assert len(normalizers(policy)) == 1 and critic.count_params() == 3 + 2 + 1
    again = Scored.from_config(scored.get_config())
    assert again.get_config() == scored.get_config()
    x = {"place": np.int32([0, 1, 2, 0, 1]), "x": X}
    policy.save(tmp_path / "policy.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "policy.keras")(x).logits, policy(x).logits)
    np.testing.assert_array_equal(again.build(space, ACTIONS, seed=0)[0](x).logits, policy(x).logits)


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ({"hidden_units": ()}, "`hidden_units` must have at least one layer, since .* Take Linear"),
        ({"action_features": [1.0, 2.0]}, r"must be a table \[A, k\] of finite numbers, .* Received: shape \(2,\)"),
        ({"action_features": [[1.0], [np.inf]]}, r"must be a table \[A, k\] of finite numbers"),
        ({"action_features": [[1.0], [1.0, 2.0]]}, r"must be a table \[A, k\] of finite numbers"),
        (
            {"action_features": FEATURES, "hidden_units": (0,)},
            "`hidden_units` must be a list of widths, whole numbers of at least 1",
        ),
    ],
)
def test_wrong_arguments_are_refused(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        Scored(**arguments)


@pytest.mark.parametrize(
    "actions, sentence",
    [
        (S.Discrete(5), "`action_features` must have a row for each of the 5 actions. Received: 4 rows"),
        (S.MultiDiscrete([2, 2]), "`action_space` must be Discrete for actions to be scored one by one"),
    ],
)
def test_spaces_that_do_not_fit_are_refused(actions, sentence):
    with pytest.raises(ValueError, match=sentence):
        Scored(FEATURES).build(PLANE, actions, seed=0)
