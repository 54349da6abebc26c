"""The development server: one model, two ports."""

import contextlib
import socket
import threading
import time
from pathlib import Path

from kerasrl_pg.checks import check_number
from kerasrl_pg.serving.development.answers import Answers
from kerasrl_pg.serving.development.versions import Versions
from kerasrl_pg.serving.requests import MODEL

MISSING = "The development server must have its libraries: pip install kerasrl-pg[serving]. Received: {}."


class DevelopmentServer:
    """Serves the newest version in a folder by TensorFlow Serving's gRPC and REST, while it is entered.

    A stand-in for development: see the room's docstring.

    Args:
        folder: Of version folders, as `agent.export("saved_models/cartpole/1")` makes.
        name: Of the model.
        host: Address to listen at; this machine's own alone by default, since nothing here is encrypted.
        grpc_port, rest_port: 0 for any that is free. 8500 and 8501, as TensorFlow Serving's image has them.
        poll_seconds: Between two looks at the folder, above 0. 1, as TensorFlow Serving's default.
        say: Function of a sentence about what becomes of a version; None for silence.

    Attributes:
        grpc_address, rest_address: For `Client`, once it is started.

    Raises:
        ImportError: If the extra `serving` is not installed.
        FileNotFoundError: If there is no such folder.
        ValueError: If it is a version itself.
        OSError: When it is started, if a port is taken.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, DevelopmentServer(folder, grpc_port=0, rest_port=0) as server:
    ...     server.versions.statuses()
    []
    """

    def __init__(
        self, folder, name=MODEL, host="127.0.0.1", grpc_port=8500, rest_port=8501, poll_seconds=1.0, say=None
    ):
        try:
            import grpc  # noqa: F401
            import starlette  # noqa: F401
            import tensorflow_serving.apis  # noqa: F401
            import uvicorn  # noqa: F401
        except ImportError as error:
            raise ImportError(MISSING.format(error)) from error
        check_number("poll_seconds", poll_seconds, 0.0, exclusive=True)
        self.folder = check_folder(folder)
        self.name, self._host, self._ports = name, host, (grpc_port, rest_port)
        self.versions = Versions(self.folder, poll_seconds, say=say or (lambda sentence: None))
        self.answers = Answers(name, self.versions)
        self.grpc_address = self.rest_address = None

    def start(self):
        """Loads the newest version and begins to listen."""
        import uvicorn

        from kerasrl_pg.serving.development.grpc_api import make_server
        from kerasrl_pg.serving.development.rest_api import make_app

        self._socket = _bound(self._host, self._ports[1])
        try:
            self._grpc, port = make_server(self.answers, self._host, self._ports[0])
        except OSError:
            self._socket.close()
            raise
        self.versions.start()
        # Its own settings of logging would close the handlers of whoever else logs in this process.
        quiet = {"log_config": None, "log_level": "error", "access_log": False}
        config = uvicorn.Config(make_app(self.answers), lifespan="off", ws="none", timeout_graceful_shutdown=5, **quiet)
        self._rest = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._rest.run, args=([self._socket],), name="rest", daemon=True)
        self._thread.start()
        self._grpc.start()
        while not self._rest.started:
            if not self._thread.is_alive():
                self.stop()
                raise RuntimeError(f"The REST server must start. Received: its end, at {self._host}.")
            time.sleep(0.005)
        host = f"[{self._host}]" if ":" in self._host else self._host
        self.grpc_address = f"{host}:{port}"
        self.rest_address = f"http://{host}:{self._socket.getsockname()[1]}"
        return self

    def stop(self, grace=5.0):
        """Ends, when requests in flight are answered, or after so many seconds."""
        ended = self._grpc.stop(grace)
        self._rest.should_exit = True
        ended.wait()
        self._thread.join()
        self._socket.close()
        self.versions.stop()

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()


def check_folder(folder):
    """The folder of versions as a path.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If it is a version.
    """
    path = Path(folder).resolve()
    if not path.is_dir():
        raise FileNotFoundError(f"The model must be a folder of versions. Received: {folder}, which is not there.")
    if (path / "saved_model.pb").exists():
        raise ValueError(
            f"The model must be a folder of versions, such as {path.parent}. Received: {folder}, which is a version."
        )
    return path


def _bound(host, port):
    """A socket that listens there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Of which asyncio knows that it is TCP, and sends each answer at once.
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    with contextlib.suppress(OSError):
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
    except OSError as error:
        found.close()
        raise OSError(
            f"The REST port must be free. Received: {host}:{port}: {error.strerror}. Choose another --rest_port."
        ) from error
    return found
