"""`MDP`: against hand, enumeration of all that can happen, and play."""

import itertools

import gymnasium as gym
import numpy as np
import pytest
import tensorflow as tf

import kerasrl_pg as pg
from kerasrl_pg.lab import MDP

RNG = np.random.default_rng(0)


def random_mdp(states=3, actions=2, gamma=0.7, horizon=None, seed=0, terminal=True):
    rng = np.random.default_rng(seed)
    transitions = rng.dirichlet(np.ones(states), (states, actions))
    rewards, initial = rng.normal(size=(states, actions, states)), rng.dirichlet(np.ones(states))
    ends = rng.random((states, actions, states)) < 0.2 if terminal else None
    return MDP(transitions, rewards, initial, gamma, ends, horizon)


def random_policy(shape, seed=0):
    return np.random.default_rng(seed + 100).dirichlet(np.ones(shape[-1]), shape[:-1])


def trajectories(env, policy, rewards, steps):
    """All of at most so many steps: `(probability, states, actions, rewards)`."""
    places = [(p, (s,), (), ()) for s, p in enumerate(env.initial)]
    for _ in range(steps):
        following = []
        for p, states, actions, earned in places:
            if len(actions) < len(states):
                for a, s in itertools.product(range(env.shape[1]), range(env.shape[0])):
                    q = p * policy[states[-1], a] * env.transitions[states[-1], a, s]
                    ended = env.terminal[states[-1], a, s]
                    new = states if ended else (*states, s)
                    following.append((q, new, (*actions, a), (*earned, rewards[states[-1], a, s])))
            else:
                following.append((p, states, actions, earned))
        places = following
    return places


def test_every_trajectory():
    steps, gamma = 3, 0.7
    rng = np.random.default_rng(0)
    rewards = rng.normal(size=(3, 2, 3))
    mdp = random_mdp(horizon=steps).replace(rewards=rewards)
    policy = random_policy(mdp.shape)
    found, objective, visits, credit = mdp.evaluate(policy), 0.0, np.zeros((steps, 3)), np.zeros((2, *mdp.shape))
    total = 0.0
    for p, states, actions, earned in trajectories(mdp, policy, rewards, steps):
        total += p
        objective += p * sum(gamma**t * r for t, r in enumerate(earned))
        for t, (s, a) in enumerate(zip(states, actions, strict=False)):
            visits[t, s] += p
            to_go = sum(gamma ** (k - t) * earned[k] for k in range(t, len(earned)))
            for row, weight in enumerate((gamma**t, 1.0)):
                credit[row, s, a] += p * weight * to_go / policy[s, a]
    assert total == pytest.approx(1.0, abs=1e-12)
    assert found.objective == pytest.approx(objective, abs=1e-12)
    np.testing.assert_allclose(found.visits, visits, atol=1e-12)
    np.testing.assert_allclose(mdp.credit(policy), credit[0], atol=1e-12)
    np.testing.assert_allclose(mdp.credit(policy, discounted=False), credit[1], atol=1e-12)
    np.testing.assert_allclose(mdp.visits(policy), gamma ** np.arange(steps) @ visits, atol=1e-12)


def test_a_long_time_limit_is_none():
    mdp = random_mdp()
    policy = random_policy(mdp.shape)
    limited, endless = mdp.replace(horizon=200).evaluate(policy), mdp.evaluate(policy)
    assert limited.objective == pytest.approx(endless.objective, abs=1e-12)
    np.testing.assert_allclose(limited.action_values[0], endless.action_values, atol=1e-12)
    np.testing.assert_allclose(mdp.replace(horizon=200).credit(policy), mdp.credit(policy), atol=1e-12)
    np.testing.assert_allclose(
        mdp.replace(horizon=200).credit(policy, discounted=False), mdp.credit(policy, discounted=False), atol=1e-9
    )
    np.testing.assert_allclose(np.sum(policy * endless.advantages, -1), 0.0, atol=1e-12)


@pytest.mark.parametrize("horizon", [None, 4])
def test_the_credit_is_the_slope_of_the_objective(horizon):
    mdp, size = random_mdp(horizon=horizon), 1e-6
    theta = np.random.default_rng(3).normal(size=mdp.shape)

    def policy(theta):
        return np.exp(theta) / np.exp(theta).sum(-1, keepdims=True)

    credit = mdp.credit(policy(theta))
    exact = policy(theta) * (credit - np.sum(policy(theta) * credit, -1, keepdims=True))
    for place in np.ndindex(*mdp.shape):
        nudge = np.zeros(mdp.shape)
        nudge[place] = size
        rise = mdp.evaluate(policy(theta + nudge)).objective - mdp.evaluate(policy(theta - nudge)).objective
        assert rise / (2 * size) == pytest.approx(exact[place], abs=1e-8)


