"""One battery over every compiled environment: contracts, compilers, purity, independence, ends."""

import dataclasses
import functools

import gymnasium as gym
import numpy as np
import pytest
import tensorflow as tf

from kerasrl_pg import envs
from kerasrl_pg.envs.compiled import advance, begin
from kerasrl_pg.ops import random

MAKERS = {
    "acrobot": envs.Acrobot,
    "breakout": envs.Breakout,
    "breakout_not_sticky": functools.partial(envs.Breakout, sticky_actions=0.0),
    "cartpole": envs.CartPole,
    "catch": envs.Catch,
    "corridor": envs.Corridor,
    "garnet": envs.TabularMDP,
    "mountain_car": envs.MountainCar,
    "mountain_car_continuous": envs.MountainCarContinuous,
    "pendulum": envs.Pendulum,
    "pixel_copter": envs.PixelCopter,
    "pixel_copter_pixels": functools.partial(envs.PixelCopter, pixels=True),
    "t_maze": functools.partial(envs.TMaze, length=2),
    "vacuum": envs.Vacuum,
    "masked": lambda **kwargs: envs.mask_observations(envs.CartPole(**kwargs), (2, 0)),
    "repeated": lambda **kwargs: envs.repeat_actions(envs.Breakout(**kwargs), 3),
    "all_wrappers": lambda **kwargs: envs.time_limit(
        envs.mask_observations(envs.repeat_actions(envs.Pendulum(**kwargs), 2), (1,)), 4
    ),
}
STEPS, NUM, LIMIT = 24, 5, 15

every_env = pytest.mark.parametrize("name", MAKERS)


def make(name, num_envs=NUM):
    # A limit, so that every environment's episodes end within a few steps.
    env = MAKERS[name](num_envs=num_envs)
    return envs.time_limit(env, min(LIMIT, env.max_episode_steps or LIMIT))


def draw(env, seed=0):
    """Actions and noise [STEPS, N, ...] for an environment."""
    space, shape = env.action_space, (STEPS, env.num_envs)
    uniform = random.uniform([seed, 0], (*shape, *space.shape))
    if isinstance(space, gym.spaces.Discrete):
        actions = tf.cast(uniform * int(space.n), tf.int64)
    else:
        actions = space.low + uniform * (space.high - space.low)
    step_noise = random.uniform([seed, 1], (*shape, env.step_noise))
    reset_noise = random.uniform([seed, 2], (STEPS + 1, env.num_envs, env.reset_noise))
    return actions, step_noise, reset_noise


def play(env, actions, step_noise, reset_noise):
    """All records of STEPS steps, each [STEPS, N, ...]; a pure function."""

    def body(t, running, arrays):
        after, outcome = advance(env, running, actions[t], step_noise[t], reset_noise[t])
        record = tf.nest.flatten((running, after, outcome))
        return t + 1, after, [array.write(t, x) for array, x in zip(arrays, record, strict=True)]

    running = begin(env, reset_noise[STEPS])
    like = running, *advance(env, running, actions[0], step_noise[0], reset_noise[0])
    leaves = tf.nest.flatten(like)
    arrays = [tf.TensorArray(x.dtype, STEPS, element_shape=x.shape) for x in leaves]
    arrays = tf.while_loop(lambda t, *_: t < STEPS, body, (0, running, arrays))[2]
    return tf.nest.pack_sequence_as(like, [array.stack() for array in arrays])


@functools.cache
def record(name, mode):
    """`(env, (actions, step noise, reset noise), (running, after, outcome))`, as NumPy."""
    env = make(name)
    function = {
        "eager": play,
        "graph": tf.function(play, autograph=False),
        "xla": tf.function(play, autograph=False, jit_compile=True),
    }[mode]
    arguments = draw(env)
    return env, arguments, tf.nest.map_structure(lambda x: x.numpy(), function(env, *arguments))


