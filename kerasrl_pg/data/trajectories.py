"""Stored episodes as rollouts, read from the disk as they are needed, and judged."""

import functools

import numpy as np
import tensorflow as tf

from kerasrl_pg.data.minari import minari
from kerasrl_pg.envs.spaces import check_same_space
from kerasrl_pg.rollouts.records import Inputs, Rollout, rows_of

MASKED = -1e8  # What is masked has a log-probability of -1e9.
KEPT = 2**27  # Bytes: ours, so that small datasets are read from the disk once, which takes longer than to learn.


class Trajectories:
    """Episodes of a Minari dataset.

    They stay on the disk: what is kept in memory is how long each is, and the first 128 MiB that were read.

    Args:
        dataset: The id of a dataset that is on this machine, or a `minari.MinariDataset`, such as a part of one that
            `filter_episodes` gives.
        behavior: Who acted, where the dataset does not say with which probability: a built agent, such as a
            `BehaviorCloning` that was fitted to the same episodes. None for the log-probabilities in the dataset.

    Attributes:
        observation_space, action_space: Of the dataset.
        lengths: int [episodes], steps of each.

    Raises:
        ImportError: If Minari is missing.
        ValueError: If there is no such dataset, or it holds no episodes.
        TypeError: If `dataset` is something else, or `behavior` no built agent.

    >>> Trajectories("no/such-v0")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: `dataset` must be the id of a dataset on this machine. Received: 'no/such-v0', which is not in ...
    """

    def __init__(self, dataset, behavior=None):
        self.dataset = _opened(dataset)
        self.behavior = behavior
        if behavior is not None and getattr(behavior, "actor_critic", None) is None:
            raise TypeError(
                "`behavior` must be a built agent, or None for the log-probabilities in the dataset. "
                f"Received: behavior={behavior!r}."
            )
        self.observation_space, self.action_space = self.dataset.observation_space, self.dataset.action_space
        told = self.dataset.storage.get_episode_metadata(self.dataset.episode_indices)
        self.lengths = np.array([int(episode["total_steps"]) for episode in told])
        if not len(self.lengths) or not self.lengths.all():
            raise ValueError(
                "`dataset` must hold episodes of at least one step. "
                f"Received: {self.dataset.spec.dataset_id!r}, of lengths {self.lengths.tolist()[:10]}."
            )
        self._programs = {}
        self._kept, self._kept_bytes = {}, 0

    def __len__(self):
        return len(self.lengths)

    @property
    def total_steps(self):
        """Steps of all episodes."""
        return int(self.lengths.sum())

    @property
    def longest(self):
        """Steps of the longest episode."""
        return int(self.lengths.max())

    def check_spaces(self, networks):
        """Refuses episodes of other spaces than an `ActorCritic`'s."""
        check_same_space("dataset", networks.observation_space, self.observation_space)
        check_same_space("dataset", networks.action_space, self.action_space, bounds=True)

    def gives_masks(self, networks):
        """Whether the episodes say which actions were allowed, in infos or in a leaf of the observations."""
        return networks.mask_key is not None or self._tells_masks

    @functools.cached_property
    def _tells_masks(self):
        return "action_mask" in (self._read(0).infos or {})

    def rollout(self, numbers, networks, log_probs=True, horizon=None):
        """Some of the episodes, side by side.

        Args:
            numbers: Which, whole numbers below `len(self)`.
            networks: The `ActorCritic` that they are for.
            log_probs: Whether those of who acted are needed; else they are 0.
            horizon: T, rows; None for the longest of all episodes.

        Returns:
            A `Rollout` of NumPy arrays [T, N, ...], an episode in each column from its first row on.

        Raises:
            ValueError: If an episode holds NaN, infinity, actions outside of their space, or not what is needed; the
                sentence names the episode and the step.
        """
        horizon, n, spec, head = horizon or self.longest, len(numbers), networks.spec, networks.head
        shape, masked = (horizon, n), self.gives_masks(networks)
        observations, following = spec.empty(*shape), spec.empty(*shape)
        actions = tf.nest.map_structure(
            lambda x: np.zeros((*shape, *x.shape), x.dtype.as_numpy_dtype), head.action_spec
        )
        masks = np.ones((*shape, *head.mask_shape), bool) if masked else ()
        floats = {name: np.zeros(shape, np.float32) for name in ("rewards", "log_probs")}
        flags = {name: np.zeros(shape, bool) for name in ("terminated", "truncated", "valid")}
        for column, number in enumerate(numbers):
            episode = _Episode(self._read(int(number)), int(number), networks)
            length = episode.length
            rows = slice(0, length), column
            read = episode.observations()
            spec.map(lambda _, to, x, rows=rows: to.__setitem__(rows, x[:-1]), observations, read)
            spec.map(lambda _, to, x, rows=rows: to.__setitem__(rows, x[1:]), following, read)
            for to, x in zip(tf.nest.flatten(actions), tf.nest.flatten(episode.actions()), strict=True):
                to[rows] = x
            floats["rewards"][rows] = episode.rewards()
            if log_probs and self.behavior is None:
                floats["log_probs"][rows] = episode.log_probs()
            if masked:
                masks[rows] = episode.masks(spec.map(lambda _, x: x[:-1], read))
            flags["terminated"][rows], flags["truncated"][rows], flags["valid"][rows] = episode.ends()
        memory = networks.memory_size
        starts = np.broadcast_to((np.arange(horizon) == 0)[:, None], shape).copy() if memory else ()
        remembered = np.zeros((*shape, memory), np.float32) if memory else ()
        rollout = Rollout(
            Inputs(observations, masks, starts, remembered),
            actions,
            next_inputs=Inputs(following, memory=remembered),
            **floats,
            **flags,
        )
        if masked:
            self._check_allowed(rollout, numbers, networks)
        if log_probs and self.behavior is not None:
            rollout = rollout._replace(log_probs=self._estimated(rollout, numbers))
        return rollout

    def _told(self, networks, rollout):
        """log π [T, N] of networks' policy, as an array."""
        key = id(networks), rollout.rewards.shape
        if key not in self._programs:
            program = tf.function(lambda inputs, actions: log_probs_of(networks, inputs, actions))
            self._programs[key] = program, networks  # Kept, so that no other has its id.
        return self._programs[key][0](rollout.inputs, rollout.actions).numpy()

    def _check_allowed(self, rollout, numbers, networks):
        bad = (self._told(networks, rollout) < MASKED) & rollout.valid
        if bad.any():
            t, column = np.argwhere(bad)[0]
            action = tf.nest.map_structure(lambda x: x[t, column].tolist(), rollout.actions)
            raise ValueError(
                "`actions` must be such as the masks allow. Received: "
                f"{action}, which is forbidden, in step {t} of episode {numbers[column]}."
            )

    def _read(self, number):
        """Minari's `EpisodeData`."""
        if number in self._kept:
            return self._kept[number]
        data = self.dataset[number]
        _check_inside(self.action_space, data, number)
        arrays = data.observations, data.actions, data.rewards, data.terminations, data.truncations, data.infos
        size = sum(np.asarray(leaf).nbytes for leaf in tf.nest.flatten(arrays))
        if self._kept_bytes + size <= KEPT:
            self._kept[number] = data
            self._kept_bytes += size
        return data

    def _estimated(self, rollout, numbers):
        """log β [T, N] of `behavior`."""
        found = self._told(self.behavior.actor_critic, rollout)
        bad = ~(found >= MASKED) & rollout.valid
        if bad.any():
            t, column = np.argwhere(bad)[0]
            raise ValueError(
                "`behavior` must be able to have acted so. Received: an action of log-probability "
                f"{found[t, column]} in step {t} of episode {numbers[column]}. Fit it to these episodes."
            )
        return np.where(rollout.valid, found, 0.0).astype(np.float32)


