"""The command: train, evaluate, export, and its refusals, in a process of its own as a user runs it, or in this one."""

import os
import subprocess
import sys

import keras
import pytest
from absl import app
from absl.testing import flagsaver

import kerasrl_pg as pg
from kerasrl_pg import cli


def run(*arguments, script=None):
    environ = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.run(
        [sys.executable, *(script or ("-m", "kerasrl_pg.cli")), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env=environ,
    )


def run_here(*arguments):
    """Without the seconds that a process takes to import TensorFlow."""
    with flagsaver.flagsaver():
        cli._run(cli.FLAGS(["kerasrl-pg", *map(str, arguments)]))


def test_train_evaluate_export(tmp_path, capsys):
    out = tmp_path / "run"
    trained = run(
        "train", "--agent=a2c", "--env=CartPole-v1", "--nopreset", "--total_steps=200", "--episodes=3", f"--out={out}"
    )
    assert trained.returncode == 0 and trained.stderr == ""
    for word in ("steps_per_second", "over 3 episodes", "serving_default", "agent.keras"):
        assert word in trained.stdout
    assert (out / "history.csv").exists() and (out / "saved_model" / "1" / "saved_model.pb").exists()
    run_here("evaluate", f"--from={out}/agent.keras", "--env=CartPole-v1", "--episodes=2", "--seed=5")
    assert "over 2 episodes" in capsys.readouterr().out
    run_here("export", f"--from={out}/agent.keras", f"--out={out}/saved_model/2")
    assert (out / "saved_model" / "2" / "saved_model.pb").exists()


def test_lab(tmp_path, capsys, monkeypatch):
    from kerasrl_pg.lab import pictures

    one = {"clipped_objective": pictures.clipped_objective}
    monkeypatch.setattr(pictures, "PICTURES", one)  # The others take minutes; a slow test draws them.
    run_here("lab", f"--out={tmp_path}/pictures")
    assert "1 of 1: clipped_objective" in capsys.readouterr().out
    assert (tmp_path / "pictures" / "clipped_objective.png").exists()
    with pytest.raises(app.UsageError, match="--out must be given"):
        run_here("lab")


def test_the_installed_command_is_silent_and_the_library_is_not(tmp_path):
    script = tmp_path / "kerasrl-pg"
    script.write_text("from kerasrl_pg.cli import main\nmain()")
    helped = run("--help", script=[script])
    assert "kerasrl-pg train | evaluate | export" in helped.stdout and "--[no]overwrite" in helped.stdout
    assert helped.stderr == ""
    imported = run(script=["-c", "import kerasrl_pg, os; print(os.environ.get('TF_CPP_MIN_LOG_LEVEL'))"])
    assert imported.stdout == "None\n" and "port.cc" in imported.stderr


def test_training_goes_on_by_the_saved_agents_method(tmp_path):
    agent = pg.TRPO(horizon=16, minibatch_size=16, networks=pg.Networks((4,)), seed=0)
    agent.compile(jit_compile=False)
    agent.fit("CartPole-v1", total_steps=64, num_envs=4, epochs=1, verbose=0)
    agent.save(tmp_path / "agent.keras")
    arguments = ["train", f"--from={tmp_path}/agent.keras", "--env=CartPole-v1", "--total_steps=128", "--num_envs=4"]
    arguments += ["--verbose=0", "--episodes=1", f"--out={tmp_path}/out"]
    with pytest.raises(app.UsageError, match="--agent must be left out .* saved agent's, trpo. Received: --agent=ppo"):
        run_here(*arguments, "--agent=ppo")
    run_here(*arguments, "--agent=trpo")
    loaded = keras.models.load_model(tmp_path / "out" / "agent.keras")
    assert isinstance(loaded, pg.TRPO) and int(loaded.env_steps) == 64 + 128


def small(out, *arguments):
    return ["train", "--env=CartPole-v1", "--nopreset", "--total_steps=64", "--num_envs=4", "--epochs=1"] + [
        "--verbose=0",
        "--episodes=1",
        f"--out={out}",
        *arguments,
    ]


def test_a_second_run_into_a_folder_loses_nothing(tmp_path, monkeypatch):
    agent = pg.A2C(horizon=8, networks=pg.Networks((4,)), seed=0)
    agent.compile(jit_compile=False)
    agent.fit("CartPole-v1", total_steps=32, num_envs=4, epochs=1, verbose=0)
    agent.save(tmp_path / "first.keras")
    out = tmp_path / "out"
    monkeypatch.setattr(pg.A2C, "export", lambda self, path: path)  # Not the matter here.
    run_here(*small(out, f"--from={tmp_path}/first.keras"))
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert sorted(before) == ["agent.keras", "history.csv"]

    for arguments in ((), (f"--from={tmp_path}/first.keras",)):
        with pytest.raises(app.UsageError, match="an earlier run. Received: .*--from=.* or .*--overwrite"):
            run_here(*small(out, *arguments))
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before

    run_here(*small(out, f"--from={out}/agent.keras"))
    run_here(*small(out, f"--from={out}/../out/agent.keras"))
    names = ["agent-1.keras", "agent-2.keras", "agent.keras", "history-2.csv", "history-3.csv", "history.csv"]
    assert sorted(path.name for path in out.iterdir()) == names
    assert (out / "agent-1.keras").read_bytes() == before["agent.keras"]
    assert (out / "history.csv").read_bytes() == before["history.csv"]
    steps = [int(keras.models.load_model(out / name).env_steps) for name in names[:3]]
    assert steps == [96, 160, 224]

    run_here(*small(out, f"--from={tmp_path}/first.keras", "--overwrite"))
    assert int(keras.models.load_model(out / "agent.keras").env_steps) == 96
    assert sorted(path.name for path in out.iterdir()) == names


def test_a_history_without_an_agent_is_an_earlier_run_too(tmp_path):
    (tmp_path / "history.csv").write_text("epoch\n0\n")
    with pytest.raises(app.UsageError, match="which has history.csv"):
        run_here(*small(tmp_path))
    assert (tmp_path / "history.csv").read_text() == "epoch\n0\n"


def test_export_makes_the_next_version_in_a_folder_of_versions(tmp_path, monkeypatch, capsys):
    agent = pg.A2C(horizon=8, networks=pg.Networks((4,)), seed=0)
    agent.compile(jit_compile=False)
    agent.fit("CartPole-v1", total_steps=8, epochs=1, verbose=0)
    agent.save(tmp_path / "agent.keras")
    monkeypatch.setattr(pg.A2C, "export", lambda self, path: path)
    (tmp_path / "versions" / "9").mkdir(parents=True)
    for out, made in (("versions", "versions/10"), ("versions/3", "versions/3"), ("other", "other")):
        run_here("export", f"--from={tmp_path}/agent.keras", f"--out={tmp_path}/{out}")
        assert capsys.readouterr().out == f"SavedModel: {tmp_path}/{made}\n"


def test_a_missing_extra_is_a_sentence_and_no_traceback(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(SystemExit, match=r"ImportError: Pictures need matplotlib: pip install kerasrl-pg\[lab\]"):
        run_here("lab", f"--out={tmp_path}")


def test_a_damaged_agent_is_named(tmp_path):
    (tmp_path / "agent.keras").write_bytes(b"PK")
    with pytest.raises(SystemExit, match="The saved agent is damaged: .*Received: --from=.*agent.keras"):
        run_here("evaluate", f"--from={tmp_path}/agent.keras", "--env=CartPole-v1")


def test_a_refusal_is_a_sentence_and_no_traceback(tmp_path):
    result = run("train", "--env=CartPole-v1", f"--out={tmp_path}/x", "--total_steps=5")
    assert result.returncode != 0
    assert "`total_steps` must be at least one rollout" in result.stdout + result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("dance",), "Expected one command of train, evaluate, export, lab. Received: dance"),
        (("train", "--env=CartPole-v1"), "--out must be given"),
        (("evaluate", "--env=CartPole-v1"), "--from must be given"),
        (("export", "--from=agent.keras"), "--out must be given"),
    ],
)
def test_refusals(arguments, sentence):
    with pytest.raises(app.UsageError, match=sentence):
        run_here(*arguments)
