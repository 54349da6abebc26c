"""Policy and critic as one noun: each weight once, values where there is a critic, masks where they are given."""

import gymnasium as gym
import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasrl_pg as pg
from kerasrl_pg.models.actor_critic import regularization, regularized
from kerasrl_pg.rollouts.records import Inputs

SPACES = gym.spaces.Box(-1.0, 1.0, (3,)), gym.spaces.Discrete(4)
X = np.random.default_rng(0).uniform(-1, 1, (5, 2, 3)).astype("float32")


def bound(kind=pg.A2C, **networks):
    agent = kind(networks=pg.Networks((4,), **networks), seed=0)
    agent.bind(*SPACES)
    return agent.actor_critic


@pytest.mark.parametrize("shared, common", [(False, 0), (True, 2)])
def test_each_weight_is_there_once(shared, common):
    both = bound(shared=shared)
    policy, critic = ({id(v) for v in each} for each in (both.policy_variables, both.critic_variables))
    assert len(policy & critic) == common
    assert len(both.variables) == len({id(v) for v in both.variables}) == len(policy | critic)
    assert {id(v) for v in both.critic_alone} == critic - policy


@pytest.mark.parametrize("shared", [False, True])
def test_one_pass_gives_what_two_give(shared):
    both, rows = bound(shared=shared), Inputs(X[:, 0])
    distribution, value = both.forward(rows)
    np.testing.assert_allclose(distribution.logits, both.distribution(rows).logits, atol=1e-6)
    np.testing.assert_allclose(value.mean(), both.value_distribution(rows).mean(), atol=1e-6)
    values = both.values(Inputs(tf.constant(X)))
    assert values.shape == (5, 2)
    np.testing.assert_allclose(values[:, 0], value.mean(), atol=1e-6)


def test_without_a_critic_values_are_zero():
    agent = pg.REINFORCE(networks=pg.Networks((4,)), seed=0)
    agent.bind(*SPACES)
    alone = agent.actor_critic
    assert alone.models == [alone.policy] and alone.critic_variables == []
    np.testing.assert_array_equal(alone.values(Inputs(tf.constant(X))), np.zeros((5, 2)))
    assert alone.forward(Inputs(X[:, 0]))[1] is None


def test_what_is_masked_has_probability_zero():
    both, masks = bound(), np.array([[True, False, True, False]] * 5)
    free, masked = (both.distribution(Inputs(X[:, 0], *m)).probs_parameter().numpy() for m in ((), (masks,)))
    np.testing.assert_array_equal(masked[~masks], 0.0)
    expected = np.where(masks, free, 0.0)
    np.testing.assert_allclose(masked, expected / expected.sum(-1, keepdims=True), rtol=1e-5)


def test_regularizers_add_what_they_say_of_their_weights():
    dense = keras.layers.Dense(2, kernel_initializer="ones", kernel_regularizer=keras.regularizers.L2(0.5))
    dense.build((None, 3))
    assert [v is dense.kernel for v in regularized(dense.trainable_variables)] == [True]
    assert float(regularization(dense.trainable_variables)) == pytest.approx(0.5 * 6)
    assert regularization([dense.bias]) == 0
