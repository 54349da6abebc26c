import functools
import os

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from kerasrl_pg.envs import ObservationSpec, Stepper, make_vector_env
from kerasrl_pg.envs.vector import close


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


class Odd(gym.Env):
    """Gives what it is told: `first` from reset, `results` from its steps, one after the other."""

    action_space = gym.spaces.Discrete(2)

    def __init__(self, space, results, first=None):
        self.observation_space, self.results = space, results
        self.first = (space.sample(), {}) if first is None else first

    def reset(self, *, seed=None, options=None):
        self.count = 0
        return self.first

    def step(self, action):
        self.count += 1
        return self.results[(self.count - 1) % len(self.results)]


BOX = gym.spaces.Box(-1, 1, (2,), np.float64)
NEST = gym.spaces.Dict(goal=gym.spaces.Discrete(3), robot=gym.spaces.Tuple([gym.spaces.Discrete(2), BOX]))


def odd(space, *result, first=None):
    """Two environments, of which the second gives `result` in its second step."""
    fine = (space.sample(), 1.0, False, False, {})
    makers = [lambda: Odd(space, [fine]), lambda: Odd(space, [fine, result or fine], first)]
    return SyncVectorEnv(makers)


def played(env, steps=2):
    stepper = Stepper(env, spec(env))
    stepper.reset(seed=0)
    return [stepper.step(np.zeros(env.num_envs, int)) for _ in range(steps)]


@pytest.mark.parametrize(
    "result, sentence",
    [
        ((np.zeros(2), "1", False, False, {}), "`reward` must be one number. Received: '1' of <class 'str'>"),
        ((np.zeros(2), None, False, False, {}), "`reward` must be one number. Received: None of <class 'NoneType'>"),
        ((np.zeros(2), np.ones(2), False, False, {}), r"`reward` must be one number. Received: array\(\[1., 1.\]\)"),
        ((np.zeros(2), 1j, False, False, {}), "`reward` must be one number. Received: 1j of <class 'complex'>"),
        ((np.zeros(2), 1.0, 1, False, {}), "`terminated` must be True or False. Received: 1 of <class 'int'>"),
        ((np.zeros(2), 1.0, False, "no", {}), "`truncated` must be True or False. Received: 'no' of <class 'str'>"),
        ((np.zeros(2), 1.0, None, False, {}), "`terminated` must be True or False. Received: None of <class 'NoneT"),
        ((np.zeros(2), 1.0, np.array([True]), False, {}), r"`terminated` must be .* Received: array\(\[ True\]\)"),
        ((np.zeros(2), 1.0, False, {}), r"`env.step` must return \(observation, reward.* Received: 4 values"),
        ((None,), r"`env.step` must return \(observation, reward.* Received: 1 values"),
        (
            (np.zeros(3), 1.0, False, False, {}),
            r"`observation` must be numbers of shape \(2,\).* Received: shape \(3,\)",
        ),
        (
            (np.zeros(1), 1.0, False, False, {}),
            r"`observation` must be numbers of shape \(2,\).* Received: shape \(1,\)",
        ),
        ((["a", "b"], 1.0, False, False, {}), r"`observation` must be numbers.* Received: \['a', 'b'\] of <U1"),
        ((None, 1.0, False, False, {}), r"`observation` must be numbers of shape \(2,\).* Received: shape \(\)"),
        ((np.array([0, 1e39]), 1.0, False, False, {}), r"`observation` must be within float32 .* Received: 1e\+39"),
    ],
)
def test_what_an_environment_gives_is_judged_by_its_kind(result, sentence):
    with pytest.raises(ValueError, match=f"{sentence}.* from environment 1 in step 1 since the last reset"):
        played(odd(BOX, *result))


