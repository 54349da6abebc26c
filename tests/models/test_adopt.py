import gymnasium as gym
import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasrl_pg import heads
from kerasrl_pg.envs import ObservationSpec
from kerasrl_pg.models import RunningNormalization, adopt

S = gym.spaces
SPEC = ObservationSpec(S.Box(-1, 1, (3,)))
DISCRETE = S.Discrete(2)


def model(*layers):
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), *layers])


def policy(head=None):
    return model(head or heads.Categorical(2))


def critic():
    return model(heads.NormalValue())


def two_heads():
    inputs = keras.Input((3,))
    return keras.Model(inputs, [heads.Categorical(2)(inputs), heads.Categorical(2)(inputs)])


def shared(**names):
    inputs = keras.Input((3,))
    features = keras.layers.Dense(4)(inputs)
    outputs = {"policy": heads.Categorical(2)(features), "value": heads.NormalValue()(features)}
    return keras.Model(inputs, {names.get(name, name): output for name, output in outputs.items()})


def test_two_models():
    ours, theirs = policy(), critic()
    networks = adopt(ours, theirs, SPEC, DISCRETE)
    assert networks.policy is ours
    assert networks.critic is theirs
    assert networks.shared is None
    assert networks.head is ours.layers[-1]
    assert networks.critic_head is theirs.layers[-1]


def test_a_method_without_critic():
    for given in (None, critic()):
        networks = adopt(policy(), given, SPEC, DISCRETE, needs_critic=False)
        assert networks.critic is networks.critic_head is None
    networks = adopt(shared(), None, SPEC, DISCRETE, needs_critic=False)
    assert networks.critic is None
    assert networks.policy(np.zeros((1, 3))).logits.shape == (1, 2)


def test_one_model_with_two_outputs():
    both = shared()
    networks = adopt(both, None, SPEC, DISCRETE)
    assert networks.shared is both
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    np.testing.assert_array_equal(networks.policy(x).logits, both(x)["policy"].logits)
    np.testing.assert_array_equal(networks.critic(x).mean(), both(x)["value"].mean())
    trunk = both.layers[1].kernel
    assert any(v is trunk for v in networks.policy.trainable_variables)
    assert any(v is trunk for v in networks.critic.trainable_variables)


