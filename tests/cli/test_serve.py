"""`kerasrl-pg serve`, with TensorFlow Serving and without."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import gymnasium as gym
import pytest

import kerasrl_pg as pg
from kerasrl_pg.cli import call
from kerasrl_pg.cli.command import Stopped


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder of one version."""
    folder = tmp_path_factory.mktemp("models") / "cartpole"
    agent = pg.A2C(networks=pg.Networks((4,)), seed=0)
    agent.bind(gym.make("CartPole-v1").observation_space, gym.spaces.Discrete(2))
    agent.export(folder / "1", verify=False)
    return folder


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """A path on which nothing is; gives the folder."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path / "bin"


def test_without_tensorflow_serving_its_command_is_said(model, alone, tmp_path):
    with pytest.raises(
        RuntimeError, match="(?s)neither tensorflow_model_server nor Docker.*docker run --rm.*--development"
    ):
        call(["serve", f"--model={model}", f"--config={tmp_path}/config"])
    assert sorted(path.name for path in (tmp_path / "config").iterdir()) == ["batching.config", "monitoring.config"]


SCRIPT = """#!{python}
import json, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
json.dump(sys.argv[1:], open({out!r} + ".part", "w"))
import os; os.rename({out!r} + ".part", {out!r})
time.sleep({seconds})
sys.exit(3)
"""


def test_tensorflow_serving_is_started_and_ended(model, alone, tmp_path, capsys):
    file, program = tmp_path / "arguments.json", alone / "tensorflow_model_server"
    out = str(file)
    program.write_text(SCRIPT.format(python=sys.executable, out=out, seconds=60))
    program.chmod(0o755)

    def stop():
        while not file.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    threading.Thread(target=stop, daemon=True).start()
    with pytest.raises(Stopped) as stopped:
        call(["serve", f"--model={model}", "--name=cart", "--port=1234", f"--config={tmp_path}/config"])
    assert stopped.value.number == signal.SIGTERM and signal.getsignal(signal.SIGTERM) is before
    arguments = json.loads(file.read_text())
    assert arguments[:2] == ["--port=1234", "--rest_api_port=8501"] and "--enable_batching" in arguments
    assert arguments[2:4] == ["--model_name=cart", f"--model_base_path={model}"]
    assert "pg.serving.Client(\"localhost:1234\", model='cart')" in capsys.readouterr().out
    program.write_text(SCRIPT.format(python=sys.executable, out=out, seconds=0))
    with pytest.raises(RuntimeError, match="must run until it is stopped. Received: exit code 3"):
        call(["serve", f"--model={model}", "--nobatching", f"--config={tmp_path}/config"])
    assert "--enable_batching" not in json.loads(file.read_text())


def test_policies_with_memory_are_served_without_batching(alone, tmp_path):
    agent = pg.A2C(networks=pg.Networks((4,), memory=pg.models.GRU(4)), seed=0)
    agent.bind(gym.make("CartPole-v1").observation_space, gym.spaces.Discrete(2))
    agent.export(tmp_path / "model" / "1", verify=False)
    with pytest.raises(RuntimeError) as error:
        call(["serve", f"--model={tmp_path}/model"])
    assert "--enable_batching" not in str(error.value) and "--monitoring_config_file" in str(error.value)
    assert (tmp_path / "model" / "serving" / "monitoring.config").exists()


def test_mistakes(model, tmp_path):
    for arguments, sentence in (
        (["serve"], "--model must be given"),
        (["serve", f"--model={model}/1"], "must be a folder of versions, such as"),
        (["serve", f"--model={tmp_path}/nothing"], "which is not there"),
    ):
        with pytest.raises(Exception, match=sentence):
            call(arguments)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_development_server_as_a_process(model, number):
    pytest.importorskip("uvicorn")
    command = [sys.executable, "-m", "kerasrl_pg.cli", "serve", f"--model={model}", "--development"]
    command += ["--port=0", "--rest_port=0"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environ = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    with subprocess.Popen(command, env=environ, **pipes) as process:
        try:
            said = [process.stdout.readline() for _ in range(4)]
            assert said[0] == "Version 1 is served.\n" and "stand-in for TensorFlow Serving, for development" in said[1]
            address = said[2].split('"')[1]
            with pg.serving.Client(address, timeout=60) as client:
                assert client.act([0.0, 0.0, 0.0, 0.0]) in (0, 1)
            process.send_signal(number)
            assert process.wait(60) == 128 + number
            assert process.stderr.read() == "Stopped after 1 answers.\n"
        finally:
            process.kill()
