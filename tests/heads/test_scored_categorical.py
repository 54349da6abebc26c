import gymnasium
import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasrl_pg import heads

FEATURES = np.random.default_rng(0).normal(size=(6, 4, 3)).astype("float32")


def make(num_actions=4, **kwargs):
    initializer = keras.initializers.RandomNormal(seed=1)
    return heads.ScoredCategorical(num_actions, kernel_initializer=initializer, **kwargs)


def test_it_is_the_softmax_of_theta_times_features():
    head = make()
    policy = head(FEATURES)
    theta = head.dense.kernel.numpy()[:, 0]
    assert head.count_params() == 3  # No bias, and nothing for single actions.
    np.testing.assert_allclose(policy.probs_parameter(), tf.nn.softmax(FEATURES @ theta), rtol=1e-5)
    assert head.parameters(FEATURES).shape == (6, head.num_parameters)
    np.testing.assert_allclose(head(FEATURES[None]).logits[0], policy.logits, rtol=1e-6)


def test_other_actions_are_scored_by_the_same_weights():
    head, order = make(), [2, 0, 3]
    fewer = make(3)
    fewer.build((None, 3, 3))
    head.build((None, 4, 3))
    fewer.set_weights(head.get_weights())
    np.testing.assert_allclose(fewer(FEATURES[:, order]).logits, head(FEATURES).logits.numpy()[:, order], rtol=1e-6)


def test_what_a_categorical_does_it_does():
    head = heads.ScoredCategorical.from_space(gymnasium.spaces.Discrete(4, start=2), kernel_initializer="zeros")
    policy = head.mask(head(FEATURES), head.read_mask([1, 0, 1, 0]))
    np.testing.assert_allclose(policy.entropy(), np.log(2), rtol=1e-6)
    actions = head.sample(policy, head.noise([0, 1], (6,)))
    assert set(head.to_env(actions).numpy()) <= {2, 4}
    with pytest.raises(ValueError, match="serves a gymnasium.spaces.Discrete"):
        heads.ScoredCategorical.from_space(gymnasium.spaces.MultiBinary(3))


def test_save_and_load(tmp_path):
    inputs = keras.Input((4, 3))
    policy = keras.Model(inputs, make(start=1, env_dtype="int32")(inputs))
    policy.save(tmp_path / "policy.keras")
    loaded = keras.models.load_model(tmp_path / "policy.keras")
    np.testing.assert_array_equal(loaded(FEATURES).logits, policy(FEATURES).logits)
    assert loaded.layers[-1].get_config() == policy.layers[-1].get_config()


@pytest.mark.parametrize("shape", [(6, 3), (6, 5, 3)])
def test_features_without_a_row_for_each_action_are_refused(shape):
    with pytest.raises(ValueError, match=r"must be \[..., 4, p\], a row for each action. Received: shape \(6, "):
        make()(np.zeros(shape, np.float32))


def test_litert_programs_give_the_same(litert_program):
    head = make()
    program = litert_program(lambda features: head.parameters(features))
    np.testing.assert_allclose(program(FEATURES)[0], head.parameters(FEATURES), atol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda **kwargs: heads.Categorical(3, **kwargs),
        lambda **kwargs: heads.Gaussian(2, **kwargs),
        lambda **kwargs: heads.NormalValue(**kwargs),
        lambda **kwargs: heads.default_head(
            gymnasium.spaces.Tuple([gymnasium.spaces.Discrete(2), gymnasium.spaces.MultiBinary(2)]), **kwargs
        ),
    ],
    ids=["categorical", "gaussian", "value", "composite"],
)
def test_any_head_can_be_without_a_bias(make, tmp_path):
    """So that its parameters are linear in the features; the default is as ever, and not in its config."""
    inputs = keras.Input((5,))
    model = keras.Model(inputs, make(use_bias=False)(inputs))
    zeros = np.zeros((1, 5), np.float32)
    model.save(tmp_path / "model.keras")
    for each in (model, keras.models.load_model(tmp_path / "model.keras")):
        assert not any(weight.name == "bias" for weight in each.weights)
        np.testing.assert_array_equal(each.layers[-1].parameters(zeros)[..., :1], 0.0)
    plain = make()
    plain(zeros)
    assert any(weight.name == "bias" for weight in plain.weights) and "use_bias" not in plain.get_config()
