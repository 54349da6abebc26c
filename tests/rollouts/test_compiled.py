"""Collecting inside the program, against a loop in Python that does the same one environment at a time."""

import dataclasses

import gymnasium as gym
import numpy as np
import pytest
import tensorflow as tf

import kerasrl_pg as pg
from kerasrl_pg import ops
from kerasrl_pg.envs import CartPole, CompiledEnv, Transition
from kerasrl_pg.rollouts import Inputs, compiled


@dataclasses.dataclass(frozen=True)
class Pairs(CompiledEnv):
    """Counts up by 1 or 2 with chance; observes a dictionary; ends at 5, or is cut at 7 by itself."""

    num_envs: int = 3
    max_episode_steps: int | None = 4
    observation_space = gym.spaces.Dict(count=gym.spaces.Box(0.0, 9.0, (1,)), place=gym.spaces.Discrete(10))
    action_space = gym.spaces.Discrete(2)
    reset_noise = 1
    step_noise = 1

    def reset(self, noise):
        return tf.cast(3.0 * noise[:, 0], tf.int32)

    def observe(self, state):
        return {"count": tf.cast(state, tf.float32)[:, None], "place": state}

    def step(self, state, actions, noise):
        state = state + 1 + tf.cast((noise[:, 0] > 0.5) & (actions == 1), tf.int32)
        return Transition(state, tf.cast(state, tf.float32), state == 5, state == 6)


def policy_for(env):
    agent = pg.A2C(networks=pg.Networks(hidden_units=(4,)), seed=0)
    agent.bind(env.observation_space, env.action_space)
    return agent.actor_critic


def naive(env, policy, head, state, returns, lengths, seeds, horizon, episodes):
    """The rollout row by row, with the environments' own functions but with Python's bookkeeping."""
    n = env.num_envs
    action_noise = head.noise(seeds[0], (horizon, n))
    step_noise = pg.ops.random.uniform(seeds[1], (horizon, n, env.step_noise))
    reset_noise = pg.ops.random.uniform(seeds[2], (horizon + 1, n, env.reset_noise))
    rows, finished, left = [], [], [episodes] * n
    if episodes:
        state, returns, lengths = env.reset(reset_noise[horizon]), [0.0] * n, [0] * n
    for t in range(horizon):
        observations = env.observe(state)
        distribution = policy(observations)
        actions = head.sample(distribution, action_noise[t])
        after = env.step(state, head.to_env(actions), step_noise[t])
        fresh = env.reset(reset_noise[t])
        merged = np.array(after.state)
        row = {"valid": [], "truncated": [], "terminated": after.terminated.numpy().tolist()}
        for i in range(n):
            returns[i] += float(after.rewards[i])
            lengths[i] += 1
            limit = env.max_episode_steps is not None and lengths[i] >= env.max_episode_steps
            cut = limit or (after.truncated is not None and bool(after.truncated[i]))
            row["truncated"].append(cut)
            row["valid"].append(not episodes or left[i] > 0)
            if cut or row["terminated"][i]:
                if row["valid"][i]:
                    finished.append((returns[i], lengths[i]))
                merged[i] = fresh[i]
                returns[i], lengths[i] = 0.0, 0
                left[i] -= 1
        row = {name: np.array(flags) for name, flags in row.items()}
        row.update(
            inputs=Inputs(observations),
            actions=actions,
            log_probs=distribution.log_prob(actions),
            rewards=after.rewards,
            next_inputs=Inputs(env.observe(after.state)),
        )
        rows.append(row)
        state = tf.constant(merged)
        if episodes and max(left) <= 0:
            break
    return rows, state, finished


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("episodes", [None, 2])
@pytest.mark.parametrize("env", [Pairs(), CartPole(num_envs=2, max_episode_steps=9)], ids=["pairs", "cartpole"])
@pytest.mark.quick("cartpole-None-True", "pairs-2-True")
def test_it_equals_a_loop_in_python(env, episodes, jit_compile):
    networks = policy_for(env)
    policy, head = networks.policy, networks.head
    players = compiled.start(env, tf.constant([1, 0]))
    horizon = 30
    state, n = players.running.state, env.num_envs
    returns, lengths, finished = [0.0] * n, [0] * n, []
    collect = tf.function(
        lambda players, seeds: compiled.collect(env, networks, players, tf.unstack(seeds), horizon, episodes),
        jit_compile=jit_compile,
        autograph=False,
    )
    for iteration in range(2):  # The second one goes on in the middle of episodes.
        seeds = tf.constant([[1, -1 - 3 * iteration - k] for k in range(3)])
        rollout, players, count = collect(players, seeds)
        rows, state, ended = naive(
            env, policy, head, state, returns, lengths, tf.unstack(seeds), horizon, episodes or 0
        )
        finished += ended
        assert int(count) == len(rows) and (episodes is None or len(rows) < horizon)
        for name in rollout._fields:
            expected = tf.nest.map_structure(lambda *x: np.stack(x), *[row[name] for row in rows])
            actual = [leaf[: len(rows)] for leaf in tf.nest.flatten(getattr(rollout, name))]
            for a, b in zip(actual, tf.nest.flatten(expected), strict=True):
                np.testing.assert_allclose(a, b, atol=1e-5)
        assert not rollout.valid[len(rows) :].numpy().any()
        if not episodes:
            np.testing.assert_allclose(players.running.state, state, atol=1e-5)
            np.testing.assert_array_equal(players.running.lengths, lengths)
    means = compiled.means(players)
    assert means["episode_return"] == pytest.approx(np.mean([r for r, _ in finished[-100:]]), rel=1e-5)
    assert means["episode_length"] == pytest.approx(np.mean([k for _, k in finished[-100:]]))


