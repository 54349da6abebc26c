"""Playing whole episodes to judge a policy."""

import numpy as np
import tensorflow as tf

from kerasrl_pg.envs.vector import Stepper


def play_episodes(env, spec, actor, noise, episodes, seed):
    """Plays a fixed quota of episodes in each environment.

    Args:
        env: A `VectorEnv` of N environments.
        spec: Its `ObservationSpec`.
        actor: An `Actor` for N environments.
        noise: Function from a chunk number to noise [256, N, ...], or to None where the actor is deterministic.
        episodes: How many in all; environment i plays episodes // N, and one more where i < episodes % N.
        seed: Of the environments.

    Returns:
        `(returns, lengths)`: arrays [episodes], raw undiscounted rewards and steps.
    """
    n = env.num_envs
    stepper = Stepper(env, spec)
    observations = stepper.reset(seed)
    quota = np.full(n, episodes // n) + (np.arange(n) < episodes % n)
    running_returns, running_lengths = np.zeros(n), np.zeros(n, int)
    returns, lengths = [], []
    t = 0
    while quota.any():
        if t % 256 == 0:
            chunk = noise(t // 256)
        inputs = spec.map(lambda leaf, x: np.asarray(x, leaf.dtype.as_numpy_dtype), observations)
        _, _, env_actions = actor(inputs, None if chunk is None else chunk[t % 256])
        step = stepper.step(env_actions)
        observations = step.observations
        valid = True if step.valid is None else step.valid
        running_returns += np.where(valid, step.rewards, 0.0)
        running_lengths += valid
        for index in np.flatnonzero(step.ended & valid):
            if quota[index]:
                returns.append(float(running_returns[index]))
                lengths.append(int(running_lengths[index]))
                quota[index] -= 1
            running_returns[index] = running_lengths[index] = 0
        t += 1
    return np.asarray(returns), np.asarray(lengths)


# Names of what `evaluate_policy` returns.
RESULTS = ("return", "return_std", "return_min", "return_max", "length", "episodes", "deterministic")


def evaluate_policy(agent, vector_env, episodes, deterministic, seed):
    """Plays episodes with an agent's present weights and sums them up; see `Agent.evaluate`."""
    n = vector_env.num_envs
    actor = agent.actor(n, deterministic)
    actor.sync()

    def noise(chunk):
        return None if deterministic else agent.head.noise(tf.constant([seed, chunk]), (256, n)).numpy()

    returns, lengths = play_episodes(vector_env, agent.observation_spec, actor, noise, episodes, seed)
    return {
        "return": float(np.mean(returns)),
        "return_std": float(np.std(returns)),
        "return_min": float(np.min(returns)),
        "return_max": float(np.max(returns)),
        "length": float(np.mean(lengths)),
        "episodes": episodes,
        "deterministic": float(deterministic),
    }
