"""What a policy would return, from what others did: no environment is played (chapter 4.3)."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from kerasrl_pg import ops
from kerasrl_pg.checks import check_choice, check_number, check_whole
from kerasrl_pg.data.trajectories import Trajectories, along, log_probs_of

METHODS = ("weighted_per_decision", "weighted", "per_decision", "trajectory", "doubly_robust")


class Estimate(NamedTuple):
    """A policy's estimated return.

    Args:
        value: The estimate of J, in the unit of rewards.
        interval: `(low, high)`, its confidence interval.
        effective_sample_size: How many episodes of its own would say as much; the confidence is not to be trusted where
            it is a few.
        episodes: N, of the dataset.
    """

    value: float
    interval: tuple
    effective_sample_size: float
    episodes: int


def estimate_return(
    agent, dataset, method="weighted_per_decision", *, gamma=1.0, confidence=0.95, behavior=None, batch_size=64
):
    """Estimates J(π) of an agent's sampled policy from stored episodes of another.

    | method | estimate, ρ the ratio of all actions, ρ_t that up to step t | |
    | --- | --- | --- |
    | "trajectory" | 1/N Σ_i ρ^i R^i | unbiased |
    | "per_decision" | 1/N Σ_i Σ_t γ^t ρ^i_t r^i_t | unbiased |
    | "weighted" | Σ_i ρ^i R^i / Σ_i ρ^i | biased by order 1/N, bounded |
    | "weighted_per_decision" | Σ_t γ^t Σ_i ρ^i_t r^i_t / Σ_i ρ^i_t | biased by order 1/N |
    | "doubly_robust" | of `ops.doubly_robust_returns`, with the agent's critic | unbiased |

    The interval is that of a mean of N independent terms, or by the jackknife where weights are normalised, with the
    quantile of Student's distribution for the effective sample size.

    Args:
        agent: A built agent.
        dataset: A dataset's id, `minari.MinariDataset`, or `Trajectories`.
        method: See above. "weighted_per_decision", ours, because it is the one that stays near the truth where few
            episodes count.
        gamma: γ in [0, 1]. 1: what `evaluate` returns.
        confidence: Of the interval, in (0, 1).
        behavior: Of `Trajectories`.
        batch_size: Episodes that are in memory at once.

    Returns:
        An `Estimate`.

    Raises:
        ValueError: If the agent is not built, the spaces differ, or an episode does not hold what is needed; see
            `Trajectories`.

    Source: Precup, Sutton and Singh 2000, "Eligibility traces for off-policy policy evaluation"; Jiang and Li 2016
    (arXiv 1511.03722); for the intervals Owen 2013, chapter 9, and Efron 1982, "The jackknife, the bootstrap and other
    resampling plans", chapter 3.

    >>> import os, tempfile
    >>> os.environ["MINARI_DATASETS_PATH"] = tempfile.mkdtemp()
    >>> import kerasrl_pg as pg
    >>> agent = pg.A2C(seed=0)
    >>> dataset = pg.data.record(agent, "CartPole-v1", "cartpole/random-v0", episodes=20)
    >>> found = estimate_return(agent, dataset)  # Of itself: the mean of what it did.
    >>> bool(abs(found.value - np.mean([sum(episode.rewards) for episode in dataset])) < 1e-3)
    True
    >>> round(found.effective_sample_size, 3)
    20.0
    """
    check_choice("method", method, METHODS)
    check_number("gamma", gamma, 0.0, 1.0)
    check_number("confidence", confidence, 0.0, 1.0, exclusive=True)
    check_whole("batch_size", batch_size)
    agent._assert_built("estimate_return")
    if method == "doubly_robust" and agent.critic is None:
        raise ValueError(
            '`method` must be another than "doubly_robust" of an agent without a critic. '
            f'Received: agent={agent!r}. Take "per_decision".'
        )
    if not isinstance(dataset, Trajectories):
        dataset = Trajectories(dataset, behavior)
    terms, weights, value = _terms(agent, dataset, method, gamma, batch_size)
    size = float(ops.effective_sample_size(weights))
    error = np.sqrt(np.mean((terms - value) ** 2) / max(len(terms) - 1, 1))
    quantile = float(tfp.distributions.StudentT(max(size - 1.0, 1.0), 0.0, 1.0).quantile(0.5 + confidence / 2))
    return Estimate(float(value), (float(value - quantile * error), float(value + quantile * error)), size, len(terms))


def _terms(agent, dataset, method, gamma, batch_size):
    """`(terms [N], weights [N], value)`: what the interval takes for independent terms of mean `value`."""
    weights, rewards, robust = _judged(agent, dataset, method, gamma, batch_size)
    discounted = gamma ** np.arange(len(rewards))[:, None] * rewards
    if method in ("trajectory", "per_decision", "doubly_robust"):
        terms = robust if method == "doubly_robust" else (weights * discounted).sum(0)
        return terms, weights[-1], terms.mean()
    if method == "weighted":
        weights, discounted = weights[-1:], discounted.sum(0, keepdims=True)
    value, without = _weighted_means(weights, discounted)
    # Jackknife: (N - 1)/N Σ (without one - their mean)² is the variance of the value, as of a mean of these terms.
    return value + (len(without) - 1) * (without.mean() - without), weights[-1], value


def _weighted_means(weights, rewards):
    """Σ_t Σ_i w_ti r_ti / Σ_i w_ti of [T, N], and [N], the same without each one."""

    def quotient(parts, totals):
        return np.divide(parts, totals, out=np.zeros_like(parts), where=totals > 0.0).sum(0)

    weights = weights / np.maximum(weights.max(1, keepdims=True), 1e-300)
    weighed = weights * rewards
    # Sums of the others, not differences: where one weight is nearly all, nothing would be left of the digits.
    others = [_sums_of_others(x) for x in (weighed, weights)]
    return quotient(weighed.sum(1), weights.sum(1)), quotient(*others)


def _sums_of_others(x):
    """Of [T, N] for each column the sum of the others'."""
    nothing = np.zeros_like(x[:, :1])
    before = np.concatenate([nothing, np.cumsum(x, 1)[:, :-1]], 1)
    after = np.concatenate([np.cumsum(x[:, ::-1], 1)[:, ::-1][:, 1:], nothing], 1)
    return before + after


