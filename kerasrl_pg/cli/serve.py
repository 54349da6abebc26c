"""serves exported policies by gRPC and REST, with TensorFlow Serving where it is.

    kerasrl-pg serve --model=saved_models/cartpole
    kerasrl-pg serve --model=saved_models/cartpole --development

--model is a folder of versions, 1, 2 and so on, of which the newest is served. TensorFlow Serving is started where its
binary, tensorflow_model_server, or Docker is found; batching and monitoring files are written for it. Elsewhere its
command is printed, and --development starts a small server of this library that speaks the same protocols: a stand-in
for development, and no more. Either is asked by

    pg.serving.Client("localhost:8500")           # or "http://localhost:8501"
    curl -d @saved_models/cartpole/1/assets.extra/request_rest.json localhost:8501/v1/models/default:predict
"""

import contextlib
import shlex
import signal
import subprocess
import threading
from pathlib import Path

from absl import flags

from kerasrl_pg.cli.command import Stopped, need, no_more


def define(values):
    """Defines the flags."""
    kind = {"flag_values": values}
    flags.DEFINE_string("model", None, "The folder of versions.", **kind)
    flags.DEFINE_string("name", "default", "Of the model, as clients call it.", **kind)
    flags.DEFINE_integer("port", 8500, "For gRPC.", lower_bound=0, upper_bound=65535, **kind)
    flags.DEFINE_integer("rest_port", 8501, "For REST.", lower_bound=0, upper_bound=65535, **kind)
    flags.DEFINE_string("host", "127.0.0.1", "Address to listen at; TensorFlow Serving's binary takes all.", **kind)
    flags.DEFINE_bool("development", False, "Start the stand-in for development.", **kind)
    flags.DEFINE_bool(
        "batching",
        True,
        "Let TensorFlow Serving compute requests that come together in one. `sample` needs --nobatching, since its "
        "seed is no row; policies with memory are served without.",
        **kind,
    )
    flags.DEFINE_string("config", None, "Folder for TensorFlow Serving's files; else `serving` in --model.", **kind)
    flags.DEFINE_string("image", "tensorflow/serving", "Docker's, of TensorFlow Serving.", **kind)
    flags.DEFINE_float("poll_seconds", 1.0, "Between two looks for new versions (--development).", **kind)


def run(values, positional):
    """Serves until it is stopped."""
    from kerasrl_pg.serving.development.server import check_folder

    no_more(positional, "model")
    need(values, "model")
    folder = check_folder(values.model)
    if values.development:
        _development(folder, values)
    else:
        _tensorflow_serving(folder, values)


def _development(folder, values):
    from kerasrl_pg.serving.development import DevelopmentServer

    with _signals() as stopped:
        server = DevelopmentServer(
            folder, values.name, values.host, values.port, values.rest_port, values.poll_seconds, say=_say
        )
        with server:
            _say(f"A stand-in for TensorFlow Serving, for development alone, serves {values.model}.")
            _say(f"  gRPC: {_client(server.grpc_address, values.name)}")
            _say(f"  REST: {server.rest_address}/v1/models/{values.name}")
            stopped.wait()
        raise Stopped(stopped.number, f"Stopped after {server.answers.count} answers.")


def _tensorflow_serving(folder, values):
    from kerasrl_pg.serving import tensorflow_serving

    config = Path(values.config).resolve() if values.config else folder / "serving"
    tensorflow_serving.write_config(config)
    batching = values.batching and "initial_state" not in tensorflow_serving.endpoints(folder)
    how = tensorflow_serving.find()
    command = tensorflow_serving.command(
        how or "docker", folder, values.name, config, values.port, values.rest_port, values.host, batching, values.image
    )
    if how is None:
        raise RuntimeError(
            f"TensorFlow Serving must be here to be started. Received: neither {tensorflow_serving.BINARY} nor Docker. "
            f"Where Docker runs, its command is:\n\n    {shlex.join(command)}\n\nFor development, a stand-in starts "
            "with --development."
        )
    _say(shlex.join(command))
    _say(f"  gRPC: {_client(f'localhost:{values.port}', values.name)}")
    _say(f"  REST: http://localhost:{values.rest_port}/v1/models/{values.name}")
    with _signals() as stopped:
        process = subprocess.Popen(command, start_new_session=True)
        try:
            while process.poll() is None and not stopped.wait(0.2):
                pass
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if stopped.number is not None:
        raise Stopped(stopped.number, "Stopped.")
    raise RuntimeError(f"TensorFlow Serving must run until it is stopped. Received: exit code {process.returncode}.")


def _client(address, name):
    model = "" if name == "default" else f", model={name!r}"
    return f'pg.serving.Client("{address}"{model})'


def _say(text):
    print(text, flush=True)


class _Event(threading.Event):
    number = None  # Of the signal that set it.


@contextlib.contextmanager
def _signals():
    """Gives an event that Ctrl-C and SIGTERM set."""
    event = _Event()

    def stop(number, frame):
        event.number = event.number or number
        event.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
