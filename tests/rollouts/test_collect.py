import functools
import itertools
import warnings

import gymnasium as gym
import numpy as np
import pytest
import tensorflow as tf
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from kerasrl_pg import heads
from kerasrl_pg.envs import ObservationSpec
from kerasrl_pg.models import Networks
from kerasrl_pg.rollouts import Actor, Collector, EpisodeStatistics, Inputs, Rollout
from kerasrl_pg.rollouts.collect import check_finite

S = gym.spaces
T, N = 20, 3


@pytest.fixture(scope="module", params=["box", "nested"])
def world(request, counter, nested_counter):
    """`(environment class, spec, stochastic policy's head, its actor)` for N environments."""
    env_class = {"box": counter, "nested": nested_counter}[request.param]
    spec = ObservationSpec(env_class.observation_space)
    policy, _ = Networks(hidden_units=(8,)).build(env_class.observation_space, env_class.action_space, seed=1)
    for variable in policy.trainable_variables:  # so that actions depend on observations
        variable.assign(np.random.default_rng(0).normal(size=variable.shape))
    head = policy.layers[-1]
    return env_class, spec, head, Actor(policy, head, spec, N)


def collector(env, world, horizon=T, **kwargs):
    """A collector whose noise is the same in every run."""
    _, spec, head, actor = world
    counter = itertools.count()

    def draw():
        return head.noise(tf.constant([5, next(counter)]), (horizon, N)).numpy()

    return Collector(env, spec, head, actor, draw, horizon, **{"seed": 7, **kwargs})


def collected(env, world, rollouts=3, **kwargs):
    """`(rollouts, statistics, steps)`; closes the environment."""
    one = collector(env, world, **kwargs)
    batches, steps = [], []
    for _ in range(rollouts):
        batches.append(one.collect())
        steps.append(one.steps_taken)
    env.close()
    return batches, one.statistics, steps


def assert_same(left, right):
    for field in left._fields:
        a, b = (tf.nest.flatten(getattr(rollout, field)) for rollout in (left, right))
        for x, y in zip(a, b, strict=True):
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y, err_msg=field)


def rows(rollout, index):
    """The valid transitions of one environment, each a list of its numbers."""
    keep = rollout.valid[:, index]
    return [leaf[keep, index] for leaf in tf.nest.flatten(rollout._asdict())]


@pytest.fixture(scope="module")
def expected(world):
    return collected(SyncVectorEnv([world[0]] * N, autoreset_mode=AutoresetMode.DISABLED), world)


def test_the_batch_is_worth_comparing(expected):
    (rollout, *_), statistics, _ = expected
    assert {1, 2, 3, 4, 5, 6} == {length for _, length in statistics.finished}
    assert {0, 1, 2} == set(rollout.actions.flat)
    assert len(set(rollout.log_probs.flat)) > 20


@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("copy", [True, False])
def test_the_same_batch_in_all_autoreset_modes(world, expected, mode, copy):
    env = SyncVectorEnv([world[0]] * N, autoreset_mode=mode, copy=copy)
    rollouts, statistics, steps = collected(env, world)
    for left, right in zip(rollouts, expected[0], strict=True):
        assert_same(left, right)
        assert right.valid.all()
    assert statistics.finished == expected[1].finished
    assert steps == [T * N] * 3


def test_the_same_batch_from_asynchronous_environments(world, expected):
    for mode in AutoresetMode:
        env = AsyncVectorEnv([world[0]] * N, autoreset_mode=mode)
        rollouts, statistics, steps = collected(env, world)
        for left, right in zip(rollouts, expected[0], strict=True):
            assert_same(left, right)
        assert statistics.finished == expected[1].finished
        assert steps == expected[2]


def dead_row_envs(env_class, foreign):
    yield foreign(SyncVectorEnv([env_class] * N))
    # gymnasium's own, but its worker would reset again after a masked reset.
    yield AsyncVectorEnv([env_class] * N, shared_memory=False)


