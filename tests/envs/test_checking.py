"""`check_equal` passes what is equal and fails what is not, naming the difference."""

import dataclasses

import gymnasium as gym
import numpy as np
import pytest
import tensorflow as tf

from kerasrl_pg.envs import Breakout, CartPole, CompiledEnv, Pendulum, Transition, check_equal


def rigged(base, **methods):
    """`base` with some of its methods replaced."""
    return dataclasses.dataclass(frozen=True)(type(f"Rigged{base.__name__}", (base,), methods))()


def after(change, base=CartPole):
    """`base` with each step's `Transition` changed."""
    return rigged(base, step=lambda self, state, actions, noise: change(base.step(self, state, actions, noise)))


def heavier(transition):
    """0.1 % more gravity on a pendulum: 0.05 x 15 x 0.001 sin θ in the velocity."""
    state = transition.state
    more = 0.05 * 15.0 * 0.001 * tf.sin(state[:, :1])
    return transition._replace(state=state + tf.concat([0.05 * more, more], -1))


def a_turn_less(transition):
    """The angle without its whole turns: every observation and reward stays as it was."""
    theta = transition.state[:, :1]
    return transition._replace(
        state=tf.concat([theta - 2 * np.pi * tf.round(theta / (2 * np.pi)), transition.state[:, 1:]], -1)
    )


WRONG_STEPS = {
    "gravity": (after(heavier, Pendulum), "`next_observations` of the environment must be the reference's"),
    "hidden_state": (after(a_turn_less, Pendulum), "`next_states` of the environment must be the reference's"),
    "reward": (
        after(lambda t: t._replace(rewards=0.999 * t.rewards)),
        r"`rewards` of the environment must be the reference's, 1\.0 in step 0 \(after 0 steps of its episode\), for "
        r"the action [01] in the state \[.*\]\. Received: 0\.99",
    ),
    "no_termination": (after(lambda t: t._replace(terminated=tf.zeros_like(t.terminated))), "`terminated` of"),
    "narrower_termination": (
        after(lambda t: t._replace(terminated=t.terminated | (tf.abs(t.state[:, 2]) > 0.19))),
        "`terminated` of the environment must be the reference's, 0.0",
    ),
    "truncation": (after(lambda t: t._replace(truncated=t.state[:, 0] > 0.02)), "`truncated` of"),
    "observation": (
        rigged(CartPole, observe=lambda self, state: state + tf.constant([0.0, 1e-3, 0.0, 0.0])),
        "`observations` of the environment must be the reference's, .* in step 0",
    ),
    "observation_shape": (
        rigged(CartPole, observe=lambda self, state: state[:, :3]),
        r"`observations` of the environment must have the reference's shape \(4,\). Received: \(3,\)",
    ),
}
UNIFORM = CartPole.reset
WRONG_RESETS = {
    "range": lambda self, noise: 1.1 * UNIFORM(self, noise),
    "place": lambda self, noise: UNIFORM(self, noise) + tf.constant([0.0, 0.0, 0.006, 0.0]),
    "constant": lambda self, noise: UNIFORM(self, noise) * tf.constant([1.0, 1.0, 1.0, 0.0]),
    "one_number_for_all": lambda self, noise: UNIFORM(self, tf.tile(noise[:, :1], [1, 4])),
    # Normal, with the uniform's mean and variance: only the distance of the distributions tells.
    "shape": lambda self, noise: 0.1 / 12**0.5 * 2**0.5 * tf.math.erfinv(2.0 * noise - 1.0),
}


@pytest.mark.parametrize("name", WRONG_STEPS)
def test_wrong_steps_are_found(name):
    env, sentence = WRONG_STEPS[name]
    reference = "Pendulum-v1" if isinstance(env, Pendulum) else "CartPole-v1"
    with pytest.raises(ValueError, match=sentence):
        check_equal(env, reference, steps=1000, resets=100)


