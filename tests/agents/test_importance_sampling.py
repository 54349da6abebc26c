"""What is learned from stored trajectories: the gradient against the exact one, and fits that go on where they were."""

import itertools

import gymnasium as gym
import keras
import numpy as np
import pytest
import tensorflow as tf
from small_policies import critic, tabular

import kerasrl_pg as pg
from kerasrl_pg import lab

pytest.importorskip("minari", reason="stored trajectories need Minari")

GAMMA = 0.7
BASELINES = {
    "none": None,
    "average": pg.baselines.AverageReturn(),
    "time": pg.baselines.TimeDependent(),
    "weighted": pg.baselines.WeightedAverage(),
    "value": pg.baselines.ValueFunction(1),
}
UNBIASED = [
    (per_decision, name, gradient)
    for per_decision, name, gradient in itertools.product([True, False], BASELINES, [False, True])
    if gradient or name in ("none", "value")
]


def world():
    return pg.envs.TabularMDP(num_envs=8, max_episode_steps=4, num_states=4, num_actions=3, branching=3)


def built(method, seed, values=None, **settings):
    model = None if values is None else critic(values)
    agent = method(tabular(4, 3, seed), model, gamma=GAMMA, seed=0, **settings)
    agent.compile(keras.optimizers.SGD(1.0), jit_compile=False)
    env = world()
    agent.bind(env.observation_space, env.action_space)
    return agent


def measured(samples=600, seed=0, **settings):
    plain = {"self_normalized": False, **settings}
    values = [1.0, 0.5, -1.0, 0.0] if isinstance(plain.get("baseline"), pg.baselines.ValueFunction) else None
    agent = built(pg.ImportanceSampling, 0, values, **plain)
    return agent, lab.measure(agent, world(), samples, behavior=built(pg.A2C, 5, [0.0] * 4), seed=seed)


@pytest.mark.parametrize(("per_decision", "baseline", "discounted"), UNBIASED)
@pytest.mark.quick("True-weighted-True", "False-none-False")
def test_unbiased_whoever_acted(per_decision, baseline, discounted):
    """A wrong critic, too, is a baseline; but where it stands for what follows truncation, its values are what is
    claimed."""
    settings = {"per_decision": per_decision, "discounted_gradient": discounted, "baseline": BASELINES[baseline]}
    agent, found = measured(**settings)
    exact = lab.Expectation(agent, lab.MDP.of(world(), GAMMA), 4).predicted()
    assert found.agrees_with(exact), ((found.mean - exact) / found.interval).round(2)
    assert np.linalg.norm(found.interval) < 1.5 * np.linalg.norm(exact)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("per_decision", [True, False])
def test_unbiased_in_100_000_episodes(per_decision, seed):
    agent, found = measured(12_500, seed, per_decision=per_decision, discounted_gradient=True)
    assert found.unbiased, (found.bias / found.interval).round(2)


class Unweighted(pg.ImportanceSampling):
    """Takes what another did for its own."""

    def told(self, rollout):
        log_probs, _, valid = super().told(rollout)
        return log_probs, log_probs, valid


def test_what_is_left_out_is_seen(monkeypatch):
    _, clipped = measured(2000, discounted_gradient=True, weight_clip=1.0)
    monkeypatch.setattr(pg, "ImportanceSampling", Unweighted)
    _, unweighted = measured(2000, discounted_gradient=True)
    assert not clipped.unbiased and not unweighted.unbiased


@pytest.mark.slow
def test_per_decision_weights_scatter_less():
    _, whole = measured(per_decision=False)
    _, each = measured(per_decision=True)
    assert each.variance < 0.8 * whole.variance


def test_on_its_own_trajectories_it_is_reinforce():
    env = world()
    own, other = built(pg.REINFORCE, 0), built(pg.ImportanceSampling, 0)
    one, two = (lab.measure_gradients(agent, env, samples=20) for agent in (own, other))
    np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)


def test_excursions_with_a_critic_are_reinforces_on_its_own_trajectories():
    """V-trace targets are then returns, and their advantages those of REINFORCE's baseline."""
    env, values, baseline = world(), [1.0, 0.5, -1.0, 0.0], BASELINES["value"]
    own = built(pg.REINFORCE, 0, values, baseline=baseline)
    other = built(pg.ImportanceSampling, 0, values, baseline=baseline, state_weights=False)
    one, two = (lab.measure_gradients(agent, env, samples=20) for agent in (own, other))
    np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)


