"""Files that are never half-written: made beside their place, read back, then renamed."""

import os
import uuid
import zipfile
from pathlib import Path

from kerasrl_pg.saving.weights import read_weights


def write_beside(filepath, suffix, write, verify, overwrite=True):
    """Writes a file through a temporary one in the same folder.

    Args:
        filepath: Where the file is to be.
        suffix: What its name must end in.
        write: Function of a path that writes the file.
        verify: Function of a path that raises where the file cannot be read back.
        overwrite: Replace an existing file; where False, refuse.

    Raises:
        ValueError: If the name does not end in `suffix`, or the file exists and `overwrite` is False.

    Whatever `write` and `verify` raise passes through; the older file is then still there, and the temporary one is
    removed.
    """
    path = Path(filepath)
    if not path.name.endswith(suffix):
        raise ValueError(f"`filepath` must end in '{suffix}'. Received: filepath={str(filepath)!r}.")
    if path.exists() and not overwrite:
        raise ValueError(
            f"`filepath` must not exist with overwrite=False. Received: filepath={str(filepath)!r}, which exists."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        write(str(temporary))
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())  # A disk may say only now that it is full.
        verify(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def verify_zip(path):
    """Raises where a `.keras` file is not whole."""
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
        missing = {"config.json", "metadata.json", "model.weights.h5"} - set(archive.namelist())
    if damaged or missing:
        raise OSError(
            f"The saved agent cannot be read back: damaged={damaged}, missing={sorted(missing)}. Is the disk full?"
        )


def verify_weights(path):
    """Raises where a `.weights.h5` file is not whole."""
    if not read_weights(path).weights:
        raise OSError("The saved weights cannot be read back: the file holds none. Is the disk full?")
