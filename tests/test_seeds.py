import keras
import numpy as np
import pytest

import kerasrl_pg as pg
from kerasrl_pg.seeds import SeedRuns, bootstrap_interval, interquartile_mean

CARTPOLE = pg.envs.CartPole(num_envs=4, max_episode_steps=30)
BUDGET = {"epochs": 2, "steps_per_epoch": 3, "verbose": 0}


def make_agent(seed, scaled=False, **kwargs):
    agent = pg.PPO(
        horizon=8,
        minibatch_size=16,
        update_epochs=2,
        networks=pg.Networks(hidden_units=(4,), normalize_observations=True),
        reward_scaling=True,
        anneal_learning_rate=True,
        seed=seed,
        **kwargs,
    )
    optimizer = keras.optimizers.Adam(1e-2)
    agent.compile(keras.optimizers.LossScaleOptimizer(optimizer) if scaled else optimizer, jit_compile=False)
    return agent


def make_small(seed, **kwargs):
    agent = pg.A2C(horizon=8, networks=pg.Networks(hidden_units=(4,)), seed=seed, **kwargs)
    agent.compile(jit_compile=False)
    return agent


@pytest.mark.parametrize("kind", ["compiled", "host"])
@pytest.mark.quick("compiled")
def test_each_run_is_what_its_seed_alone_would_have_given(kind, tmp_path):
    env, budget = (CARTPOLE, BUDGET) if kind == "compiled" else ("CartPole-v1", {**BUDGET, "num_envs": 4})
    agents = []

    def make(seed):
        agents.append(make_agent(seed, kind == "host"))
        return agents[-1]

    programs = []

    def note(seed):
        return [keras.callbacks.LambdaCallback(on_train_end=lambda logs: programs.append(agents[0].programs.latest))]

    path = tmp_path / "{seed}.keras"
    runs = pg.fit_seeds(make, env, [8, 3], episodes=4, filepath=path, callbacks=note, **budget)
    assert programs[0] is programs[1]  # Not only traced once, but made once.
    assert agents[0].programs.latest.experimental_get_tracing_count() == 1
    assert agents[1].programs.latest is None
    assert runs.seeds == [8, 3] and runs.returns.shape == (2,)
    # The second, which ran the program of the first.
    alone = make_agent(3, kind == "host")
    history = alone.fit(env, **budget).history
    assert history["loss"] == runs.histories[1]["loss"] != runs.histories[0]["loss"]
    assert history["episode_return"] == runs.histories[1]["episode_return"]
    assert alone.evaluate(env, 4) == runs.evaluations[1] != runs.evaluations[0]
    first, second = (keras.models.load_model(tmp_path / f"{seed}.keras").get_weights() for seed in runs.seeds)
    assert all(np.array_equal(a, b) for a, b in zip(alone.get_weights(), second, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


LAYERS = {
    "head": lambda: {"head": pg.heads.Categorical(2)},
    "critic_head": lambda: {"critic_head": pg.heads.HistogramValue(0.0, 30.0, num_bins=11)},
    "activation": lambda: {"activation": keras.layers.PReLU(keras.initializers.RandomUniform())},
}


@pytest.mark.parametrize("name, once", [("head", True), ("critic_head", False), ("activation", True)])
@pytest.mark.slow
def test_each_run_is_its_seeds_alone_with_layers_given_in_the_settings(name, once):
    kept = LAYERS[name]()

    def make(seed):
        networks = pg.Networks(hidden_units=(4,), **(kept if once else LAYERS[name]()))
        agent = pg.A2C(horizon=8, networks=networks, seed=seed)
        agent.compile(jit_compile=False)
        return agent

    runs = pg.fit_seeds(make, CARTPOLE, [3, 8], episodes=2, **BUDGET)
    assert make(8).fit(CARTPOLE, **BUDGET).history["loss"] == runs.histories[1]["loss"]


def test_agents_of_one_settings_object_are_independent():
    networks = pg.Networks(hidden_units=(4,), head=pg.heads.Categorical(2), critic_head=pg.heads.NormalValue())
    first, second = (pg.A2C(horizon=8, networks=networks, seed=seed) for seed in (0, 1))
    for agent in (first, second):
        agent.compile(jit_compile=False)
        agent.bind(CARTPOLE.observation_space, CARTPOLE.action_space)
    before, moved = second.get_weights(), first.get_weights()
    first.fit(CARTPOLE, **BUDGET)
    assert all(np.array_equal(a, b) for a, b in zip(before, second.get_weights(), strict=True))
    assert not np.array_equal(moved[0], first.get_weights()[0])


def test_callbacks_of_each_run(tmp_path):
    begun = []

    def callbacks(seed):
        return [keras.callbacks.LambdaCallback(on_train_begin=lambda logs: begun.append(seed))]

    pg.fit_seeds(make_small, CARTPOLE, 2, episodes=2, callbacks=callbacks, **BUDGET)
    assert begun == [0, 1]


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"seeds": []}, ValueError, "`seeds` must be different whole numbers, at least one"),
        ({"seeds": [1, 1]}, ValueError, "`seeds` must be different.*Received: seeds=.1, 1."),
        ({"seeds": 0}, ValueError, "`seeds` must be a whole number of at least 1"),
        ({"seeds": 2, "callbacks": [None]}, TypeError, "`callbacks` must be a function from a seed"),
        ({"seeds": 2, "filepath": "agent.keras"}, ValueError, "`filepath` must hold {seed}.*agent.keras"),
    ],
)
def test_wrong_arguments_are_refused(arguments, error, sentence):
    with pytest.raises(error, match=sentence):
        pg.fit_seeds(make_agent, CARTPOLE, **arguments, **BUDGET)


