"""The recursions against sums written out, one step of one environment at a time."""

import numpy as np
import pytest
import tensorflow as tf

from kerasrl_pg import ops

GAMMA, LAMBDA = 0.9, 0.8
HORIZON, NUM_ENVS = 23, 6


def random_rollout(seed=0):
    """Rewards, values, next values, terminated, ends; the next value is the true one at an end."""
    rng = np.random.default_rng(seed)
    rewards, values, next_values = rng.normal(size=(3, HORIZON, NUM_ENVS)).astype("float32")
    terminated = rng.random((HORIZON, NUM_ENVS)) < 0.15
    truncated = rng.random((HORIZON, NUM_ENVS)) < 0.15
    terminated[:, -1] = truncated[:, -1] = False  # an environment that never ends
    ends = terminated | truncated
    next_values[:-1] = np.where(ends[:-1], next_values[:-1], values[1:])
    return rewards, values, next_values, terminated, ends


def each_step(function):
    out = np.zeros((HORIZON, NUM_ENVS))
    for t in range(HORIZON):
        for n in range(NUM_ENVS):
            out[t, n] = function(t, n)
    return out


def last_step(ends, t, n):
    while t < HORIZON - 1 and not ends[t, n]:
        t += 1
    return t


def first_step(ends, t, n):
    while t > 0 and not ends[t - 1, n]:
        t -= 1
    return t


def n_step_oracle(rewards, values, next_values, terminated, ends, steps):
    def advantage(t, n):
        last = min(t + steps - 1, last_step(ends, t, n))
        total = sum(GAMMA ** (i - t) * rewards[i, n] for i in range(t, last + 1))
        if not terminated[last, n]:
            total += GAMMA ** (last + 1 - t) * next_values[last, n]
        return total - values[t, n]

    return each_step(advantage)


def gae_oracle(rewards, values, next_values, terminated, ends, gae_lambda):
    """The average (1 - λ) Σ λ^l A^(l+1), taken until λ^l is nothing any more."""
    advantages = np.zeros((HORIZON, NUM_ENVS))
    for length in range(300):
        steps = min(length + 1, HORIZON)
        share = (1 - gae_lambda) * gae_lambda**length
        advantages += share * n_step_oracle(rewards, values, next_values, terminated, ends, steps)
        if share < 1e-9:
            break
    return advantages


def close(actual, expected, atol=1e-5):
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=atol)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("n", [1, 2, 5, HORIZON, 10**9])
def test_n_step(seed, n):
    rollout = random_rollout(seed)
    close(ops.n_step_advantages(*rollout, GAMMA, n), n_step_oracle(*rollout, n))


@pytest.mark.parametrize("gae_lambda", [0.0, 0.3, LAMBDA])
def test_gae_is_the_average_of_n_step_advantages(gae_lambda):
    rollout = random_rollout()
    close(ops.gae(*rollout, GAMMA, gae_lambda), gae_oracle(*rollout, gae_lambda))


@pytest.mark.parametrize("seed", range(3))
def test_rewards_to_go(seed):
    rewards, values, next_values, terminated, ends = random_rollout(seed)

    def to_go(t, n):
        last = last_step(ends, t, n)
        total = sum(GAMMA ** (i - t) * rewards[i, n] for i in range(t, last + 1))
        return total + GAMMA ** (last + 1 - t) * next_values[last, n] * (not terminated[last, n])

    expected = each_step(to_go)
    close(ops.rewards_to_go(rewards, next_values, terminated, ends, GAMMA), expected)
    close(
        ops.whole_returns(rewards, next_values, terminated, ends, GAMMA),
        each_step(lambda t, n: expected[first_step(ends, t, n), n]),
    )


@pytest.mark.parametrize("seed", range(3))
def test_identities(seed):
    rollout = rewards, values, next_values, terminated, ends = random_rollout(seed)
    deltas = ops.td_errors(rewards, values, next_values, terminated, GAMMA)
    to_go = ops.rewards_to_go(rewards, next_values, terminated, ends, GAMMA)
    close(ops.gae(*rollout, GAMMA, 1.0), to_go - values)
    close(ops.n_step_advantages(*rollout, GAMMA, HORIZON), ops.gae(*rollout, GAMMA, 1.0))
    np.testing.assert_array_equal(ops.gae(*rollout, GAMMA, 0.0), deltas)
    np.testing.assert_array_equal(ops.n_step_advantages(*rollout, GAMMA, 1), deltas)


def test_termination_is_not_truncation():
    reward, value, next_value = [[1.0, 1.0, 1.0]], [[5.0, 5.0, 5.0]], [[7.0, 7.0, 7.0]]
    terminated = [[True, False, True]]  # the last both: terminated wins
    deltas = ops.td_errors(reward, value, next_value, terminated, 0.5)
    np.testing.assert_array_equal(deltas, [[-4.0, -0.5, -4.0]])


def test_discounted_sum_and_nan_of_another_episode():
    x = tf.constant([[1.0], [2.0], [np.nan], [4.0]])
    ends = tf.constant([[False], [True], [True], [False]])
    np.testing.assert_array_equal(ops.discounted_sum(x, ends, 0.5), [[2], [2], [np.nan], [4]])