def test_excursions_are_those_of_the_states_as_they_were_visited():
    """∇J weighed by β's visits: exact from the process, with the action values of π."""
    agent, found = measured(2000, state_weights=False)
    table = lab.PolicyTable(agent, np.arange(4))
    mdp = lab.MDP.of(world(), GAMMA)
    other = lab.PolicyTable(built(pg.A2C, 5, [0.0] * 4), np.arange(4)).probabilities()
    visits, now = [], mdp.initial
    for _ in range(4):
        visits.append(now)
        now = now @ mdp.chain(other)
    values = mdp.evaluate(table.probabilities()).action_values  # [steps, S, A] with a time limit
    exact = table.slope(sum(v[:, None] * q for v, q in zip(visits, values, strict=True)))
    assert found.agrees_with(exact), ((found.mean - exact) / found.interval).round(2)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, walk):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(tmp_path_factory.mktemp("datasets")))
        agent = pg.A2C(networks=pg.Networks((8,)), seed=0)
        yield pg.data.record(agent, walk, "walk/random-v0", episodes=40, num_envs=4)


AGENTS = {
    "importance": lambda **kw: pg.ImportanceSampling(
        **{"episodes": 16, "networks": pg.Networks((8,)), "seed": 1, "baseline": BASELINES["average"], **kw}
    ),
    "value": lambda **kw: pg.ImportanceSampling(
        **{"episodes": 16, "networks": pg.Networks((8,)), "seed": 1, "baseline": BASELINES["value"], **kw}
    ),
    "cloning": lambda **kw: pg.BehaviorCloning(**{"episodes": 16, "networks": pg.Networks((8,)), "seed": 1, **kw}),
}
every_agent = pytest.mark.parametrize("name", AGENTS)


def fitted(name, dataset, epochs=2, how=None, **settings):
    agent = AGENTS[name](**settings)
    agent.compile(keras.optimizers.Adam(1e-2), **(how or {"jit_compile": False}))
    agent.history_ = agent.fit(dataset, epochs=epochs, verbose=0).history
    return agent


def same(left, right):
    return all(np.array_equal(a, b) for a, b in zip(left.get_weights(), right.get_weights(), strict=True))


@every_agent
@pytest.mark.quick("importance")
def test_a_fit_goes_on_bit_for_bit(name, dataset, tmp_path):
    straight, first = fitted(name, dataset, 4), fitted(name, dataset, 2)
    first.save(tmp_path / "agent.keras")
    loaded = keras.models.load_model(tmp_path / "agent.keras")
    assert loaded.get_config()["episodes"] == 16
    loaded.fit(pg.data.Trajectories(dataset), epochs=2, verbose=0)
    progress = [i for i, w in enumerate(straight.weights) if w.path.endswith("progress")]
    for i, (a, b) in enumerate(zip(straight.get_weights(), loaded.get_weights(), strict=True)):
        assert i in progress or np.array_equal(a, b)
    # A pass over 40 episodes is three batches of 16, the last of which begins the next pass.
    assert int(straight.iterations) == 12 and straight.programs.latest.experimental_get_tracing_count() == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["importance"])
