"""Weights of stored trajectories against loops, and against what they must be in the mean."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from kerasrl_pg import ops

RNG = np.random.default_rng(0)
LENGTHS = [5, 2, 1, 4]
VALID = np.arange(5)[:, None] < np.array(LENGTHS)
LOG_RATIOS = RNG.normal(size=VALID.shape).astype("float32")
REWARDS = np.where(VALID, RNG.normal(size=VALID.shape), 0.0).astype("float32")


@pytest.mark.parametrize("per_decision", [True, False])
def test_weights_are_products_of_ratios(per_decision):
    found = ops.importance_weights(LOG_RATIOS, 0.0 * LOG_RATIOS, VALID, per_decision).numpy()
    for n, length in enumerate(LENGTHS):
        for t in range(5):
            steps = min(t + 1, length) if per_decision else length
            np.testing.assert_allclose(found[t, n], np.exp(LOG_RATIOS[:steps, n].sum()), rtol=1e-5)


def test_the_greatest_weight_is_finite():
    weights = ops.importance_weights(
        np.full((3, 1), 1e3, "float32"), np.zeros((3, 1), "float32"), np.ones((3, 1), bool), True
    )
    assert np.isfinite(weights).all() and float(weights[0, 0]) == pytest.approx(np.exp(30.0), rel=1e-5)


def test_normalised_weights_have_mean_one_at_each_step():
    weights = np.exp(LOG_RATIOS)
    np.testing.assert_allclose(
        ops.self_normalized(weights).numpy(), weights / weights.mean(1, keepdims=True), rtol=1e-6
    )
    assert (ops.self_normalized(tf.zeros((2, 3))).numpy() == 0.0).all()


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_the_effective_sample_size_does_not_see_the_scale(scale):
    weights = np.exp(LOG_RATIOS[0]).astype("float64")
    wanted = weights.sum() ** 2 / (weights**2).sum()
    found = ops.effective_sample_size((scale * weights).astype("float32"))
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    assert ops.effective_sample_size(tf.zeros(3)) == 0.0


def test_sums_against_loops():
    weights, gamma = np.exp(LOG_RATIOS), 0.9
    whole = ops.weighted_rewards_to_go(REWARDS, weights, gamma).numpy()
    excursions = ops.excursion_returns(REWARDS, weights, gamma).numpy()
    for n, t in itertools.product(range(4), range(5)):
        rest = range(t, 5)
        np.testing.assert_allclose(
            whole[t, n], sum(gamma ** (k - t) * weights[k, n] * REWARDS[k, n] for k in rest), rtol=1e-4, atol=1e-6
        )
        products = np.cumprod(weights[t:, n])
        np.testing.assert_allclose(
            excursions[t, n],
            sum(gamma ** (k - t) * products[k - t] * REWARDS[k, n] for k in rest),
            rtol=1e-4,
            atol=1e-6,
        )


def test_doubly_robust_returns_against_the_recursion():
    values, following = RNG.normal(size=(2, 5, 4)).astype("float32")
    terminated = np.zeros((5, 4), bool)
    terminated[1, 1] = terminated[3, 3] = True  # The other two are truncated.
    found = ops.doubly_robust_returns(REWARDS, values, following, LOG_RATIOS, terminated, VALID, 0.9).numpy()
    for n, length in enumerate(LENGTHS):
        later = 0.0 if terminated[length - 1, n] else following[length - 1, n]
        for t in reversed(range(length)):
            ratio = np.exp(LOG_RATIOS[t, n])
            later = values[t, n] + ratio * (REWARDS[t, n] + 0.9 * later - values[t, n])
        np.testing.assert_allclose(found[n], later, rtol=1e-4, atol=1e-5)


def test_in_the_mean_they_are_the_other_policy_s():
    """Two steps, two actions, every trajectory of β with its probability: each estimate's mean is J(π), for any V̂."""
    beta, pi = np.array([0.7, 0.3]), np.array([0.2, 0.8])
    rewards = np.array([[1.0, -2.0], [0.5, 3.0]])  # By step and action.
    exact = (rewards @ pi).sum()
    actions = np.array(list(itertools.product(range(2), repeat=2)))  # [4, 2]
    chance = beta[actions].prod(1)
    told = np.log(pi)[actions.T].astype("float32"), np.log(beta)[actions.T].astype("float32"), np.ones((2, 4), bool)
    taken = np.stack([rewards[t, actions[:, t]] for t in range(2)]).astype("float32")
    for per_decision in (True, False):
        weights = ops.importance_weights(*told, per_decision)
        assert (chance * ops.weighted_rewards_to_go(taken, weights, 1.0)[0].numpy()).sum() == pytest.approx(
            exact, rel=1e-5
        )
    excursions = ops.excursion_returns(taken, np.exp(told[0] - told[1]), 1.0)
    assert (chance * excursions[0].numpy()).sum() == pytest.approx(exact, rel=1e-5)
    values = np.float32([[2.0] * 4, [-1.0] * 4])
    ends = np.array([[False] * 4, [True] * 4])
    robust = ops.doubly_robust_returns(taken, values, values[::-1], told[0] - told[1], ends, told[2], 1.0)
    assert (chance * robust.numpy()).sum() == pytest.approx(exact, rel=1e-5)


