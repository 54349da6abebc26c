"""Collecting rollouts from compiled environments, inside the compiled program."""

from typing import Any, NamedTuple

import tensorflow as tf

from kerasrl_pg import ops
from kerasrl_pg.envs.compiled import Running, advance, begin
from kerasrl_pg.envs.spaces import ObservationSpec
from kerasrl_pg.rollouts.records import Inputs, Rollout

WINDOW = 100  # Finished episodes that the means are over, as `EpisodeStatistics`.


class Players(NamedTuple):
    """N environments being played, and the returns of what they have finished; all tensors.

    Args:
        running: The environments.
        returns: float32 [N], raw reward so far in the present episodes.
        finished: float32 [WINDOW, 2], return and length of the last finished episodes, the latest first.
        count: int32, how many of `finished` are there.
        memory: float32 [N, M], what the agent's networks remember; `()` where they do not.
    """

    running: Running
    returns: Any
    finished: Any
    count: Any
    memory: Any = ()


def start(env, seed, memory_size=0):
    """N environments at the beginning of their first episodes.

    Args:
        env: A `CompiledEnv`.
        seed: int32[2].
        memory_size: M.

    Returns:
        `Players`.
    """
    noise = ops.random.uniform(seed, (env.num_envs, env.reset_noise))
    zeros = tf.zeros(env.num_envs)
    memory = tf.zeros((env.num_envs, memory_size)) if memory_size else ()
    return Players(begin(env, noise), zeros, tf.zeros((WINDOW, 2)), tf.constant(0), memory)


def collect(env, networks, players, seeds, horizon, episodes=None):
    """Plays T steps of N environments with a policy.

    Args:
        env: A `CompiledEnv`.
        networks: The `ActorCritic`.
        players: `Players`.
        seeds: Three int32[2], for actions, environments' steps and resets.
        horizon: T.
        episodes: None, or how many whole episodes each environment plays; rows after them are not valid.

    Returns:
        `(rollout, players, rows)`: a `Rollout` of tensors, the environments after it, and how many rows were played.
    """
    n, head = env.num_envs, networks.head
    action_noise = head.noise(seeds[0], (horizon, n))
    step_noise = ops.random.uniform(seeds[1], (horizon, n, env.step_noise))
    reset_noise = ops.random.uniform(seeds[2], (horizon + 1, n, env.reset_noise))
    if episodes:
        players = players._replace(running=begin(env, reset_noise[horizon]), returns=tf.zeros(n))

    def row(running, returns, memory, left, t):
        """One step: what is recorded of it, and what goes on."""
        starts = () if isinstance(memory, tuple) else running.lengths == 0
        inputs = networks.inputs(running.observations, masks_of(env, running.state), starts, memory)
        distribution, memory = networks.step(inputs)
        actions = head.sample(distribution, action_noise[t])
        following, outcome = advance(env, running, head.to_env(actions), step_noise[t], reset_noise[t])
        valid = left > 0 if episodes else tf.ones(n, tf.bool)
        returns += outcome.rewards
        ended = outcome.ended & valid
        record = {
            "inputs": inputs,
            "actions": actions,
            "rewards": outcome.rewards,
            "terminated": outcome.terminated,
            "truncated": outcome.truncated,
            "next_inputs": Inputs(outcome.next_observations, memory=memory),
            "valid": valid,
            # Of the episode that ended with this step; its length is 0 where none did.
            "returns": returns,
            "lengths": tf.where(ended, running.lengths + 1, 0),
        }
        left -= tf.cast(ended & bool(episodes), tf.int32)
        return following, tf.where(outcome.ended, 0.0, returns), memory, left, record

    def storage(t):
        left = tf.ones(n, tf.int32)
        record = row(players.running, players.returns, players.memory, left, t)[-1]
        return tf.nest.map_structure(
            lambda x: tf.TensorArray(x.dtype, horizon, element_shape=x.shape, clear_after_read=False), record
        )

    def body(t, running, returns, memory, left, arrays):
        running, returns, memory, left, record = row(running, returns, memory, left, t)
        arrays = tf.nest.map_structure(lambda array, x: array.write(t, x), arrays, record)
        return t + 1, running, returns, memory, left, arrays

    def going(t, running, returns, memory, left, arrays):
        return (t < horizon) & tf.reduce_any(left > 0)

    left = tf.fill([n], episodes or 1)
    arrays = storage(tf.constant(0))
    rows, running, returns, memory, _, arrays = tf.while_loop(
        going,
        body,
        (tf.constant(0), players.running, players.returns, players.memory, left, arrays),
        maximum_iterations=horizon,
    )
    record = tf.nest.map_structure(lambda array: array.stack(), arrays)
    returns_then, lengths = record.pop("returns"), record.pop("lengths")
    finished, count = latest(returns_then, lengths, players.finished, players.count)
    players = Players(running, returns, finished, count, memory)
    # After the loop and all at once: the same numbers, by the program that will recompute them for the ratio.
    distribution = networks.distribution(ops.flatten_time(record["inputs"]))
    log_probs = distribution.log_prob(ops.flatten_time(record["actions"]))
    log_probs = tf.reshape(log_probs, (horizon, n))
    if not isinstance(record["inputs"].masks, tuple):
        # A row that allows nothing, as one below, is refused by a NaN.
        log_probs = tf.where(head.all_masked(record["inputs"].masks), float("nan"), log_probs)
    astray = record["valid"] & ~within(env, record["inputs"].observations, record["next_inputs"].observations)
    # What is no choice of a discrete space would be a one-hot vector of zeros; a NaN has the rollout refused.
    return Rollout(log_probs=tf.where(astray, float("nan"), log_probs), **record), players, rows