def test_episode_ends():
    terminated = np.array([[1, 0, 0, 0, 0]], bool).T
    truncated = np.array([[0, 0, 1, 0, 0]], bool).T
    valid = np.array([[1, 1, 1, 1, 0]], bool).T
    ends = ops.episode_ends(terminated, truncated, valid)
    np.testing.assert_array_equal(ends[:, 0], [True, False, True, True, True])


def test_steps_in_episode_go_on_in_the_next_rollout():
    ends = random_rollout()[-1]
    expected = each_step(lambda t, n: t - first_step(ends, t, n))
    np.testing.assert_array_equal(ops.steps_in_episode(ends), expected)
    head = ops.steps_in_episode(ends[:9])
    tail = ops.steps_in_episode(ends[9:], tf.where(ends[8], 0, head[-1] + 1))
    np.testing.assert_array_equal(tf.concat([head, tail], 0), expected)


def test_discounted_accumulator_goes_on_in_the_next_rollout():
    rewards, *_, ends = random_rollout()

    def past(t, n):
        first = first_step(ends, t, n)
        return sum(GAMMA ** (t - i) * rewards[i, n] for i in range(first, t + 1))

    expected = each_step(past)
    whole, carry = ops.discounted_accumulator(rewards, ends, GAMMA, tf.zeros(NUM_ENVS))
    close(whole, expected)
    close(carry, np.where(ends[-1], 0.0, expected[-1]))
    head, carry = ops.discounted_accumulator(rewards[:9], ends[:9], GAMMA, tf.zeros(NUM_ENVS))
    tail, _ = ops.discounted_accumulator(rewards[9:], ends[9:], GAMMA, carry)
    close(tf.concat([head, tail], 0), expected)


def test_discounted_accumulator_refuses_another_number_of_environments():
    with pytest.raises(ValueError, match="`rewards.0.` and `initial` must have the same shape"):
        ops.discounted_accumulator(tf.ones((3, 2)), tf.zeros((3, 2), tf.bool), 0.9, tf.zeros(1))


@pytest.mark.parametrize("n", [0, -1])
def test_n_below_one_is_refused(n):
    with pytest.raises(ValueError, match=f"`n` must be at least 1.*Received: n={n}"):
        ops.n_step_advantages(*random_rollout(), GAMMA, n)


def family(rewards, values, next_values, terminated, ends, gamma, gae_lambda):
    rest = next_values, terminated, ends, gamma
    accumulator, carry = ops.discounted_accumulator(rewards, ends, gamma, values[0])
    return {
        "gae": ops.gae(rewards, values, *rest, gae_lambda),
        "n_step": ops.n_step_advantages(rewards, values, *rest, 3),
        "to_go": ops.rewards_to_go(rewards, *rest),
        "whole": ops.whole_returns(rewards, *rest),
        "steps": ops.steps_in_episode(ends),
        "accumulator": accumulator,
        "carry": carry,
    }


def test_eager_graph_and_xla_agree():
    arguments = [tf.constant(x) for x in (*random_rollout(), GAMMA, LAMBDA)]
    eager = family(*arguments)
    graph = tf.function(family)(*arguments)
    xla = tf.function(family, jit_compile=True)(*arguments)
    for name, expected in eager.items():
        np.testing.assert_allclose(graph[name], expected, rtol=1e-6, atol=1e-6, err_msg=name)
        np.testing.assert_allclose(xla[name], expected, rtol=1e-5, atol=1e-6, err_msg=name)


def test_any_horizon_in_one_trace():
    signature = [tf.TensorSpec((None, 2)), tf.TensorSpec((None, 2), tf.bool)]
    returns = tf.function(lambda x, ends: ops.discounted_sum(x, ends, 1.0), signature)
    for horizon in (1, 4):
        total = returns(tf.ones((horizon, 2)), tf.zeros((horizon, 2), tf.bool))
        np.testing.assert_array_equal(total[:, 0], np.arange(horizon, 0, -1))


def test_trajectories_are_summed_and_counted_whole_or_cut():
    """With rows that are no transition between two episodes, and after the last one of an environment."""
    rewards, _, _, terminated, _ = random_rollout()
    valid = np.ones((HORIZON, NUM_ENVS), bool)
    valid[5, 0] = valid[9:, 1] = False
    ends = ops.episode_ends(terminated, np.zeros_like(terminated), valid).numpy()
    received, count = ops.trajectory_totals(np.where(valid, rewards, 0.0), ends).numpy(), 0
    for n in range(NUM_ENVS):
        cuts = [0, *(np.flatnonzero(ends[:, n]) + 1), HORIZON]
        for start, stop in zip(cuts[:-1], cuts[1:], strict=True):
            if valid[start:stop, n].any():
                count += 1
                expected = rewards[start:stop, n][valid[start:stop, n]].sum()
                np.testing.assert_allclose(received[start:stop, n], expected, rtol=1e-5, atol=1e-6)
    assert float(ops.count_trajectories(ends, valid)) == count > NUM_ENVS
