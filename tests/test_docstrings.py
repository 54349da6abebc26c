"""The examples in the docstrings give what they say; the rest are run beside their own tests."""

import doctest
import importlib
from pathlib import Path

import pytest

import kerasrl_pg

ROOT = Path(kerasrl_pg.__file__).parent
ELSEWHERE = ("heads", "ops", "estimators", "presets")
MODULES = sorted(
    ".".join((ROOT.name, *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
    for path in ROOT.rglob("*.py")
    if ">>>" in path.read_text(encoding="utf8") and path.relative_to(ROOT).with_suffix("").parts[0] not in ELSEWHERE
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_are_true(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0


def test_every_agent_and_baseline_has_an_example():
    agents = {getattr(kerasrl_pg, name) for name in kerasrl_pg.__all__}
    agents = {a for a in agents if isinstance(a, type) and issubclass(a, kerasrl_pg.Agent)} - {kerasrl_pg.Agent}
    assert len(agents) == 13
    assert "kerasrl_pg.agents.agent" in MODULES
    for one in agents:
        assert ">>>" in one.__doc__, one