def remembered(networks, inputs):
    """What networks remember along episodes, each of which begins with the first row of its column.

    Args:
        networks: An `ActorCritic` with memory.
        inputs: `Inputs` [T, N, ...]; their memory does not matter.

    Returns:
        `(before, after)`: float32 [T, N, M] each, of policy and critic, before and after each step.
    """
    observations = tf.nest.map_structure(tf.convert_to_tensor, inputs.observations)
    nothing = tf.zeros((inputs.starts.shape[1], networks.memory_size))

    def step(memory, row):
        return networks.step(Inputs(row[0], (), row[1], memory))[1]

    after = tf.scan(step, (observations, tf.convert_to_tensor(inputs.starts)), nothing)
    return tf.concat([nothing[None], after[:-1]], 0), after


def along(networks, rollout):
    """A `Rollout` of stored episodes, whose inputs hold what networks remember now; as it is without memory."""
    if not networks.memories:
        return rollout
    before, after = map(tf.stop_gradient, remembered(networks, rollout.inputs))
    return rollout._replace(
        inputs=rollout.inputs._replace(memory=before), next_inputs=rollout.next_inputs._replace(memory=after)
    )


def log_probs_of(networks, inputs, actions):
    """log π(a|s) [T, N] of a rollout's actions, of columns that begin with an episode's first step."""
    horizon = tf.nest.flatten(inputs.observations)[0].shape[0]
    nest = tf.nest.map_structure(tf.convert_to_tensor, (inputs, actions))
    rows, taken = rows_of(nest, horizon if networks.memories else 1)
    if networks.memories:
        rows = rows._replace(memory=rows.memory[::horizon])
    log_probs = networks.distribution(rows).log_prob(taken)
    if networks.memories:
        return tf.transpose(tf.reshape(log_probs, [-1, horizon]))
    return tf.reshape(log_probs, [horizon, -1])