def test_lost_rows_are_not_transitions(world, expected, foreign):
    for env in dead_row_envs(world[0], foreign):
        (rollout,), statistics, steps = collected(env, world, rollouts=1)
        ended = rollout.terminated | rollout.truncated
        np.testing.assert_array_equal(~rollout.valid[1:], ended[:-1])
        assert rollout.valid[0].all()
        assert not rollout.rewards[~rollout.valid].any()
        assert not ended[~rollout.valid].any()
        assert steps == [rollout.valid.sum()]
        assert 0 < steps[0] < T * N
        # What is left is, for each environment, the batch that the others collect, as far as it goes.
        for index in range(N):
            count = rollout.valid[:, index].sum()
            for mine, whole in zip(rows(rollout, index), rows(expected[0][0], index), strict=True):
                np.testing.assert_array_equal(mine, whole[:count])
        lengths = sorted(length for _, length in statistics.finished)
        assert len(lengths) == ended.sum()
        reference = expected[0][0]
        for index in range(N):
            count = ended[:, index].sum()
            np.testing.assert_array_equal(
                np.flatnonzero((reference.terminated | reference.truncated)[:, index])[:count],
                np.cumsum(rollout.valid[:, index])[ended[:, index]] - 1,
            )


def test_a_row_lost_at_the_start_of_a_rollout(scripted, fixed_actor, foreign):
    env = foreign(SyncVectorEnv([functools.partial(scripted, [1.0] * n) for n in (2, 3)]))
    spec = ObservationSpec(env.single_observation_space)
    one = Collector(env, spec, heads.Categorical(3), fixed_actor(2), lambda: np.zeros((2, 2, 3), np.float32), 2)
    assert one.collect().valid.tolist() == [[True, True], [True, True]]
    rollout = one.collect()
    assert rollout.valid.tolist() == [[False, True], [True, False]]
    assert rollout.rewards.tolist() == [[0, 1], [1, 0]]
    assert one.steps_taken == 2


def test_next_observations_are_the_true_ones(world, expected):
    single = world[1].single
    for rollout in expected[0]:
        now, then = (
            x if single else x["more_item0"] for x in (rollout.inputs.observations, rollout.next_inputs.observations)
        )
        count, length = np.moveaxis(now, -1, 0)
        next_count, next_length = np.moveaxis(then, -1, 0)
        np.testing.assert_array_equal(next_count, count + 1)
        np.testing.assert_array_equal(next_length, length)
        ended = rollout.terminated | rollout.truncated
        np.testing.assert_array_equal(ended, next_count == length)
        np.testing.assert_array_equal(rollout.truncated, ended & (length % 3 == 0))
        np.testing.assert_array_equal(rollout.terminated, ended & (length != 3))
        assert (count[1:][ended[:-1]] == 0).all()  # a new episode follows at once
        np.testing.assert_array_equal(rollout.rewards, 100 * length + 10 * next_count + rollout.actions)


def test_raw_actions_are_stored_and_their_copies_sent(counter, fixed_actor):
    class Shifted(counter):
        action_space = gym.spaces.Discrete(3, start=5)

        def step(self, action):
            assert self.action_space.contains(action)
            return super().step(action)

    env = SyncVectorEnv([Shifted] * 2)
    spec = ObservationSpec(env.single_observation_space)
    policy, _ = Networks(hidden_units=()).build(env.single_observation_space, env.single_action_space, seed=0)
    head = policy.layers[-1]
    rollout = Collector(
        env, spec, head, Actor(policy, head, spec, 2), lambda: head.noise([0, 0], (9, 2)).numpy(), 9, seed=0
    ).collect()
    assert set(rollout.actions.flat) == {0, 1, 2}
    np.testing.assert_array_equal(rollout.rewards % 10, rollout.actions + 5)
    old = policy(rollout.inputs.observations.reshape(-1, 2)).log_prob(rollout.actions.reshape(-1))
    np.testing.assert_allclose(rollout.log_probs.reshape(-1), old, atol=1e-6)


