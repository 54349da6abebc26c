"""The command `kerasrl-pg` says what it does, and TensorFlow nothing; whoever imports the library sets its own logs."""

import contextlib
import os
import sys
import tempfile
from pathlib import Path


def begin():
    """Where this process is the command: imports TensorFlow without its notes on the machine, and sets its log level.

    It writes them before it reads its level. `TF_CPP_MIN_LOG_LEVEL=0` shows all.
    """
    with held_back():
        if _is_the_command():
            os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
            import tensorflow  # noqa: F401


@contextlib.contextmanager
def held_back():
    """Where this process is the command, drops what a block writes to the file behind `sys.stderr`, unless it fails."""
    if not _is_the_command() or os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "0":
        yield
        return
    sys.stderr.flush()
    shown = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(shown, held.read())
            raise
        finally:
            os.dup2(shown, 2)
            os.close(shown)


def _is_the_command():
    # Python names a module that it runs only when the packages around it have been imported.
    as_module = sys.argv[0] == "-m" and "kerasrl_pg.cli" in sys.orig_argv
    return (
        as_module
        or Path(sys.argv[0]).stem == "kerasrl-pg"
        or sys.argv[0].endswith(f"kerasrl_pg{os.sep}cli{os.sep}__main__.py")
    )
