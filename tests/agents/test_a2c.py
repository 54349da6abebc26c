"""A2C: its loss is the sum that the paper writes, over valid rows, of the advantages that the settings say."""

import gymnasium as gym
import keras
import numpy as np
import pytest
import tensorflow as tf
from test_constrained import ACTIONS, rollout

import kerasrl_pg as pg


def bound(**settings):
    agent = pg.A2C(horizon=16, networks=pg.Networks((4,)), seed=0, **settings)
    agent.compile(keras.optimizers.SGD(0.1), jit_compile=False)
    agent.bind(gym.spaces.Box(-np.inf, np.inf, (3,)), ACTIONS)
    return agent


def recorded(valid=None):
    data = tf.nest.map_structure(tf.convert_to_tensor, rollout(np.random.default_rng(0)))
    return data if valid is None else data._replace(valid=tf.constant(valid))


@pytest.mark.parametrize("value_coef, entropy_coef", [(0.5, 0.01), (2.0, 0.0)])
def test_the_loss_is_the_papers_sum_over_valid_rows(value_coef, entropy_coef):
    agent = bound(value_coef=value_coef, entropy_coef=entropy_coef)
    valid = np.arange(32).reshape(16, 2) % 5 != 3
    samples = agent.samples(recorded(valid))
    loss, logs = agent.loss(samples)
    logits = agent.policy(samples.inputs.observations).logits.numpy().astype(np.float64)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    values = agent.critic(samples.inputs.observations).mean().numpy()
    keep, taken = valid.ravel(), log_p[np.arange(32), samples.actions]
    policy_loss = -np.mean((taken * samples.advantages.numpy())[keep])
    entropy = np.mean(-(np.exp(log_p) * log_p).sum(-1)[keep])
    errors = np.square(values - samples.returns.numpy())[keep]
    assert float(logs["policy_loss"]) == pytest.approx(policy_loss, rel=1e-4)
    assert float(logs["entropy"]) == pytest.approx(entropy, rel=1e-4)
    critic_loss = 0.5 * np.mean(errors)
    assert float(logs["critic_loss"]) == pytest.approx(critic_loss, rel=1e-4)
    expected = policy_loss + value_coef * critic_loss - entropy_coef * entropy
    assert float(loss) == pytest.approx(expected, rel=1e-4)


def test_advantages_are_the_whole_return_less_the_critics_value():
    """The paper's, with λ = 1, bootstrapped where a rollout ends."""
    agent, data = bound(), recorded()
    seen = data.inputs.observations
    after = tf.concat([seen[1:], data.next_inputs.observations[-1:]], 0)
    data = data._replace(next_inputs=data.next_inputs._replace(observations=after))
    samples = agent.samples(data)
    np.testing.assert_allclose(samples.advantages, samples.returns - samples.old_values, atol=1e-5)
    values, after = (agent.values(x).numpy() for x in (data.inputs, data.next_inputs))
    going = np.where(data.terminated | data.truncated, 0.0, 1.0)
    expected = np.zeros((17, 2))
    for t in reversed(range(16)):
        ahead = after[t] if t == 15 else np.where(going[t], expected[t + 1], after[t])
        expected[t] = data.rewards[t] + 0.99 * np.where(data.terminated[t], 0.0, ahead)
    np.testing.assert_allclose(tf.reshape(samples.returns, [16, 2]), expected[:16], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(tf.reshape(samples.old_values, [16, 2]), values, atol=1e-6)


def test_normalised_advantages_have_mean_zero_and_deviation_one():
    advantages = bound(normalize_advantages=True).samples(recorded()).advantages.numpy()
    assert np.mean(advantages) == pytest.approx(0.0, abs=1e-5) and np.std(advantages) == pytest.approx(1.0, abs=1e-3)