@pytest.mark.parametrize("mode", AutoresetMode)
def test_whole_episodes(counter, fixed_actor, mode, foreign):
    wrappers = (foreign, lambda env: env) if mode is AutoresetMode.NEXT_STEP else (lambda env: env,)
    for wrap in wrappers:
        env = wrap(SyncVectorEnv([counter] * N, autoreset_mode=mode))
        spec = ObservationSpec(env.single_observation_space)
        one = Collector(
            env, spec, heads.Categorical(3), fixed_actor(N), lambda: np.zeros((30, N, 3), np.float32), 30, 2, seed=3
        )
        finished = []
        for _ in range(3):
            rollout = one.collect()
            ended = rollout.terminated | rollout.truncated
            assert ((ended & rollout.valid).sum(0) == 2).all()
            for index in range(N):
                valid = rollout.valid[:, index]
                last = np.flatnonzero(valid)[-1]
                assert ended[last, index]  # nothing counts after the last episode's end
                observations = rollout.inputs.observations[valid, index]
                assert observations[0, 0] == 0  # and every rollout starts with a new episode
                for episode in np.split(observations, np.flatnonzero(ended[valid, index])[:-1] + 1):
                    length = int(episode[0, 1])
                    assert episode[:, 0].tolist() == list(range(length))
                    finished.append(length)
            assert not rollout.rewards[np.flatnonzero(rollout.valid.any(1))[-1] + 1 :].any()
            assert one.steps_taken >= rollout.valid.sum()
        assert sorted(length for _, length in one.statistics.finished) == sorted(finished)


def vector_entry_point():
    return gym.make_vec("CartPole-v1", num_envs=N, vectorization_mode="vector_entry_point")


def env_pool():
    envpool = pytest.importorskip("envpool")
    return envpool.make("CartPole-v1", env_type="gymnasium", num_envs=N, seed=3)


@pytest.mark.parametrize("make", [vector_entry_point, env_pool])
@pytest.mark.filterwarnings("ignore:.*precision lowered by casting")  # EnvPool's own spaces
def test_vector_environments_that_reset_in_the_next_step(make, fixed_actor):
    env = make()
    spec = ObservationSpec(env.single_observation_space)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # EnvPool warns where a seed is passed to its reset
        one = Collector(env, spec, heads.Categorical(2), fixed_actor(N), lambda: np.zeros((40, N, 2)), 40, seed=3)
    episodes = []
    left = np.zeros((2, N), int)  # return and length so far
    dead = np.zeros(N, bool)
    for _ in range(2):
        rollout = one.collect()
        ended = rollout.terminated | rollout.truncated
        np.testing.assert_array_equal(~rollout.valid, np.concatenate([dead[None], ended[:-1]]))
        dead = ended[-1]
        np.testing.assert_array_equal(rollout.rewards, rollout.valid)
        assert one.steps_taken == rollout.valid.sum() < 40 * N
        assert ended.sum() >= 2 * N
        # Pushed to the right, the pole falls to the left: the true last observation is beyond 12 degrees.
        assert (np.abs(rollout.next_inputs.observations[ended][:, 2]) > 0.2095).all()
        first = rollout.inputs.observations[1:][~rollout.valid[:-1]]
        assert (np.abs(first) <= 0.05).all()
        np.testing.assert_array_equal(rollout.next_inputs.observations[:-1], rollout.inputs.observations[1:])
        for t, index in np.argwhere(rollout.valid):
            left[:, index] += 1
            if ended[t, index]:
                episodes.append(tuple(left[:, index]))
                left[:, index] = 0
    assert sorted(one.statistics.finished) == sorted(episodes)
    env.close()


def test_episodes_go_on_between_rollouts(scripted, fixed_actor):
    env = SyncVectorEnv([functools.partial(scripted, [0.5, 2.0, -1.0])])
    spec = ObservationSpec(env.single_observation_space)
    one = Collector(env, spec, heads.Categorical(3), fixed_actor(1), lambda: np.zeros((2, 1, 3), np.float32), 2)
    one.collect()
    assert np.isnan(one.statistics.means()["episode_return"])
    one.collect()
    assert list(one.statistics.finished) == [(1.5, 3)]
    one.collect()
    assert list(one.statistics.finished) == [(1.5, 3), (1.5, 3)]


