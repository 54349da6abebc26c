"""How TensorFlow Serving is found and started; what stands in for it here is a script that keeps its arguments."""

import os
import sys

import pytest

from kerasrl_pg.serving import tensorflow_serving


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Function that puts a program of a name, a Python script, on an otherwise empty path."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()

    def put(name, script):
        path = tmp_path / "bin" / name
        path.write_text(f"#!{sys.executable}\n{script}\n")
        path.chmod(0o755)

    return put


def test_the_binary_goes_before_docker(install):
    assert tensorflow_serving.find() is None
    install("docker", "raise SystemExit(1)")
    assert tensorflow_serving.find() is None  # There is a client, and no daemon.
    install("docker", "import sys; raise SystemExit(sys.argv[1] != 'version')")
    assert tensorflow_serving.find() == "docker"
    install("tensorflow_model_server", "")
    assert tensorflow_serving.find() == "binary"


def test_commands():
    given = "/models/cart", "cart", "/there", 1, 2
    binary = tensorflow_serving.command("binary", *given)
    assert binary[:3] == ["tensorflow_model_server", "--port=1", "--rest_api_port=2"]
    assert "--batching_parameters_file=/there/batching.config" in binary and "--enable_batching" in binary
    docker = " ".join(tensorflow_serving.command("docker", *given, host="127.0.0.1", batching=False))
    assert "-p 127.0.0.1:1:8500 -p 127.0.0.1:2:8501 -v /models/cart:/models/cart:ro -v /there:/config:ro" in docker
    assert docker.endswith("-e MODEL_NAME=cart tensorflow/serving --monitoring_config_file=/config/monitoring.config")


def test_its_files_are_text_protobufs(tmp_path):
    tensorflow_serving.write_config(tmp_path / "config")
    batching = (tmp_path / "config" / "batching.config").read_text()
    assert f"num_batch_threads {{ value: {os.cpu_count()} }}" in batching
    assert 'path: "/monitoring/prometheus/metrics"' in (tmp_path / "config" / "monitoring.config").read_text()