class _Episode:
    """One stored episode, and the sentences for what is wrong in it."""

    def __init__(self, data, number, networks):
        self._number, self._spec, self._head = number, networks.spec, networks.head
        self._mask_key = networks.mask_key
        self._data = data
        self.length = len(self._data.rewards)

    def _where(self, step):
        return f"in step {step} of episode {self._number}"

    def observations(self):
        """Arrays [length + 1, ...] of the spec."""
        data = self._data.observations
        arrays = self._spec.read(data, self.length + 1, lambda row: "" if row is None else self._where(row))
        self._spec.check_finite(arrays, self._where)
        return arrays

    def rewards(self):
        rewards = np.asarray(self._data.rewards, np.float64)
        bad = ~(np.abs(rewards) <= np.finfo(np.float32).max)
        if bad.any():
            step = int(bad.argmax())
            raise ValueError(f"`rewards` must be finite. Received: {rewards[step]} {self._where(step)}.")
        return rewards

    def ends(self):
        """Terminated, truncated and valid, [length] each; an episode that breaks off is truncated."""
        terminated, truncated = np.asarray(self._data.terminations, bool), np.asarray(self._data.truncations, bool)
        early = (terminated | truncated)[:-1]
        if early.any():
            raise ValueError(
                f"An episode must end with its last step. Received: an end {self._where(int(early.argmax()))}, which "
                f"has {self.length}."
            )
        truncated = truncated.copy()
        truncated[-1] |= not terminated[-1]
        return terminated, truncated, np.ones(self.length, bool)

    def actions(self):
        """Raw actions [length, ...]: those that were stored so, or what the head makes of the environment's."""
        raw = (self._data.infos or {}).get("raw_action")
        if raw is None:
            return tf.nest.map_structure(lambda x: x.numpy(), self._head.from_env(self._data.actions))
        actions = _packed(self._head.action_spec, raw, self.length)
        self._check_sent(actions)
        return actions

    def _check_sent(self, actions):
        """Refuses raw actions that the head would not send to the environment as what was stored."""
        specs, leaves = tf.nest.flatten(self._head.action_spec), tf.nest.flatten(actions)
        bad = np.zeros(self.length, bool)
        if any(leaf.shape != (self.length, *spec.shape) for leaf, spec in zip(leaves, specs, strict=True)):
            bad[:] = True
        else:
            sent = tf.nest.flatten(tf.nest.map_structure(lambda x: x.numpy(), self._head.to_env(actions)))
            for found, stored in zip(sent, tf.nest.flatten(self._data.actions), strict=True):
                away = ~np.isclose(found, np.asarray(stored)[: self.length], rtol=1e-3, atol=1e-6)
                bad |= away.reshape(self.length, -1).any(-1)
        if bad.any():
            step = int(bad.argmax())
            raise ValueError(
                f"`actions` must be such as the policy's head, {type(self._head).__name__}, sends. Received: another "
                f"than it makes of infos['raw_action'] {self._where(step)}. Take the head that they were recorded "
                "with, or a dataset without raw_action."
            )

    def log_probs(self):
        stored = (self._data.infos or {}).get("log_prob")
        if stored is None:
            raise ValueError(
                "The dataset must say with which log-probabilities its actions were taken, as infos['log_prob'], or "
                f"`behavior` who acted. Received: none in episode {self._number}. Fit a BehaviorCloning to it, and "
                "give Trajectories(dataset, behavior=...)."
            )
        log_probs = np.asarray(stored, np.float64)[: self.length]
        bad = ~np.isfinite(log_probs)
        if bad.any() or len(log_probs) < self.length:
            step = int(bad.argmax()) if bad.any() else len(log_probs)
            raise ValueError(
                f"infos['log_prob'] must be finite. Received: {log_probs[step] if bad.any() else 'none'} "
                f"{self._where(step)}."
            )
        return log_probs

    def masks(self, observations):
        """bool [length, *mask_shape]."""
        if self._mask_key is not None:
            return (observations[self._mask_key] > 0).reshape(-1, *self._head.mask_shape)
        stored = (self._data.infos or {}).get("action_mask")
        if stored is None:
            raise ValueError(
                "The dataset must hold infos['action_mask'], since action_masks='info' of the agent. "
                f"Received: none in episode {self._number}."
            )
        if isinstance(stored, dict):  # Nested as the actions, as others may have stored them.
            stored = self._head.read_mask(_with_tuples(stored))
            stored = stored if stored.ndim > 1 else np.tile(stored, (self.length, 1))  # Of no part anything is masked.
        stored = np.asarray(stored)
        if len(stored) < self.length:
            raise ValueError(
                f"infos['action_mask'] must hold a mask for each of the {self.length} steps. "
                f"Received: {len(stored)} in episode {self._number}."
            )
        return stored[: self.length].reshape(-1, *self._head.mask_shape) > 0