@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_last_hundred_finished_episodes(jit_compile):
    rng = np.random.default_rng(0)
    latest = tf.function(compiled.latest, jit_compile=jit_compile, autograph=False)
    finished, count, expected = tf.zeros((compiled.WINDOW, 2)), tf.constant(0), []
    for density in (0.0, 0.02, 0.3, 0.0, 1.0, 0.1):
        lengths = np.where(rng.random((20, 8)) < density, rng.integers(1, 50, (20, 8)), 0).astype(np.int32)
        returns = rng.normal(size=(20, 8)).astype(np.float32)
        finished, count = latest(tf.constant(returns), tf.constant(lengths), finished, count)
        expected += [(r, k) for r, k in zip(returns.ravel(), lengths.ravel(), strict=True) if k]
        assert int(count) == min(len(expected), 100)
        np.testing.assert_allclose(finished[: int(count)], np.reshape(expected[::-1][:100], (-1, 2)))


def test_no_episode_no_mean():
    means = compiled.means(compiled.start(CartPole(num_envs=2), tf.constant([0, 0])))
    assert np.isnan(means["episode_return"]) and np.isnan(means["episode_length"])


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("field", ["observations", "log_probs", "rewards", "next_observations"])
def test_what_is_not_finite_is_seen(field, bad, jit_compile):
    env = CartPole(num_envs=2)
    rollout, _, _ = compiled.collect(env, policy_for(env), compiled.start(env, [0, 0]), [[0, 1], [0, 2], [0, 3]], 5)
    is_finite = tf.function(
        lambda rollout: ops.all_finite(compiled.magnitudes(rollout)), jit_compile=jit_compile, autograph=False
    )
    large = rollout._replace(rewards=tf.fill((5, 2), -3e38))
    assert is_finite(rollout) and is_finite(large)
    name = field.replace("observations", "inputs")
    value = tf.nest.map_structure(lambda x: x.numpy(), getattr(rollout, name))
    tf.nest.flatten(value)[0][3, 1] = bad
    broken = rollout._replace(**{name: tf.nest.map_structure(tf.constant, value)})
    assert not is_finite(broken)
    assert is_finite(broken._replace(valid=tf.constant(np.arange(5)[:, None] < [5, 3])))