@pytest.mark.parametrize(
    "observation, sentence",
    [
        ({"goal": 3, "robot": (0, np.zeros(2))}, r"`observation\['goal'\]` must be one of the choices .* Received: 3 "),
        ({"goal": -1, "robot": (0, np.zeros(2))}, r"`observation\['goal'\]` must be one of the choices .*: -1 "),
        (
            {"goal": 2**32, "robot": (0, np.zeros(2))},
            r"`observation\['goal'\]` must be one of .* Received: 4294967296 ",
        ),
        ({"goal": 1.0, "robot": (0, np.zeros(2))}, r"`observation\['goal'\]` must be whole numbers .*: 1.0 of float64"),
        ({"goal": 1, "robot": (2, np.zeros(2))}, r"`observation\['robot'\]\[0\]` must be one of the choices"),
        ({"goal": 1, "robot": (0, np.zeros(4))}, r"`observation\['robot'\]\[1\]` must be numbers of shape \(2,\)"),
        ({"goal": 1, "robot": (0,)}, r"hold observation\['robot'\]\[1\]. Received: {'goal': 1"),
        ({"goal": 1}, r"`observation` must be nested as .* hold observation\['robot'\]\[0\]. Received: {'goal': 1}"),
        (3, r"`observation` must be nested as .* hold observation\['goal'\]. Received: 3"),
    ],
)
def test_a_leaf_is_named_by_its_place(observation, sentence):
    with pytest.raises(ValueError, match=f"{sentence}.*from environment 1 in step 1 since the last reset"):
        played(odd(NEST, observation, 1.0, False, False, {}))


@pytest.mark.parametrize(
    "space, bad",
    [
        (gym.spaces.MultiDiscrete([3, 2], start=[-1, 5]), [2, 5]),
        (gym.spaces.MultiDiscrete([3, 2]), [0.0, 1.0]),
        (gym.spaces.MultiBinary(2), [0, 2]),
        (gym.spaces.MultiBinary(2), [0.5, 1]),
        (gym.spaces.Box(0, 255, (3, 3), np.uint8), np.full((3, 3), 256)),
        (gym.spaces.Box(0, 255, (3, 3), np.uint8), np.full((3, 3), 0.5)),
    ],
)
def test_what_is_no_choice_is_refused(space, bad):
    with pytest.raises(ValueError, match="`observation` must be .* from environment 1 in step 1 since the last reset"):
        played(odd(space, bad, 1.0, False, False, {}))


@pytest.mark.parametrize(
    "result",
    [
        ([0, 1], 1, np.True_, False, None),
        (np.float32([0, 1]), np.float32(1), False, np.array(True), {}),
        (np.array([0, 1]), np.array([1.0]), True, np.False_, {}),
        (np.array([False, True]), True, False, True, {}),
    ],
)
def test_what_can_be_read_is_read(result):
    step = played(odd(BOX, *result))[1]
    assert step.next_observations.dtype == np.float32
    assert step.next_observations[1].tolist() == [0, 1]
    assert step.rewards.tolist() == [1, 1]
    assert step.ended.tolist() == [False, True]
    assert step.terminated.dtype == step.truncated.dtype == bool


@pytest.mark.parametrize(
    "first, sentence",
    [
        (np.zeros(2), r"`env.reset` must return \(observation, info\). Received: <class 'numpy.ndarray'>"),
        ((np.zeros(3), {}), r"`observation` must be numbers of shape \(2,\).* Received: shape \(3,\)"),
    ],
)
def test_a_first_observation_is_judged_too(first, sentence):
    with pytest.raises(ValueError, match=f"{sentence} from environment 1 in `reset`"):
        played(odd(BOX, first=first))


@pytest.mark.parametrize(
    "field, value, sentence",
    [
        (
            0,
            np.zeros((2, 3)),
            r"`observation` must be numbers of shape \(2,\).* Received: shape \(3,\) from environment 0",
        ),
        (0, np.zeros((3, 2)), r"`observation` must be numbers of shape \(2,\).* Received: shape \(3, 2\)"),
        (0, np.array([["a", "b"]] * 2), "`observation` must be numbers"),
        (1, ["1", "1"], "`reward` must be one number. Received: np.str_\\('1'\\) of .* from environment 0 in step 0"),
        (1, [1.0, None], "`reward` must be one number. Received: None of <class 'NoneType'> from environment 1 in ste"),
        (
            2,
            np.array([0, 1]),
            r"`terminated` of `env.step` must be booleans of shape \(2,\). Received: array\(\[0, 1\]\)",
        ),
        (3, False, r"`truncated` of `env.step` must be booleans of shape \(2,\). Received: False in step 0"),
    ],
)
def test_other_vector_environments_are_judged_too(field, value, sentence):
    class Other(gym.vector.VectorWrapper):
        def step(self, actions):
            result = list(self.env.step(actions))
            result[field] = value
            return tuple(result)

    with pytest.raises(ValueError, match=sentence):
        played(Other(odd(BOX)))


