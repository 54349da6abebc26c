"""Collecting rollouts from environments that run in Python."""

from collections import deque

import numpy as np
import tensorflow as tf

from kerasrl_pg.envs.vector import Stepper
from kerasrl_pg.rollouts.records import Inputs, Rollout


class EpisodeStatistics:
    """Returns and lengths of the last finished episodes, from raw rewards.

    Args:
        num_envs: N.
        window: How many episodes the means are over. 100, as in Brockman et al. 2016 ("OpenAI Gym").

    >>> statistics = EpisodeStatistics(num_envs=1)
    >>> statistics.add(np.array([2.0]), ended=np.array([True]))
    >>> statistics.means()
    {'episode_return': 2.0, 'episode_length': 1.0}
    """

    def __init__(self, num_envs, window=100):
        self._returns = np.zeros(num_envs)
        self._lengths = np.zeros(num_envs, int)
        self.finished = deque(maxlen=window)

    def reset(self):
        """Forgets the unfinished episodes."""
        self._returns[:] = 0.0
        self._lengths[:] = 0

    def add(self, rewards, ended, valid=None):
        """Adds one step of N environments; `valid` leaves some out."""
        if valid is None:
            self._returns += rewards
            self._lengths += 1
        else:
            self._returns += np.where(valid, rewards, 0.0)
            self._lengths += valid
            ended = ended & valid
        for index in ended.nonzero()[0]:
            self.finished.append((float(self._returns[index]), int(self._lengths[index])))
            self._returns[index] = 0.0
            self._lengths[index] = 0

    def means(self):
        """`episode_return` (raw reward) and `episode_length` (steps), means over the window; nan before the first
        episode."""
        if not self.finished:
            return {"episode_return": float("nan"), "episode_length": float("nan")}
        returns, lengths = np.mean(self.finished, axis=0)
        return {"episode_return": float(returns), "episode_length": float(lengths)}


class Recorder:
    """A `Rollout` of T steps of N environments while it is written, row by row.

    Args:
        spec: The `ObservationSpec`.
        head: The policy's `Head`.
        actor: The `Actor`, which says whether there are masks, and how much is remembered.
        horizon: T.
        num_envs: N.

    Attributes:
        rollout: The `Rollout`, of NumPy arrays; rewards are float64, as given, until they have been judged.
    """

    def __init__(self, spec, head, actor, horizon, num_envs):
        self._spec = spec
        shape = horizon, num_envs
        memory_size = actor.memory_size

        def memory():
            return np.zeros((*shape, memory_size), np.float32) if memory_size else ()

        self.rollout = Rollout(
            inputs=Inputs(
                spec.empty(*shape),
                np.zeros((*shape, *head.mask_shape), bool) if actor.masked else (),
                np.zeros(shape, bool) if memory_size else (),
                memory(),
            ),
            actions=tf.nest.map_structure(
                lambda leaf: np.zeros((*shape, *leaf.shape), leaf.dtype.as_numpy_dtype), head.action_spec
            ),
            log_probs=np.zeros(shape, np.float32),
            rewards=np.zeros(shape),
            terminated=np.zeros(shape, bool),
            truncated=np.zeros(shape, bool),
            next_inputs=Inputs(spec.empty(*shape), memory=memory()),
            valid=np.zeros(shape, bool),
        )
        self._nested = tf.nest.is_nested(head.action_spec)

    def record_observations(self, t, observations):
        """What the actions of step t are chosen from; the row that holds it."""
        return self._store_observations(self.rollout.inputs.observations, t, observations)

    def _store_observations(self, storage, t, observations):
        # Every microsecond of a step counts where there is one environment: a single array meets no loop.
        if self._spec.single:
            storage[t] = observations
            return storage[t]
        for name, array in storage.items():
            array[t] = observations[name]
        return {name: array[t] for name, array in storage.items()}

    def record_memory(self, t, starts, memory):
        """What is remembered before step t, and where episodes start with it."""
        self.rollout.inputs.starts[t], self.rollout.inputs.memory[t] = starts, memory

    def record_actions(self, t, actions, log_probs):
        """What is done in step t."""
        if self._nested:
            for storage, leaf in zip(*map(tf.nest.flatten, (self.rollout.actions, actions)), strict=True):
                storage[t] = leaf
        else:
            self.rollout.actions[t] = actions
        self.rollout.log_probs[t] = log_probs

    def record_outcome(self, t, step):
        """What the environments answer in step t."""
        self.rollout.rewards[t] = step.rewards
        self.rollout.terminated[t] = step.terminated
        self.rollout.truncated[t] = step.truncated
        self._store_observations(self.rollout.next_inputs.observations, t, step.next_observations)

    def finished(self):
        """The rollout, with rewards in float32."""
        return self.rollout._replace(rewards=self.rollout.rewards.astype(np.float32))


