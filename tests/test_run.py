"""A run is a file and back; whatever is wrong in one is named."""

import json

import gymnasium as gym
import keras
import numpy as np
import pytest

import kerasrl_pg as pg
from kerasrl_pg import described, run
from kerasrl_pg.run import Run

SMALL = {"agent": "PPO", "env": "CartPole-v1", "total_steps": 64, "settings": {"horizon": 16, "minibatch_size": 16}}


def small(**changes):
    return Run.from_dict({**SMALL, **changes})


@pytest.mark.parametrize("suffix, name", [("json", "PPO_HALF_CHEETAH"), *(("yaml", name) for name in pg.presets.ALL)])
def test_every_preset_is_written_and_read(suffix, name, tmp_path):
    path = tmp_path / f"run.{suffix}"
    preset = pg.presets.ALL[name]
    preset.save(path)
    assert Run.load(path) == preset
    agents = [r.agent(seed=0, name="same") for r in (preset, Run.load(path))]
    agents.append(Run.of(agents[0], preset.env, preset.total_steps).agent(name="same"))
    first, *others = [(a.get_config(), {**a.optimizer.get_config(), "name": "same"}) for a in agents]
    assert [first, first] == others


OBJECTS = [
    3,
    1e-5,
    "tanh",
    None,
    [1, [2.5]],
    pg.estimators.NStep(5),
    pg.baselines.WeightedAverage(by_step=True),
    pg.schedules.linear(0.3, 0.1),
    pg.models.LSTM(8, span=20),
    pg.heads.Gaussian,
    pg.Networks(hidden_units=[8], head=pg.heads.Beta, encoders={"a": "omit"}),
    keras.optimizers.RMSprop(keras.optimizers.schedules.CosineDecay(3e-4, 100), clipvalue=1.0),
    keras.layers.GRU(4, recurrent_initializer="glorot_normal"),
]


@pytest.mark.parametrize("value", OBJECTS, ids=lambda value: getattr(value, "__name__", type(value).__name__))
def test_what_is_described_is_made_again(value):
    data = run.parse(run.render({"value": described.describe(value)}))["value"]
    again = described.realize(data)
    if isinstance(value, type) or not hasattr(value, "get_config"):
        assert again == value
    else:
        # Keras numbers its layers, and a float32 variable has no other digits than these.
        mine, other = (json.dumps(described.describe(v)) for v in (value, again))
        assert type(again) is type(value) and mine == other
    assert data == json.loads(json.dumps(data))


def test_names_that_two_have_are_told_apart():
    assert isinstance(described.realize({"GRU": {"units": 3}}), pg.models.Recurrent)
    assert isinstance(described.realize({"keras.layers.GRU": {"units": 3}}), keras.layers.GRU)


def test_a_run_that_was_made_by_hand():
    agent = pg.A2C(horizon=8, networks=pg.Networks(hidden_units=[4]), seed=7)
    agent.compile(keras.optimizers.Adam(1e-3))
    agent.entropy_coef = 0.5
    agent.horizon = 16
    made = Run.of(agent, "CartPole-v1", total_steps=64)
    assert made.settings == {"horizon": 16, "entropy_coef": 0.5, "networks": {"Networks": {"hidden_units": [4]}}}
    assert (made.seed, made.optimizer) == (7, {"Adam": {"learning_rate": 0.001}})
    weights = []
    for each in (agent, made.agent()):
        each.fit("CartPole-v1", total_steps=64, verbose=0)
        weights.append(np.concatenate([np.ravel(w) for w in each.get_weights()]))
    np.testing.assert_array_equal(*weights)


def test_what_cannot_be_written_down_is_named():
    inputs = keras.Input((4,))
    policy = keras.Model(inputs, pg.heads.Categorical(2)(inputs))
    with pytest.raises(TypeError, match="`policy` must be a number, a string, or an object with a config"):
        Run.of(pg.NPG(policy, keras.Model(inputs, pg.heads.NormalValue()(inputs))), "CartPole-v1", 100)

    class Own(pg.estimators.GAE):
        pass

    with pytest.raises(TypeError, match="is not registered"):
        Run.of(pg.A2C(estimator=Own(0.9)), "CartPole-v1", 100)


