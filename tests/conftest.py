"""Tiny environments whose solutions are known, shared by all tests."""

import contextlib
import ctypes
import gc
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import gymnasium as gym
import numpy as np
import pytest

# TensorFlow and the library are imported where they are needed: of the processes of `-n 2` the third needs neither.

try:
    trim = ctypes.CDLL("libc.so.6").malloc_trim
except (OSError, AttributeError):  # Another C library.
    trim = id


def pytest_addoption(parser):
    parser.addoption("--xla", action="store_true", help="compile with XLA wherever a user's run would")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Of a test with `quick(*ids)`, the cases that are not among them are slow."""
    missing = {}
    for item in items:
        for mark in item.iter_markers("quick"):
            if item.callspec.id not in mark.args:
                item.add_marker(pytest.mark.slow)
            names = missing.setdefault(item.nodeid.split("[")[0], {*mark.args})
            names.discard(item.callspec.id)
    if any(missing.values()) and not any("::" in argument for argument in config.args):
        raise pytest.UsageError(f"`quick` must name cases that there are. Received: {missing}.")


def compiles_as_a_user_does(item):
    return item.config.getoption("--xla") or any(map(item.get_closest_marker, ("slow", "xla")))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """TensorFlow's own optimizer of graphs takes tenths of a second; before fixtures, which it must serve alike."""
    import tensorflow as tf

    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": not compiles_as_a_user_does(item)})


@pytest.fixture(autouse=True)
def what_is_not_about_xla_is_compiled_without(request, monkeypatch):
    """XLA takes seconds to compile what most tests run for milliseconds; `jit_compile=True` stays what it is."""
    if not compiles_as_a_user_does(request.node):
        import kerasrl_pg

        asked = property(lambda agent: agent._jit_setting is True and not agent.run_eagerly)
        monkeypatch.setattr(kerasrl_pg.Agent, "compiled_with_xla", asked)


def pytest_collection_finish():
    """What is imported stays; looking through it again and again for garbage takes longer than the garbage does."""
    gc.collect()
    gc.freeze()


def resident():
    """Bytes of this process's memory, or 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


@pytest.fixture(autouse=True)
def memory_is_given_back():
    """After each test that has taken much; else a worker keeps what its largest tests took."""
    from tensorflow.python.eager import context
    from tensorflow.python.framework import ops

    yield
    # TensorFlow registers each custom gradient, of a layer say, for ever, and with it the graph it is in. Those of TFP
    # may be in functions that it keeps.
    registry = ops.gradient_registry._registry
    for name in [name for name in registry if name.startswith("CustomGradient-")]:
        if not gradient_of(registry[name]["type"]).__module__.startswith("tensorflow_probability"):
            del registry[name]
    if resident() > kept["bytes"] + 2**27:
        gc.collect()
        context.context().clear_kernel_cache()
        trim(0)
        kept["bytes"] = resident()


def gradient_of(registered):
    """The function that a custom gradient's author wrote, of what TensorFlow wraps it in twice."""
    for name in ("tape_grad_fn", "grad_fn"):
        registered = registered.__closure__[registered.__code__.co_freevars.index(name)].cell_contents
    return registered


kept = {"bytes": 0}  # After it was last given back.


class Bandit(gym.Env):
    """One step an episode; the best action of each space is known, and its reward is 1."""

    def __init__(self, action_space):
        self.observation_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.action_space = action_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.array([1.0, -1.0], np.float32), {}

    def step(self, action):
        if isinstance(self.action_space, gym.spaces.Box):
            middle = (self.action_space.high + self.action_space.low) / 2
            reach = (self.action_space.high - self.action_space.low) / 4
            # The best action lies halfway between the middle and the upper bound.
            reward = 1.0 - float(np.mean(((action - middle - reach) / reach) ** 2))
        elif isinstance(self.action_space, gym.spaces.Discrete):
            reward = float(action == self.action_space.start + self.action_space.n - 1)
        elif isinstance(self.action_space, gym.spaces.MultiDiscrete):
            reward = float(np.mean(action == self.action_space.nvec - 1))
        else:
            reward = float(np.mean(action))
        return np.array([1.0, -1.0], np.float32), reward, True, False, {}


class Forever(gym.Env):
    """Reward 1 for ever: V = 1 / (1 - γ), which truncation must not change."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.ones(1, np.float32), {}

    def step(self, action):
        return np.ones(1, np.float32), 1.0, False, False, {}


class Walk(gym.Env):
    """A random walk on five places; the right end pays 1. Short, stochastic, terminating."""

    observation_space = gym.spaces.Discrete(5)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = int(self.np_random.integers(1, 4))
        return self.place, {}

    def step(self, action):
        self.place += 1 if self.np_random.random() < (0.9 if action else 0.1) else -1
        return self.place, float(self.place == 4), self.place in (0, 4), False, {}


@pytest.fixture
def bandit():
    """Function from an action space to a maker of bandits."""
    return lambda space: lambda: Bandit(space)


@pytest.fixture
def forever():
    """Maker of the endless environment, truncated every 10 steps."""
    return lambda: gym.wrappers.TimeLimit(Forever(), 10)


@pytest.fixture(scope="session")
def walk():
    """Maker of the random walk, at most 20 steps."""
    return lambda: gym.wrappers.TimeLimit(Walk(), 20)


@pytest.fixture(scope="module")
def one_ray(request):
    """One Ray for all tests of a module; each begins and ends its own workers."""
    from kerasrl_pg.workers import engine

    pickle = pytest.importorskip("ray").cloudpickle
    pickle.register_pickle_by_value(request.module)  # A worker cannot import it with what stands beside it.
    with contextlib.ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")  # Else they hardly begin while other tests are running.
        try:
            stack.enter_context(engine.running(cpus=4))
        except RuntimeError as error:
            pytest.skip(f"{error}")
        yield