def gives_masks(env, head):
    """Whether a compiled environment says which actions are allowed.

    Args:
        env: A `CompiledEnv`.
        head: The policy's `Head`.

    Raises:
        ValueError: If what it says are no masks of this head.
    """

    def trace():
        return masks_of(env, env.reset(tf.zeros((env.num_envs, env.reset_noise))))

    # Traced and not run, so that it costs little.
    masks = tf.function(trace, autograph=False).get_concrete_function().structured_outputs
    if isinstance(masks, tuple):
        return False
    wanted = None if head.mask_shape is None else (env.num_envs, *head.mask_shape)
    if wanted is None or masks.dtype != tf.bool or tuple(masks.shape) != wanted:
        wanted = "None" if wanted is None else f"bool of shape {wanted}"
        raise ValueError(
            f"`action_masks` of a compiled environment must be {wanted} for the head {head!r}. "
            f"Received: {masks.dtype.name} of shape {tuple(masks.shape)} from {env!r}."
        )
    return True


def masks_of(env, state):
    """The actions that a state allows, as `Inputs` have them."""
    masks = env.action_masks(state)
    return () if masks is None else masks


def within(env, *observations):
    """Whether the discrete parts of observations are choices of their space.

    Args:
        env: A `CompiledEnv`.
        observations: Each [T, N, ...], or a dictionary of such.

    Returns:
        bool [T, N]; a scalar where nothing is discrete.
    """
    spec, inside = ObservationSpec(env.observation_space), tf.constant(True)
    for name, (low, high) in spec.choices.items():
        for leaves in observations:
            leaf = leaves if spec.single else leaves[name]
            fits = (leaf >= tf.cast(low, leaf.dtype)) & (leaf <= tf.cast(high, leaf.dtype))
            inside &= tf.reduce_all(tf.reshape(fits, [*leaf.shape[:2], -1]), -1)
    return inside


def latest(returns, lengths, finished, count):
    """The last `WINDOW` finished episodes, after a rollout.

    Args:
        returns: float32 [T, N], an episode's raw return in the row where it ended.
        lengths: int32 [T, N], its length there, and 0 where none ended.
        finished, count: Of `Players`, before.

    Returns:
        `finished` and `count`, after.
    """
    lengths = tf.reshape(lengths, [-1])
    numbers = tf.cumsum(tf.cast(lengths > 0, tf.int32))
    new = numbers[-1]
    rank = tf.range(WINDOW)
    # The place of the k-th episode from the end is the first where its number is reached.
    places = tf.searchsorted(numbers, new - rank)
    pairs = tf.stack([tf.reshape(returns, [-1]), tf.cast(lengths, tf.float32)], -1)
    fresh = tf.gather(pairs, tf.clip_by_value(places, 0, pairs.shape[0] - 1))
    shifted = tf.gather(finished, tf.clip_by_value(rank - new, 0, WINDOW - 1))
    finished = tf.where((rank < new)[:, None], fresh, shifted)
    return finished, tf.minimum(count + new, WINDOW)


def means(players):
    """`episode_return` (raw reward) and `episode_length` (steps), means over the last finished episodes; nan before
    the first."""
    count = int(players.count)
    if count == 0:
        return {"episode_return": float("nan"), "episode_length": float("nan")}
    returns, lengths = players.finished.numpy()[:count].mean(0, dtype="float64").tolist()
    return {"episode_return": returns, "episode_length": lengths}


def magnitudes(rollout):
    """Numbers that are finite where the observations, rewards and log-probabilities of all valid rows are; a vector."""
    fields = rollout.inputs, rollout.log_probs, rollout.rewards, rollout.next_inputs
    parts = []
    for leaf in tf.nest.flatten(fields):
        if leaf.dtype.is_floating:
            valid = tf.reshape(rollout.valid, [*rollout.valid.shape, *[1] * (leaf.shape.rank - 2)])
            parts.append(ops.magnitudes(tf.where(valid, leaf, 0.0)))
    return tf.concat(parts, 0)