def test_statistics():
    rng = np.random.default_rng(0)
    rewards = rng.normal(size=(200, 4))
    ended, valid = rng.random((200, 4)) < 0.1, rng.random((200, 4)) < 0.8
    statistics = EpisodeStatistics(4, window=7)
    expected, returns, lengths = [], [0.0] * 4, [0] * 4
    for t in range(200):
        statistics.add(rewards[t], ended[t], valid[t])
        for i in range(4):
            if valid[t, i]:
                returns[i] += rewards[t, i]
                lengths[i] += 1
                if ended[t, i]:
                    expected.append((returns[i], lengths[i]))
                    returns[i], lengths[i] = 0.0, 0
    assert len(expected) > 20
    assert list(statistics.finished) == expected[-7:]
    means = np.mean(expected[-7:], axis=0)
    assert statistics.means() == {"episode_return": means[0], "episode_length": means[1]}


def test_statistics_keep_the_last_hundred_and_forget_the_unfinished():
    statistics = EpisodeStatistics(1)
    for reward in range(150):
        statistics.add(np.array([float(reward)]), np.array([True]))
    assert statistics.means() == {"episode_return": np.mean(range(50, 150)), "episode_length": 1.0}
    statistics.add(np.array([1e6]), np.array([False]))
    statistics.reset()
    statistics.add(np.array([7.0]), np.array([True]))
    assert statistics.finished[-1] == (7.0, 1)


NAN = float("nan")
DICT = gym.spaces.Dict(goal=gym.spaces.Discrete(3), robot=gym.spaces.Box(-np.inf, np.inf, (1,)))


@pytest.mark.parametrize(
    "script, sentence",
    [
        (
            {"rewards": [0, 0, NAN, 0]},
            "`rewards` must be finite. Received: nan from environment 1 in step 2 of the rollout. Repair the env",
        ),
        (
            {"rewards": [0, 0, np.inf, 0]},
            "`rewards` must be finite. Received: inf from environment 1 in step 2 of the rollout",
        ),
        (
            {"rewards": [0] * 4, "observations": [0, 0, 0, NAN, 0]},
            r"`next_observations` must be finite. Received: \[nan\] from environment 1 in step 2 of the rollout. "
            "Repair the environment, or bound its observations",
        ),
        (
            {"rewards": [0] * 4, "observations": [np.inf, 0, 0, 0, 0]},
            r"`observations` must be finite. Received: \[inf\] from environment 1 in step 0 of the rollout",
        ),
        (
            {"rewards": [0] * 4, "observations": [0, NAN, 0, 0, 0], "space": DICT},
            r"`next_observations\['robot'\]` must be finite. Received: \[nan\] from environment 1 in step 0",
        ),
    ],
)
def test_what_is_not_finite_is_refused(scripted, fixed_actor, script, sentence):
    healthy = functools.partial(scripted, [0] * 4, space=script.get("space"))
    env = SyncVectorEnv([healthy, functools.partial(scripted, **script)])
    spec = ObservationSpec(env.single_observation_space)
    one = Collector(env, spec, heads.Categorical(3), fixed_actor(2), lambda: np.zeros((4, 2, 3), np.float32), 4)
    with pytest.raises(ValueError, match=f"{sentence}.*The agent keeps the weights of its last finished update"):
        one.collect()


def test_log_probabilities_that_are_not_finite_are_refused(scripted, fixed_actor):
    env = SyncVectorEnv([functools.partial(scripted, [0] * 4)] * 2)
    spec = ObservationSpec(env.single_observation_space)
    actor = fixed_actor(2, log_probs=[0.0, NAN])
    one = Collector(env, spec, heads.Categorical(3), actor, lambda: np.zeros((4, 2, 3), np.float32), 4)
    with pytest.raises(
        ValueError, match="`log_probs` must be .* nan from environment 1 in step 0 .* The policy's weights"
    ):
        one.collect()


def test_an_observation_is_named_before_the_log_probability_computed_from_it(scripted):
    env = SyncVectorEnv([functools.partial(scripted, [0] * 4, [NAN, 0, 0, 0, 0])])
    spec = ObservationSpec(env.single_observation_space)
    policy, _ = Networks(hidden_units=()).build(env.single_observation_space, env.single_action_space, seed=0)
    head = policy.layers[-1]
    actor = Actor(policy, head, spec, 1)
    one = Collector(env, spec, head, actor, lambda: np.full((4, 1, 3), 0.5, np.float32), 4)
    with pytest.raises(
        ValueError, match=r"`observations` must be finite. Received: \[nan\] from environment 0 in step 0"
    ):
        one.collect()


