"""Exact gradients of the library's own policies: against differences, the KL divergence, and hand."""

import numpy as np
import pytest
from small_policies import POLICIES, critic

import kerasrl_pg as pg
from kerasrl_pg import lab

ENV = pg.envs.TabularMDP(max_episode_steps=5, num_states=4, num_actions=3, seed=1)
MDPS = {"limit": lab.MDP.of(ENV, 0.8), "endless": lab.MDP.of(ENV, 0.8, None)}


@pytest.mark.parametrize("mdp", MDPS)
@pytest.mark.parametrize("kind", POLICIES)
def test_against_differences(kind, mdp):
    mdp, policy = MDPS[mdp], POLICIES[kind](4, 3)
    table = lab.PolicyTable(policy, mdp.observations)
    gradient, theta, size = lab.policy_gradient(mdp, table), table.theta, 1e-5
    nudges = size * np.eye(len(theta))
    rises = [lab.objective(mdp, table, theta + n) - lab.objective(mdp, table, theta - n) for n in nudges]
    np.testing.assert_allclose(gradient, np.array(rises) / (2 * size), atol=1e-9)
    moved = theta + 0.3
    credit = mdp.credit(table.probabilities(moved)) * table.probabilities(moved)
    exact = np.einsum("sa,sap->p", credit, table.scores(moved))
    np.testing.assert_allclose(lab.policy_gradient(mdp, table, theta=moved), exact, atol=1e-13)


def test_in_float64_and_nothing_is_left_behind():
    policy = POLICIES["neural"](4, 3)
    before = np.array(policy(np.arange(4)).logits)
    table = lab.PolicyTable(policy, np.arange(4))
    kernels = [np.asarray(v, np.float64) for v in policy.variables]
    described = np.random.default_rng(0).normal(size=(3, 2)).astype("float32")
    hidden = np.tanh(kernels[0][:4, None] + described @ kernels[0][4:] + kernels[1])
    logits = (hidden @ kernels[2])[..., 0]
    exact = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(table.probabilities(), exact, atol=1e-15)
    np.testing.assert_array_equal(policy(np.arange(4)).logits, before)
    assert {layer.compute_dtype for layer in policy._flatten_layers()} == {"float32"}
    # A step that float32 does not see.
    assert np.abs(table.probabilities(table.theta + 1e-12 * np.arange(len(table.theta))) - exact).max() > 0.0
    table.assign(table.theta + 1.0)
    np.testing.assert_allclose(np.asarray(policy.variables[0]), kernels[0] + 1.0, rtol=1e-6)


@pytest.mark.parametrize("kind", POLICIES)
def test_fisher_is_the_curvature_of_the_divergence(kind):
    mdp, policy = MDPS["endless"], POLICIES[kind](4, 3)
    table = lab.PolicyTable(policy, mdp.observations)
    old = table.probabilities()
    visits = mdp.visits(old) * (1 - mdp.gamma)
    assert visits.sum() == pytest.approx(1.0)

    def kl(theta):
        return visits @ np.sum(old * np.log(old / table.probabilities(theta)), -1)

    matrix, rng = lab.fisher(mdp, table), np.random.default_rng(0)
    for _ in range(5):
        d = 1e-3 * rng.normal(size=len(matrix))
        second = kl(table.theta + d) + kl(table.theta - d)  # Odd powers cancel.
        assert second == pytest.approx(d @ matrix @ d, rel=1e-4)
    np.testing.assert_allclose(matrix, matrix.T)


def test_the_natural_gradient_of_logits_is_the_advantage():
    # Kakade 2001, theorem 1: compatible features of a tabular softmax; F d = ∇J has d = A up to a constant a state.
    mdp, policy = MDPS["endless"], POLICIES["tabular"](4, 3)
    table = lab.PolicyTable(policy, mdp.observations)
    direction = lab.natural_gradient(mdp, table)
    scores = np.einsum("sap,p->sa", table.scores(), direction)
    found = mdp.evaluate(table.probabilities())
    np.testing.assert_allclose(scores, found.advantages / (1 - mdp.gamma), atol=1e-9)
    np.testing.assert_allclose(direction.reshape(4, 3).sum(-1), 0.0, atol=1e-9)  # The shortest: A less its mean.
    damped = lab.natural_gradient(mdp, table, damping=0.1)
    matrix = lab.fisher(mdp, table)
    np.testing.assert_allclose((matrix + 0.1 * np.eye(12)) @ damped, lab.policy_gradient(mdp, table), atol=1e-12)


