"""Compiled environments as gymnasium vector environments."""

import dataclasses

import gymnasium as gym
import keras
import numpy as np
import pytest
import tensorflow as tf
from gymnasium.vector import AutoresetMode

import kerasrl_pg as pg
from kerasrl_pg.envs import (
    Acrobot,
    CartPole,
    Catch,
    CompiledEnv,
    CompiledVectorEnv,
    Corridor,
    ObservationSpec,
    Pendulum,
    Stepper,
    TabularMDP,
    Transition,
    make_vector_env,
    time_limit,
)
from kerasrl_pg.envs.compiled import advance, begin
from kerasrl_pg.ops import random


@dataclasses.dataclass(frozen=True)
class Named(CompiledEnv):
    """Observations by name; ends after three steps."""

    num_envs: int = 3
    max_episode_steps: int | None = 3

    observation_space = gym.spaces.Dict(
        hand=gym.spaces.MultiBinary(2), picture=gym.spaces.Box(0, 255, (4, 4), np.uint8), place=gym.spaces.Discrete(9)
    )
    action_space = gym.spaces.MultiDiscrete([2, 3])

    def reset(self, noise):
        return tf.zeros(noise.shape[0], tf.int32)

    def observe(self, state):
        hand = tf.cast(tf.stack([state % 2, state // 2], -1), tf.float32)
        return {"hand": hand, "picture": tf.cast(tf.tile(state[:, None, None], [1, 4, 4]), tf.uint8), "place": state}

    def step(self, state, actions, noise):
        return Transition(state + 1, tf.cast(actions[:, 1], tf.float32), tf.zeros_like(state, tf.bool))


@pytest.mark.parametrize("env", [CartPole(num_envs=3), Pendulum(), TabularMDP(num_envs=2), Catch(), Named()])
def test_it_keeps_gymnasiums_conventions(env):
    vector = CompiledVectorEnv(env, seed=0)
    assert isinstance(vector, gym.vector.VectorEnv)
    assert vector.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert vector.spec.max_episode_steps == env.max_episode_steps
    assert vector.num_envs == env.num_envs
    assert vector.unwrapped is vector
    assert vector.single_observation_space == env.observation_space
    vector.action_space.seed(0)
    observations, info = vector.reset()
    assert observations in vector.observation_space and info == {}
    for _ in range(12):
        observations, rewards, terminated, truncated, info = vector.step(vector.action_space.sample())
        assert observations in vector.observation_space
        assert rewards.shape == terminated.shape == truncated.shape == (env.num_envs,)
        assert (rewards.dtype, terminated.dtype, truncated.dtype) == (np.float32, bool, bool)
        ended = terminated | truncated
        assert ("final_obs" in info) == ended.any()
        for index in range(env.num_envs if info else 0):
            assert info["_final_obs"][index] == ended[index]
            assert (info["final_obs"][index] is None) != ended[index]
            assert not ended[index] or info["final_obs"][index] in env.observation_space
    vector.close()


def test_it_steps_as_the_environment_does():
    env = time_limit(Acrobot(num_envs=3), 5)
    vector = CompiledVectorEnv(env)
    observations, _ = vector.reset(seed=7)
    running = begin(env, random.uniform([7, 0], (3, 4)))
    np.testing.assert_allclose(observations, running.observations, rtol=1e-6)
    for t in range(1, 9):
        actions = np.array([t % 3, 0, 2])
        observations, rewards, terminated, truncated, info = vector.step(actions)
        noise = random.uniform([7, t], (3, 4))
        running, outcome = advance(env, running, tf.constant(actions), tf.zeros((3, 0)), noise)
        np.testing.assert_allclose(observations, running.observations, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(rewards, outcome.rewards)
        np.testing.assert_array_equal(truncated, outcome.truncated)
        assert truncated.all() == (t == 5)
        if t == 5:
            final = np.stack(list(info["final_obs"]))
            np.testing.assert_allclose(final, outcome.next_observations, rtol=1e-4, atol=1e-5)


def episode(vector, seed=None, steps=5):
    first = vector.reset(seed=seed)[0]
    actions = np.zeros(vector.action_space.shape, vector.action_space.dtype)
    return np.array([first, *(vector.step(actions)[0] for _ in range(steps))])


def test_a_seed_gives_the_same_episodes():
    env = CartPole(num_envs=2)
    vector, twin = CompiledVectorEnv(env), CompiledVectorEnv(CartPole(num_envs=2), seed=3)
    first, further = episode(vector, seed=3), episode(vector)
    assert not np.array_equal(first, further)  # without a seed it goes on
    np.testing.assert_array_equal(episode(vector, seed=3), first)
    np.testing.assert_array_equal(episode(vector), further)
    np.testing.assert_array_equal(episode(twin), first)
    assert not np.array_equal(episode(vector, seed=4), first)
    assert not np.array_equal(episode(vector, seed=2**40 + 3), first)
    assert not np.array_equal(episode(CompiledVectorEnv(env)), episode(CompiledVectorEnv(env)))


def test_equal_environments_share_a_program():
    assert CompiledVectorEnv(CartPole(num_envs=2))._step is CompiledVectorEnv(CartPole(num_envs=2))._step
    assert CompiledVectorEnv(CartPole(num_envs=2))._step is not CompiledVectorEnv(CartPole(num_envs=3))._step


def test_observations_are_the_callers_own():
    vector = CompiledVectorEnv(CartPole())
    observations, _ = vector.reset(seed=0)
    before = observations.copy()
    later = vector.step([0])[0]
    np.testing.assert_array_equal(observations, before)
    later[:] = 99.0
    assert np.abs(vector.step([0])[0]).max() < 1.0


def test_the_stepper_takes_it():
    vector, owned = make_vector_env(CompiledVectorEnv(Named()))
    assert not owned
    stepper = Stepper(vector, ObservationSpec(vector.single_observation_space))
    assert stepper.reset(seed=0)["place"].tolist() == [0, 0, 0]
    actions = np.array([[0, 0], [0, 1], [1, 2]])
    for t in (1, 2, 3, 1):
        step = stepper.step(actions)
        assert step.valid is None
        assert step.rewards.tolist() == [0, 1, 2]
        assert step.next_observations["place"].tolist() == [t] * 3
        assert step.observations["place"].tolist() == [t % 3] * 3
        assert step.next_observations["picture"][1, 2, 3] == t
        assert step.next_observations["hand"][2].tolist() == [t % 2, t // 2]
        assert step.truncated.all() == (t == 3) and not step.terminated.any()


def test_gymnasiums_vector_wrappers_take_it():
    vector = gym.wrappers.vector.RecordEpisodeStatistics(CompiledVectorEnv(Named()))
    vector = gym.wrappers.vector.DictInfoToList(vector)
    vector.reset(seed=0)
    for _ in range(3):
        *_, infos = vector.step(np.array([[0, 2], [0, 1], [1, 1]]))
    assert [info["episode"]["r"] for info in infos] == [6, 3, 3]
    assert [info["final_obs"]["place"] for info in infos] == [3, 3, 3]


def test_an_agent_learns_on_it_and_is_judged_by_it():
    agent = pg.A2C(horizon=8, networks=pg.Networks(hidden_units=()), seed=0)
    agent.compile(keras.optimizers.Adam(0.1), jit_compile=False)
    vector = CompiledVectorEnv(Corridor(num_envs=8, length=3))
    agent.fit(vector, epochs=1, steps_per_epoch=30, verbose=0)
    result = agent.evaluate(CompiledVectorEnv(Corridor(num_envs=2, length=3)), episodes=4)
    assert (result["return"], result["length"]) == (-2.0, 2.0)


@pytest.mark.parametrize("actions", [[0, 1, 0], [[0], [1]], [0, 2], [-1, 0]])
def test_wrong_actions_are_refused(actions):
    vector = CompiledVectorEnv(CartPole(num_envs=2))
    vector.reset()
    with pytest.raises(ValueError, match=r"`actions` must be of MultiDiscrete\(\[2 2\]\), of shape \(2,\)"):
        vector.step(actions)


@dataclasses.dataclass(frozen=True)
class Limbs(CompiledEnv):
    """Composite actions; what was done is what is seen next, and the last leg may only rest."""

    num_envs: int = 2
    max_episode_steps: int | None = 3

    observation_space = gym.spaces.Box(-np.inf, np.inf, (3,))
    action_space = gym.spaces.Dict(
        legs=gym.spaces.Tuple((gym.spaces.Discrete(3, start=1), gym.spaces.Discrete(2))),
        arm=gym.spaces.Box(-1.0, 1.0, (), np.float32),
    )

    def reset(self, noise):
        return tf.zeros((noise.shape[0], 3))

    def observe(self, state):
        return state

    def action_masks(self, state):
        return {"legs": (None, tf.range(2) == tf.zeros((state.shape[0], 1), tf.int32)), "arm": None}

    def step(self, state, actions, noise):
        left, right = actions["legs"]
        state = tf.stack([actions["arm"], *(tf.cast(leg, tf.float32) for leg in (left, right))], -1)
        return Transition(state, state[:, 1], state[:, 2] > 0.0)


def test_composite_actions_and_their_masks():
    vector = CompiledVectorEnv(Limbs())
    _, info = vector.reset(seed=0)
    assert info["action_mask"]["arm"] is None and info["action_mask"]["legs"][0] is None
    assert info["action_mask"]["legs"][1].tolist() == [[True, False]] * 2
    observations, rewards, *_ = vector.step({"arm": [0.5, -0.5], "legs": [np.int64([1, 3]), [0, 0]]})
    assert observations.tolist() == [[0.5, 1.0, 0.0], [-0.5, 3.0, 0.0]] and rewards.tolist() == [1.0, 3.0]
    assert vector.step(vector.action_space.sample())[0].shape == (2, 3)
    for wrong, place in (
        ({"arm": [0.5, 0.5]}, "actions` must be of Dict"),
        ({"arm": [0.5, 0.5], "legs": ([1, 1], [0, 2])}, r"actions\['legs'\]\[1\]` must be of MultiDiscrete"),
        ({"arm": [0.5], "legs": ([1, 1], [0, 1])}, r"actions\['arm'\]` must be of Box"),
        ({"arm": [0.5, 0.5], "legs": ([1, 1],)}, r"actions\['legs'\]` must be of Tuple.*[^e]. Received"),
        ({"arm": [0.5, 0.5], "legs": ([1, 9], [0, 1])}, r"actions\['legs'\]\[0\]` must be of"),
        ({"arm": [0.5, 0.5], "legs": ([1, 1.5], [0, 1])}, r"actions\['legs'\]\[0\]` must be of"),
        ({"arm": "fast", "legs": ([1, 1], [0, 1])}, r"actions\['arm'\]` must be of Box"),
    ):
        with pytest.raises(ValueError, match=place):
            vector.step(wrong)
    agent = pg.A2C(horizon=4, networks=pg.Networks(()), seed=0)
    agent.compile(jit_compile=False)
    agent.fit(vector, epochs=1, steps_per_epoch=2, verbose=0)
    assert agent.action_masks == "info" and agent.evaluate(vector, episodes=4, deterministic=False)["length"] == 3.0


@dataclasses.dataclass(frozen=True)
class Deep(CompiledEnv):
    """Observations and choices in nests; the first of three choices is never allowed, by an array that stays."""

    num_envs: int = 2
    max_episode_steps: int | None = 2

    observation_space = gym.spaces.Dict(
        body=gym.spaces.Tuple(
            (gym.spaces.Discrete(9, start=1), gym.spaces.Dict(x=gym.spaces.Box(-1, 1, (2,), np.float64)))
        ),
        pair=gym.spaces.MultiBinary(2),
    )
    action_space = gym.spaces.MultiDiscrete([3, 2], start=[1, 0])

    def reset(self, noise):
        return tf.ones(noise.shape[0], tf.int32)

    def observe(self, state):
        pair = tf.cast(tf.stack([state, state], -1) > 1, tf.float32)
        return {"body_item0": state, "body_item1_x": 0.5 * pair, "pair": pair}

    def action_masks(self, state):
        return np.bool_([[0, 1, 1]] * self.num_envs), np.ones((self.num_envs, 2), bool)

    def step(self, state, actions, noise):
        return Transition(state + 1, tf.where(actions[:, 0] == 1, -1000.0, 1.0), tf.zeros_like(state, tf.bool))


def test_nests_of_observations_and_masks_that_stay():
    vector = CompiledVectorEnv(Deep())
    observations, info = vector.reset(seed=0)
    assert observations in vector.observation_space and info["action_mask"][0].tolist() == [[False, True, True]] * 2
    assert vector.step([[2, 0], [3, 1]])[0] in vector.observation_space
    for wrong in ([[2, 0], [4, 0]], [[2, 0], [3, 2]], [[2, 0], [0, 0]]):
        with pytest.raises(ValueError, match="`actions` must be of Box"):
            vector.step(wrong)
    agent = pg.A2C(horizon=4, networks=pg.Networks(()), seed=0)
    agent.compile(jit_compile=False)
    history = agent.fit(Deep(), epochs=1, steps_per_epoch=5, verbose=0).history
    assert history["episode_return"] == [2.0]
    assert agent.evaluate(Deep(), episodes=4, deterministic=False)["return"] == 2.0


def test_actions_beyond_a_box_are_clipped_by_the_environment():
    vector = CompiledVectorEnv(Pendulum())
    vector.reset(seed=0)
    beyond = vector.step([[5.0]])[0]
    vector.reset(seed=0)
    np.testing.assert_array_equal(beyond, vector.step(np.float64([[2.0]]))[0])


def test_a_step_before_the_reset_is_refused():
    with pytest.raises(gym.error.ResetNeeded, match="Call `reset` before `step`"):
        CompiledVectorEnv(CartPole()).step([0])


def test_options_are_refused():
    with pytest.raises(ValueError, match="`options` must be None .* Received: options="):
        CompiledVectorEnv(CartPole()).reset(options={"reset_mask": np.ones(1, bool)})


@pytest.mark.parametrize("env", ["CartPole-v1", CartPole])
def test_other_environments_are_refused(env):
    with pytest.raises(TypeError, match=r"`env` must be a CompiledEnv, such as CartPole\(num_envs=8\). Received"):
        CompiledVectorEnv(env)