def test_a_subclassed_model_is_built():
    class Policy(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense, self.head = keras.layers.Dense(4), heads.Categorical(2)

        def call(self, x):
            return self.head(self.dense(x))

    ours = Policy()
    assert adopt(ours, critic(), SPEC, DISCRETE).head is ours.head
    assert len(ours.trainable_variables) == 4


def test_a_nested_head_is_found():
    inner = policy()
    inputs = keras.Input((3,))
    assert adopt(keras.Model(inputs, inner(inputs)), critic(), SPEC, DISCRETE).head is inner.layers[-1]


@pytest.mark.parametrize("layer", [lambda: keras.layers.Dense(4), RunningNormalization])
def test_two_models_that_share_layers_are_refused(layer):
    inputs = keras.Input((3,))
    features = layer()(inputs)
    pair = keras.Model(inputs, heads.Categorical(2)(features)), keras.Model(inputs, heads.NormalValue()(features))
    with pytest.raises(ValueError, match="`policy` and `critic` must share no layers as two .* Received: both hold .*"):
        adopt(*pair, SPEC, DISCRETE)


@pytest.mark.parametrize(
    "bad_policy, bad_critic, sentence",
    [
        (lambda: model(keras.layers.Dense(2)), critic, "`policy` must contain exactly one Head .* Received: 0 in"),
        (
            two_heads,
            critic,
            "`policy` must contain exactly one Head .* Received: 2 in",
        ),
        (critic, critic, "`policy` must contain exactly one Head .* Received: 0 in"),
        (policy, policy, "`critic` must contain exactly one ValueHead .* Received: 0 in"),
        (policy, lambda: None, "`critic` must be given with your own `policy`, .* Received: critic=None. Pass a Keras"),
        (shared, critic, r"must name them 'policy' and 'value', and comes without a `critic`. .*\['policy', 'value'\]"),
        (
            lambda: shared(value="critic"),
            lambda: None,
            r"must name them 'policy' and 'value'.*Received: outputs \['critic', 'policy'\], critic=None",
        ),
        (
            lambda: model(keras.layers.Dense(2, activity_regularizer=keras.regularizers.L2(0.1)), heads.Categorical(2)),
            critic,
            "`policy` must have no losses of its own but .* Received: 1 from `activity_regularizer` or `add_loss`",
        ),
    ],
)
def test_unfit_networks_are_refused(bad_policy, bad_critic, sentence):
    with pytest.raises(ValueError, match=sentence):
        adopt(bad_policy(), bad_critic(), SPEC, DISCRETE)


@pytest.mark.parametrize(
    "head, space",
    [
        (lambda: heads.Gaussian(1), DISCRETE),
        (lambda: heads.Categorical(3), DISCRETE),
        (lambda: heads.Categorical(2, start=1), DISCRETE),
        (lambda: heads.Categorical(2), S.MultiDiscrete([2, 2])),
        (lambda: heads.MultiCategorical([2, 3]), S.MultiDiscrete([2, 2])),
        (lambda: heads.MultiCategorical([2]), S.MultiDiscrete([2, 2])),
        (lambda: heads.Bernoulli(2), S.MultiBinary(3)),
        (lambda: heads.Gaussian(3), S.Box(-1, 1, (2,))),
        (lambda: heads.Beta([2.0], [3.0]), S.Box(-1, 1, (1,))),
        (lambda: heads.Categorical(2), S.Tuple([DISCRETE])),
    ],
)
def test_a_head_for_another_space_is_refused(head, space):
    sentence = "`policy` must give actions of the environment's space .* Received: .* from its head <.*default_head"
    with pytest.raises(ValueError, match=sentence):
        adopt(policy(head()), critic(), SPEC, space)


@pytest.mark.parametrize(
    "space",
    [
        S.Discrete(5, start=-2),
        S.MultiDiscrete([2, 3], start=[1, 0]),
        S.MultiDiscrete([[2, 3]]),
        S.MultiBinary((2, 2)),
        S.Box(-1, 1, (2,), np.float64),
        S.Box(-np.inf, np.inf, (1,)),
    ],
)
def test_the_default_head_fits(space):
    head = heads.default_head(space)
    assert adopt(policy(head), critic(), SPEC, space).head is head


class Odd(keras.Model):
    """Calls its normaliser as `how` says."""

    def __init__(self, how):
        super().__init__()
        self.how, self.layer, self.head = how, RunningNormalization(), heads.Categorical(2)

    def call(self, x):
        return self.head(self.how(self.layer, x))


def by_rows(layer, x):
    return tf.reshape(layer(tf.reshape(x, (-1, 1))), (-1, 3))


DICT = S.Dict(a=S.Box(-1, 1, (3,)), b=S.Box(-1, 1, (3,)))


def of_dict(key):
    inputs = {name: keras.Input((3,), name=name) for name in ("a", "b")}
    x = keras.layers.Concatenate()([RunningNormalization(key)(inputs["a"]), inputs["b"]])
    return keras.Model(inputs, heads.Categorical(2)(x))


@pytest.mark.parametrize(
    "bad_policy, space, sentence",
    [
        (
            lambda: model(RunningNormalization(), heads.Categorical(2)),
            SPEC,
            "before every trainable .*behind .*/kernel",
        ),
        (lambda: model(keras.layers.Activation("tanh"), RunningNormalization(), heads.Categorical(2)), SPEC, "/kernel"),
        (
            lambda: keras.Sequential([RunningNormalization("a"), heads.Categorical(2)]),
            SPEC,
            "are one .*: key='a'. Leave",
        ),
        (lambda: of_dict("c"), ObservationSpec(DICT), "names a leaf .* have the leaves a, b. Received: key='c'"),
        (
            lambda: Odd(lambda layer, x: x),
            SPEC,
            "be called by the model .* Received: no call for two observations",
        ),
        (lambda: Odd(by_rows), SPEC, r"one row for each .* Received: inputs of shape \[\(6, 1\)\] for two"),
        (lambda: Odd(lambda layer, x: tf.function(layer)(x)), SPEC, "outside of `tf.function`"),
    ],
)
@pytest.mark.filterwarnings("ignore:`build..` was called")
def test_a_normaliser_that_could_not_learn_is_refused(bad_policy, space, sentence):
    with pytest.raises(
        ValueError, match="`policy`'s RunningNormalization 'running_normalization.*' must .*" + sentence
    ):
        adopt(bad_policy(), None, space, DISCRETE, needs_critic=False)


def test_a_normaliser_behind_fixed_layers_is_taken():
    frozen = keras.layers.Dense(4, trainable=False)
    ours = keras.Sequential([keras.Input((3,)), frozen, RunningNormalization(), heads.Categorical(2)])
    assert adopt(ours, None, SPEC, DISCRETE, needs_critic=False).policy is ours
    for key in (None, "a"):
        adopt(of_dict(key), None, ObservationSpec(DICT), DISCRETE, needs_critic=False)
