"""Collecting rollouts from compiled environments, inside the compiled program."""

from typing import Any, NamedTuple

import tensorflow as tf

from kerasrl_pg import ops
from kerasrl_pg.envs.compiled import Running, advance, begin
from kerasrl_pg.envs.masks import forbid_nothing
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
    step = Step(env, networks, seeds, horizon, episodes)
    if episodes:
        players = players._replace(running=begin(env, step.reset_noise[horizon]), returns=tf.zeros(env.num_envs))
    playing = Playing(players.running, players.returns, players.memory, tf.fill([env.num_envs], episodes or 1))
    rows, playing, record = repeated(step, playing, horizon)
    returns_then, lengths = record.pop("returns"), record.pop("lengths")
    finished, count = latest(returns_then, lengths, players.finished, players.count)
    rollout = Rollout(log_probs=log_probs_of(env, networks, record), **record)
    return rollout, Players(playing.running, playing.returns, finished, count, playing.memory), rows


class Playing(NamedTuple):
    """What goes on from one step of a rollout to the next.

    Args:
        running, returns, memory: As in `Players`.
        left: int32 [N], how many episodes each environment still plays; above 0 where a rollout is not of episodes.
    """

    running: Running
    returns: Any
    memory: Any
    left: Any


class Step:
    """One step of N environments with a policy, and all the noise of a rollout of such steps.

    Args:
        env, networks, seeds, horizon, episodes: Of `collect`.

    Attributes:
        reset_noise: [T + 1, N, ...], that of the rollout's own beginning the last.
    """

    def __init__(self, env, networks, seeds, horizon, episodes):
        self._env, self._networks, self._episodes = env, networks, episodes
        n = env.num_envs
        self._action_noise = networks.head.noise(seeds[0], (horizon, n))
        self._step_noise = ops.random.uniform(seeds[1], (horizon, n, env.step_noise))
        self.reset_noise = ops.random.uniform(seeds[2], (horizon + 1, n, env.reset_noise))

    def __call__(self, t, playing):
        """`(playing, record)`: what goes on from step t, and what is recorded of it, by the fields of a `Rollout`."""
        env, networks, head = self._env, self._networks, self._networks.head
        running, returns, memory, left = playing
        starts = () if isinstance(memory, tuple) else running.lengths == 0
        inputs = networks.inputs(running.observations, masks_of(env, head, running.state), starts, memory)
        distribution, memory = networks.step(inputs)
        actions = head.sample(distribution, self._action_noise[t])
        following, outcome = advance(env, running, head.to_env(actions), self._step_noise[t], self.reset_noise[t])
        valid = left > 0 if self._episodes else tf.ones(env.num_envs, tf.bool)
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
        left -= tf.cast(ended & bool(self._episodes), tf.int32)
        return Playing(following, tf.where(outcome.ended, 0.0, returns), memory, left), record


def repeated(step, playing, horizon):
    """Takes a `Step` T times, or until all episodes have been played.

    Args:
        step: The `Step`.
        playing: The `Playing` to begin with.
        horizon: T.

    Returns:
        `(rows, playing, record)`: how many steps were taken, what goes on after them, and the records [T, ...] of all;
        zeros in the rows that were not played.
    """

    def storage(t):
        one = step(t, playing._replace(left=tf.ones_like(playing.left)))[1]
        return tf.nest.map_structure(
            lambda x: tf.TensorArray(x.dtype, horizon, element_shape=x.shape, clear_after_read=False), one
        )

    def body(t, playing, arrays):
        playing, record = step(t, playing)
        return t + 1, playing, tf.nest.map_structure(lambda array, x: array.write(t, x), arrays, record)

    def going(t, playing, arrays):
        return (t < horizon) & tf.reduce_any(playing.left > 0)

    arrays = storage(tf.constant(0))
    first = tf.constant(0), playing, arrays
    rows, playing, arrays = tf.while_loop(going, body, first, maximum_iterations=horizon)
    return rows, playing, tf.nest.map_structure(lambda array: array.stack(), arrays)


def log_probs_of(env, networks, record):
    """log π(a|s) [T, N] of recorded steps; NaN, which has the rollout refused, where an environment gave what it must
    not: a mask of zeros, or what is no choice of a discrete space, which would be a one-hot vector of zeros.

    Args:
        env: The `CompiledEnv`.
        networks: The `ActorCritic`.
        record: `inputs`, `actions`, `next_inputs` and `valid` of a `Rollout`, a dictionary.
    """
    inputs = record["inputs"]
    # After the loop and all at once: the same numbers, by the program that will recompute them for the ratio.
    distribution = networks.distribution(ops.flatten_time(inputs))
    log_probs = distribution.log_prob(ops.flatten_time(record["actions"]))
    log_probs = tf.reshape(log_probs, record["valid"].shape)
    if not isinstance(inputs.masks, tuple):
        log_probs = tf.where(networks.head.all_masked(inputs.masks), float("nan"), log_probs)
    astray = record["valid"] & ~within(env, inputs.observations, record["next_inputs"].observations)
    return tf.where(astray, float("nan"), log_probs)


def gives_masks(env, head):
    """Whether a compiled environment says which actions are allowed.

    Args:
        env: A `CompiledEnv`.
        head: The policy's `Head`.

    Raises:
        ValueError: If what it says are no masks of this head.
    """

    def trace():
        return masks_of(env, head, env.reset(tf.zeros((env.num_envs, env.reset_noise))))

    # Traced and not run, so that it costs little.
    masks = tf.function(trace, autograph=False).get_concrete_function().structured_outputs
    return not isinstance(masks, tuple)


def masks_of(env, head, state):
    """The actions that a state allows, as `Inputs` have them."""
    masks = env.action_masks(state)
    if forbid_nothing(masks):
        return ()
    try:
        return head.join_masks(masks, env.num_envs)
    except ValueError as error:
        raise ValueError(f"{error} That is what `action_masks` of {env!r} gives.") from None


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
