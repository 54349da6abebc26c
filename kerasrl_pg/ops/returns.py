"""Returns and advantages: what an action is credited with.

One family. Everything is a sum, over the rest of the episode, of the temporal differences

    δ_t = r_t + γ (1 - terminated_t) V(s_{t+1}) - V(s_t),

and the members differ only in the weight of each δ: the first one alone (TD(0)), the first n
(n-step), all with (γλ)^l (GAE), all with γ^l (Monte Carlo).

Two flags end an episode and they mean different things. After *termination* there is no future,
so V(s_{t+1}) counts as 0. After *truncation* (a time limit) the future exists but was not
recorded, so V(s_{t+1}) stands for it. Both cut the sum. `next_values` are the values of the true
next observations, never those of the reset; the last row of a rollout bootstraps with its own.

All tensors are time-major, [T, N] = horizon x environments; rewards and values share one unit.
Gradients flow into every float argument; the estimators and objectives stop them.
"""

import tensorflow as tf

from kerasrl_pg.ops.shapes import check_same_shape


def episode_ends(terminated, truncated, valid):
    """Rows after which the sum over the future is cut.

    A row that is no transition (`valid` False) ends its own, empty, episode, and a row followed
    by such a row is the last one recorded of its episode.

    Args:
        terminated, truncated, valid: bool [T, N].

    Returns:
        ends: bool [T, N].

    Raises:
        ValueError: If the shapes differ.

    >>> no = tf.zeros((4, 1), tf.bool)
    >>> episode_ends(no, no, tf.constant([[True], [True], [False], [True]]))[:, 0].numpy()
    array([False,  True,  True, False])
    """
    check_same_shape(terminated=terminated, truncated=truncated, valid=valid)
    gap = tf.logical_not(valid)
    before_gap = tf.concat([gap[1:], tf.zeros_like(gap[:1])], 0)
    return terminated | truncated | gap | before_gap


def td_errors(rewards, values, next_values, terminated, gamma):
    """Temporal differences δ_t, the one-step advantages.

        δ_t = r_t + γ (1 - terminated_t) V(s_{t+1}) - V(s_t)

    Args:
        rewards: float [T, N].
        values: float [T, N], V(s_t).
        next_values: float [T, N], V(s_{t+1}) of the true next observation.
        terminated: bool [T, N]; truncation does not matter here.
        gamma: γ in [0, 1], the discount of one step.

    Returns:
        float32 [T, N].

    Raises:
        ValueError: If the shapes differ.

    Source: Schulman et al. 2016 (arXiv 1506.02438), the definition before eq. 10; the lecture
    notes' section 3.4.1.

    >>> td_errors([[1.0], [1.0]], [[5.0], [5.0]], [[10.0], [10.0]], [[False], [True]], 0.5).numpy()
    array([[ 1.],
           [-4.]], dtype=float32)
    """
    check_same_shape(rewards=rewards, values=values, next_values=next_values, terminated=terminated)
    rewards, values, next_values = _floats(rewards, values, next_values)
    return rewards + tf.where(terminated, 0.0, gamma * next_values) - values


def discounted_sum(x, ends, discount):
    """Discounted sum of the rest of the episode, by the backward recursion

        S_t = x_t + discount (1 - ends_t) S_{t+1},    S_T = 0.

    Args:
        x: float [T, N].
        ends: bool [T, N].
        discount: Weight of one step, in [0, 1].

    Returns:
        float32 [T, N], in x's unit.

    Raises:
        ValueError: If the shapes differ.

    >>> ends = tf.constant([[False], [True], [False]])
    >>> discounted_sum([[1.0], [1.0], [1.0]], ends, 0.5).numpy()
    array([[1.5],
           [1. ],
           [1. ]], dtype=float32)
    """
    check_same_shape(x=x, ends=ends)
    (x,) = _floats(x)
    return _sum_of_the_rest(x, ends, discount)


