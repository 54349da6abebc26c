import functools

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from kerasrl_pg.envs import ObservationSpec, Stepper, make_vector_env


class Fragile(gym.Env):
    """Counts its steps; raises in its step number `breaks`, after an episode of `length`."""

    observation_space = gym.spaces.Box(0, 100, (1,))
    action_space = gym.spaces.Discrete(2)

    def __init__(self, breaks=None, length=3):
        self.breaks, self.length, self.lifetime = breaks, length, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        if self.lifetime == self.breaks:
            raise ValueError("the motor is hot")
        self.count += 1
        self.lifetime += 1
        return np.full(1, self.count, np.float32), 1.0, self.count == self.length, False, {}


class Wrapper(gym.vector.VectorWrapper):
    """Not gymnasium's own vector any more, so no masked reset in NEXT_STEP mode."""


ONE = Fragile()


def spec(env):
    return ObservationSpec(env.single_observation_space)


def test_from_an_id():
    env, owned = make_vector_env("CartPole-v1", num_envs=np.int64(2))
    assert owned
    assert env.num_envs == 2
    assert env.metadata["autoreset_mode"] is AutoresetMode.DISABLED
    assert make_vector_env("CartPole-v1")[0].num_envs == 1


def test_from_one_environment():
    one = Fragile()
    env, owned = make_vector_env(one)
    assert not owned
    assert env.envs[0] is one
    assert make_vector_env(one, num_envs=1)[0].num_envs == 1


def test_from_a_callable():
    made = []

    def make():
        made.append(Fragile())
        return made[-1]

    env, owned = make_vector_env(make, num_envs=3)
    assert owned
    assert list(env.envs) == made
    assert len(made) == 3
    assert make_vector_env(Fragile)[0].num_envs == 1  # a class is a callable too


def test_from_a_vector_environment():
    vector = SyncVectorEnv([Fragile, Fragile])
    assert make_vector_env(vector) == (vector, False)
    assert make_vector_env(vector, num_envs=2) == (vector, False)
    assert make_vector_env(lambda: vector, num_envs=2) == (vector, True)


@pytest.mark.parametrize(
    "env, num_envs, sentence",
    [
        ("CartPole-v1", 0, r"`num_envs` must be a whole number of at least 1. Received: num_envs=0\."),
        ("CartPole-v1", 2.0, r"`num_envs` must be a whole number of at least 1. Received: num_envs=2\.0\."),
        (SyncVectorEnv([Fragile] * 2), 3, "`num_envs` must be left out, or be 2, .* Received: num_envs=3"),
        (lambda: SyncVectorEnv([Fragile] * 2), 3, "`num_envs` must be left out, or be 2, .* Received: num_envs=3"),
        (ONE, 2, "`num_envs` must be 1 where `where` is one environment, .* Received: num_envs=2. Pass its id"),
        (lambda: ONE, 2, "`where` as a callable must make a new environment at each call.*the same one"),
    ],
)
def test_contradictory_numbers_are_refused(env, num_envs, sentence):
    with pytest.raises(ValueError, match=sentence):
        make_vector_env(env, num_envs, argument="where")


@pytest.mark.parametrize("env", [None, 3, ["CartPole-v1"]])
def test_other_kinds_are_refused(env):
    with pytest.raises(TypeError, match="`where` must be a gymnasium id, .* Received: where="):
        make_vector_env(env, argument="where")


def test_a_callable_must_return_an_environment():
    with pytest.raises(TypeError, match="`env` as a callable must return .* Received: <class 'int'>"):
        make_vector_env(lambda: 3)


@pytest.mark.parametrize("mode", ["OTHER", None, 7])
def test_an_unknown_autoreset_mode_is_refused(mode):
    env = SyncVectorEnv([Fragile])
    env.metadata = {} if mode is None else {"autoreset_mode": mode}
    with pytest.raises(ValueError, match=r"must say how it resets: `env.metadata\['autoreset_mode'\]` .* Received: "):
        Stepper(env, spec(env))


@pytest.mark.parametrize("mode", AutoresetMode)
def test_the_mode_may_be_its_value(mode):
    env = SyncVectorEnv([Fragile], autoreset_mode=mode)
    env.metadata = {"autoreset_mode": mode.value}
    assert Stepper(env, spec(env)).mode is mode