@pytest.mark.parametrize("name", WRONG_RESETS)
def test_wrong_first_states_are_found(name):
    with pytest.raises(ValueError, match="`env.reset` must give the reference's distribution of first states: "):
        check_equal(rigged(CartPole, reset=WRONG_RESETS[name]), "CartPole-v1", steps=10)


def test_a_small_shift_of_first_states_is_found():
    # Too small for the distance of the distributions, 0.036 but for chance: the mean tells.
    env = rigged(CartPole, reset=lambda self, noise: UNIFORM(self, noise) + tf.constant([0.0, 0.0036, 0.0, 0.0]))
    with pytest.raises(ValueError, match=r"component 1 is of mean .* Kolmogorov-Smirnov distance 0\.0[345]"):
        check_equal(env, "CartPole-v1", steps=10, resets=5000)


@pytest.mark.parametrize("seed", range(5))
def test_right_first_states_pass_whatever_the_seed(seed):
    assert check_equal(CartPole(), "CartPole-v1", steps=10, seed=seed).first_state_distance < 0.08


def test_a_difference_in_a_component_is_named():
    env = rigged(CartPole, reset=WRONG_RESETS["place"])
    with pytest.raises(
        ValueError, match=r"component 2 is of mean .* and standard deviation 0\.02[89].* Received: mean"
    ):
        check_equal(env, "CartPole-v1", steps=10)


@pytest.mark.parametrize("limit", [499, None])
def test_another_time_limit_is_found(limit):
    with pytest.raises(ValueError, match=f"must be the reference's time limit, 500. Received: {limit} of CartPole"):
        check_equal(CartPole(max_episode_steps=limit), "CartPole-v1")


def test_limits_are_found_under_wrappers():
    def make():
        return gym.wrappers.ClipReward(gym.wrappers.TimeLimit(gym.make("CartPole-v1"), 7), -9, 9)

    assert check_equal(CartPole(max_episode_steps=7), make, steps=60, resets=100).truncated == 60 // 7


@pytest.mark.parametrize("space", ["observation_space", "action_space"])
def test_other_spaces_are_found(space):
    env = rigged(CartPole, **{space: gym.spaces.Discrete(5)})
    with pytest.raises(ValueError, match=rf"`env.{space}` must be the reference's, .*\. Received: Discrete\(5\) of"):
        check_equal(env, "CartPole-v1")


def test_the_first_of_several_differences_is_named():
    late = after(lambda t: t._replace(rewards=tf.where(tf.range(t.rewards.shape[0]) >= 7, 3.0, 1.0)))
    with pytest.raises(ValueError, match=r"`rewards` .* in step 7 \("):
        check_equal(late, "CartPole-v1", steps=20, resets=100)


def test_the_report():
    report = check_equal(CartPole(num_envs=3), "CartPole-v1", steps=300, resets=100)
    assert report.steps == 300
    assert report.episodes == report.terminated + report.truncated > 5
    assert 0 < report.observation_difference <= report.state_difference + 1e-12 < 1e-5
    assert report.reward_difference == 0
    assert 0 < report.first_state_distance < 0.4


def test_a_policy_of_ones_own():
    seen = []

    def policy(observation):
        seen.append(observation)
        return int(observation[2] + 0.5 * observation[3] > 0)

    report = check_equal(CartPole(), "CartPole-v1", steps=501, policy=policy, resets=100)
    assert len(seen) == 501
    assert (report.terminated, report.truncated) == (0, 1)


def test_an_environment_given_is_used_and_left_open():
    class Open(gym.Wrapper):
        closed = False

        def close(self):
            self.closed = True

    one, made = Open(gym.make("CartPole-v1")), []
    check_equal(CartPole(), one, steps=20, resets=100)
    assert not one.closed
    check_equal(CartPole(), lambda: made.append(Open(gym.make("CartPole-v1"))) or made[-1], steps=20, resets=100)
    assert made[0].closed


