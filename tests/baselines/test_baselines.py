import gymnasium as gym
import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasrl_pg as pg
from kerasrl_pg import baselines
from kerasrl_pg.baselines import AverageReturn, Baseline, TimeDependent, ValueFunction, WeightedAverage
from kerasrl_pg.rollouts import Inputs, Rollout


@pytest.fixture
def rollout():
    """`(returns, ends, valid)` [9, 3]; rows after the first end in environment 2 are padding."""
    rng = np.random.default_rng(0)
    ends = np.zeros((9, 3), bool)
    ends[[2, 3, 8], 0] = ends[[4, 8], 1] = ends[5, 2] = True
    valid = np.ones((9, 3), bool)
    valid[6:, 2] = False
    returns = rng.normal(size=(9, 3)).astype(np.float32)
    returns[~valid] = 1e6
    return returns, ends | ~valid, valid


@pytest.mark.parametrize("baseline", [AverageReturn(), TimeDependent()], ids=lambda b: type(b).__name__)
def test_an_episode_is_judged_by_the_others_alone(baseline, rollout):
    """Whatever its own returns are, its baseline stays, and theirs does not."""
    returns, ends, valid = rollout
    before = baseline(*map(tf.constant, rollout)).numpy()
    own = np.zeros_like(valid)
    own[:3, 0] = True  # The first episode of environment 0, which ends with its third step.
    after = baseline(tf.constant(np.where(own, returns + 5.0, returns)), ends, valid).numpy()
    np.testing.assert_allclose(after[own], before[own], atol=1e-5)
    assert not np.allclose(after[valid & ~own], before[valid & ~own], atol=0.1)


def test_the_value_function_is_subtracted_by_the_estimator_already(rollout):
    baseline = ValueFunction()
    assert baseline.needs_critic
    assert not AverageReturn().needs_critic
    np.testing.assert_array_equal(baseline(*map(tf.constant, rollout)), np.zeros((9, 3)))


@pytest.mark.parametrize(
    "baseline",
    [AverageReturn(), TimeDependent(), WeightedAverage(by_step=True), ValueFunction(3)],
    ids=lambda b: type(b).__name__,
)
def test_round_trip(baseline):
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(baseline))
    assert type(again) is type(baseline)
    assert vars(again) == vars(baseline)


@pytest.mark.parametrize("update_epochs", [0, 2.5, None])
def test_wrong_numbers_of_epochs_are_refused(update_epochs):
    sentence = f"`update_epochs` must be a whole number of at least 1. Received: update_epochs={update_epochs}"
    with pytest.raises(ValueError, match=sentence):
        ValueFunction(update_epochs)


@pytest.mark.parametrize("by_step", [False, True])
def test_weighed_alike_it_is_the_average(by_step, rollout):
    plain = TimeDependent() if by_step else AverageReturn()
    found = WeightedAverage(by_step)(*map(tf.constant, rollout), tf.fill((9, 3), 2.5))
    np.testing.assert_allclose(found, plain(*map(tf.constant, rollout)), atol=1e-6)


