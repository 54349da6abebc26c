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


def test_what_was_recorded_is_of_todays_presets(monkeypatch):
    """Or its figures, which the README has, would be of other settings."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    learning, grids = (importlib.import_module(name) for name in ("learning", "grids"))
    fingerprint = importlib.import_module("records").fingerprint
    today = {name: fingerprint(learning.settings(pg.presets.ALL[name])) for name in learning.TARGETS}
    assert {(r["preset"], r["settings"]) for r in learning.RECORDS.load()} == set(today.items())
    for record in grids.RECORDS.load():
        assert record["fingerprint"] == fingerprint(learning.settings(grids.chosen(record["env"], record["settings"])))


def test_what_is_off_does_not_make_another_run(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    told = importlib.import_module("records").told

    def agent(**settings):
        made = pg.A2C(seed=0, **settings)
        made.compile()
        return told(made)

    one = agent()
    assert one == agent(normalize_advantages=False, name="another", sequence_length=None)
    assert "sequence_length" not in one["agent"] and one["agent"]["entropy_coef"] == pg.A2C().entropy_coef
    assert one != agent(normalize_advantages=True) and one != agent(networks=pg.Networks(normalize_observations=True))