def test_corridor_by_hand():
    corridor, n, gamma = pg.envs.Corridor(length=5), 4, 0.9
    mdp = MDP.of(corridor, gamma, horizon=None)
    assert mdp.optimal_values()[0] == pytest.approx(-(1 - gamma**n) / (1 - gamma), abs=1e-12)
    assert (mdp.optimal_policy()[:n] == 1).all()
    assert MDP.of(corridor, 1.0, None).evaluate(np.full((5, 2), 0.5)).objective == pytest.approx(-n * (n + 1))
    assert MDP.of(corridor, 1.0).horizon == 200
    assert MDP.of(corridor, 1.0).evaluate(np.full((5, 2), 0.5)).objective == pytest.approx(-n * (n + 1), abs=1e-2)


def test_played():
    env = pg.envs.TabularMDP(num_envs=4000, max_episode_steps=6, num_states=4, num_actions=2)
    agent = pg.REINFORCE(networks=pg.Networks(()), seed=0)
    agent.bind(env.observation_space, env.action_space)
    agent.compile(jit_compile=False)
    found = agent.evaluate(env, episodes=4000, deterministic=False)
    exact = pg.lab.objective(MDP.of(env, 1.0), agent)
    assert abs(found["return"] - exact) < 3.5 * found["return_std"] / 4000**0.5


@pytest.mark.parametrize(("name", "optimum"), [("CliffWalking-v1", -13.0), ("FrozenLake-v1", 14 / 17)])
def test_toy_text(name, optimum):
    # Without discount and time limit FrozenLake is won with chance 14/17 = 0.8235.
    mdp = MDP.of(name, 1.0, horizon=None)
    assert mdp.optimal_values()[0] == pytest.approx(optimum, abs=1e-6)


def test_toy_text_is_the_environment_itself():
    env = gym.make("FrozenLake-v1")
    mdp, rng = MDP.of(env, 1.0, horizon=20), np.random.default_rng(0)
    returns = []
    for episode in range(4000):
        env.reset(seed=episode)
        total = 0.0
        for _ in range(20):
            _, reward, terminated, _, _ = env.step(int(rng.integers(4)))
            total += reward
            if terminated:
                break
        returns.append(total)
    exact = mdp.evaluate(np.full((16, 4), 0.25)).objective
    assert abs(np.mean(returns) - exact) < 3.5 * np.std(returns) / 4000**0.5
    assert mdp.replace(horizon=None).evaluate(np.full((16, 4), 0.25)).objective > exact


def test_the_best_of_all_deterministic_policies():
    mdp = random_mdp(seed=1)
    every = [np.eye(2)[list(actions)] for actions in itertools.product(range(2), repeat=3)]
    best = max(every, key=lambda policy: mdp.evaluate(policy).objective)
    np.testing.assert_array_equal(np.eye(2)[mdp.optimal_policy()], best)
    assert mdp.optimal_values()[0] == pytest.approx(mdp.evaluate(best).objective, abs=1e-10)


def test_the_best_with_a_time_limit():
    mdp = random_mdp(horizon=2, seed=2)
    every = [np.eye(2)[np.reshape(a, (2, 3))] for a in itertools.product(range(2), repeat=6)]
    objective, action_values = mdp.optimal_values()
    assert objective == pytest.approx(max(mdp.evaluate(p).objective for p in every), abs=1e-12)
    assert mdp.evaluate(np.eye(2)[mdp.optimal_policy()]).objective == pytest.approx(objective, abs=1e-12)
    assert action_values.shape == (2, 3, 2)


def test_memoryless():
    # Two cells that look alike on either side of the goal: p in one and 1 - p in the other.
    left, goal, right = np.eye(3)
    transitions, ends = [[left, goal], [goal, goal], [goal, right]], [False, True, False]
    mdp = MDP(transitions, [[0, 1], [0, 0], [1, 0]], [0.4, 0, 0.6], 0.9, ends, observations=[0, 1, 0])
    objective, policy = mdp.memoryless_policy()
    grid = np.linspace(0, 1, 100_001)
    values = 0.4 * grid / (1 - 0.9 * (1 - grid)) + 0.6 * (1 - grid) / (1 - 0.9 * grid)
    assert objective == pytest.approx(values.max(), abs=1e-8)
    np.testing.assert_allclose(policy[0], policy[2])
    assert policy[0, 1] == pytest.approx(grid[values.argmax()], abs=1e-4)
    assert objective > max(mdp.evaluate(np.eye(2)[[a, 0, a]]).objective for a in (0, 1)) + 0.1
    assert mdp.optimal_values()[0] == pytest.approx(1.0)


