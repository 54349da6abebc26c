import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasrl_pg import baselines
from kerasrl_pg.baselines import AverageReturn, Baseline, TimeDependent, ValueFunction


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
    "baseline", [AverageReturn(), TimeDependent(), ValueFunction(3)], ids=lambda b: type(b).__name__
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


def test_the_base_class_says_what_is_missing():
    with pytest.raises(NotImplementedError, match=r"Mine must implement __call__\(returns, ends, valid\)"):
        type("Mine", (Baseline,), {})()(None, None, None)
    assert issubclass(baselines.AverageReturn, Baseline)