POLICIES = {
    "categorical": (gym.spaces.Discrete(3), pg.Networks((4,))),
    "masked": (gym.spaces.Discrete(3), pg.Networks((4,))),
    "multi_categorical": (gym.spaces.MultiDiscrete([2, 3]), pg.Networks((4,))),
    "bernoulli": (gym.spaces.MultiBinary(2), pg.Networks((4,))),
    "gaussian": (gym.spaces.Box(-1, 1, (2,)), pg.Networks((4,), normalize_observations=True)),
    "tanh_gaussian": (gym.spaces.Box(-1, 1, (2,)), pg.Networks((4,), head=pg.heads.TanhGaussian)),
    "beta": (gym.spaces.Box(-1, 1, (2,)), pg.Networks((4,), head=pg.heads.Beta)),
    "mixture": (gym.spaces.Box(-1, 1, (2,)), pg.Networks((4,), head=pg.heads.GaussianMixture)),
    "composite": (gym.spaces.Tuple((gym.spaces.Discrete(2), gym.spaces.Box(-1, 1, (2,)))), pg.Networks((4,))),
    "linear": (gym.spaces.Discrete(3), pg.models.Linear()),
    "scored": (gym.spaces.Discrete(3), pg.models.Scored(np.eye(3)[:, :2], hidden_units=(4,))),
    "image": (gym.spaces.Discrete(3), pg.Networks((4,))),
}


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.quick("masked", "gaussian", "composite", "scored", "image")
def test_norms_are_those_of_any_policy_s_own_gradients(name):
    """Of any head and model, in a graph, against TensorFlow's Jacobian of all rows at once."""
    actions, networks = POLICIES[name]
    agent = pg.REINFORCE(networks=networks, baseline=WeightedAverage(), seed=0)
    box = gym.spaces.Box(0, 255, (12, 12, 3), np.uint8) if name == "image" else gym.spaces.Box(-1, 1, (2,))
    agent.bind(box, actions)
    rng, shape = np.random.default_rng(0), (2, 3, *box.shape)
    observations = tf.constant((255 * rng.random(shape)).astype("uint8") if name == "image" else rng.normal(size=shape))
    observations = tf.cast(observations, box.dtype.name)
    masks = tf.constant([[[True, True, False]] * 3, [[True, False, True]] * 3]) if name == "masked" else ()
    rows = pg.ops.flatten_time(Inputs(observations, masks))
    sampled = agent.actor_critic.distribution(rows).sample(seed=(1, 2))
    taken = tf.nest.map_structure(lambda a: tf.reshape(a, [2, 3, *a.shape[1:]]), sampled)
    no, ends = tf.zeros((2, 3), tf.bool), tf.constant([[True] * 3, [False, True, False]])
    returns = tf.constant(rng.normal(size=(2, 3)), tf.float32)
    rollout = Rollout(Inputs(observations, masks), taken, returns, returns, ends, no, Inputs(observations, masks), ~no)
    found = tf.function(lambda: agent.baseline.of(returns, rollout, agent.actor_critic))()

    variables = [variable.value for variable in agent.policy.trainable_variables]
    with tf.GradientTape(persistent=True) as tape:
        log_probs = agent.actor_critic.distribution(rows).log_prob(sampled)
    jacobians = tape.jacobian(log_probs, variables, experimental_use_pfor=False)
    norms = sum(np.sum(np.reshape(jacobian, (6, -1)) ** 2, -1) for jacobian in jacobians)
    assert norms.min() > 1e-3 and np.ptp(norms) > 1e-4
    expected = WeightedAverage()(returns, rollout.ends, rollout.valid, np.float32(norms).reshape(2, 3))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_a_policy_that_remembers_has_no_norm_of_a_step():
    agent = pg.REINFORCE(networks=pg.Networks((4,), memory=pg.models.GRU(4)), baseline=WeightedAverage(), seed=0)
    with pytest.raises(ValueError, match="`baseline` must be no WeightedAverage with a policy that remembers"):
        agent.bind(gym.spaces.Box(-1, 1, (2,)), gym.spaces.Discrete(2))


def test_flags_are_flags():
    with pytest.raises(ValueError, match="`by_step` must be True or False. Received: by_step='step'"):
        WeightedAverage("step")


@pytest.mark.parametrize("method", [pg.A2C, pg.PPO, pg.PPOPenalty])
def test_methods_with_a_critic_refuse_another_baseline(method):
    with pytest.raises(TypeError, match=f"`{method.__name__}` has no argument `baseline`. .*critic is the baseline"):
        method(baseline=AverageReturn())


def test_the_base_class_says_what_is_missing():
    with pytest.raises(NotImplementedError, match=r"Mine must implement __call__\(returns, ends, valid\)"):
        type("Mine", (Baseline,), {})()(None, None, None)
    assert issubclass(baselines.AverageReturn, Baseline)
