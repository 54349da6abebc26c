"""Playing whole episodes to judge a policy."""

import contextlib
import dataclasses
import warnings

import numpy as np
import tensorflow as tf

from kerasrl_pg.envs.adapter import CompiledVectorEnv
from kerasrl_pg.envs.compiled import CompiledEnv
from kerasrl_pg.envs.vector import Stepper, close, make_vector_env
from kerasrl_pg.rollouts.collect import allowed


class Endless(RuntimeError):
    """An episode has not ended within the steps that an evaluation may take."""


def play_episodes(env, spec, actor, noise, episodes, seed, max_steps=None, head=None, mask_key=None):
    """Plays a fixed quota of episodes in each environment.

    Args:
        env: A `VectorEnv` of N environments.
        spec: Its `ObservationSpec`.
        actor: An `Actor` for N environments, or a function from whether they give action masks to one.
        noise: Function from a chunk number to noise [256, N, ...], or to None where the actor is deterministic.
        episodes: How many in all; environment i plays episodes // N, and one more where i < episodes % N.
        seed: Of the environments.
        max_steps: Steps that an episode may take; None for any number.
        head: The policy's head, where actions may be masked.
        mask_key: The leaf of the observations that holds action masks, or None.

    Returns:
        `(returns, lengths)`: arrays [episodes], raw undiscounted rewards and steps.

    Raises:
        Endless: If an episode that counts has not ended after `max_steps` steps.
        ValueError: If an observation, a reward, or what the policy makes of it is not finite; the sentence says where.
    """
    n = env.num_envs
    stepper = Stepper(env, spec)
    observations = stepper.reset(seed)
    if not callable(getattr(actor, "sync", None)):
        actor = actor(mask_key is not None or stepper.gives_masks)
    actor.sync("evaluation")
    starts = np.ones(n, bool)
    tally = Tally(n, episodes, max_steps)

    def where(row):
        return f"from environment {row} in step {tally.steps} of the evaluation"

    while tally.wanting:
        t = tally.steps
        if t % 256 == 0:
            chunk = noise(t // 256)
        spec.check_finite(observations, where)
        masks = allowed(stepper, head, mask_key, observations, where) if actor.masked else None
        draws = None if chunk is None else chunk[t % 256]
        _, log_probs, env_actions = actor(observations, draws, masks, starts if actor.memory_size else None)
        check_policy(log_probs, env_actions, where)
        step = stepper.step(env_actions)
        observations, starts = step.observations, step.starts
        tally.add(step, where)
    return np.asarray(tally.returns), np.asarray(tally.lengths)


@contextlib.contextmanager
def opened_to_evaluate(env, num_envs, episodes, argument="env"):
    """A `VectorEnv` to evaluate in, closed afterwards where it was made here."""
    if isinstance(env, CompiledEnv):
        # Side by side they cost next to nothing here.
        vector_env, owned = CompiledVectorEnv(dataclasses.replace(env, num_envs=num_envs or min(episodes, 100))), True
    else:
        num_envs = num_envs or (min(episodes, 8) if isinstance(env, str) else None)
        vector_env, owned = make_vector_env(env, num_envs, argument)
    with closing(vector_env, owned):
        yield vector_env


@contextlib.contextmanager
def closing(vector_env, owned):
    """Closes a `VectorEnv` afterwards, if it is `owned`."""
    failed = True
    try:
        yield
        failed = False
    finally:
        if owned:
            close(vector_env, failed=failed)


class Tally:
    """The episodes of an evaluation, as they are played.

    Args:
        num_envs: N.
        episodes: How many count; environment i plays episodes // N, and one more where i < episodes % N.
        max_steps: Steps that an episode may take; None for any number.

    Attributes:
        steps: Steps of the vector so far.
        returns, lengths: Of the episodes that have ended and count, in the order of their ends.
    """

    def __init__(self, num_envs, episodes, max_steps=None):
        self.steps = 0
        self.returns, self.lengths = [], []
        self._max_steps = max_steps
        self._quota = np.full(num_envs, episodes // num_envs) + (np.arange(num_envs) < episodes % num_envs)
        self._running_returns, self._running_lengths = np.zeros(num_envs), np.zeros(num_envs, int)

    @property
    def wanting(self):
        """Whether an environment has not played its quota yet."""
        return self._quota.any()

    def add(self, step, where):
        """Adds a `Step` of the vector; `where` says of an environment's number where it is.

        Raises:
            Endless: If an episode that counts has not ended after `max_steps` steps.
            ValueError: If a reward is not finite.
        """
        valid = True if step.valid is None else step.valid
        self._running_returns += np.where(valid, step.rewards, 0.0)
        if not np.isfinite(self._running_returns).all():
            row = int((~np.isfinite(self._running_returns)).argmax())
            raise ValueError(
                f"`rewards` must be finite. Received: {step.rewards[row]} {where(row)}. "
                "Repair the environment's reward."
            )
        self._running_lengths += valid
        for index in np.flatnonzero(step.ended & valid):
            if self._quota[index]:
                self.returns.append(float(self._running_returns[index]))
                self.lengths.append(int(self._running_lengths[index]))
                self._quota[index] -= 1
            self._running_returns[index] = self._running_lengths[index] = 0
        self.steps += 1
        self._check_lengths()

    def _check_lengths(self):
        # No episode is longer than the evaluation, so that a short one looks at no length.
        if self._max_steps is None or self.steps < self._max_steps:
            return
        endless = (self._running_lengths >= self._max_steps) & (self._quota > 0)
        if endless.any():
            raise Endless(
                f"An episode must end within `max_steps` to have a return. Received: max_steps={self._max_steps}, and "
                f"an episode of environment {int(endless.argmax())} that has not ended after as many steps. Wrap the "
                "environment in gymnasium.wrappers.TimeLimit, evaluate with deterministic=False, train longer, or "
                "raise max_steps."
            )


# Names of what `evaluate_policy` returns.
RESULTS = ("return", "return_std", "return_min", "return_max", "length", "episodes", "deterministic")


def check_policy(log_probs, env_actions, where):
    """Refuses what a policy makes of sound observations where its numbers are NaN or infinite.

    Args:
        log_probs: [B], of the actions.
        env_actions: [B, ...], as the environment would get them.
        where: Function from the number of a row to the words that say where it comes from.

    Raises:
        ValueError: Naming the first such row.
    """
    # A sum is finite where all terms are, and far cheaper than testing each.
    leaves = [leaf for leaf in tf.nest.flatten(env_actions) if leaf.dtype.kind == "f"]
    if all(np.isfinite(array.sum(dtype=np.float64)) for array in (log_probs, *leaves)):
        return
    for name, array in (("log_probs", log_probs), *(("actions", leaf) for leaf in leaves)):
        bad = ~np.isfinite(array).reshape(len(array), -1).all(1)
        if bad.any():
            row = int(bad.argmax())
            raise ValueError(
                f"`{name}` of the policy must be finite. Received: {array[row]} {where(row)}. Its weights are not "
                "finite, or too large for float32: load good ones, or train anew with a lower learning rate."
            )


def evaluate_policy(networks, actor, vector_env, episodes, deterministic, seed, max_steps=None):
    """Plays episodes with a policy's present weights and sums them up; see `Agent.evaluate`.

    Args:
        networks: The `ActorCritic`.
        actor: Its `Actor` for the environments of `vector_env`.
        vector_env, episodes, deterministic, seed, max_steps: Of `Agent.evaluate`.
    """
    n = vector_env.num_envs

    def noise(chunk):
        return None if deterministic else networks.head.noise(tf.constant([seed, chunk]), (256, n)).numpy()

    return summary(
        lambda: play_episodes(
            vector_env, networks.spec, actor, noise, episodes, seed, max_steps, networks.head, networks.mask_key
        ),
        episodes,
        deterministic,
    )


def summary(play, episodes, deterministic):
    """What an evaluation returns.

    Args:
        play: Function without arguments that plays and gives what `play_episodes` does.
        episodes, deterministic: Of it.

    Where an episode does not end within its steps, the returns are unknown: NaN, with a warning and no error, which
    would cost a fit that only looks at its policy.
    """
    try:
        returns, lengths = play()
    except Endless as error:
        warnings.warn(f"The returns of this evaluation are unknown, NaN. {error}", stacklevel=4)
        returns = lengths = [np.nan]
    return {
        "return": float(np.mean(returns)),
        "return_std": float(np.std(returns)),
        "return_min": float(np.min(returns)),
        "return_max": float(np.max(returns)),
        "length": float(np.mean(lengths)),
        "episodes": episodes,
        "deterministic": float(deterministic),
    }