def expectation(method, kind="tabular", values=None, rows=5, env=ENV, **settings):
    model = POLICIES[kind](4, 3)
    agent = method(model, None if values is None else critic(values), gamma=0.8, **settings)
    agent.bind(env.observation_space, env.action_space)
    return lab.Expectation(agent, lab.MDP.of(env, 0.8), rows)


def test_what_reinforce_claims():
    mdp, model = MDPS["limit"], POLICIES["tabular"](4, 3)
    for settings, discounted in (
        ({"discounted_gradient": True}, True),
        ({"estimator": pg.estimators.WholeReturn()}, True),
        ({}, False),
    ):
        claimed = expectation(pg.REINFORCE, **settings).claimed()
        np.testing.assert_allclose(claimed, lab.policy_gradient(mdp, model, discounted), atol=1e-12)
    assert np.abs(lab.policy_gradient(mdp, model) - lab.policy_gradient(mdp, model, False)).max() > 0.01


def test_bias_is_that_of_the_critic():
    values = MDPS["endless"].evaluate(lab.PolicyTable(POLICIES["tabular"](4, 3), np.arange(4)).probabilities()).values
    wrong = np.array([2.0, -1.0, 0.0, 1.0])
    for estimator in (pg.estimators.TD0(), pg.estimators.GAE(0.5), pg.estimators.NStep(2), pg.estimators.GAE(1.0)):
        settings = {"estimator": estimator, "entropy_coef": 0.0, "horizon": 8}
        found = expectation(pg.A2C, values=values, rows=8, **settings)
        np.testing.assert_allclose(found.predicted(values), found.claimed(), atol=1e-12)
        # A constant too much shifts what is bootstrapped, but no action's advantage over another.
        np.testing.assert_allclose(found.predicted(values + 3.0), found.claimed(), atol=1e-12)
        assert np.abs(found.predicted(wrong) - found.claimed()).max() > 0.005
    assert found.critic_values() == pytest.approx(values, rel=1e-6)


def test_rows_of_a_rollout():
    # Five rows of an episode of at most three steps: the fourth is the first step of another.
    env = pg.envs.TabularMDP(max_episode_steps=3, num_states=4, num_actions=3, seed=1)
    found = expectation(pg.A2C, values=np.zeros(4), env=env, entropy_coef=0.0)
    np.testing.assert_allclose(found.weights.sum(-1), np.eye(3)[[0, 1, 2, 0, 1]] / 5)
    np.testing.assert_allclose(found.weights[3], found.weights[0])
    assert found.visits.sum() == pytest.approx(1.0)
    corridor = pg.envs.Corridor(length=3, max_episode_steps=None)
    agent = pg.A2C(networks=pg.Networks(()), gamma=0.8, entropy_coef=0.0, seed=0)
    agent.bind(corridor.observation_space, corridor.action_space)
    weights = lab.Expectation(agent, lab.MDP.of(corridor, 0.8), 4).weights
    np.testing.assert_allclose(weights.sum((1, 2)), 0.25)  # Every row is a step, whatever ended before.
    assert weights[2, 0, 0] == pytest.approx(0.25 * 0.25, rel=0.1)  # Right and right, then a new episode.


def test_refusals():
    agent = pg.A2C(networks=pg.Networks(()), seed=0)
    with pytest.raises(ValueError, match="`policy` must be a built agent without memory.*which is not built"):
        lab.PolicyTable(agent, np.arange(4))
    remembering = pg.A2C(networks=pg.Networks((), memory=pg.models.History(2)), seed=0)
    remembering.bind(ENV.observation_space, ENV.action_space)
    with pytest.raises(ValueError, match="which remembers"):
        lab.PolicyTable(remembering, np.arange(4))
    boxed = pg.REINFORCE(networks=pg.Networks(()), horizon=3, seed=0)
    boxed.bind(ENV.observation_space, pg.envs.Pendulum().action_space)
    with pytest.raises(ValueError, match="one head over `Discrete` actions"):
        lab.PolicyTable(boxed, np.arange(4))
    with pytest.raises(ValueError, match="`horizon` must hold 2 episodes"):
        expectation(pg.REINFORCE, episodes=2, rows=9)
