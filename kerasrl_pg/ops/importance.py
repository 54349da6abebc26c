"""Importance sampling: what trajectories of one policy say of another (chapter 4.3).

    E_π[f(τ)] = E_β[ρ(τ) f(τ)],   ρ(τ) = Π_t π(a_t|s_t) / β(a_t|s_t)

since what the environment does is the same under both. All tensors are time-major, [T, N], with one trajectory in each
column from its first row on; rows after its end are not `valid`. No gradient is meant to flow: weights are numbers.
"""

import tensorflow as tf

from kerasrl_pg.ops.policy_gradient import bounded_exp
from kerasrl_pg.ops.shapes import check_same_shape


def importance_weights(log_probs, behavior_log_probs, valid, per_decision):
    """ρ, the weight of each step's reward.

    Args:
        log_probs: float [T, N], log π(a_t|s_t), in nats.
        behavior_log_probs: float [T, N], log β(a_t|s_t) of the policy that acted, in nats.
        valid: bool [T, N].
        per_decision: Whether ρ_{0:t}, the product up to the step's own action, since later ones do not change its
            reward (Precup, Sutton and Singh 2000, section 4); else the whole trajectory's.

    Returns:
        float32 [T, N], at least 0; above e^30 they count as e^30. After its end a trajectory keeps its last.

    Raises:
        ValueError: If the shapes differ.

    Source: chapter 4.3, ρ; Precup et al. 2000, "Eligibility traces for off-policy policy evaluation", equations 2, 5.

    >>> log_2 = tf.math.log(2.0) * tf.ones((2, 1))
    >>> valid = tf.ones((2, 1), tf.bool)
    >>> importance_weights(log_2, 0.0 * log_2, valid, per_decision=True)[:, 0].numpy()
    array([2., 4.], dtype=float32)
    >>> importance_weights(log_2, 0.0 * log_2, valid, per_decision=False)[:, 0].numpy()
    array([4., 4.], dtype=float32)
    """
    check_same_shape(log_probs=log_probs, behavior_log_probs=behavior_log_probs, valid=valid)
    log_ratios = tf.cast(log_probs, tf.float32) - tf.cast(behavior_log_probs, tf.float32)
    log_weights = tf.cumsum(tf.where(valid, log_ratios, 0.0))
    if not per_decision:
        log_weights = tf.broadcast_to(log_weights[-1:], log_weights.shape)
    return bounded_exp(log_weights)


def self_normalized(weights):
    """Weights divided by their mean over the trajectories, at each step: w / (1/N Σ_i w_i).

    An estimate made with them is a weighted mean of what happened: biased, by order 1/N, and bounded by it.

    Args:
        weights: float [T, N], at least 0.

    Returns:
        float32 [T, N], of mean 1 in each row; 0 in a row where all are.

    Source: Precup et al. 2000, section 3 ("weighted importance sampling").

    >>> self_normalized(tf.constant([[1.0, 3.0]])).numpy()
    array([[0.5, 1.5]], dtype=float32)
    """
    return tf.math.divide_no_nan(weights, tf.reduce_mean(weights, -1, keepdims=True))


def effective_sample_size(weights):
    """(Σ_i w_i)² / Σ_i w_i², how many equally weighed trajectories say as much: N where all weights are equal, 1 where
    one has all.

    Args:
        weights: float [..., N], at least 0.

    Returns:
        float32 [...], in [1, N]; 0 where all weights are.

    Source: Kong 1992, "A note on importance sampling using standardized weights"; Owen 2013, "Monte Carlo theory,
    methods and examples", equation 9.13.

    >>> effective_sample_size(tf.constant([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])).numpy()
    array([3., 1.], dtype=float32)
    """
    largest = tf.reduce_max(weights, -1, keepdims=True)
    weights = tf.math.divide_no_nan(weights, largest)  # Or their squares would not be finite.
    return tf.math.divide_no_nan(tf.reduce_sum(weights, -1) ** 2, tf.reduce_sum(weights**2, -1))


def weighted_rewards_to_go(rewards, weights, gamma):
    """Σ_{t' >= t} γ^(t' - t) w_{t'} r_{t'}, the return after each step with every reward weighed by its own weight.

    Args:
        rewards: float [T, N]; 0 in rows that are not valid.
        weights: float [T, N], from `importance_weights` or `self_normalized`.
        gamma: γ in [0, 1].

    Returns:
        float32 [T, N].

    Raises:
        ValueError: If the shapes differ.

    Source: chapter 4.3 and equation 4.3; Precup et al. 2000, equation 5; with whole weights it is w times the
    reward-to-go.

    >>> weighted_rewards_to_go([[1.0], [1.0]], [[1.0], [3.0]], gamma=0.5)[:, 0].numpy()
    array([2.5, 3. ], dtype=float32)
    """
    check_same_shape(rewards=rewards, weights=weights)
    weighed = tf.cast(rewards, tf.float32) * tf.cast(weights, tf.float32)
    return tf.scan(lambda later, now: now + gamma * later, weighed, reverse=True)


