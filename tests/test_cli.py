"""The command: train, evaluate, export, and its refusals, in a process of its own as a user runs it, or in this one."""

import subprocess
import sys

import keras
import pytest
from absl import app
from absl.testing import flagsaver

import kerasrl_pg as pg
from kerasrl_pg import cli


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "kerasrl_pg.cli", *map(str, arguments)], capture_output=True, text=True, timeout=300
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
    assert trained.returncode == 0, trained.stderr
    for word in ("steps_per_second", "over 3 episodes", "serving_default", "agent.keras"):
        assert word in trained.stdout
    assert (out / "history.csv").exists() and (out / "saved_model" / "1" / "saved_model.pb").exists()
    run_here("evaluate", f"--from={out}/agent.keras", "--env=CartPole-v1", "--episodes=2", "--seed=5")
    assert "over 2 episodes" in capsys.readouterr().out
    run_here("export", f"--from={out}/agent.keras", f"--out={out}/saved_model/2")
    assert (out / "saved_model" / "2" / "saved_model.pb").exists()


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


def test_a_refusal_is_a_sentence_and_no_traceback(tmp_path):
    result = run("train", "--env=CartPole-v1", f"--out={tmp_path}/x", "--total_steps=5")
    assert result.returncode != 0
    assert "`total_steps` must be at least one rollout" in result.stdout + result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("dance",), "Expected one command of train, evaluate, export. Received: dance"),
        (("train", "--env=CartPole-v1"), "--out must be given"),
        (("evaluate", "--env=CartPole-v1"), "--from must be given"),
        (("export", "--from=agent.keras"), "--out must be given"),
    ],
)
def test_refusals(arguments, sentence):
    with pytest.raises(app.UsageError, match=sentence):
        run_here(*arguments)