def _judged(agent, dataset, method, gamma, batch_size):
    """Of all episodes: weights [T, N], rewards [T, N], and doubly robust returns [N] where asked for; float64."""
    networks, horizon = agent.actor_critic, dataset.longest
    dataset.check_spaces(networks)

    def judge(rollout):
        log_probs = log_probs_of(networks, rollout.inputs, rollout.actions)
        log_ratios = tf.where(rollout.valid, log_probs - rollout.log_probs, 0.0)
        per_decision = method not in ("weighted", "trajectory")
        weights = ops.importance_weights(log_ratios, tf.zeros_like(log_ratios), rollout.valid, per_decision)
        if method != "doubly_robust":
            return weights, weights[0]
        rollout = along(networks, rollout)
        values, ends = (agent.values(rollout.inputs), agent.values(rollout.next_inputs)), rollout.terminated
        return weights, ops.doubly_robust_returns(rollout.rewards, *values, log_ratios, ends, rollout.valid, gamma)

    judged, _ = agent.programs.get(("estimate", method, gamma), lambda: (judge, []), False, False)
    found, numbers = [], np.arange(len(dataset))
    for first in range(0, len(numbers), batch_size):
        some = numbers[first : first + batch_size]
        padded = np.resize(some, min(batch_size, len(numbers)))  # One shape, one program.
        rollout = dataset.rollout(padded, networks, horizon=horizon)
        weights, robust = judged(tf.nest.map_structure(tf.constant, rollout))
        arrays = weights.numpy(), rollout.rewards, robust.numpy()
        found.append([array[..., : len(some)].astype(np.float64) for array in arrays])
    return [np.concatenate(parts, -1) for parts in zip(*found, strict=True)]