def _with_tuples(nest):
    """A nest of Minari's, which names what stands in tuples `_index_0`, `_index_1`, ..."""
    if not isinstance(nest, dict):
        return nest
    if nest and all(key.startswith("_index_") for key in nest):
        return tuple(_with_tuples(nest[f"_index_{place}"]) for place in range(len(nest)))
    return {key: _with_tuples(part) for key, part in nest.items()}


def _check_inside(space, data, number):
    """Refuses an episode with an action that is not in the space."""
    for step in range(len(data.rewards)):
        action = tf.nest.map_structure(lambda x, step=step: x[step], data.actions)
        if not space.contains(action):
            raise ValueError(f"`actions` must be in {space}. Received: {action} in step {step} of episode {number}.")


def _packed(spec, raw, length):
    """Raw actions [length, ...] nested as `spec`; Minari gives dictionaries back for tuples."""
    if isinstance(spec, dict):
        return {key: _packed(part, raw[key], length) for key, part in spec.items()}
    if isinstance(spec, tuple):
        return tuple(_packed(part, raw[f"_index_{i}"], length) for i, part in enumerate(spec))
    return np.asarray(raw)[:length].astype(spec.dtype.as_numpy_dtype)


def _opened(dataset):
    minari_ = minari()
    if isinstance(dataset, minari_.MinariDataset):
        return dataset
    if not isinstance(dataset, str):
        raise TypeError(
            "`dataset` must be the id of a Minari dataset, a MinariDataset, or `data.Trajectories`. "
            f"Received: dataset={dataset!r}."
        )
    from minari.storage.datasets_root_dir import get_dataset_path

    path = get_dataset_path(dataset)
    if not (path / "data" / "metadata.json").is_file():
        raise ValueError(
            f"`dataset` must be the id of a dataset on this machine. Received: {dataset!r}, which is not in "
            f"{get_dataset_path()}. `data.record` makes one."
        )
    return minari_.load_dataset(dataset)