def _sum_of_the_rest(x, ends, discount):
    ends = tf.convert_to_tensor(ends)

    # `where`, not a product: a NaN of one episode must not reach the one before.
    def backward(later, row):
        return row[0] + tf.where(row[1], tf.zeros_like(later), discount * later)

    return tf.scan(backward, (x, ends), initializer=tf.zeros_like(x[0]), reverse=True)


def gae(rewards, values, next_values, terminated, ends, gamma, gae_lambda):
    """Generalised advantage estimation.

        A_t = (1 - λ) Σ_{l>=0} λ^l A_t^{(l+1)} = Σ_{l>=0} (γλ)^l δ_{t+l},

    cut at the episode's end, where A^{(n)} is the advantage with n rewards (`n_step_advantages`).
    λ = 0 is TD(0); λ = 1 is the reward-to-go minus V.

    The lecture notes (3.4.2) print Σ_{i=1}^T (γλ)^i A^i. That is a misprint: the average of the
    A^i has the weights (1 - λ) λ^l, it is δ that (γλ)^l belongs to, and the sum starts at 0 (as
    printed, λ = 0 would give 0 and not the one-step estimate the text says it gives).

    Args:
        rewards, values, next_values, terminated, gamma: As for `td_errors`.
        ends: bool [T, N], from `episode_ends`.
        gae_lambda: λ in [0, 1].

    Returns:
        float32 [T, N].

    Raises:
        ValueError: If the shapes differ.

    Source: Schulman et al. 2016 (arXiv 1506.02438), eq. 16.

    >>> no = tf.zeros((2, 1), tf.bool)
    >>> zero = tf.zeros((2, 1))
    >>> gae([[1.0], [1.0]], zero, zero, no, no, gamma=0.5, gae_lambda=0.5).numpy()
    array([[1.25],
           [1.  ]], dtype=float32)
    """
    deltas = td_errors(rewards, values, next_values, terminated, gamma)
    return discounted_sum(deltas, ends, gamma * gae_lambda)


def n_step_advantages(rewards, values, next_values, terminated, ends, gamma, n):
    """Advantages with n rewards and then the value function.

        A_t^{(n)} = r_t + γ r_{t+1} + ... + γ^{n-1} r_{t+n-1} + γ^n V(s_{t+n}) - V(s_t)
                  = Σ_{l=0}^{n-1} γ^l δ_{t+l},

    where the values between cancel, V(s_{t+1}) being the same number in `next_values[t]` and
    `values[t + 1]`. At the episode's end, or the rollout's, there are fewer than n rewards.

    The lecture notes (3.4.2) count from 0, so their A^n is A^{(n+1)} here, and print γ^{i-1} for
    the weight of r_{t+i}: γ^i is meant, as their A^1 shows.

    Args:
        rewards, values, next_values, terminated, gamma: As for `td_errors`.
        ends: bool [T, N], from `episode_ends`.
        n: Number of rewards, int >= 1; 1 is `td_errors`, T or more the reward-to-go minus V.

    Returns:
        float32 [T, N].

    Raises:
        ValueError: If the shapes differ or n < 1.

    Source: Schulman et al. 2016 (arXiv 1506.02438), eqs. 11-14.

    >>> no = tf.zeros((3, 1), tf.bool)
    >>> zero = tf.zeros((3, 1))
    >>> n_step_advantages(zero + 1.0, zero, zero, no, no, gamma=0.5, n=2)[:, 0].numpy()
    array([1.5, 1.5, 1. ], dtype=float32)
    """
    if n < 1:
        raise ValueError(f"`n` must be at least 1, the number of rewards before bootstrapping. Received: n={n}.")
    deltas = td_errors(rewards, values, next_values, terminated, gamma)
    check_same_shape(rewards=rewards, ends=ends)

    # S^{(k+1)}_t = δ_t + γ (1 - ends_t) S^{(k)}_{t+1}
    def one_more(k, total):
        later = tf.concat([total[1:], tf.zeros_like(total[:1])], 0)
        return k + 1, deltas + tf.where(ends, 0.0, gamma * later)

    steps = tf.minimum(n, tf.shape(deltas)[0])  # more than T changes nothing
    return tf.while_loop(lambda k, _: k < steps, one_more, (1, deltas))[1]


