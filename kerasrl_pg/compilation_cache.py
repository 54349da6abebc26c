"""Compiled programs kept on disk, so that what was compiled once is read the next time.

XLA takes seconds for what then runs for milliseconds. TensorFlow can keep its programs in a folder; importing
kerasrl_pg names one, unless you have named your own in `TF_XLA_FLAGS`:

- `KERASRL_PG_CACHE=/some/folder` puts it elsewhere, `KERASRL_PG_CACHE=` (empty) keeps nothing;
- by default it is `kerasrl_pg/xla` in `XDG_CACHE_HOME`, or in `~/.cache`.

Deleting the folder is safe at any time. TensorFlow reads the flag at its first operation: import kerasrl_pg before you
compute anything.
"""

import hashlib
import os
import platform
from importlib import metadata
from pathlib import Path

FLAG = "--tf_xla_persistent_cache_directory"
LIMIT = 2**30  # Bytes; ours: some thousand programs. The oldest go first.


def enable(environ=os.environ):
    """Names the folder to TensorFlow, which must not have computed anything yet.

    Args:
        environ: The environment variables, which it changes.

    Returns:
        The folder, or None where nothing is kept.

    >>> enable({"KERASRL_PG_CACHE": ""}) is None
    True
    """
    flags = environ.get("TF_XLA_FLAGS", "")
    chosen = environ.get("KERASRL_PG_CACHE")
    if FLAG in flags or chosen == "":
        return None
    home = environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(chosen or os.path.join(home, "kerasrl_pg", "xla")).absolute() / _machine()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        prune(folder, LIMIT)
    except OSError:
        return None  # A home that cannot be written costs compiling, not the run.
    environ["TF_XLA_FLAGS"] = f"{flags} {FLAG}={folder}".strip()
    return folder


def prune(folder, limit):
    """Deletes the programs used longest ago, until those left take at most `limit` bytes."""
    files = sorted(((f.stat().st_mtime, f.stat().st_size, f) for f in folder.iterdir()), reverse=True)
    total = 0
    for _, size, file in files:
        total += size
        if total > limit:
            file.unlink(missing_ok=True)


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