def excursion_returns(rewards, ratios, gamma):
    """G_t = ρ_t (r_t + γ G_{t+1}), what π would earn from where β has come to, if it took over in step t.

        E_β[ρ_t G_{t+1} | s_t] over what follows is that of π; the states stay those that β visits.

    Args:
        rewards: float [T, N]; 0 in rows that are not valid.
        ratios: float [T, N], ρ_t = π(a_t|s_t) / β(a_t|s_t).
        gamma: γ in [0, 1].

    Returns:
        float32 [T, N], in the unit of returns.

    Raises:
        ValueError: If the shapes differ.

    Source: Degris, White and Sutton 2012, "Off-policy actor-critic", equations 1 and 5, with λ = 1.

    >>> excursion_returns([[1.0], [1.0]], [[2.0], [3.0]], gamma=0.5)[:, 0].numpy()
    array([5., 3.], dtype=float32)
    """
    check_same_shape(rewards=rewards, ratios=ratios)
    rows = tf.cast(rewards, tf.float32), tf.cast(ratios, tf.float32)
    return tf.scan(lambda later, row: row[1] * (row[0] + gamma * later), rows, tf.zeros_like(rows[0][0]), reverse=True)


def vtrace_targets(rewards, values, next_values, ratios, terminated, valid, gamma):
    """What V should be, of π from what β did: V-trace targets.

        v_t = V(s_t) + ρ_t δ_t + γ c_t (v_{t+1} - V(s_{t+1})),   δ_t = r_t + γ V(s_{t+1}) - V(s_t),   c_t = min(1, ρ_t)

    The traces c only say how fast V learns; where ratios are not clipped, V^π is the only V whose targets it is in the
    mean, else that of a policy between π and β. After truncation v is V of the state that follows.

    Args:
        rewards: float [T, N].
        values, next_values: float [T, N], V(s_t) and V(s_{t+1}), in the unit of returns.
        ratios: float [T, N], ρ_t = π(a_t|s_t) / β(a_t|s_t), clipped from above or not.
        terminated, valid: bool [T, N].
        gamma: γ in [0, 1].

    Returns:
        float32 [T, N], in the unit of returns; V(s_t) in rows that are not valid.

    Raises:
        ValueError: If the shapes differ.

    Source: Espeholt et al. 2018 (arXiv 1802.01561), equation 1 and remark 1, with ρ̄ the ratios' own and c̄ = 1.

    >>> one, yes = tf.ones((1, 1)), tf.ones((1, 1), tf.bool)
    >>> vtrace_targets(3.0 * one, one, one, 2.0 * one, yes, yes, gamma=1.0).numpy()
    array([[5.]], dtype=float32)
    """
    check_same_shape(
        rewards=rewards, values=values, next_values=next_values, ratios=ratios, terminated=terminated, valid=valid
    )
    last = tf.concat([valid[:-1] & ~valid[1:], valid[-1:]], 0)
    deltas = rewards + gamma * tf.where(terminated, 0.0, next_values) - values
    deltas = tf.where(valid, ratios * deltas, 0.0)
    traces = tf.where(valid & ~last, gamma * tf.minimum(ratios, 1.0), 0.0)
    corrections = tf.scan(
        lambda later, row: row[0] + row[1] * later, (deltas, traces), tf.zeros_like(deltas[0]), reverse=True
    )
    return values + corrections


def doubly_robust_returns(rewards, values, next_values, log_ratios, terminated, valid, gamma):
    """One estimate of J from each trajectory, of π from what β did, with V̂ to lower its variance.

        G_t = V̂(s_t) + ρ_t (r_t + γ G_{t+1} - V̂(s_t)),   ρ_t = π(a_t|s_t) / β(a_t|s_t)

    Unbiased for any V̂, since E_β[ρ_t] = 1; its variance falls as V̂ comes near V^π. After truncation G is V̂ of the
    state that follows.

    Args:
        rewards: float [T, N].
        values, next_values: float [T, N], V̂(s_t) and V̂(s_{t+1}), in the unit of returns.
        log_ratios: float [T, N], log ρ_t, in nats.
        terminated, valid: bool [T, N].
        gamma: γ in [0, 1].

    Returns:
        float32 [N], G_0.

    Raises:
        ValueError: If the shapes differ.

    Source: Jiang and Li 2016 (arXiv 1511.03722), equation 10, with Q̂(s, a) = V̂(s).

    >>> one, yes = tf.ones((1, 1)), tf.ones((1, 1), tf.bool)
    >>> doubly_robust_returns(3.0 * one, one, 0.0 * one, tf.math.log(2.0 * one), yes, yes, gamma=1.0).numpy()
    array([5.], dtype=float32)
    """
    check_same_shape(
        rewards=rewards,
        values=values,
        next_values=next_values,
        log_ratios=log_ratios,
        terminated=terminated,
        valid=valid,
    )
    ratios = bounded_exp(tf.where(valid, log_ratios, 0.0))
    last = tf.concat([valid[:-1] & ~valid[1:], valid[-1:]], 0)

    def back(later, row):
        reward, value, following, ratio, ended, ends, real = row
        after = tf.where(ends, following, later)
        after = tf.where(ended, tf.zeros_like(after), after)
        return tf.where(real, value + ratio * (reward + gamma * after - value), later)

    rows = rewards, values, next_values, ratios, terminated, last, valid
    return tf.scan(back, rows, tf.zeros_like(rewards[0]), reverse=True)[0]
