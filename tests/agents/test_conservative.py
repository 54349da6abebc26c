"""Conservative steps without a critic: whole episodes, judged by a baseline of their returns (Kakade 2001; the single
path of Schulman et al. 2015)."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_policies import tabular

import kerasrl_pg as pg
from kerasrl_pg import lab

METHODS = {
    "constrained": pg.ConstrainedGradient,
    "npg": pg.NPG,
    "trpo": pg.TRPO,
}
BASELINES = {
    "none": None,
    "average": pg.baselines.AverageReturn(),
    "time": pg.baselines.TimeDependent(),
    "weighted": pg.baselines.WeightedAverage(),
}
NETWORKS = pg.Networks((8,))
every_baseline = pytest.mark.parametrize("baseline", BASELINES.values(), ids=BASELINES)
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


def compiled(method, **settings):
    agent = method(**{"baseline": BASELINES["average"], "seed": 3, "networks": NETWORKS, "gamma": 0.9, **settings})
    agent.compile(jit_compile=False)
    return agent


def fitted(method, env, iterations=2, **settings):
    agent = compiled(method, **settings)
    history = agent.fit(env, epochs=1, steps_per_epoch=iterations, num_envs=4, verbose=0).history
    return agent, history


def same(left, right):
    return all(np.array_equal(a, b) for a, b in zip(left.get_weights(), right.get_weights(), strict=True))


@every_baseline
@pytest.mark.parametrize("natural", [False, True])
@pytest.mark.quick("True-weighted", "False-none")
def test_the_mean_step_goes_where_the_exact_one_does(baseline, natural):
    """∇J, and (F + cI)⁻¹ ∇J, in a process whose episodes are all as long. F is estimated from the same rollout as ∇J,
    whose product is off by chance of order 1 / N: eight environments, and an interval that this stays below."""
    env = pg.envs.TabularMDP(num_envs=8, max_episode_steps=4, num_states=4, num_actions=3, branching=3)
    agent = pg.NPG(tabular(4, 3), baseline=baseline, episodes=2, gamma=0.7, normalize_advantages=False, damping=1.0)
    agent.compile(jit_compile=False)
    found = lab.measure(agent, env, samples=500, natural=natural)
    assert found.unbiased, (found.bias / found.interval).round(2)
    assert np.linalg.norm(found.interval) < np.linalg.norm(found.exact)
    assert found.cosine > 0.5


@every_method
@pytest.mark.quick("constrained")
def test_a_run_is_saved_and_goes_on(method, walk, tmp_path):
    agent, history = fitted(method, walk)
    assert history["episodes"] == [4.0] and not {"critic_loss", "explained_variance"} & {*history}
    assert agent.critic is None
    agent.save(tmp_path / "agent.keras")
    loaded = keras.models.load_model(tmp_path / "agent.keras")
    assert same(agent, loaded) and isinstance(loaded.baseline, pg.baselines.AverageReturn)
    before = agent.get_weights()
    for each in (agent, loaded):
        each.fit(walk, epochs=1, steps_per_epoch=2, num_envs=4, verbose=0)
    assert same(agent, loaded) and not all(map(np.array_equal, before, agent.get_weights()))


@pytest.mark.slow
def test_eager_graph_and_xla_agree(walk):
    agents = []
    for how in ({"run_eagerly": True}, {"jit_compile": False}, {"jit_compile": True}):
        agent = pg.TRPO(baseline=BASELINES["weighted"], episodes=2, networks=NETWORKS, seed=3)
        agent.compile(**how)
        agent.fit(walk, epochs=1, steps_per_epoch=1, num_envs=2, verbose=0)
        agents.append(agent.get_weights())
    for other in agents[1:]:
        for a, b in zip(agents[0], other, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_rollouts_are_whole_episodes_on_compiled_environments_too():
    networks, env = pg.Networks((6,), memory=pg.models.GRU(4)), pg.envs.TabularMDP(num_envs=4, max_episode_steps=5)
    agent = compiled(pg.TRPO, episodes=2, baseline=BASELINES["time"], networks=networks)
    assert agent.fit(env, epochs=1, steps_per_epoch=1, verbose=0).history["episodes"] == [8.0]
    assert agent.rollout_horizon(env) == 10


def test_standardising_takes_off_the_mean_of_the_others():
    """An episode's own mean would take part of its gradient away: with two of them, half."""
    agent = compiled(pg.NPG, baseline=None, horizon=2, networks=pg.Networks(()))
    env = pg.envs.TabularMDP(num_envs=2, max_episode_steps=2)
    agent.bind(env.observation_space, env.action_space)
    no, ends = np.zeros((2, 2), bool), np.array([[False, False], [True, True]])
    states, rewards = np.zeros((2, 2), "int32"), np.array([[0.0, 0.0], [1.0, 3.0]], "float32")
    inputs = pg.rollouts.Inputs(states)
    rollout = pg.rollouts.Rollout(inputs, states, 0 * rewards, rewards, ends, no, inputs, ~no)
    advantages, returns, _ = agent.credit(tf.nest.map_structure(tf.constant, rollout))
    of_others = returns.numpy().mean(0)[::-1]
    np.testing.assert_allclose(advantages, (returns - of_others) / returns.numpy().std(), rtol=1e-5)