def test_rows_that_do_not_count_may_hold_anything(scripted, fixed_actor, foreign):
    class Rubbish(foreign):
        """Rewards NaN in the row where it resets itself."""

        def reset(self, **kwargs):
            self.dead = False
            return self.env.reset(**kwargs)

        def step(self, actions):
            observations, rewards, terminated, *rest = self.env.step(actions)
            rewards = np.where(self.dead, NAN, rewards)
            self.dead = terminated
            return observations, rewards, terminated, *rest

    env = Rubbish(SyncVectorEnv([functools.partial(scripted, [1.0, 1.0])]))
    spec = ObservationSpec(env.single_observation_space)
    one = Collector(env, spec, heads.Categorical(3), fixed_actor(1), lambda: np.zeros((6, 1, 3), np.float32), 6)
    rollout = one.collect()
    assert rollout.valid[:, 0].tolist() == [True, True, False, True, True, False]
    assert list(one.statistics.finished) == [(2.0, 2), (2.0, 2)]


def test_a_reward_beyond_float32_is_called_that(scripted, fixed_actor):
    env = SyncVectorEnv([functools.partial(scripted, [0] * 4), functools.partial(scripted, [0, 1e39, 0, 0])])
    spec = ObservationSpec(env.single_observation_space)
    one = Collector(env, spec, heads.Categorical(3), fixed_actor(2), lambda: np.zeros((4, 2, 3), np.float32), 4)
    sentence = (
        r"`rewards` must be within float32 \(3.4e38\), .* Received: 1e\+39 from environment 1 in step 1 of the rol"
    )
    with pytest.raises(ValueError, match=sentence):
        one.collect()


def test_rewards_are_rounded_once(scripted, fixed_actor):
    rewards = [0.1, 1 / 3, 3.4e38, -1e-40]
    env = SyncVectorEnv([functools.partial(scripted, rewards)])
    spec = ObservationSpec(env.single_observation_space)
    one = Collector(env, spec, heads.Categorical(3), fixed_actor(1), lambda: np.zeros((4, 1, 3), np.float32), 4)
    assert one.collect().rewards[:, 0].tolist() == np.float32(rewards).tolist()
    assert one.statistics.finished[0][0] == sum(rewards)


def test_what_is_no_choice_is_refused_in_a_rollout_too():
    """That of a compiled environment, which no `Stepper` has seen."""
    space = S.Dict(goal=S.Discrete(3, start=1), keys=S.MultiDiscrete([2, 4]))
    spec = ObservationSpec(space)
    goal, keys = np.full((4, 2), 2, np.int32), np.zeros((4, 2, 2), np.int32)
    fine = {"goal": goal, "keys": keys}
    numbers, flags = np.zeros((4, 2), np.float32), np.ones((4, 2), bool)
    rollout = Rollout(Inputs(fine), numbers, numbers, numbers, ~flags, ~flags, Inputs(fine), flags)
    check_finite(rollout, spec)
    for field in ("observations", "next_observations"):
        bad = keys.copy()
        bad[2, 1] = [0, 4]
        broken = rollout._replace(**{field.replace("observations", "inputs"): Inputs({"goal": goal, "keys": bad})})
        sentence = (
            rf"`{field}\['keys'\]` must be choices of their space, from .* Received: \[0 4\] from environment 1 in s"
        )
        with pytest.raises(ValueError, match=sentence):
            check_finite(broken, spec)
        check_finite(broken._replace(valid=np.arange(4)[:, None] < [4, 2]), spec)  # a row that does not count
    with pytest.raises(
        ValueError, match=r"`observations\['goal'\]` must be choices .* from 1 to 3. Received: 0 from env"
    ):
        check_finite(rollout._replace(inputs=Inputs({"goal": goal * 0, "keys": keys})), spec)