class Collector:
    """Collects `Rollout`s of T steps from N environments with a policy.

    Args:
        env: A `VectorEnv`.
        spec: The `ObservationSpec`.
        head: The policy's head.
        actor: An `Actor` for N environments, or a function from whether they give action masks to one.
        draw_noise: Function without arguments giving noise [T, N, ...] for a whole rollout.
        horizon: T.
        episodes: None, or how many whole episodes each environment plays in a rollout; rows after them are not valid.
        seed: Of the environments' first reset.
        mask_key: The leaf of the observations that holds action masks, or None.

    Attributes:
        steps_taken: Environment steps of the last rollout, those of environments that waited for others included.
    """

    def __init__(self, env, spec, head, actor, draw_noise, horizon, episodes=None, seed=None, mask_key=None):
        self._stepper = Stepper(env, spec)
        self._mask_key = mask_key
        self._spec = spec
        self._head = head
        self._draw_noise = draw_noise
        self._horizon = horizon
        self._episodes = episodes
        self._num_envs = env.num_envs
        self.statistics = EpisodeStatistics(env.num_envs)
        self.steps_taken = 0
        self._observations = self._stepper.reset(seed)
        if not callable(getattr(actor, "sync", None)):  # A function from whether there are masks to an actor.
            actor = actor(mask_key is not None or self._stepper.gives_masks)
        self._actor = actor
        self._starts = np.ones(env.num_envs, bool)
        self._fresh = True

    def collect(self):
        """Plays one rollout with the policy's present weights.

        Returns:
            A `Rollout` of NumPy arrays.

        Raises:
            ValueError: If an observation, a reward or a log-probability is not finite, or the environment gives
                anything else that it must not (see `Stepper`); the sentence says what and where.
            RuntimeError: If the environment raised.
        """
        if self._episodes and not self._fresh:
            self._observations = self._stepper.reset()
            self._starts = np.ones(self._num_envs, bool)
            self.statistics.reset()
        self._fresh = False
        self._actor.sync()
        noise = self._draw_noise()
        recorder = Recorder(self._spec, self._head, self._actor, self._horizon, self._num_envs)
        # Rows lost to environments' own resets: noise belongs to an environment's k-th transition, not to the row.
        lag, columns = None, np.arange(self._num_envs)
        episodes_left = np.full(self._num_envs, self._episodes or 0)
        self.steps_taken = 0
        for t in range(self._horizon):
            step = self._step(recorder, t, noise[t] if lag is None else noise[t - lag, columns])
            valid = step.valid
            if valid is None:
                self.steps_taken += self._num_envs
            else:
                self.steps_taken += int(valid.sum())
                lag = ~valid + (0 if lag is None else lag)
            if self._episodes:
                playing = episodes_left > 0
                valid = playing if valid is None else valid & playing
                episodes_left -= step.ended & valid
            recorder.rollout.valid[t] = True if valid is None else valid
            self.statistics.add(step.rewards, step.ended, valid)
            if self._episodes and not episodes_left.any():
                break
        check_finite(recorder.rollout, self._spec)
        return recorder.finished()

    def _step(self, recorder, t, noise):
        """One step of all environments, recorded but for what is valid."""
        observations = recorder.record_observations(t, self._observations)
        masks = None
        if self._actor.masked:
            masks = recorder.rollout.inputs.masks[t]
            masks[...] = self._allowed(observations, t)
        remembers = self._actor.memory_size > 0
        if remembers:
            recorder.record_memory(t, self._starts, self._actor.memory)
        actions, log_probs, env_actions = self._actor(observations, noise, masks, self._starts if remembers else None)
        if remembers:
            recorder.rollout.next_inputs.memory[t] = self._actor.memory
        step = self._stepper.step(env_actions)
        recorder.record_actions(t, actions, log_probs)
        recorder.record_outcome(t, step)
        self._observations, self._starts = step.observations, step.starts
        return step

    def _allowed(self, observations, t):
        return allowed(
            self._stepper,
            self._head,
            self._mask_key,
            observations,
            lambda row: f"from environment {row} in step {t} of the rollout",
        )


def allowed(stepper, head, mask_key, observations, where):
    """The actions that N environments allow.

    Args:
        stepper: The `Stepper`.
        head: The policy's `Head`.
        mask_key: The leaf of the observations that says it, or None where infos do.
        observations: The spec's arrays [N, ...].
        where: Function from the number of an environment to the words that say where it is.

    Returns:
        bool [N, *head.mask_shape].

    Raises:
        ValueError: If one allows nothing.
    """
    if mask_key is None:
        masks = stepper.masks(head)
    else:
        masks = (observations[mask_key] > 0).reshape(-1, *head.mask_shape)
    masks |= stepper.ignores_actions.reshape(-1, *[1] * len(head.mask_shape))
    nothing = head.all_masked(masks)
    if nothing.any():
        raise nothing_allowed(where(int(nothing.argmax())))
    return masks