@every_method
@pytest.mark.parametrize(
    ("settings", "error", "sentence"),
    [
        ({"baseline": pg.baselines.ValueFunction()}, TypeError, "other than ValueFunction, which the critic is"),
        ({"baseline": "critics"}, TypeError, '`baseline` must be "critic"'),
        ({"baseline": "critic", "episodes": 2}, ValueError, "`episodes` must be None with a critic"),
        ({"minibatch_size": 8}, ValueError, "`minibatch_size` must be left out without a critic"),
        ({"update_epochs": 1}, ValueError, "`update_epochs` must be left out without a critic"),
        ({"anneal_learning_rate": True}, ValueError, "`anneal_learning_rate` must be left out without a critic"),
        ({"estimator": pg.estimators.GAE()}, ValueError, 'RewardToGo.. or WholeReturn.. .*baseline="critic"'),
    ],
)
def test_settings_that_mean_nothing_are_refused(method, settings, error, sentence):
    with pytest.raises(error, match=sentence):
        method(**{"baseline": None, **settings})


def test_an_optimizer_without_a_critic_is_refused():
    with pytest.raises(ValueError, match="`optimizer` must be left out"):
        pg.TRPO(baseline=None).compile("adam")


def test_an_agent_keeps_or_misses_its_critic(walk):
    agent, _ = fitted(pg.NPG, walk, 1)
    with pytest.raises(ValueError, match='`baseline` must not be "critic" of an agent that was built without'):
        agent.baseline, agent.estimator = "critic", pg.estimators.GAE()
    assert isinstance(agent.baseline, pg.baselines.AverageReturn)
    agent.baseline = None  # What has no critic, either.


def test_an_average_of_others_needs_others(walk):
    agent = compiled(pg.NPG)
    with pytest.raises(ValueError, match="`baseline` AverageReturn is the average of the other episodes"):
        agent.fit(walk, epochs=1, steps_per_epoch=1, num_envs=1, verbose=0)
    agent = compiled(pg.NPG, baseline=None)
    with pytest.raises(ValueError, match="`normalize_advantages` must be False with one episode"):
        agent.fit(walk, epochs=1, steps_per_epoch=1, num_envs=1, verbose=0)


def test_the_methods_that_have_no_whole_episodes_say_where_baselines_go():
    for method in (pg.A2C, pg.PPO, pg.PPOPenalty):
        with pytest.raises(TypeError, match="has no argument `baseline`. The critic is the baseline.* NPG and TRPO"):
            method(baseline=None)