def rewards_to_go(rewards, next_values, terminated, ends, gamma):
    """Discounted reward from each step to its episode's end.

        R_t = r_t + γ R_{t+1}, and at the last recorded step
        R_t = r_t + γ (1 - terminated_t) V(s_{t+1}).

    With `next_values` zero this is the plain Monte Carlo return, which counts what a truncation
    or the rollout's end hides as nothing.

    The lecture notes (3.2, 3.3) print R(τ_{1:t}), the past, where R(τ_{t:T}) is meant; the
    chapter's eq. 4.3 has it right.

    Args:
        rewards, next_values, terminated, gamma: As for `td_errors`.
        ends: bool [T, N], from `episode_ends`.

    Returns:
        float32 [T, N].

    Raises:
        ValueError: If the shapes differ.

    Source: chapter 4.3, eq. 4.3; Sutton & Barto 2018, section 13.3.

    >>> no = tf.zeros((2, 1), tf.bool)
    >>> rewards_to_go([[1.0], [1.0]], [[9.0], [4.0]], no, no, gamma=0.5).numpy()
    array([[2.5],
           [3. ]], dtype=float32)
    """
    check_same_shape(rewards=rewards, next_values=next_values, terminated=terminated, ends=ends)
    rewards, next_values = _floats(rewards, next_values)
    last = tf.concat([ends[:-1], tf.ones_like(ends[:1])], 0)
    bootstrap = last & tf.logical_not(terminated)
    return discounted_sum(rewards + tf.where(bootstrap, gamma * next_values, 0.0), ends, gamma)


def whole_returns(rewards, next_values, terminated, ends, gamma):
    """The whole episode's discounted return, at each of its steps.

        R^γ(τ) = Σ_{t>=0} γ^t r_t, t counted from the episode's first step in the rollout

    An episode cut by truncation or by the rollout is completed as in `rewards_to_go`.

    Args:
        rewards, next_values, terminated, gamma: As for `td_errors`.
        ends: bool [T, N], from `episode_ends`.

    Returns:
        float32 [T, N], constant over each episode.

    Raises:
        ValueError: If the shapes differ.

    Source: Williams 1992 (REINFORCE, episodic); the lecture notes' 3.1 and remark 3.2.

    >>> ends = tf.constant([[False], [True], [True]])
    >>> zero = tf.zeros((3, 1))
    >>> whole_returns([[1.0], [1.0], [7.0]], zero, ends, ends, gamma=0.5)[:, 0].numpy()
    array([1.5, 1.5, 7. ], dtype=float32)
    """
    return _of_the_first_step(rewards_to_go(rewards, next_values, terminated, ends, gamma), ends)


def trajectory_totals(x, ends):
    """The sum over its whole trajectory, at each step.

    Args:
        x: float [T, N].
        ends: bool [T, N], from `episode_ends`.

    Returns:
        float32 [T, N], or float64 for a tensor that is; in x's unit, constant over each trajectory.

    Raises:
        ValueError: If the shapes differ.

    >>> trajectory_totals([[1.0], [2.0], [4.0]], tf.constant([[False], [True], [False]]))[:, 0].numpy()
    array([3., 3., 4.], dtype=float32)
    """
    check_same_shape(x=x, ends=ends)
    if not (tf.is_tensor(x) and x.dtype == tf.float64):
        (x,) = _floats(x)
    return _of_the_first_step(_sum_of_the_rest(x, ends, 1.0), ends)


