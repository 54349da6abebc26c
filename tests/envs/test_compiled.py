"""`begin` and `advance`: resets, time limits and the records of ends."""

import dataclasses

import gymnasium as gym
import numpy as np
import pytest
import tensorflow as tf

from kerasrl_pg.envs import CompiledEnv, Transition, check_contract
from kerasrl_pg.envs.compiled import advance, begin


@dataclasses.dataclass(frozen=True)
class Clock(CompiledEnv):
    """Counts from its first number; action 1 terminates, 2 truncates, 3 does both. A nested state, `Dict` observed."""

    num_envs: int = 4
    max_episode_steps: int | None = None

    observation_space = gym.spaces.Dict(time=gym.spaces.Box(0, 100, (1,)), hand=gym.spaces.Discrete(2))
    action_space = gym.spaces.Discrete(4)
    reset_noise = 1
    step_noise = 1

    def reset(self, noise):
        return {"time": noise, "picture": tf.zeros((noise.shape[0], 2, 3), tf.uint8)}

    def observe(self, state):
        return {"time": state["time"], "hand": tf.cast(state["time"][:, 0], tf.int32) % 2}

    def step(self, state, actions, noise):
        state = {"time": state["time"] + 1.0 + noise, "picture": state["picture"] + 1}
        return Transition(state, tf.cast(actions, tf.float32), actions % 2 == 1, actions >= 2)


def step(env, running, actions, reset=0.5, noise=0.0):
    n = env.num_envs
    return advance(env, running, tf.constant(actions), tf.fill((n, 1), noise), tf.fill((n, 1), reset))


def test_begin():
    running = begin(Clock(), tf.constant([[0.1], [0.2], [0.3], [0.4]]))
    np.testing.assert_array_equal(running.state["time"][:, 0], np.float32([0.1, 0.2, 0.3, 0.4]))
    assert running.observations["hand"].dtype == tf.int32
    assert running.lengths.numpy().tolist() == [0, 0, 0, 0]
    assert running.lengths.dtype == tf.int32


def test_only_ended_episodes_start_anew():
    env = Clock()
    running = begin(env, tf.zeros((4, 1)))
    running, _ = step(env, running, [0, 0, 0, 0])
    running, outcome = step(env, running, [0, 1, 2, 3])
    assert outcome.rewards.numpy().tolist() == [0, 1, 2, 3]
    assert outcome.terminated.numpy().tolist() == [False, True, False, True]
    assert outcome.truncated.numpy().tolist() == [False, False, True, True]
    assert outcome.ended.numpy().tolist() == [False, True, True, True]
    assert outcome.next_observations["time"][:, 0].numpy().tolist() == [2, 2, 2, 2]  # final ones, not reset ones
    assert running.observations["time"][:, 0].numpy().tolist() == [2, 0.5, 0.5, 0.5]
    assert running.state["time"][:, 0].numpy().tolist() == [2, 0.5, 0.5, 0.5]
    assert running.state["picture"][:, 1, 2].numpy().tolist() == [2, 0, 0, 0]
    assert running.lengths.numpy().tolist() == [2, 0, 0, 0]


def test_noise_reaches_the_step():
    env = Clock()
    _, outcome = step(env, begin(env, tf.zeros((4, 1))), [0] * 4, noise=0.25)
    assert outcome.next_observations["time"][:, 0].numpy().tolist() == [1.25] * 4


def test_the_time_limit_truncates_and_counts_anew():
    env = Clock(num_envs=2, max_episode_steps=3)
    running = begin(env, tf.zeros((2, 1)))
    ends = []
    for t in range(7):
        running, outcome = step(env, running, [0, int(t == 1)])
        ends.append((outcome.truncated.numpy() * 1 + outcome.terminated.numpy() * 2).tolist())
    assert ends == [[0, 0], [0, 2], [1, 0], [0, 0], [0, 1], [1, 0], [0, 0]]


def test_a_last_step_may_terminate_too():
    env = Clock(num_envs=1, max_episode_steps=1)
    _, outcome = step(env, begin(env, tf.zeros((1, 1))), [1])
    assert bool(outcome.terminated[0]) and bool(outcome.truncated[0])


