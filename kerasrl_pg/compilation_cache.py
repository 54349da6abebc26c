"""Compiled programs kept on disk, so that what was compiled once is read the next time.

XLA takes seconds for what then runs for milliseconds. TensorFlow can keep its programs in a folder; importing
kerasrl_pg names one, unless you have named your own in `TF_XLA_FLAGS`:

- `KERASRL_PG_CACHE=/some/folder` puts it elsewhere, `KERASRL_PG_CACHE=` (empty) keeps nothing;
- by default it is `kerasrl_pg/xla` in `XDG_CACHE_HOME`, or in `~/.cache`.

Deleting the folder is safe at any time. TensorFlow reads the flag at its first operation: import kerasrl_pg before you
compute anything.

A bad cache costs compiling, not the run. The checksum of each program is noted when it has been compiled; a file that
has changed since is deleted at the next import. A folder that cannot be written, or is on a full disk, is only read.
What is still wrong with it when a program is called for the first time empties it, and the program is compiled anew.
"""

import contextlib
import ctypes
import hashlib
import os
import platform
import shutil
import tempfile
import time
import weakref
import zlib
from importlib import metadata
from itertools import starmap
from pathlib import Path

FLAG = "--tf_xla_persistent_cache_directory"
READ_ONLY = "--tf_xla_persistent_cache_read_only=true"
LIMIT = 2**30  # Bytes; ours: some thousand programs. The oldest go first.
ROOM = 2**26  # Bytes that must be free on the disk; ours: some hundred programs.
NOTES = "checksums"
TEMPORARY = ".tmp"  # TensorFlow's ending, too.

_folder = None  # Where this process's programs are kept.
_seen = set()  # The names of those that were looked at.
_mended = weakref.WeakKeyDictionary()  # Programs that could not be read, and what replaces them.
_known = weakref.WeakSet()  # Programs that have been called, whose file is noted.


def enable(environ=os.environ):
    """Names the folder to TensorFlow, which must not have computed anything yet.

    Args:
        environ: The environment variables, which it changes.

    Returns:
        The folder, or None where nothing is kept.

    >>> enable({"KERASRL_PG_CACHE": ""}) is None
    True
    """
    global _folder
    flags = environ.get("TF_XLA_FLAGS", "")
    chosen = environ.get("KERASRL_PG_CACHE")
    if FLAG in flags or chosen == "":
        return None
    home = environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(chosen or os.path.join(home, "kerasrl_pg", "xla")).absolute() / _machine()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = _is_writable(folder)
        if writable:
            prune(folder, LIMIT)
        check(folder, note=writable)
    except OSError:
        return None  # A home that cannot be written costs compiling, not the run.
    words = [flags, f"{FLAG}={folder}", "" if writable else READ_ONLY]
    environ["TF_XLA_FLAGS"] = " ".join(filter(None, words))
    if environ is os.environ:
        _folder = folder
        _seen.update(os.listdir(folder))
    return folder


def _is_writable(folder):
    try:
        with tempfile.NamedTemporaryFile(dir=folder, suffix=TEMPORARY):
            return shutil.disk_usage(folder).free >= ROOM
    except OSError:
        return False


def prune(folder, limit):
    """Deletes the programs made longest ago, until those left take at most `limit` bytes, and what is half-made."""
    total, hour_ago = 0, (time.time() - 3600) * 1e9
    for changed, size, file in sorted(((changed, size, file) for file, size, changed in _files(folder)), reverse=True):
        total += size
        # What is temporary is renamed within seconds, if at all.
        if total > limit or (file.suffix == TEMPORARY and changed < hour_ago):
            file.unlink(missing_ok=True)


def _files(folder):
    """`(file, size, time in ns)` of what is in a folder where other processes add and delete."""
    for file in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            status = file.stat()
            yield file, status.st_size, status.st_mtime_ns


def check(folder, note=True):
    """Deletes the programs whose content is not what was noted, and notes those that are new.

    Only files that have changed since, by size and time, are read.

    Args:
        folder: Of the programs.
        note: Whether to note anything; where False, new ones are not read.

    Raises:
        OSError: If a damaged file cannot be deleted.
    """
    notes, fresh = _read_notes(folder), {}
    for file, size, changed in _files(folder):
        *noted, checksum = notes.get(file.name, (None,))
        if file.suffix != ".pb" or (checksum is None and not note):
            continue
        if noted != [size, changed]:
            try:
                content = file.read_bytes()
                if not content or checksum not in (None, zlib.crc32(content)):
                    file.unlink()
                    continue
                if changed > (time.time() - 60) * 1e9:
                    _sync(file)  # Else a crash could leave zeros where this was noted; the system takes half a minute.
                checksum = zlib.crc32(content)
            except FileNotFoundError:
                continue
        fresh[file.name] = size, changed, checksum
    if note and fresh != notes:
        with tempfile.NamedTemporaryFile("w", dir=folder, suffix=TEMPORARY, delete=False) as file:
            file.writelines(starmap(_line, fresh.items()))
        os.replace(file.name, folder / NOTES)


