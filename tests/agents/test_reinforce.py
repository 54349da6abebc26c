"""REINFORCE: its gradient against exact ones, the baselines, whole episodes."""

import gymnasium as gym
import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasrl_pg as pg


class TwoSteps(gym.Env):
    """Two states, two actions, two steps; every trajectory can be listed."""

    observation_space = gym.spaces.Discrete(2)
    action_space = gym.spaces.Discrete(2)
    rewards = np.array([[0.0, 1.0], [3.0, -1.0]])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = self.state = 0
        return 0, {}

    def step(self, action):
        reward = self.rewards[self.state, action]
        self.state = int(action)
        self.time += 1
        return self.state, float(reward), self.time == 2, False, {}


def tabular(logits):
    """A softmax policy with one logit for each state and action (chapter 4.5)."""
    inputs = keras.Input((), dtype="int32")
    head = pg.heads.Categorical(2)
    policy = keras.Model(inputs, head(keras.ops.one_hot(inputs, 2)))
    head.dense.kernel.assign(logits)
    return policy


def exact_gradient(logits, gamma, discounted):
    """∇ of Σ_τ p(τ) log p(τ)-weighted returns by listing all trajectories; `discounted` keeps γ^t."""
    gradient = np.zeros_like(logits)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    for first in (0, 1):
        for second in (0, 1):
            p = probabilities[0, first] * probabilities[first, second]
            rewards = TwoSteps.rewards[0, first], TwoSteps.rewards[first, second]
            to_go = rewards[0] + gamma * rewards[1], rewards[1]
            for t, (state, action) in enumerate(((0, first), (first, second))):
                score = -probabilities[state]
                score[action] += 1.0
                gradient[state] += p * score * to_go[t] * (gamma**t if discounted else 1.0)
    return gradient


TO_GO, WHOLE = pg.estimators.RewardToGo(), pg.estimators.WholeReturn()


@pytest.mark.parametrize(
    ("estimator", "baseline", "discounted"),
    [
        *((TO_GO, baseline, discounted) for baseline in (None, "average", "time") for discounted in (True, False)),
        # The whole return carries γ^t itself.
        (WHOLE, None, False),
    ],
)
def test_gradient_is_the_exact_one_in_the_mean(estimator, baseline, discounted):
    baseline = {None: None, "average": pg.baselines.AverageReturn(), "time": pg.baselines.TimeDependent()}[baseline]
    logits = np.array([[0.2, -0.3], [0.5, 0.1]], np.float32)
    gamma = 0.5
    agent = pg.REINFORCE(
        tabular(logits),
        estimator=estimator,
        baseline=baseline,
        discounted_gradient=discounted,
        gamma=gamma,
        episodes=1000,
        horizon=2000,
        seed=0,
    )
    agent.compile(keras.optimizers.SGD(1.0), jit_compile=False)
    agent.fit(TwoSteps, epochs=1, steps_per_epoch=1, num_envs=8, verbose=0)
    estimate = agent.head.dense.kernel.numpy() - logits
    # Σ_t ∇log π R(τ) = Σ_t γ^t ∇log π R_t in the mean: what came before the action has mean zero.
    exact = exact_gradient(logits, gamma, discounted or isinstance(estimator, pg.estimators.WholeReturn))
    np.testing.assert_allclose(estimate, exact, atol=0.06)
    assert np.abs(exact_gradient(logits, gamma, True) - exact_gradient(logits, gamma, False)).max() > 0.15


def test_baselines_lower_the_variance_and_not_the_mean():
    """Notes 3.3: Var[∇log π (R - b)] <= Var[∇log π R], over one-episode gradients."""
    rng = np.random.default_rng(0)
    probabilities, returns = np.array([0.6, 0.4]), np.array([10.0, 11.0])
    actions = rng.choice(2, p=probabilities, size=4000)
    scores = np.eye(2)[actions] - probabilities
    plain = scores * returns[actions][:, None]
    rollout = tf.constant(returns[actions][None], tf.float32)
    valid, ends = tf.ones_like(rollout, tf.bool), tf.ones_like(rollout, tf.bool)
    baseline = pg.baselines.AverageReturn()(rollout, ends, valid).numpy()[0]
    centred = scores * (returns[actions] - baseline)[:, None]
    np.testing.assert_allclose(plain.mean(0), centred.mean(0), atol=0.25)
    assert centred.var(0).max() < 0.01 * plain.var(0).max()


def test_rollouts_are_whole_episodes_and_padding_does_not_count(walk):
    seen = []

    class Watching(pg.REINFORCE):
        def train_step(self, rollout):
            seen.append(tf.nest.map_structure(lambda x: x.numpy(), rollout))
            return super().train_step(rollout)

    agent = Watching(episodes=3, networks=pg.Networks((8,)), seed=0)
    agent.compile(run_eagerly=True)
    history = agent.fit(walk, epochs=1, steps_per_epoch=2, num_envs=2, verbose=0).history
    assert history["episodes"] == [6.0]
    for rollout in seen:
        ends = (rollout.terminated | rollout.truncated) & rollout.valid
        np.testing.assert_array_equal(ends.sum(0), [3, 3])
        for n in range(2):
            last = np.flatnonzero(rollout.valid[:, n])[-1]
            assert ends[last, n] and rollout.valid[: last + 1, n].all()
    # Steps of the environment that waited for the other one are counted, because they were taken.
    assert history["env_steps"][0] >= sum(r.valid.sum() for r in seen)


def test_value_baseline_learns_the_returns(walk):
    agent = pg.REINFORCE(
        baseline=pg.baselines.ValueFunction(20), networks=pg.Networks((16,)), episodes=16, gamma=1.0, seed=0
    )
    # A falling rate averages over the rollouts, whose own means scatter by 0.05.
    rate = keras.optimizers.schedules.PolynomialDecay(0.03, 600, 1e-4)
    agent.compile(keras.optimizers.SGD(0.0), critic_optimizer=keras.optimizers.Adam(rate), jit_compile=False)
    agent.fit(walk, epochs=1, steps_per_epoch=30, num_envs=8, verbose=0)
    # A random walk with even odds from 1, 2, 3 reaches 4 before 0 with probability 1/4, 1/2, 3/4.
    np.testing.assert_allclose(agent.critic(np.arange(5)).mean()[1:4], [0.25, 0.5, 0.75], atol=0.1)


def test_no_time_limit_and_no_horizon_is_refused():
    agent = pg.REINFORCE()
    agent.compile()
    with pytest.raises(ValueError, match="`horizon` must be given for an environment without a time limit"):
        agent.fit(TwoSteps, epochs=1, steps_per_epoch=1, verbose=0)


def test_without_critic_there_is_none(walk):
    agent = pg.REINFORCE(networks=pg.Networks((8,)), seed=0)
    with pytest.raises(ValueError, match="`critic_optimizer` must be left out"):
        agent.compile(critic_optimizer="adam")
    agent.compile(jit_compile=False)
    agent.fit(walk, epochs=1, steps_per_epoch=1, verbose=0)
    assert agent.critic is None and agent.critic_head is None