def test_eager_graph_and_xla_agree(name, dataset):
    agents = [
        fitted(name, dataset, 1, how).get_weights()
        for how in ({"jit_compile": False}, {"run_eagerly": True}, {"jit_compile": True})
    ]
    for other in agents[1:]:
        for a, b in zip(agents[0], other, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_a_clone_does_what_it_saw(dataset):
    agent = fitted("cloning", dataset, 20)
    rollout = pg.data.Trajectories(dataset).rollout(range(40), agent.actor_critic)
    taken = np.array([[(rollout.actions[rollout.valid] == a)[rollout.inputs.observations[rollout.valid] == s].mean()
                       for a in range(2)] for s in range(1, 4)])  # fmt: skip
    np.testing.assert_allclose(agent(np.arange(1, 4)).probs_parameter(), taken, atol=0.1)
    assert agent.history_["log_likelihood"][-1] > agent.history_["log_likelihood"][0]


def test_estimated_log_probs_serve_as_stored_ones(dataset):
    clone = fitted("cloning", dataset, 20)
    agent = fitted("importance", pg.data.Trajectories(dataset, behavior=clone), 10)
    rates = agent(np.arange(1, 4)).probs_parameter().numpy()[:, 1]
    assert (rates > clone(np.arange(1, 4)).probs_parameter().numpy()[:, 1]).all()  # Right is where it pays.


@pytest.mark.slow
def test_memory_and_masks(tmp_path, monkeypatch):
    class Masked(pg.envs.TabularMDP):
        def action_masks(self, state):
            return tf.stack([state >= 0, state > 0, state >= 0], -1)

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    env = Masked(num_envs=4, max_episode_steps=5)
    networks = pg.Networks((6,), memory=pg.models.GRU(4))
    acted = pg.A2C(networks=networks, seed=0)
    dataset = pg.data.record(acted, env, "masked/random-v0", episodes=20, num_envs=4)
    agent = fitted("importance", dataset, 1, networks=networks, episodes=10)
    assert agent.action_masks == "info" and 1.0 < agent.history_["effective_sample_size"][0] < 10.0
    # Of itself every weight is 1, and the estimate the mean.
    found = pg.data.estimate_return(acted, dataset)
    assert found.effective_sample_size == pytest.approx(20.0, rel=1e-4)
    assert found.value == pytest.approx(np.mean([e.rewards.sum() for e in dataset]), abs=1e-4)


def test_a_collapse_ends_the_fit_or_warns(dataset):
    for action in ("stop", "warn"):
        agent = AGENTS["importance"]()
        agent.compile(keras.optimizers.Adam(0.3), jit_compile=False)
        callback = pg.callbacks.Collapse(least=15.9, action=action)
        if action == "warn":
            with pytest.warns(UserWarning, match="should be at least 15.9. Received: .* of 16 trajectories"):
                agent.fit(dataset, epochs=2, callbacks=callback, verbose=0)
            assert int(agent.iterations) == 6
        else:
            agent.fit(dataset, epochs=2, callbacks=callback, verbose=0)
            assert int(agent.iterations) < 6
    with pytest.raises(ValueError, match="`Collapse` must be given to a method that weighs stored"):
        fit = {"epochs": 1, "verbose": 0, "callbacks": pg.callbacks.Collapse(2.0)}
        agent = AGENTS["cloning"]()
        agent.compile()
        agent.fit(dataset, **fit)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"horizon": 8}, "`horizon` must be left out, since an iteration learns from whole stored"),
        ({"estimator": pg.estimators.WholeReturn()}, "`per_decision` must be False with WholeReturn"),
        ({"estimator": pg.estimators.GAE(), "baseline": BASELINES["value"]}, "`estimator` must be RewardToGo"),
        ({"state_weights": False, "self_normalized": True}, "`self_normalized` must be False"),
        ({"state_weights": False, "per_decision": False}, "`state_weights` must be True"),
        ({"weight_clip": 0.0}, "`weight_clip` must be"),
        ({"episodes": 0}, "`episodes` must be"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        pg.ImportanceSampling(**settings)


def test_what_is_no_dataset_is_refused(dataset, walk):
    agent = AGENTS["importance"]()
    agent.compile()
    with pytest.raises(TypeError, match="`dataset` must be the id of a Minari dataset"):
        agent.fit(walk, epochs=1, verbose=0)
    with pytest.raises(ValueError, match="`num_envs` must be left out"):
        agent.fit(dataset, epochs=1, num_envs=2, verbose=0)
    other = pg.A2C()
    other.compile()
    for each in (dataset, pg.data.Trajectories(dataset)):
        with pytest.raises(TypeError, match="A2C learns from what it does itself.*ImportanceSampling"):
            other.fit(each, epochs=1, verbose=0)
    agent = AGENTS["importance"](episodes=1, baseline=None)
    agent.compile()
    with pytest.raises(ValueError, match="`self_normalized` must be False with one trajectory"):
        agent.fit(dataset, epochs=1, verbose=0)
    agent = AGENTS["cloning"]()
    agent.compile()
    agent.bind(gym.spaces.Discrete(7), gym.spaces.Discrete(2))
    with pytest.raises(ValueError, match="`env`"):
        agent.fit(dataset, epochs=1, verbose=0)
