"""The examples in the docstrings of `kerasrl_pg.heads` give what they say."""

import doctest
import importlib
import pkgutil

import pytest

from kerasrl_pg import heads

MODULES = [module.name for module in pkgutil.iter_modules(heads.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    module = importlib.import_module(f"kerasrl_pg.heads.{name}")
    result = doctest.testmod(module)
    assert result.failed == 0
    assert result.attempted > 0 or name == "box"  # building blocks, no public class to show


def test_every_public_head_has_an_example():
    for name in set(heads.__all__) - {"Head", "ValueHead"}:
        assert ">>>" in getattr(heads, name).__doc__