def test_vtrace_targets_against_the_recursion():
    values, following = RNG.normal(size=(2, 5, 4)).astype("float32")
    ratios = np.exp(LOG_RATIOS)
    terminated = np.zeros((5, 4), bool)
    terminated[1, 1] = terminated[3, 3] = True  # The other two are truncated.
    found = ops.vtrace_targets(REWARDS, values, following, ratios, terminated, VALID, 0.9).numpy()
    for n, length in enumerate(LENGTHS):
        correction = 0.0
        for t in reversed(range(length)):
            ahead = 0.0 if terminated[t, n] else following[t, n]
            delta = ratios[t, n] * (REWARDS[t, n] + 0.9 * ahead - values[t, n])
            correction = delta + 0.9 * min(1.0, ratios[t, n]) * correction
            np.testing.assert_allclose(found[t, n], values[t, n] + correction, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(found[length:, n], values[length:, n])


def test_vtrace_of_its_own_trajectories_is_the_return():
    """Where ρ is 1, and V between two steps is V of the second."""
    values = RNG.normal(size=VALID.shape).astype("float32")
    following = np.concatenate([values[1:], np.zeros((1, 4), "float32")])
    ends = VALID & ~np.concatenate([VALID[1:], np.zeros((1, 4), bool)])
    found = ops.vtrace_targets(REWARDS, values, following, np.ones_like(values), ends, VALID, 0.9).numpy()
    ones = np.ones_like(values)
    np.testing.assert_allclose(
        found[VALID], ops.weighted_rewards_to_go(REWARDS, ones, 0.9).numpy()[VALID], rtol=1e-4, atol=1e-5
    )


def test_vtrace_targets_are_the_policys_values_in_the_mean():
    """Of one step with two actions, whatever acted; with clipped ratios they are not."""
    policy, behavior, pays = np.array([0.9, 0.1]), np.array([0.2, 0.8]), np.array([1.0, 3.0])
    actions = RNG.choice(2, p=behavior, size=(1, 200_000))
    exact, yes = policy @ pays, np.ones(actions.shape, bool)
    means = []
    for clip in (np.inf, 1.0):
        ratios = np.minimum(policy / behavior, clip)[actions].astype("float32")
        values = np.full(actions.shape, exact, "float32")
        rewards = pays[actions].astype("float32")
        means.append(ops.vtrace_targets(rewards, values, 0 * values, ratios, yes, yes, 1.0).numpy().mean())
    assert abs(means[0] - exact) < 0.02 < 0.1 < abs(means[1] - exact)