def test_agents_that_differ_in_more_than_the_seed_are_refused():
    with pytest.raises(ValueError, match="`make_agent` must give agents that differ in nothing but the seed"):
        pg.fit_seeds(lambda seed: make_small(seed, gamma=0.9 + 0.01 * seed), CARTPOLE, 2, episodes=1, **BUDGET)


def test_interquartile_mean_and_its_interval():
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(1).normal(size=(3, 11))
    np.testing.assert_allclose(interquartile_mean(values), stats.trim_mean(values, 0.25, axis=-1))
    np.testing.assert_allclose(interquartile_mean(values, 0), stats.trim_mean(values, 0.25, axis=0))
    low, high = bootstrap_interval(values[0])
    reference = stats.bootstrap((values[0],), interquartile_mean, n_resamples=10_000, method="percentile", rng=0)
    np.testing.assert_allclose([low, high], reference.confidence_interval, rtol=0.02, atol=0.01)
    assert low < interquartile_mean(values[0]) < high


def test_curves_of_unequal_length_and_a_picture(tmp_path):
    pytest.importorskip("matplotlib")
    history = {"episode_return": [1.0, 2.0, 3.0], "env_steps": [10, 20, 30]}
    short = {"episode_return": [4.0, 5.0], "env_steps": [10, 20]}
    runs = SeedRuns([0, 1], [{"return": 3.0}, {"return": 5.0}], [history, short])
    np.testing.assert_array_equal(runs.curve(), [[1.0, 2.0, 3.0], [4.0, 5.0, np.nan]])
    assert runs.iqm == 4.0
    runs.plot(tmp_path / "seeds.png")
    assert (tmp_path / "seeds.png").read_bytes().startswith(b"\x89PNG")


def test_an_agent_that_was_not_compiled_is_named():
    def make(seed):
        agent = make_small(0)
        return agent if seed == 0 else type(agent)(seed=seed)

    with pytest.raises(ValueError, match=r"call `compile\(\)` before"):
        pg.fit_seeds(make, pg.envs.CartPole(num_envs=4), [0, 1], episodes=1, total_steps=400, epochs=1, verbose=0)
