"""Writing episodes down as an agent plays them."""

import contextlib
import os
import shutil

import numpy as np
import tensorflow as tf

from kerasrl_pg.checks import check_whole
from kerasrl_pg.data.minari import minari
from kerasrl_pg.rollouts.collect import Collector
from kerasrl_pg.training import fitting
from kerasrl_pg.training.host import Noise

try:
    import fcntl
except ImportError:  # Windows, where nobody is kept from recording twice.
    fcntl = None

ROWS = 256  # Steps between two looks at what has ended: ours, a few MB of small observations.


def record(agent, env, dataset_id, episodes, *, num_envs=None, seed=0, max_steps=1_000_000, description=None):
    """Plays episodes with a policy, sampled, and writes them to a new Minari dataset.

    Beside what every dataset holds, `infos["log_prob"]` says with which log-probability (density) each action was
    taken, `infos["raw_action"]` what the policy drew before it was cut off at the bounds, and `infos["action_mask"]`
    what was allowed, where the environment says it so. Images are kept as they are, not as JPEG. Episodes are written
    as they end, to a folder beside, which is read and renamed at the end: what is cut off leaves nothing that loads.

    Args:
        agent: A compiled or uncompiled agent; one that is not built gets networks for the environment.
        env: Of `fit`.
        dataset_id: Minari's, as "cartpole/mediocre-v0"; a new one. `MINARI_DATASETS_PATH` says where they are kept.
        episodes: How many, at least 1, of each environment the same number or one more, so that short ones are not
            more frequent than in play.
        num_envs: N, environments side by side; as in `evaluate`.
        seed: Whole number, of environments and actions.
        max_steps: Environment steps after which an episode that does not end is refused.
        description: For the dataset's readers, or None.

    Returns:
        The `minari.MinariDataset`.

    Raises:
        ImportError: If Minari is missing.
        ValueError: If there is such a dataset already or another `record` is writing it, its id is none, or an episode
            does not end.

    >>> import os, tempfile
    >>> os.environ["MINARI_DATASETS_PATH"] = tempfile.mkdtemp()
    >>> import kerasrl_pg as pg
    >>> dataset = record(pg.A2C(seed=0), "CartPole-v1", "cartpole/random-v0", episodes=3)
    >>> len(dataset), sorted(dataset[0].infos)
    (3, ['log_prob', 'raw_action'])
    """
    for name, value, least in (("episodes", episodes, 1), ("seed", seed, 0), ("max_steps", max_steps, 1)):
        check_whole(name, value, at_least=least)
    with _written(dataset_id) as folder, fitting.opened_to_evaluate(env, num_envs, episodes) as vector_env:
        agent.bind(vector_env.single_observation_space, vector_env.single_action_space)
        spec = _spec_of(env, vector_env)
        storage = minari().dataset.minari_dataset.MinariStorage.new(
            folder / "data",
            vector_env.single_observation_space,
            vector_env.single_action_space,
            spec,
            jpeg_encoding=False,
        )
        storage.update_metadata(
            {
                "dataset_id": dataset_id,
                "minari_version": minari().__version__,
                "algorithm_name": type(agent).__name__,
                "description": description or f"{episodes} episodes played by {agent!r}",
            }
        )
        storage.update_episodes(_played(agent, vector_env, episodes, seed, max_steps))
    return minari().load_dataset(dataset_id)


