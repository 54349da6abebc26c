"""The landscape, the paths on it, and processes of one's own as environments."""

import keras
import numpy as np
import pytest
from small_policies import tabular

import kerasrl_pg as pg
from kerasrl_pg import lab
from kerasrl_pg.lab.pictures import worlds


def test_a_process_is_played_as_it_is():
    rng = np.random.default_rng(0)
    transitions, rewards = rng.dirichlet(np.ones(3), (3, 2)), rng.normal(size=(3, 2, 3))
    mdp = lab.MDP(transitions, rewards, [0.2, 0.0, 0.8], 0.9, [False, False, True], 5, observations=[1, 0, 1])
    env = lab.MDPEnv(num_envs=3000, mdp=mdp)
    assert env.max_episode_steps == 5 and env.observation_space.n == 2
    pg.envs.compiled.check_contract(env)
    agent = pg.REINFORCE(tabular(2, 2), gamma=0.9, seed=0)
    agent.compile(jit_compile=False)
    agent.bind(env.observation_space, env.action_space)
    found = agent.evaluate(env, episodes=3000, deterministic=False)
    exact = lab.objective(mdp.replace(gamma=1.0), agent)
    assert abs(found["return"] - exact) < 3.5 * found["return_std"] / 3000**0.5
    assert lab.MDP.of(env, 0.5).gamma == 0.5 and lab.MDP.of(env, 0.5).horizon == 5
    with pytest.raises(ValueError, match="`mdp` must be an MDP"):
        lab.MDPEnv()


def test_impossible_choices_are_never_drawn():
    from kerasrl_pg.lab.env import _drawn

    probabilities = np.array([[0.0, 1 / 3, 1 / 3, 1 / 3, 0.0]])
    noise = np.float32([1e-8, 0.3, 0.5, 0.9, 1.0 - 2**-24])
    assert _drawn(probabilities, np.zeros(5, np.int32), noise).numpy().tolist() == [1, 1, 2, 3, 3]


def test_landscape():
    mdp, table = worlds.two_states(), lab.PolicyTable(worlds.two_parameters(), np.arange(2))
    plane = lab.landscape(mdp, table, (-2, 2), (-1, 3), points=5)
    stay = 1 / (1 + np.exp(-np.array([2.0, -1.0])))  # x = 2, y = -1.
    policy = np.stack([stay, 1 - stay], -1)
    assert plane.objective[0, 4] == pytest.approx(mdp.evaluate(policy).objective, abs=1e-12)
    np.testing.assert_allclose(plane.project([[0.5, 1.5]]), [[0.5, 1.5]])
    other = lab.landscape(mdp, table, points=3, directions=[[1, 1], [1, -1]], centre=[1.0, 0.0])
    np.testing.assert_allclose(other.project([2.0, 1.0]), [1.0, 0.0], atol=1e-12)
    with pytest.raises(ValueError, match="`directions` must be two vectors"):
        lab.landscape(worlds.garnet(), tabular(5, 3))


def test_paths():
    mdp = worlds.two_states(horizon=8)
    agent = pg.REINFORCE(worlds.two_parameters(), gamma=mdp.gamma, discounted_gradient=True, seed=0)
    agent.compile(keras.optimizers.SGD(0.1), jit_compile=False)
    (found,) = lab.paths({"gradient": agent}, worlds.env(mdp, 512), 3, start=[0.5, -0.5]).values()
    np.testing.assert_allclose(found[0], [0.5, -0.5])
    table = lab.PolicyTable(worlds.two_parameters(), np.arange(2))
    exact = np.array([lab.policy_gradient(mdp, table, theta=theta) for theta in found[:-1]])
    np.testing.assert_allclose(np.diff(found, axis=0), 0.1 * exact, atol=0.1)
    assert np.sum(np.diff(found, axis=0) * exact) > 0.0
