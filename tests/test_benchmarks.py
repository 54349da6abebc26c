"""Benchmarks that stand on the library's own files still find them as they are."""

import importlib
from pathlib import Path

import pytest

import kerasrl_pg as pg

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.mark.parametrize("env", ["Empty", "DoorKey"])
def test_defaults_on_grids_are_the_methods_own(env, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    chosen = importlib.import_module("grids").chosen
    preset, defaults = chosen(env, "preset"), chosen(env, "defaults")
    assert preset is pg.presets.ALL[f"PPO_MINIGRID_{'EMPTY' if env == 'Empty' else 'DOOR_KEY'}"]
    assert (defaults.env, defaults.total_steps, defaults.num_envs) == (preset.env, preset.total_steps, preset.num_envs)
    agent, own = defaults.agent(seed=0, name="same"), pg.PPO(seed=0, name="same")
    own.compile()
    assert agent.settings_values() == own.settings_values()
    one, other = ({**a.optimizer.get_config(), "name": ""} for a in (agent, own))
    assert one == other