@contextlib.contextmanager
def _written(dataset_id):
    """A folder beside the one of this id, which it becomes where all went well."""
    minari()
    from minari.dataset.minari_dataset import DATASET_ID_RE
    from minari.storage.datasets_root_dir import get_dataset_path

    if not isinstance(dataset_id, str) or not DATASET_ID_RE.fullmatch(dataset_id) or "-v" not in dataset_id:
        raise ValueError(
            f"`dataset_id` must be of the form name-v0, or namespace/name-v0. Received: dataset_id={dataset_id!r}."
        )
    path = get_dataset_path(dataset_id)
    beside = path.with_name(f".{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    with _alone(path.with_name(f".{path.name}.lock"), dataset_id):
        if path.exists():
            raise ValueError(
                f"`dataset_id` must be new. Received: {dataset_id!r}, which is in {path.parent}. Take another version, "
                f"or delete it: minari delete {dataset_id}."
            )
        shutil.rmtree(beside, ignore_errors=True)  # Of a run that was killed.
        beside.mkdir()
        try:
            yield beside
            written = minari().MinariDataset(beside / "data")
            for _ in written.iterate_episodes([0, written.total_episodes - 1]):
                pass
            os.rename(beside, path)
        finally:
            shutil.rmtree(beside, ignore_errors=True)


@contextlib.contextmanager
def _alone(lock, dataset_id):
    """Refuses to record what another process, or this one, is recording; a lock goes with who held it."""
    if fcntl is None:
        yield
        return
    with open(lock, "a") as file:
        if not _locked(file, lock):
            raise ValueError(
                f"`dataset_id` must be one that nobody else is recording. Received: {dataset_id!r}, which another "
                "`record` writes now. Wait for it, or take another id."
            )
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _locked(file, path):
    """Whether a lock on an open file could be taken, and is still the one at its path."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except (BlockingIOError, FileNotFoundError):  # Whoever held it has just removed it.
        return False


def _spec_of(env, vector_env):
    """Gymnasium's description of the environment, from which others make it again; None where there is none."""
    import gymnasium as gym

    if isinstance(env, str):
        return gym.spec(env)
    return getattr(next(iter(getattr(vector_env, "envs", ())), env), "spec", None)


def _played(agent, vector_env, episodes, seed, max_steps):
    """Minari's `EpisodeBuffer`s, one after the other as they end."""
    networks, n = agent.actor_critic, vector_env.num_envs
    noise = Noise(agent.noise_program, seed, ROWS, n)
    actor = agent._actor_for(n, deterministic=False)
    collector = Collector(
        vector_env, networks.spec, networks.head, actor, noise, ROWS, seed=seed, mask_key=networks.mask_key
    )
    # As many of each environment, since the first to end are the short ones.
    left = np.full(n, episodes // n) + (np.arange(n) < episodes % n)
    pieces = [[] for _ in range(n)]
    while left.any():
        rollout = collector.collect()
        noise.iteration += 1
        for column in np.flatnonzero(left):
            ended = (rollout.terminated | rollout.truncated)[:, column] & rollout.valid[:, column]
            first = 0
            for last in np.flatnonzero(ended)[: left[column]]:
                pieces[column].append(_part(rollout, first, last + 1, column))
                yield _buffer(networks, tf.nest.map_structure(lambda *x: np.concatenate(x), *pieces[column]))
                pieces[column], first = [], last + 1
                left[column] -= 1
            if left[column]:
                pieces[column].append(_part(rollout, first, ROWS, column))
            if sum(len(piece.rewards) for piece in pieces[column]) > max_steps:
                raise ValueError(
                    f"`env` must end its episodes. Received: one of more than {max_steps} steps. Wrap it in "
                    "gymnasium.wrappers.TimeLimit, or raise `max_steps`."
                )


def _part(rollout, first, end, column):
    """Some steps of one environment, without those that are no transitions."""
    rows = np.arange(first, end)[rollout.valid[first:end, column]]
    return tf.nest.map_structure(lambda x: x[rows, column], rollout)


def _buffer(networks, episode):
    """An `EpisodeBuffer` of a `Rollout` of one episode, [steps, ...]."""
    from minari.data_collector import EpisodeBuffer

    def with_last(x, last):
        return np.concatenate([x, last[-1:]])

    observations = tf.nest.map_structure(with_last, episode.inputs.observations, episode.next_inputs.observations)
    infos = {"log_prob": episode.log_probs, "raw_action": episode.actions}
    if networks.mask_key is None and not isinstance(episode.inputs.masks, tuple):
        infos["action_mask"] = episode.inputs.masks.astype(np.int8)
    # An info for the last observation, too, as Minari has them: its own numbers again.
    infos = tf.nest.map_structure(lambda x: with_last(x, x), infos)
    observations = networks.spec.nested(observations)
    return EpisodeBuffer(
        # HDF5 takes texts from lists alone.
        observations=tf.nest.map_structure(lambda x: x.tolist() if x.dtype.kind == "U" else x, observations),
        actions=tf.nest.map_structure(lambda x: x.numpy(), networks.head.to_env(episode.actions)),
        rewards=episode.rewards,
        terminations=episode.terminated,
        truncations=episode.truncated & ~episode.terminated,
        infos=infos,
    )