def assert_equal(left, right, **tolerance):
    for a, b in zip(tf.nest.flatten(left), tf.nest.flatten(right), strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        np.testing.assert_allclose(a, b, **{"rtol": 0, "atol": 0, **tolerance})


@every_env
@pytest.mark.parametrize("num_envs", [1, 3])
def test_shapes_and_dtypes(name, num_envs):
    env = make(name, num_envs)
    spec = envs.ObservationSpec(env.observation_space).specs
    running = begin(env, tf.fill((num_envs, env.reset_noise), 0.5))
    actions = tf.stack([tf.constant(env.action_space.sample())] * num_envs)
    after = env.step(running.state, actions, tf.fill((num_envs, env.step_noise), 0.5))
    assert running.observations.shape == env.observe(after.state).shape == (num_envs, *spec.shape)
    assert running.observations.dtype == spec.dtype
    assert after.rewards.shape == after.terminated.shape == (num_envs,)
    assert (after.rewards.dtype, after.terminated.dtype) == (tf.float32, tf.bool)
    for before, later in zip(tf.nest.flatten(running.state), tf.nest.flatten(after.state), strict=True):
        assert before.shape == later.shape and before.dtype == later.dtype
        assert before.shape[0] == num_envs


@every_env
@pytest.mark.quick("cartpole", "garnet", "pixel_copter", "all_wrappers")
def test_observations_lie_in_the_space(name):
    env, _, (running, after, outcome) = record(name, "graph")
    for observations in (running.observations, after.observations, outcome.next_observations):
        for observation in observations.reshape(-1, *observations.shape[2:]):
            assert observation.astype(env.observation_space.dtype) in env.observation_space


@every_env
@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.quick(*(f"graph-{name}" for name in ("acrobot", "breakout", "garnet", "pixel_copter", "all_wrappers")))
def test_eager_graph_and_xla_agree(name, mode):
    # Rounding differs a little between the compilers, and grows over an episode.
    assert_equal(record(name, mode)[2], record(name, "xla")[2], rtol=1e-4, atol=1e-4)


@every_env
@pytest.mark.quick("acrobot", "breakout", "cartpole", "corridor", "garnet", "pixel_copter")
def test_the_same_inputs_give_the_same_outputs_and_others_do_not(name):
    env, arguments, first = record(name, "graph")
    again = tf.nest.map_structure(lambda x: x.numpy(), tf.function(play, autograph=False)(env, *arguments))
    assert_equal(first, again)
    other = play(env, *draw(env, seed=1))
    states = [tf.nest.flatten(running.state) for running in (first[0], other[0])]
    assert any(np.any(a != b) for a, b in zip(*states, strict=True))


@every_env
@pytest.mark.quick("breakout", "cartpole", "garnet", "repeated", "pixel_copter", "all_wrappers")
def test_environments_do_not_mix(name):
    _, arguments, together = record(name, "graph")
    alone = make(name, num_envs=1)
    function = tf.function(play, autograph=False)
    for index in range(NUM):
        one = function(alone, *(x[:, index : index + 1] for x in arguments))
        column = tf.nest.map_structure(lambda x, i=index: x[:, i : i + 1], together)
        assert_equal(tf.nest.map_structure(lambda x: x.numpy(), one), column, rtol=1e-5, atol=1e-5)


@every_env
def test_episodes_end_at_the_limit_and_start_anew_where_they_ended(name):
    env, (_, _, reset_noise), (running, after, outcome) = record(name, "graph")
    assert outcome.ended.any(0).all()
    np.testing.assert_array_equal(outcome.ended, outcome.terminated | outcome.truncated)
    np.testing.assert_array_equal(outcome.truncated, running.lengths + 1 == env.max_episode_steps)
    np.testing.assert_array_equal(after.lengths, np.where(outcome.ended, 0, running.lengths + 1))
    for t, n in np.argwhere(outcome.ended):
        fresh = env.observe(env.reset(reset_noise[t]))[n]
        np.testing.assert_allclose(after.observations[t, n], fresh, rtol=1e-6)
    going = ~outcome.ended
    np.testing.assert_array_equal(after.observations[going], outcome.next_observations[going])


@every_env
def test_what_goes_on_is_what_the_next_step_starts_from(name):
    _, _, (running, after, _) = record(name, "graph")
    for later, earlier in zip(tf.nest.flatten(running), tf.nest.flatten(after), strict=True):
        np.testing.assert_array_equal(later[1:], earlier[:-1])


@every_env
def test_equal_environments_are_equal_and_hashable(name):
    assert make(name) == make(name)
    assert hash(make(name)) == hash(make(name))
    assert make(name) != make(name, num_envs=7)
    assert len({make(name), make(name), make(name, 7)}) == 2
    assert dataclasses.replace(make(name), num_envs=7) == make(name, 7)
    assert repr(make(name)) == repr(make(name)) != repr(make(name, 7))


@every_env
def test_actions_may_be_of_either_integer(name):
    env = make(name)
    actions, step_noise, reset_noise = draw(env)
    state = env.reset(reset_noise[0])
    if isinstance(env.action_space, gym.spaces.Discrete):
        wide, narrow = (env.step(state, tf.cast(actions[0], kind), step_noise[0]) for kind in (tf.int64, tf.int32))
        for a, b in zip(tf.nest.flatten(wide), tf.nest.flatten(narrow), strict=True):
            assert a is b is None or np.array_equal(a, b)
    else:
        assert actions.dtype == tf.float32


def test_every_exported_environment_is_in_the_battery():
    exported = {value for value in vars(envs).values() if isinstance(value, type)}
    exported = {e for e in exported if issubclass(e, envs.CompiledEnv)} - {envs.CompiledEnv}
    assert exported == {type(maker(num_envs=1)) for maker in MAKERS.values()} & exported
    assert len(exported) == 12
