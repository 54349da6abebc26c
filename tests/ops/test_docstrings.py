"""Every public function of `ops` and every estimator has an example, and the examples are true."""

import doctest
import importlib
import inspect

import pytest
import tensorflow as tf

from kerasrl_pg import estimators, ops

MODULES = [
    f"kerasrl_pg.{name}"
    for name in (
        "ops.baseline",
        "ops.importance",
        "ops.monitoring",
        "ops.parameterisations",
        "ops.policy_gradient",
        "ops.random",
        "ops.recurrence",
        "ops.returns",
        "ops.search",
        "ops.shapes",
        "ops.statistics",
        "ops.value",
        "estimators",
    )
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_are_true(name):
    module = importlib.import_module(name)
    results = doctest.testmod(module, extraglobs={"tf": tf})
    assert results.attempted > 0
    assert results.failed == 0


def public_objects():
    functions = [getattr(ops, name) for name in ops.__all__ if name != "random"]
    functions += [f for f in vars(ops.random).values() if inspect.isfunction(f)]
    return functions + estimators.Estimator.__subclasses__()


@pytest.mark.parametrize("thing", public_objects(), ids=lambda thing: thing.__name__)
def test_has_an_example(thing):
    assert ">>>" in thing.__doc__


def test_exports_are_sorted():
    assert ops.__all__ == sorted(ops.__all__)