def test_a_transition_without_truncation():
    class Plain(Clock):
        def step(self, state, actions, noise):
            return super().step(state, actions, noise)._replace(truncated=None)

    _, outcome = step(Plain(), begin(Plain(), tf.zeros((4, 1))), [0, 1, 2, 3])
    assert not outcome.truncated.numpy().any()
    assert outcome.truncated.dtype == tf.bool


@pytest.mark.parametrize(
    "call, sentence",
    [
        (lambda env: env.reset(None), r"CompiledEnv must implement reset\(noise\)\."),
        (lambda env: env.observe(None), r"must implement observe\(state\)\."),
        (lambda env: env.step(None, None, None), r"must implement step\(state, actions, noise\)\."),
        (lambda env: env.state_of(None), r"must implement state_of\(env\) to be checked against another\."),
    ],
)
def test_what_is_missing_is_named(call, sentence):
    with pytest.raises(NotImplementedError, match=sentence):
        call(CompiledEnv())


@dataclasses.dataclass(frozen=True)
class Faulty(CompiledEnv):
    """Right, but for the one thing that `fault` names."""

    fault: str = ""
    weights: object = ()
    action_space = gym.spaces.Discrete(2)

    @property
    def observation_space(self):
        return None if self.fault == "space" else gym.spaces.Box(-1.0, 1.0, (2,))

    def reset(self, noise):
        return {"x": tf.zeros((noise.shape[0], 2)), "t": tf.zeros(noise.shape[0], tf.int32)}

    def observe(self, state):
        shape = {"observation": (self.num_envs, 3)}.get(self.fault, (self.num_envs, 2))
        return tf.zeros(shape, tf.float64 if self.fault == "dtype" else tf.float32)

    def step(self, state, actions, noise):
        n = self.num_envs
        after = {"x": state["x"] + 1.0, "t": tf.cast(state["t"], tf.int64 if self.fault == "state" else tf.int32)}
        if self.fault == "structure":
            after["y"] = after["x"]
        rewards = tf.zeros((n, 1)) if self.fault == "rewards" else tf.zeros(n)
        ends = tf.zeros(n) if self.fault == "terminated" else tf.zeros(n, tf.bool)
        if self.fault == "tuple":
            return after, rewards, ends
        return Transition(after, rewards, ends, tf.zeros((), tf.bool) if self.fault == "truncated" else None)


@pytest.mark.parametrize(
    ("fault", "error", "sentence"),
    [
        ("space", ValueError, "`observation_space` must be a gymnasium space. Received: None"),
        ("observation", ValueError, r"`observations` .* must be float32 of shape \(3, 2\). Received: .*\(3, 3\)"),
        ("dtype", ValueError, "`observations` .* must be float32 .* Received: float64"),
        ("state", ValueError, "`state` .* must be int32 .* Received: int64"),
        ("structure", ValueError, "`step` must give a state of the structure that `reset` gives"),
        ("rewards", ValueError, r"`rewards` .* shape \(3,\). Received: float32 of shape \(3, 1\) from Faulty"),
        ("terminated", ValueError, "`terminated` .* must be bool .* Received: float32"),
        ("truncated", ValueError, "`truncated` .* must be bool"),
        ("tuple", TypeError, "`step` must return a Transition"),
    ],
)
def test_an_environment_that_breaks_the_contract_is_named(fault, error, sentence):
    check_contract(Faulty(num_envs=3))
    with pytest.raises(error, match=sentence):
        check_contract(Faulty(num_envs=3, fault=fault))


def test_fields_must_be_hashable_and_numbers_in_range():
    with pytest.raises(TypeError, match="`env` must have hashable fields"):
        check_contract(Faulty(weights=[1.0]))
    with pytest.raises(ValueError, match="`num_envs` must be a whole number of at least 1. Received: num_envs=0"):
        Faulty(num_envs=0)
    with pytest.raises(ValueError, match="`max_episode_steps` must be .* Received: max_episode_steps=0"):
        Faulty(max_episode_steps=0)