def check_masks(rollout, head):
    """Refuses a rollout in which an environment allowed nothing.

    Args:
        rollout: A `Rollout` of NumPy arrays.
        head: The policy's `Head`.

    Raises:
        ValueError: Naming the environment and the step.
    """
    if isinstance(rollout.inputs.masks, tuple):
        return
    nothing = head.all_masked(rollout.inputs.masks) & rollout.valid
    if nothing.any():
        t, index = np.argwhere(nothing)[0]
        raise nothing_allowed(f"from environment {index} in step {t} of the rollout")


def nothing_allowed(where):
    return ValueError(
        f"An action mask must allow something. Received: a mask of zeros {where}. End the episode there, or allow an "
        "action that does nothing."
    )


def check_finite(rollout, spec):
    """Refuses a rollout in which an environment gave, or the policy computed, what no update can learn from.

    Args:
        rollout: A `Rollout` of NumPy arrays; rewards may still be float64.
        spec: The `ObservationSpec`.

    Raises:
        ValueError: Naming the field, the environment and the step of the first row with NaN, infinity, or a number
            beyond float32. In one row an observation comes before the log-probability computed from it. Before all
            these, the first observation that is no choice of a discrete space.
    """
    fields, astray = {}, []
    facts = {
        "observations": rollout.inputs.observations,
        "log_probs": rollout.log_probs,
        "rewards": rollout.rewards,
        "next_observations": rollout.next_inputs.observations,
    }
    for field, value in facts.items():
        leaves = {f"{field}['{k}']": v for k, v in value.items()} if isinstance(value, dict) else {field: value}
        if field.endswith("observations"):
            for leaf, name in zip(leaves, spec.specs if isinstance(value, dict) else ["observation"], strict=True):
                if name in spec.choices:
                    astray += _astray(leaf, leaves[leaf], rollout.valid, *spec.choices[name])
        fields.update({name: array for name, array in leaves.items() if array.dtype.kind == "f"})
    if astray:
        raise ValueError(min(astray, key=lambda one: one[0])[1])
    largest, found = np.finfo(np.float32).max, []
    for name, array in fields.items():
        # A sum is finite where all terms are, and far cheaper than testing each.
        if np.isfinite(array.sum(dtype=np.float64)) if array.dtype == np.float32 else np.abs(array).max() <= largest:
            continue
        bad = ~(np.abs(array.reshape(*array.shape[:2], -1)) <= largest).all(-1) & rollout.valid
        if bad.any():
            found.append((np.argwhere(bad)[0], name, array))
    if found:
        (t, index), name, array = min(found, key=lambda one: one[0][0])
        raise not_finite(name, t, index, array[t, index])


def _astray(field, array, valid, low, high):
    """`[(step, sentence)]` of the first observation that is no choice; [] where all are."""
    bad = ~((array >= low) & (array <= high)).reshape(*array.shape[:2], -1).all(-1) & valid
    if not bad.any():
        return []
    t, index = np.argwhere(bad)[0]
    sentence = (
        f"`{field}` must be choices of their space, from {low} to {high}. Received: {array[t, index]} from "
        f"environment {index} in step {t} of the rollout. Repair the environment, or its observation_space. "
        "The agent keeps the weights of its last finished update."
    )
    return [(t, sentence)]


def not_finite(field, step, env, value="a value that is not", place="rollout"):
    """The error of a rollout that holds NaN, infinity, or a number beyond float32.

    Args:
        field: Of the rollout, with the key of a dictionary's leaf.
        step: Row of the rollout.
        env: Number of the environment.
        value: What stands there.
        place: "rollout" or "evaluation".

    Returns:
        A `ValueError`, to be raised.
    """
    remedies = {
        "rewards": "Repair the environment's reward.",
        "log_probs": "The policy's weights or inputs are not finite: lower the learning rate, clip gradients "
        "(global_clipnorm) or check the last callbacks' logs for the first NaN.",
    }
    wanted = "finite"
    if not isinstance(value, str) and np.isfinite(value).all():
        wanted = "within float32 (3.4e38), in which agents compute"
    return ValueError(
        f"`{field}` must be {wanted}. Received: {value} from environment {env} in step {step} of the {place}. "
        f"{remedies.get(field, 'Repair the environment, or bound its observations with a wrapper.')}"
        f"{' The agent keeps the weights of its last finished update.' if place == 'rollout' else ''}"
    )
