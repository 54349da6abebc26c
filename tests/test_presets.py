"""Presets: every one builds, compiles, comes back from its configuration, and takes one step."""

import doctest

import gymnasium as gym
import keras
import numpy as np
import pytest

from kerasrl_pg import PPO, presets

NAMES = list(presets.ALL)
# Environments and networks that a TRPO preset trains, too, whose step holds the natural gradient's.
LIKE_TRPO = [name for name in NAMES if name.startswith("NPG_") and name != "NPG_CARTPOLE"]
# What a gymnasium family needs installed, by the module of its environments.
EXTRAS = {"gymnasium.envs.box2d": "Box2D", "gymnasium.envs.mujoco": "mujoco"}


@pytest.fixture(params=NAMES)
def preset(request):
    preset = presets.ALL[request.param]
    package, _, name = preset.env.rpartition(":")
    if package:
        pytest.importorskip(package, reason=f"{preset.env} needs {package}")
    for family, package in EXTRAS.items():
        if gym.spec(name).entry_point.startswith(family):
            pytest.importorskip(package, reason=f"{preset.env} needs {package}")
    return preset


# MuJoCo says it of gymnasium's own model files.
@pytest.mark.filterwarnings("ignore:.*is deprecated")
@pytest.mark.parametrize("preset", [name for name in NAMES if name not in LIKE_TRPO], indirect=True)
@pytest.mark.quick("A2C_CARTPOLE")
def test_learns_for_one_iteration(preset):
    agent = preset.agent(seed=3)
    agent.compile(agent.optimizer, jit_compile=False)  # XLA would cost seconds more for each
    env = gym.make(preset.env)
    agent.bind(env.observation_space, env.action_space)
    env.close()
    before = [np.array(v) for v in agent.network_variables]
    iteration = {"total_steps": None, "epochs": 1, "steps_per_epoch": 1}
    history = preset.fit(agent, **iteration, verbose=0, seed=0).history
    assert np.isfinite(history["loss"][0])
    assert history["env_steps"][0] == int(agent.env_steps.numpy()) <= preset.total_steps
    pairs = zip(before, agent.network_variables, strict=True)
    assert any(not np.array_equal(old, new) for old, new in pairs)


def test_comes_back_from_its_configuration(preset):
    agent = preset.agent(seed=3)
    again = type(agent).from_config(agent.get_config())
    assert again.get_config() == agent.get_config()


@pytest.mark.quick("A2C_CARTPOLE", "NPG_CARTPOLE", "PPO_HALF_CHEETAH", "REINFORCE_CARTPOLE", "TRPO_HOPPER")
def test_two_agents_share_nothing(preset):
    first, second = preset.agent(seed=3), preset.agent(seed=3)
    assert first.optimizer is not second.optimizer
    env = gym.make(preset.env)
    for agent in (first, second):
        agent.bind(env.observation_space, env.action_space)
    env.close()
    assert not {id(v) for v in first.weights} & {id(v) for v in second.weights}


def test_schedules_end_with_the_budget():
    met = 0
    for preset in presets.ALL.values():
        agent = preset.agent(seed=3)
        iterations = preset.total_steps // ((agent.horizon or 1) * preset.num_envs)
        for schedule in vars(agent).values():
            if isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
                assert float(schedule(iterations - 1)) > 0.0 == float(schedule(iterations)), preset
                met += 1
    assert met > 0


def test_settings_may_be_replaced():
    agent = presets.PPO_CARTPOLE.agent(seed=0, gamma=0.5, horizon=8, minibatch_size=16)
    assert (agent.gamma, agent.horizon) == (0.5, 8)
    presets.PPO_CARTPOLE.fit(agent, total_steps=16, num_envs=2, epochs=1, verbose=0)
    assert int(agent.env_steps.numpy()) == 16


@pytest.mark.parametrize("name", NAMES)
def test_find_knows_every_preset(name):
    preset = presets.ALL[name]
    assert presets.find(preset.method, preset.env) is preset
    assert presets.find(preset.method.__name__.lower(), preset.env) is preset
    assert preset.source and preset is getattr(presets, name)


def test_find_knows_no_other():
    assert presets.find(PPO, "NoSuchEnv-v0") is None
    assert presets.find("SARSA", "CartPole-v1") is None


def test_docstrings():
    failed, tried = doctest.testmod(presets)
    assert tried >= 7 and not failed