def _of_the_first_step(x, ends):
    """What stands at a trajectory's first step, at each of its steps."""
    ends = tf.convert_to_tensor(ends)
    starts = tf.concat([tf.ones_like(ends[:1]), ends[:-1]], 0)
    return tf.scan(lambda earlier, row: tf.where(row[1], row[0], earlier), (x, starts), x[0])


def count_trajectories(ends, valid):
    """How many trajectories there are: whole ones, and those that the rollout cuts off.

    Args:
        ends: bool [T, N], from `episode_ends`.
        valid: bool [T, N].

    Returns:
        float32 scalar.

    Raises:
        ValueError: If the shapes differ.

    >>> ends = tf.constant([[False], [True], [False]])
    >>> float(count_trajectories(ends, tf.ones_like(ends)))
    2.0
    """
    check_same_shape(ends=ends, valid=valid)
    ends = tf.convert_to_tensor(ends)
    last = tf.concat([ends[:-1], tf.ones_like(ends[:1])], 0)
    return tf.reduce_sum(tf.cast(last & valid, tf.float32))


def steps_in_episode(ends, initial=None):
    """Index t of each step within its episode, the exponent of γ^t (`gradient_discount`).

    Args:
        ends: bool [T, N].
        initial: int [N], steps already taken in the episode before the first row; None
            for 0. To go on in the next rollout pass `tf.where(ends[-1], 0, steps[-1] + 1)`.

    Returns:
        int32 [T, N], 0 at the first step of an episode.

    >>> steps_in_episode(tf.constant([[False], [True], [False], [False]]))[:, 0].numpy()
    array([0, 1, 0, 1], dtype=int32)
    """
    ends = tf.convert_to_tensor(ends)
    zeros = tf.zeros_like(ends[0], tf.int32)
    first = zeros if initial is None else tf.cast(initial, tf.int32)
    return tf.scan(
        lambda earlier, ended: tf.where(ended, 0, earlier + 1),
        tf.concat([tf.zeros_like(ends[:1]), ends[:-1]], 0),
        initializer=first - 1,
    )


def discounted_accumulator(rewards, ends, gamma, initial):
    """Discounted sum of the episode's past, by the forward recursion

        G_t = r_t + γ (1 - ends_{t-1}) G_{t-1}.

    Its standard deviation is the unit rewards are scaled by (`scale_rewards`).

    Args:
        rewards: float [T, N].
        ends: bool [T, N].
        gamma: γ in [0, 1], the agent's own.
        initial: float [N], what the last call returned as `carry`; zeros at first.

    Returns:
        accumulator: float32 [T, N], all the G_t, in the rewards' unit.
        carry: float32 [N], (1 - ends_{T-1}) G_{T-1}.

    Raises:
        ValueError: If the shapes differ.

    Source: Engstrom et al. 2020 (arXiv 2005.12729), appendix A, "PPO scaling optimization". The
    printed algorithm never resets the sum at an episode's end; we do, as OpenAI Baselines does
    (common/vec_env/vec_normalize.py), for one episode's rewards are no part of the next's return.

    >>> ends = tf.constant([[False], [True], [False]])
    >>> accumulator, carry = discounted_accumulator(tf.ones((3, 1)), ends, 0.5, tf.zeros(1))
    >>> accumulator[:, 0].numpy(), carry.numpy()
    (array([1. , 1.5, 1. ], dtype=float32), array([1.], dtype=float32))
    """
    check_same_shape(rewards=rewards, ends=ends)
    rewards, initial = _floats(rewards, initial)
    check_same_shape(**{"rewards[0]": rewards[0], "initial": initial})
    ends = tf.convert_to_tensor(ends)

    def forward(state, row):
        total = row[0] + gamma * state[1]
        return total, tf.where(row[1], 0.0, total)

    accumulator, carries = tf.scan(forward, (rewards, ends), (initial, initial))
    return accumulator, carries[-1]


def _floats(*tensors):
    return [tf.cast(tensor, tf.float32) for tensor in tensors]
