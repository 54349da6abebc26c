"""What an agent's files hold beside Keras's own: where episodes of compiled environments stand, and the spaces."""

import json
from pathlib import Path

import numpy as np
import tensorflow as tf

from kerasrl_pg.envs.spaces import check_same_space, space_to_config
from kerasrl_pg.rollouts import compiled
from kerasrl_pg.saving.weights import InMemory, check_same_weights, read_weights, weights_of


class Episodes:
    """Where the episodes of an agent's compiled environment stand after a fit, for the next one and for files.

    Attributes:
        kept: None; `(environment, Players)`; or `(its text, arrays)` as a file holds it.
    """

    def __init__(self):
        self.kept = None

    def of(self, env, carry, memory_size=0):
        """The `Players` of a compiled environment, or None.

        Args:
            env: A `CompiledEnv`.
            carry: None, or the variable that takes over what the file says of reward scaling.
            memory_size: Numbers that the agent's networks remember of one environment.
        """
        if self.kept is None:
            return None
        kept, players = self.kept
        if kept == env:
            return players
        if kept != repr(env):
            return None
        template = compiled.start(env, tf.constant([0, 0]), memory_size)
        arrays, leaves = list(players), tf.nest.flatten(template)
        if carry is not None and len(arrays) > len(leaves):
            carry.assign(arrays.pop())
        if [(a.shape, a.dtype) for a in arrays] != [(tuple(x.shape), x.dtype.as_numpy_dtype) for x in leaves]:
            return None
        return tf.nest.pack_sequence_as(template, [tf.constant(a) for a in arrays])

    def save(self, store, carries):
        """Writes them to a Keras store; `carries` are reward scaling's variables by number of environments."""
        if self.kept is None:
            return
        env, players = self.kept
        from_file = isinstance(env, str)
        arrays = list(players) if from_file else [x.numpy() for x in tf.nest.flatten(players)]
        if not from_file and env.num_envs in carries:
            arrays.append(carries[env.num_envs].numpy())
        store["players"] = text([env if from_file else repr(env), len(arrays)])
        for index, array in enumerate(arrays):
            store[f"players_{index}"] = array

    def load(self, store):
        """Takes them from a Keras store."""
        self.kept = _read_players(store) if "players" in store.keys() else None  # noqa: SIM118


def _read_players(store):
    """The environment's text, and arrays."""
    try:
        env, count = json.loads(np.asarray(store["players"]).tobytes())
        if isinstance(env, str):
            return env, [np.array(store[f"players_{index}"]) for index in range(count)]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"The saved episodes of a compiled environment cannot be read: {error}.") from error
    raise ValueError(f"The saved episodes must be a compiled environment's. Received: {env!r}.")


def text(value):
    """JSON as bytes that an HDF5 file takes."""
    return np.frombuffer(json.dumps(value).encode(), "uint8")


def spaces_text(spaces):
    """Spaces as bytes that an HDF5 file takes; `read_weights` reads them."""
    return text([space_to_config(space) for space in spaces])


def write(path, save, suffix, **kwargs):
    """Writes by ordinary means what Keras's `save` makes: h5py ends the process where a disk is full."""
    file = InMemory(suffix)
    save(file, **kwargs)
    Path(path).write_bytes(file.getbuffer())


def load_weights(agent, episodes, filepath, load, strict):
    """Loads a weights file, or leaves everything as it was; see the agent's `load_weights`.

    Args:
        agent: Has `spaces`, None in them before it is built, `bind`, `likeness` and `weights_content`.
        episodes: Its `Episodes`.
        filepath: A `.weights.h5` or `.keras` file.
        load: Keras's `load_weights` of the agent, of a file-like object.
        strict: Whether everything must fit.
    """
    file, likeness = read_weights(filepath), agent
    if agent.spaces[0] is None:
        if file.spaces is None:
            raise ValueError(
                f"`filepath` must hold the weights of a built agent. Received: filepath={str(filepath)!r}, "
                "which does not. Save them after `fit` or `bind`."
            )
        likeness = agent.likeness()  # Built in place of this one, which may yet have to stay as it is.
        likeness.bind(*file.spaces)
    elif file.spaces is not None and strict:
        check_same_space("filepath", agent.spaces[0], file.spaces[0])
        check_same_space("filepath", agent.spaces[1], file.spaces[1], bounds=True)
    before, kept = likeness.weights_content(), episodes.kept
    if strict:
        check_same_weights(filepath, file.weights, weights_of(before, filepath))
    if likeness is not agent:
        agent.bind(*file.spaces)
        before = agent.weights_content()
    try:
        load(InMemory(".weights.h5", file.content))
    except BaseException:
        load(InMemory(".weights.h5", before))
        episodes.kept = kept
        raise