def test_memoryless_and_deterministic():
    # The same with unequal sides: from the likelier one it arrives, from the other never.
    left, goal, right = np.eye(3)
    transitions, ends = [[left, goal], [goal, goal], [goal, right]], [False, True, False]
    mdp = MDP(transitions, [[0, 1], [5, 0], [1, 0]], [0.4, 0, 0.6], 0.9, ends, observations=[0, 1, 0])
    objective, actions = mdp.memoryless_actions()
    assert objective == pytest.approx(0.6) and actions.tolist() == [0, 0, 0]
    # Where all states look different, it is the best of all.
    mdp = random_mdp()
    objective, actions = mdp.memoryless_actions()
    assert objective == pytest.approx(mdp.optimal_values()[0])
    assert actions.tolist() == mdp.optimal_policy().tolist()
    with pytest.raises(ValueError, match="`most` must be at least 8, the number of these policies. Received: most=7"):
        mdp.memoryless_actions(most=7)
    # What cannot be reached is not asked.
    assert MDP(np.eye(2)[:, None].repeat(3, 1), np.zeros((2, 3)), [1, 0], 0.9).memoryless_actions(most=3)[0] == 0.0


@pytest.mark.parametrize("gae_lambda", [0.0, 0.6, 1.0])
def test_expected_advantages(gae_lambda):
    mdp = random_mdp()
    policy = random_policy(mdp.shape)
    exact = mdp.evaluate(policy)
    found = mdp.expected_advantages(policy, exact.values, gae_lambda, steps=4)
    np.testing.assert_allclose(found, np.broadcast_to(exact.advantages, found.shape), atol=1e-12)
    # With any critic, λ-returns by their definition: Σ (1 - λ) λ^(n-1) A^(n), the rest at the end.
    values, steps = np.array([1.0, -2.0, 0.5]), 4
    n_step = mdp.expected_advantages(policy, values, 1.0, steps)
    weights = (1 - gae_lambda) * gae_lambda ** np.arange(steps)
    weights[-1] = gae_lambda ** (steps - 1)
    mixed = np.einsum("n,nsa->sa", weights, n_step)
    np.testing.assert_allclose(mdp.expected_advantages(policy, values, gae_lambda, steps)[-1], mixed, atol=1e-12)
    if gae_lambda == 1.0:  # The reward-to-go of so many rewards, then the critic.
        limited = mdp.replace(horizon=steps).evaluate(policy).action_values[0]
        chain = mdp.chain(policy)
        end = mdp.gamma**steps * mdp.continuing @ np.linalg.matrix_power(chain, steps - 1) @ values
        np.testing.assert_allclose(n_step[-1], limited + end - values[:, None], atol=1e-12)


def test_refusals():
    good = {"transitions": np.full((2, 1, 2), 0.5), "rewards": np.zeros((2, 1)), "initial": [0.5, 0.5], "gamma": 0.9}
    for name, value, sentence in (
        ("transitions", np.full((2, 1, 2), 0.4), "must be probabilities that sum to 1"),
        ("transitions", np.full((2, 2), 0.5), "`transitions` must be an array of shape"),
        ("transitions", np.full((2, 1, 2), np.nan), "`transitions` must be probabilities"),
        ("initial", [np.nan, 1.0], "`initial` must be probabilities"),
        ("rewards", np.zeros(3), "`rewards` must be"),
        ("rewards", [[0.0], [np.nan]], "`rewards` must hold finite numbers"),
        ("observations", [0.0, np.inf], "`observations` must hold finite numbers"),
        ("observations", ["a", "b"], "`observations` must hold finite numbers"),
        ("initial", [0.5, 0.6], "`initial` must be probabilities"),
        ("terminal", [True], "`terminal` must be"),
        ("observations", [1], "`observations` must be an array with one row"),
        ("gamma", 1.1, "`gamma` must be a number"),
        ("horizon", 0, "`horizon` must be"),
    ):
        with pytest.raises(ValueError, match=sentence):
            MDP(**{**good, name: value})
    mdp = MDP(**good)
    with pytest.raises(ValueError, match="`policy` must be an array of shape"):
        mdp.evaluate(np.ones((2, 2)))
    with pytest.raises(ValueError, match="`horizon` must be given where without discount"):
        mdp.replace(gamma=1.0).evaluate(np.ones((2, 1)))
    with pytest.raises(ValueError, match="no chance in its steps"):
        MDP.of(pg.envs.CartPole(), 0.9)
    with pytest.raises(ValueError, match="`env` must say its transitions"):
        MDP.of("CartPole-v1", 0.9)
    with pytest.raises(ValueError, match="`env` must allow every action in every state"):
        MDP.of(Masked(), 0.9)


class Masked(pg.envs.TabularMDP):
    def action_masks(self, state):
        return tf.stack([tf.fill(tf.shape(state), True), state > 0, state < 2], -1)
