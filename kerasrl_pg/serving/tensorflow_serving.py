"""TensorFlow Serving itself: where it is, what it is configured by, and the command that starts it."""

import os
import shutil
import subprocess
from pathlib import Path

from tensorflow.core.protobuf import saved_model_pb2

BINARY, IMAGE = "tensorflow_model_server", "tensorflow/serving"
# For CPUs, as TensorFlow Serving's guide to batching says: as many threads as CPUs, no waiting for more requests, and
# batches of any size, so that no request is too large for one.
BATCHING = """max_batch_size {{ value: 1000000 }}
batch_timeout_micros {{ value: 0 }}
max_enqueued_batches {{ value: 1000000 }}
num_batch_threads {{ value: {threads} }}
"""
MONITORING = """prometheus_config {
  enable: true
  path: "/monitoring/prometheus/metrics"
}
"""


def find():
    """What can start it here: "binary", "docker", or None."""
    if shutil.which(BINARY):
        return "binary"
    if shutil.which("docker"):
        try:
            asked = ["docker", "version", "--format", "{{.Server.Version}}"]
            if subprocess.run(asked, capture_output=True, timeout=20).returncode == 0:
                return "docker"
        except (OSError, subprocess.TimeoutExpired):
            pass
    return None


def endpoints(folder):
    """Names of the endpoints of the newest version in a folder; none where there is no version."""
    numbers = [path for path in Path(folder).glob("*/saved_model.pb") if path.parent.name.isdecimal()]
    if not numbers:
        return []
    newest = max(numbers, key=lambda path: int(path.parent.name))
    definition = saved_model_pb2.SavedModel.FromString(newest.read_bytes()).meta_graphs[0].signature_def
    return sorted(name for name in definition if not name.startswith("__"))


def write_config(folder):
    """Writes `batching.config` and `monitoring.config` into a folder, made where it is not there."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "batching.config").write_text(BATCHING.format(threads=os.cpu_count() or 1), encoding="utf8")
    (folder / "monitoring.config").write_text(MONITORING, encoding="utf8")


def command(how, folder, name, config, port, rest_port, host=None, batching=True, image=IMAGE):
    """The command that starts it, as a list.

    Args:
        how: "binary" or "docker".
        folder: Absolute path of the folder of versions.
        name: Of the model.
        config: Absolute path of the folder that `write_config` wrote.
        port, rest_port: For gRPC and REST.
        host: Address that Docker listens at; None for all. The binary itself listens at all.
        batching: Whether requests that come together are computed together.
        image: Of Docker.

    >>> " ".join(command("binary", "/models/cartpole", "default", "/config", 8500, 8501, batching=False))
    'tensorflow_model_server --port=8500 --rest_api_port=8501 --model_name=default --model_base_path=/models/cartpole \
--monitoring_config_file=/config/monitoring.config'
    """
    if how == "docker":
        where = "" if host is None else f"{host}:"
        start = ["docker", "run", "--rm", "-p", f"{where}{port}:8500", "-p", f"{where}{rest_port}:8501"]
        start += ["-v", f"{folder}:/models/{name}:ro", "-v", f"{config}:/config:ro", "-e", f"MODEL_NAME={name}", image]
        config = "/config"
    else:
        start = [BINARY, f"--port={port}", f"--rest_api_port={rest_port}"]
        start += [f"--model_name={name}", f"--model_base_path={folder}"]
    start.append(f"--monitoring_config_file={config}/monitoring.config")
    if batching:
        start += ["--enable_batching", f"--batching_parameters_file={config}/batching.config"]
    return start
