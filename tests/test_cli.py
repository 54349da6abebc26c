"""The command: train, evaluate, export, and its refusals, each in a process of its own as a user runs it."""

import subprocess
import sys

import pytest


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "kerasrl_pg.cli", *map(str, arguments)], capture_output=True, text=True, timeout=300
    )


def test_train_evaluate_export(tmp_path):
    out = tmp_path / "run"
    trained = run(
        "train", "--agent=a2c", "--env=CartPole-v1", "--nopreset", "--total_steps=200", "--episodes=3", f"--out={out}"
    )
    assert trained.returncode == 0, trained.stderr
    for word in ("steps_per_second", "over 3 episodes", "serving_default", "agent.keras"):
        assert word in trained.stdout
    assert (out / "history.csv").exists() and (out / "saved_model" / "1" / "saved_model.pb").exists()
    judged = run("evaluate", f"--from={out}/agent.keras", "--env=CartPole-v1", "--episodes=2", "--seed=5")
    assert judged.returncode == 0 and "over 2 episodes" in judged.stdout
    exported = run("export", f"--from={out}/agent.keras", f"--out={out}/saved_model/2")
    assert exported.returncode == 0 and (out / "saved_model" / "2" / "saved_model.pb").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("dance",), "Expected one command of train, evaluate, export. Received: dance"),
        (("train", "--env=CartPole-v1"), "--out must be given"),
        (
            ("train", "--env=CartPole-v1", "--out={tmp}/x", "--total_steps=5"),
            "`total_steps` must be at least one rollout",
        ),
    ],
)
def test_refusals(arguments, sentence, tmp_path):
    result = run(*(argument.format(tmp=tmp_path) for argument in arguments))
    assert result.returncode != 0
    assert sentence in result.stdout + result.stderr
    assert "Traceback" not in result.stderr