@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("wrap", [lambda env: env, Wrapper])
def test_a_step_is_the_same_in_all_modes(mode, wrap):
    env = wrap(SyncVectorEnv([functools.partial(Fragile, length=n) for n in (2, 3)], autoreset_mode=mode))
    stepper = Stepper(env, spec(env))
    assert stepper.reset(seed=0).tolist() == [[0], [0]]
    actions = np.zeros(2, int)
    first, second = stepper.step(actions), stepper.step(actions)
    assert first.next_observations.tolist() == first.observations.tolist() == [[1], [1]]
    assert not first.ended.any()
    assert first.valid is second.valid is None
    assert second.next_observations.tolist() == [[2], [2]]
    assert second.ended.tolist() == second.terminated.tolist() == [True, False]
    assert not second.truncated.any()
    third = stepper.step(actions)
    if mode is AutoresetMode.NEXT_STEP and wrap is Wrapper:
        assert second.observations.tolist() == [[2], [2]]  # what the ignored action is chosen from
        assert third.valid.tolist() == [False, True]
        assert third.rewards.tolist() == [0, 1]
        assert third.observations.tolist() == [[0], [3]]
    else:
        assert second.observations.tolist() == [[0], [2]]
        assert third.valid is None
        assert third.next_observations.tolist() == [[1], [3]]
    assert third.ended.tolist() == [False, True]


def test_a_reset_forgets_the_dead_rows():
    env = Wrapper(SyncVectorEnv([functools.partial(Fragile, length=1)]))
    stepper = Stepper(env, spec(env))
    stepper.reset()
    assert stepper.step(np.zeros(1, int)).ended.all()
    stepper.reset()
    step = stepper.step(np.zeros(1, int))
    assert step.valid is None
    assert step.next_observations.tolist() == [[1]]


def test_rewards_of_another_shape_are_refused():
    class Column(gym.vector.VectorWrapper):
        def step(self, actions):
            observations, rewards, *rest = self.env.step(actions)
            return observations, rewards[:, None], *rest

    env = Column(SyncVectorEnv([Fragile] * 2))
    stepper = Stepper(env, spec(env))
    stepper.reset()
    sentence = r"`rewards` .* shape \(2,\), .* Received: rewards.shape=\(2, 1\) in step 0. Squeeze them"
    with pytest.raises(ValueError, match=sentence):
        stepper.step(np.zeros(2, int))


@pytest.mark.parametrize("vector", [SyncVectorEnv, AsyncVectorEnv])
@pytest.mark.filterwarnings("ignore:.*ERROR")  # gymnasium's report of it
def test_an_environment_that_raises_is_named(vector):
    env = vector([Fragile, Fragile, functools.partial(Fragile, breaks=4)])
    stepper = Stepper(env, spec(env))
    stepper.reset()
    actions = np.zeros(3, int)
    for _ in range(4):
        stepper.step(actions)
    sentence = "Environment 2 raised ValueError in step 4 since the last reset: the motor is hot. The agent keeps"
    with pytest.raises(RuntimeError, match=sentence) as caught:
        stepper.step(actions)
    assert isinstance(caught.value.__cause__, ValueError)
    env.close(**({"terminate": True} if vector is AsyncVectorEnv else {}))


def test_a_vector_that_does_not_say_which_environment_raised():
    class Silent(gym.vector.VectorEnv):
        num_envs = 2
        metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        single_observation_space = Fragile.observation_space

        def step(self, actions):
            raise OSError("gone")

    stepper = Stepper(Silent(), spec(Silent()))
    with pytest.raises(RuntimeError, match=r"Environment \(the vector environment does not say which\) raised OSError"):
        stepper.step(np.zeros(2))


def test_same_step_without_final_observations_is_refused():
    class Forgetful(gym.vector.VectorWrapper):
        def step(self, actions):
            return *self.env.step(actions)[:4], {"lives": 3}

    env = Forgetful(SyncVectorEnv([functools.partial(Fragile, length=1)], autoreset_mode=AutoresetMode.SAME_STEP))
    stepper = Stepper(env, spec(env))
    stepper.reset()
    with pytest.raises(ValueError, match=r"info\['final_obs'\]. Received: info with \['lives'\]"):
        stepper.step(np.zeros(1, int))


def test_final_observations_given_as_one_array():
    class Whole(gym.vector.VectorWrapper):
        def step(self, actions):
            observations, rewards, terminated, truncated, _ = self.env.step(actions)
            return observations, rewards, terminated, truncated, {"final_obs": np.float32([[7], [8]])}

    env = Whole(
        SyncVectorEnv([functools.partial(Fragile, length=n) for n in (5, 1)], autoreset_mode=AutoresetMode.SAME_STEP)
    )
    stepper = Stepper(env, spec(env))
    stepper.reset()
    step = stepper.step(np.zeros(2, int))
    assert step.next_observations.tolist() == [[1], [8]]
    assert step.observations.tolist() == [[1], [0]]