def test_other_vector_environments_of_the_old_gym_are_refused():
    class Old(gym.vector.VectorWrapper):
        def step(self, actions):
            return self.env.step(actions)[:4]

    with pytest.raises(ValueError, match="`env.step` must return .* Received: 4 values in step 0"):
        played(Old(odd(BOX)))

    class Older(Old):
        def reset(self, **kwargs):
            return self.env.reset(**kwargs)[0]

    with pytest.raises(ValueError, match="`env.reset` must return .* Received: <class 'numpy.ndarray'> in `reset`"):
        played(Older(odd(BOX)))


@pytest.mark.parametrize("vector", [SyncVectorEnv, AsyncVectorEnv])
@pytest.mark.parametrize("mode", AutoresetMode)
def test_a_reset_has_no_options(vector, mode):
    class Particular(Fragile):
        """Legal: gymnasium's options are None unless the caller gives some."""

        def reset(self, *, seed=None, options=None):
            if options is not None:
                self.goal = options["goal"]
            return super().reset(seed=seed)

    env = vector([functools.partial(Particular, length=1)] * 2, autoreset_mode=mode)
    assert played(env)[1].terminated.all()
    env.close()


@pytest.mark.parametrize("vector", [SyncVectorEnv, AsyncVectorEnv])
@pytest.mark.filterwarnings("ignore:.*ERROR")  # gymnasium's report of it
def test_an_environment_that_raises_in_a_reset_is_named(vector):
    class Lost(Fragile):
        def reset(self, *, seed=None, options=None):
            if self.lifetime >= self.breaks:
                raise OSError("no way home")
            return super().reset(seed=seed)

        def step(self, action):
            self.breaks, breaks = None, self.breaks
            result = super().step(action)
            self.breaks = breaks
            return result

    for breaks, moment in ((0, "in `reset`"), (2, "in `reset` after step 1 since the last one")):
        env = vector([lambda: Fragile(length=2), lambda breaks=breaks: Lost(breaks, length=2)])
        with pytest.raises(RuntimeError, match=f"Environment 1 raised OSError {moment}: no way home. The agent keeps"):
            played(env)
        close(env, failed=True)


@pytest.mark.parametrize("shared_memory", [True, False])
@pytest.mark.parametrize("wrap", [lambda env: env, Wrapper])
def test_a_worker_that_is_gone_is_named_and_not_waited_for(shared_memory, wrap):
    class Mortal(Fragile):
        def step(self, action):
            os._exit(3)

    env = AsyncVectorEnv([Fragile, Mortal], shared_memory=shared_memory)
    sentence = "Environment 1 ended its process in step 0 since the last reset, with exit code 3. The agent keeps"
    with pytest.raises(RuntimeError, match=sentence):
        played(wrap(env))
    assert env.closed
    assert not any(process.is_alive() for process in env.processes)


def test_what_workers_give_is_judged_before_it_becomes_an_array():
    fine = (np.zeros(2), 1.0, False, False, {})
    for bad, sentence in (("1", "`reward` must be one number"), (None, "`reward` must be one number")):
        env = AsyncVectorEnv([lambda: Odd(BOX, [fine]), lambda bad=bad: Odd(BOX, [(np.zeros(2), bad, *fine[2:])])])
        with pytest.raises(ValueError, match=f"{sentence}. Received: {bad!r} .* from environment 1 in step 0"):
            played(env)
        env.close()


def test_closing_never_raises():
    class Stuck(Fragile):
        def close(self):
            raise OSError("the door is stuck")

    with pytest.warns(UserWarning, match="`close` of SyncVectorEnv.* raised OSError: the door is stuck. What was done"):
        close(SyncVectorEnv([Stuck]))


@pytest.mark.parametrize("missing", ["observation_space", "action_space"])
def test_an_environment_without_a_space_is_refused(missing):
    class Spaceless(Fragile):
        def __init__(self):
            super().__init__()
            setattr(self, missing, None)

    for env in (Spaceless, Spaceless()):
        with pytest.raises(TypeError, match=f"`env` must have a gymnasium space as its `{missing}`. Received: None"):
            make_vector_env(env)
