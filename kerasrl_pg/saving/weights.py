"""Weight files: what Keras writes, behind a header with its checksum; read whole and verified before anything is used.

HDF5 looks for its own beginning at byte 0, 512, 1024 and so on, and leaves what stands before to the application: h5py
and plain Keras read a sealed file like any other.
"""

import hashlib
import io
import json
import math
import zipfile
from pathlib import Path
from typing import NamedTuple

import h5py

from kerasrl_pg.envs.spaces import space_from_config

HEADER = 512  # Bytes before HDF5's own.
SIGNATURE = b"\x89HDF\r\n\x1a\n"  # Of HDF5 (file format specification 3.0, II.A).
# What h5py and json raise for what they cannot read.
UNREADABLE = OSError, RuntimeError, KeyError, TypeError, RecursionError, json.JSONDecodeError, UnicodeDecodeError
MOST_NUMBERS = 2**26  # In one observation and action together; ours: 2,000 times Atari's.


class InMemory(io.BytesIO):
    """A file in memory that Keras takes for a path: it asks for the name's end, then hands the file to h5py.

    On a full disk h5py ends the process where it writes itself; what is in memory is written by ordinary means.
    """

    def __init__(self, suffix, content=b""):
        super().__init__(content)
        self._suffix = suffix

    def __str__(self):
        return f"in memory{self._suffix}"


class WeightsFile(NamedTuple):
    """A verified file: its HDF5 `content`, `{path: (shape, dtype)}` of its weights, and the spaces of its agent."""

    content: bytes
    weights: dict
    spaces: tuple | None


def seal(content):
    """HDF5 content behind its checksum."""
    digest = hashlib.sha256(content).hexdigest()
    return f"kerasrl_pg weights. SHA-256 of what follows byte {HEADER}: {digest}\n".encode().ljust(HEADER) + content


def read_weights(filepath):
    """Reads the weights of an agent.

    Args:
        filepath: A `.weights.h5` or `.keras` file. Weights saved before there were checksums, which begin as HDF5
            does, are read without.

    Returns:
        A `WeightsFile`.

    Raises:
        ValueError: If the file is of another kind, or holds what Keras never writes: links to other places or files,
            or data sets larger than the file.
        OSError: If the file cannot be read, or is damaged.
    """
    path = Path(filepath)
    if path.name.endswith(".keras"):
        content = _member(path)
    elif path.name.endswith(".weights.h5"):
        content = _unsealed(path)
    else:
        raise ValueError(f"`filepath` must end in '.weights.h5' or '.keras'. Received: filepath={str(filepath)!r}.")
    weights, spaces = _inspect(content, path)
    return WeightsFile(content, weights, None if spaces is None else spaces_from_configs(spaces))


def weights_of(content, filepath):
    """`{path: (shape, dtype)}` of HDF5 content; `filepath` is for sentences."""
    return _inspect(content, filepath)[0]


def _unsealed(path):
    content = path.read_bytes()
    if content.startswith(SIGNATURE):
        return content
    rest = content[HEADER:]
    if content != seal(rest):
        raise OSError(f"The weights are damaged: the checksum differs. Received: filepath='{path}'. Use another copy.")
    return rest


def _member(path):
    try:
        with zipfile.ZipFile(path) as archive:
            info = archive.getinfo("model.weights.h5")
            if info.file_size > path.stat().st_size:
                raise ValueError(
                    f"`filepath` must hold no more than its size says. Received: filepath='{path}', whose weights "
                    f"declare {info.file_size} bytes, which Keras never compresses."
                )
            return archive.read(info)  # Verifies the archive's own checksum.
    except (zipfile.BadZipFile, KeyError, EOFError, NotImplementedError) as error:
        raise OSError(f"The saved agent is damaged: {error}. Received: filepath='{path}'. Use another copy.") from error


def _inspect(content, path):
    spaces = None
    try:
        with h5py.File(io.BytesIO(content)) as file:
            found, wrong = _datasets(file, len(content))
            if not wrong and "vars/spaces" in found:
                spaces = json.loads(file["vars/spaces"][()].tobytes())
    except UNREADABLE as error:
        raise OSError(f"The weights cannot be read: {error}. Received: filepath='{path}'. Use another copy.") from error
    if wrong:
        raise ValueError(
            f"`filepath` must hold weights as Keras writes them. Received: filepath='{path}', where {wrong}."
        )
    return found, spaces


def _datasets(file, size):
    """`{path: (shape, dtype)}` of an HDF5 file of `size` bytes, and what is wrong with it, if anything is."""
    links, found, declared = [], {}, 0
    file.visititems_links(lambda *link: links.append(link))  # Follows none; h5py must not meet an exception in it.
    for name, link in links:
        if not isinstance(link, h5py.HardLink):
            return found, f"'{name}' links to another place"
        item = file[name]
        if not isinstance(item, h5py.Dataset):
            continue
        if item.external or item.is_virtual or item.dtype.kind == "O":
            return found, f"'{name}' is kept in another place"
        shape = tuple(item.shape or ())
        declared += math.prod(shape) * item.dtype.itemsize
        if declared > size:
            return found, f"'{name}' declares shape {shape}, more than the file holds"
        found[name] = shape, item.dtype
    return found, None


def spaces_from_configs(configs):
    """`(observation_space, action_space)` that `space_to_config` described, in a file that may hold anything.

    Raises:
        ValueError: If they are no such descriptions, or of spaces too large to be meant.

    >>> spaces_from_configs([{"kind": "MultiBinary", "shape": [10**12]}, {"kind": "Discrete", "n": 2, "start": 0}])
    Traceback (most recent call last):
    ...
    ValueError: The saved spaces must hold at most 67108864 numbers. Received: 1000000000001.
    """
    try:
        numbers = sum(map(_numbers, configs))
        if numbers <= MOST_NUMBERS:
            observation_space, action_space = map(space_from_config, configs)
            return observation_space, action_space
    except Exception as error:  # gymnasium and NumPy refuse in many ways.
        raise ValueError(f"The saved spaces cannot be read. Received: {str(configs)[:200]}. ({error!r})") from error
    raise ValueError(f"The saved spaces must hold at most {MOST_NUMBERS} numbers. Received: {numbers}.")


def _numbers(config):
    """How many numbers a space's value takes."""
    if "spaces" in config:
        return sum(_numbers(each[1] if config["kind"] == "Dict" else each) for each in config["spaces"])
    return math.prod(config.get("shape", (1,)))


def check_same_weights(filepath, received, expected):
    """Refuses weights that an agent does not have, or lacks; optimizers' are left to Keras, which warns.

    Args:
        filepath: Where they are from.
        received, expected: `WeightsFile.weights` of the file, and of the agent.
    """
    differences = [
        f"{name}: {_shape(received.get(name))} where {_shape(expected.get(name))} is expected"
        for name in sorted({*received, *expected})
        if not name.startswith(("optimizer/", "critic_optimizer/", "vars/players", "vars/spaces"))
        and _alike(received.get(name)) != _alike(expected.get(name))
    ]
    if differences:
        raise ValueError(
            "`filepath` must hold the weights of an agent of the same method, networks and settings. "
            f"Received: filepath='{filepath}', which differs in {len(differences)}: {'; '.join(differences[:3])}. "
            "Build the agent as it was when saved, or take what fits with `skip_mismatch=True`."
        )


def _alike(weight):
    """What two weights must have in common; a precision is Keras's to cast, as that of older files' statistics."""
    return weight and (weight[0], weight[1].kind)


def _shape(weight):
    return "nothing" if weight is None else f"{weight[1]}{list(weight[0])}"