WRONG = {
    "agent": ({"agent": "PPOO"}, ValueError, "`agent` must be one of .*PPO.* Received: 'PPOO'"),
    "setting": ({"settings": {"horizn": 16}}, TypeError, "no argument `horizn`. Did you mean `horizon`"),
    "value": ({"settings": {"gamma": 2.0}}, ValueError, "`gamma` must be a number in .* Received: gamma=2.0"),
    "class": ({"settings": {"estimator": {"GAEE": {}}}}, ValueError, "`estimator` must name .*Did you mean 'GAE'"),
    "argument": (
        {"settings": {"networks": {"Networks": {"activaton": "relu"}}}},
        TypeError,
        "`Networks` has no argument `activaton`. Did you mean `activation`",
    ),
    "optimizer": ({"optimizer": {"Adam": {"lr": 1.0}}}, TypeError, "`Adam` has no argument `lr`"),
    "no optimizer": ({"optimizer": "adam"}, ValueError, "`optimizer` must name a Keras optimizer"),
    "field": ({"total_step": 3}, TypeError, "Did you mean `total_steps`"),
    "budget": ({"total_steps": 0}, ValueError, "`total_steps` must be a whole number of at least 1"),
    "env": ({"env": {"id": "CartPole-v1", "kwarg": {}}}, TypeError, "Did you mean `kwargs`"),
    "wrapper": (
        {"env": {"id": "CartPole-v1", "wrappers": [{"TimeLimits": {}}]}},
        ValueError,
        "must be names in gymnasium.wrappers. Received: 'TimeLimits'. Did you mean 'TimeLimit'",
    ),
    "compiled": ({"env": {"CartPole": {"num_env": 4}}}, TypeError, "Did you mean `num_envs`"),
    "twice": ({"env": {"CartPole": {}}, "num_envs": 3}, ValueError, "`num_envs` must be said of the compiled"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_in_a_file_is_named(name, tmp_path):
    changes, kind, sentence = WRONG[name]
    path = tmp_path / "run.json"
    path.write_text(json.dumps({**SMALL, **changes}))
    with pytest.raises(kind, match=sentence) as caught:
        Run.load(path)
    assert str(path) in str(caught.value)


def test_what_is_no_file_of_settings_is_named(tmp_path):
    path = tmp_path / "run.yaml"
    with pytest.raises(FileNotFoundError, match="no file of settings"):
        Run.load(path)
    for text, sentence in {
        "agent: [": "must be YAML or JSON",
        "3": "must be a dictionary",
        "agent: PPO\nagent: A2C\n": "A key must stand once. Received: 'agent' twice",
        "agent: PPO\n": "must have `agent`, `env` and `total_steps`",
        "agent: !!python/object/apply:os.system [echo]\n": "must be YAML or JSON",  # Nothing is executed.
    }.items():
        path.write_text(text)
        with pytest.raises(ValueError, match=sentence):
            Run.load(path)


def test_a_run_that_does_not_read_back_replaces_nothing(tmp_path):
    path = tmp_path / "run.yaml"
    small().save(path)
    before = path.read_text()
    with pytest.raises(TypeError, match="no argument `horizn`"):
        small(settings={"horizn": 3}).save(path)
    assert path.read_text() == before and [p.name for p in tmp_path.iterdir()] == ["run.yaml"]


def test_changes_by_path():
    changed = small().changed(
        {
            "horizon": 32,
            "networks.activation": "relu",
            "networks.hidden_units": [8, 8],
            "estimator.gae_lambda": 0.5,
            "optimizer.learning_rate": 1e-2,
            "env.sutton_barto_reward": True,
            "total_steps": 128,
        }
    )
    agent = changed.agent(seed=0)
    assert (agent.horizon, agent.estimator.gae_lambda, float(agent.optimizer.learning_rate)) == (
        32,
        0.5,
        np.float32(0.01),
    )
    assert float(agent.optimizer.global_clipnorm) == 0.5  # What the method's own optimizer has stays.
    assert changed.settings["networks"] == {"Networks": {"hidden_units": [8, 8], "activation": "relu"}}
    assert changed.make_env()().unwrapped._sutton_barto_reward
    assert changed.total_steps == 128 and small().total_steps == 64
    with pytest.raises(TypeError, match="Did you mean `horizon`"):
        small().changed({"horizn": 3})
    with pytest.raises(ValueError, match="`horizon` must be a setting with settings of its own"):
        small().changed({"horizon.size": 3})
    with pytest.raises(TypeError, match="Did you mean `gae_lambda`"):
        small().changed({"estimator.gae_lamda": 0.3})


def test_environments_with_arguments_and_wrappers():
    described_env = {"id": "Pendulum-v1", "kwargs": {"g": 5.0}, "wrappers": [{"TimeLimit": {"max_episode_steps": 7}}]}
    env = small(env=described_env).make_env()()
    assert env.unwrapped.g == 5.0 and isinstance(env, gym.wrappers.TimeLimit) and env._max_episode_steps == 7
    run = small(env={"id": {"CartPole": {"num_envs": 2}}, "wrappers": [{"time_limit": {"steps": 9}}]})
    assert run.is_compiled and run.env_name == "CartPole"
    assert (run.make_env().num_envs, run.make_env().max_episode_steps) == (2, 9)
    assert int(run.train(seed=0, verbose=0).env_steps) == 64


def test_a_seed_makes_the_run():
    small_a2c = {"agent": "A2C", "settings": {"horizon": 16}}
    first, second, other = (small(**small_a2c, seed=seed).train(verbose=0) for seed in (3, 3, 4))
    flat = [np.concatenate([np.ravel(w) for w in a.get_weights()]) for a in (first, second, other)]
    np.testing.assert_array_equal(flat[0], flat[1])
    assert not np.array_equal(flat[0], flat[2])