def note_new(folder, seen):
    """Notes the programs whose names are not in `seen`, a set, and adds them to it.

    The others are not even looked up: a folder holds thousands.

    Args:
        folder: Of the programs.
        seen: Names.

    Raises:
        OSError: If they cannot be noted.
    """
    new = set(os.listdir(folder)) - seen
    for name in sorted(new):
        file = folder / name
        if file.suffix == ".pb":
            with contextlib.suppress(FileNotFoundError):
                status = file.stat()
                _sync(file)  # As above.
                noted = status.st_size, status.st_mtime_ns, zlib.crc32(file.read_bytes())
                with open(folder / NOTES, "a") as notes:  # Another process may do so, too; the last line holds.
                    notes.write(_line(name, noted))
    seen |= new


def _line(name, noted):
    return f"{name} {' '.join(map(str, noted))}\n"


def _read_notes(folder):
    """`{name: (size, time, checksum)}`; what is damaged is noted anew."""
    notes = {}
    with contextlib.suppress(OSError):
        for line in (folder / NOTES).read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                name, size, changed, checksum = line.split()
                notes[name] = int(size), int(changed), int(checksum)
    return notes


def _sync(file):
    with open(file, "rb") as opened:
        os.fsync(opened.fileno())


def first_call(program, *arguments):
    """Calls a program for the first time, which compiles it, or reads it from the folder.

    Args:
        program: A concrete function.
        arguments: Its arguments.

    Returns:
        `(program, result)`: what to call from now on, another one where the first was in a damaged file.

    Raises:
        RuntimeError: If the folder cannot be used, even when emptied.

    >>> first_call(abs, -1)[1]
    1
    """
    program = _mended.get(program, program)
    if program in _known:
        return program, program(*arguments)
    with _quiet():
        try:
            result = program(*arguments)
        except Exception as error:
            if not _is_the_folders(error):
                raise
            for file in _folder.glob("*"):
                with contextlib.suppress(OSError):
                    file.unlink()
            # It failed before it ran, so that nothing has changed; and it would fail again, for TensorFlow remembers.
            _mended[program] = program = _under_another_name(program, arguments)
            try:
                result = program(*arguments)
            except Exception as again:
                if not _is_the_folders(again):
                    raise
                raise RuntimeError(
                    f"Compiled programs cannot be kept in {_folder}: {again} Make room there, name another folder in "
                    "the environment variable KERASRL_PG_CACHE, or set it to nothing."
                ) from again
    if _folder is not None:
        with contextlib.suppress(OSError):  # What is not noted now, the next process notes.
            if READ_ONLY not in os.environ["TF_XLA_FLAGS"]:
                note_new(_folder, _seen)
    _known.add(program)
    return program, result


def _under_another_name(program, arguments):
    import tensorflow as tf

    again = tf.function(lambda *arguments: program(*arguments), jit_compile=True, autograph=False)
    return again.get_concrete_function(*arguments)


def _is_the_folders(error):
    """Whether a program failed for what is in the folder, or cannot be put there."""
    if _folder is None:
        return False
    # A file that ends early, and one of another program; whatever else TensorFlow says names the file.
    early = type(error).__name__ == "OutOfRangeError"
    return early or str(_folder) in str(error) or "Serialized" in str(error) and "does not match" in str(error)


class _quiet:
    """Keeps TensorFlow's C++ side from logging errors while a program is read from the folder.

    It tries each file as text first, and says so, and finds that XLA's own tuning hints are no features of this CPU.
    What really fails raises. `TF_CPP_MIN_LOG_LEVEL=0` shows all.
    """

    level, fatal = None, 3
    version = "_ZN4absl12lts_20250814"  # Of absl in TensorFlow 2.21.

    def __enter__(self):
        if _folder is None or os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "0":
            return
        try:
            import tensorflow as tf

            library = ctypes.CDLL(os.path.join(tf.sysconfig.get_lib(), "libtensorflow_framework.so.2"))
            self._set = library[f"{self.version}14SetMinLogLevelENS0_18LogSeverityAtLeastE"]
            self.level = library[f"{self.version}11MinLogLevelEv"]()
        except (OSError, AttributeError):
            return  # Another build of TensorFlow.
        self._set(self.fatal)

    def __exit__(self, *_):
        if self.level is not None:
            self._set(self.level)


def _machine():
    """A name for what a program depends on: TensorFlow's version, and the instructions of this CPU."""
    instructions = platform.processor()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        instructions = next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        pass
    digest = hashlib.sha256(instructions.encode()).hexdigest()[:8]
    return f"tf{metadata.version('tensorflow')}-{platform.machine()}-{digest}"