@dataclasses.dataclass(frozen=True)
class Pair(CompiledEnv):
    """Two observations, a nested state of two dtypes."""

    num_envs: int = 1
    max_episode_steps: int | None = None

    observation_space = gym.spaces.Dict(count=gym.spaces.Discrete(9), place=gym.spaces.Box(-9, 9, (2,)))
    action_space = gym.spaces.MultiDiscrete([2, 2])
    reset_noise = 1
    step_by = 1

    def reset(self, noise):
        count = tf.zeros(noise.shape[0], tf.int32)
        return count, tf.tile(noise, [1, 2])

    def observe(self, state):
        return {"count": state[0], "place": state[1]}

    def step(self, state, actions, noise):
        place = state[1] + 0.1 * tf.cast(actions, tf.float32)
        return Transition((state[0] + self.step_by, place), place[:, 0], state[0] == 7)

    def state_of(self, env):
        return np.int32(env.count), env.place  # the same array each time, which the reference writes on


class PairReference(gym.Env):
    observation_space, action_space = Pair.observation_space, Pair.action_space

    def observe(self):
        return {"count": self.count, "place": self.place}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count, self.place = 0, np.full(2, self.np_random.random(), np.float32)
        return self.observe(), {}

    def step(self, action):
        self.count += 1
        self.place += 0.1 * action.astype(np.float32)
        return self.observe(), self.place[0], self.count == 8, False, {}


def test_nested_observations_and_states():
    assert check_equal(Pair(), PairReference, steps=50, resets=500).terminated == 50 // 8
    with pytest.raises(ValueError, match="`next_observations` of the environment must be the reference's, 1.0"):
        check_equal(rigged(Pair, step_by=2), PairReference, steps=50, resets=100)


@dataclasses.dataclass(frozen=True)
class Parts(Pair):
    """The same with its two actions apart, one of them in a Tuple."""

    action_space = gym.spaces.Dict(first=gym.spaces.Discrete(2), rest=gym.spaces.Tuple((gym.spaces.Discrete(2),)))

    def step(self, state, actions, noise):
        return super().step(state, tf.stack([actions["first"], actions["rest"][0]], -1), noise)


class PartsReference(PairReference):
    action_space = Parts.action_space
    turned = False

    def step(self, action):
        pair = np.array([action["first"], action["rest"][0]])
        return super().step(pair[::-1] if self.turned else pair)


def test_composite_actions():
    assert check_equal(Parts(), PartsReference, steps=50, resets=500).steps == 50
    with pytest.raises(ValueError, match=r"for the action \{'first': ., 'rest': \(.,\)\} in the state"):
        check_equal(Parts(), type("Turned", (PartsReference,), {"turned": True}), steps=50, resets=100)


@pytest.mark.parametrize("reference", [3, lambda: 3])
def test_other_references_are_refused(reference):
    with pytest.raises(TypeError, match="`reference` must be a gymnasium id, .* Received: reference="):
        check_equal(CartPole(), reference)


def test_the_two_in_the_wrong_order_are_refused():
    with pytest.raises(TypeError, match="`env` must be a CompiledEnv, .* Received: env='CartPole-v1'"):
        check_equal("CartPole-v1", CartPole())


@pytest.mark.parametrize("steps, resets", [(0, 100), (10, 99)])
def test_numbers_that_compare_nothing_are_refused(steps, resets):
    with pytest.raises(ValueError, match=f"Received: steps={steps}, resets={resets}"):
        check_equal(CartPole(), "CartPole-v1", steps=steps, resets=resets)


def test_chance_in_the_steps_is_refused():
    with pytest.raises(ValueError, match="`env` must step without noise.* Received: step_noise=1 of Breakout"):
        check_equal(Breakout(), "CartPole-v1")


def test_an_environment_without_state_of_is_refused():
    env = rigged(CartPole, state_of=CompiledEnv.state_of)
    with pytest.raises(NotImplementedError, match=r"must implement state_of\(env\)"):
        check_equal(env, "CartPole-v1")
