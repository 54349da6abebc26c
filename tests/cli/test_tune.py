"""`kerasrl-pg tune`: what it leaves in its folder, how it goes on, and what it refuses."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from absl import app

import kerasrl_pg as pg
from kerasrl_pg import cli
from kerasrl_pg.tuning.records import read_json, trials_of

SPACE = "{gamma: [0.9, 0.99], optimizer.learning_rate: {min: 1e-3, max: 1e-1, sampling: log}}"


def arguments(out, *more, trials=2):
    return [
        "tune",
        "--agent=a2c",
        "--env=CartPole-v1",
        "--nopreset",
        "--total_steps=64",
        "--set=networks.hidden_units=[4]",
        "--seeds=1",
        "--epochs=1",
        "--episodes=1",
        f"--trials={trials}",
        "--retrain=1",
        f"--out={out}",
        *more,
    ]


def run_here(*arguments):
    cli.call(list(map(str, arguments)))


def begin(*arguments):
    command = [sys.executable, "-m", "kerasrl_pg.cli", *map(str, arguments)]
    environ = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ)


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    path = tmp_path_factory.mktemp("space") / "space.yaml"
    path.write_text(SPACE)
    return path


def untrained(trial, agent, callbacks, fit):
    """Stands in for the training of a trial's seeds."""
    value = 100 * trial.values.get("gamma", trial.hyper.run.settings.get("gamma", 0.5))
    trial.record["runs"] = [{"seed": s, "returns": [value + s], "env_steps": [64]} for s in trial.hyper.seeds]
    trial._save()


@pytest.fixture(scope="module")
def searched(tmp_path_factory, space):
    out = tmp_path_factory.mktemp("tune") / "search"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kerasrl_pg.tuning.hyper_agent._Trial.run", untrained)
        run_here(*arguments(out, f"--space={space}"))
    return out


def test_it_leaves_table_picture_settings_and_comparison(searched):
    names = {path.name for path in searched.iterdir()}
    assert {"run.yaml", "arguments.json", "search", "trials.csv", "trials.md", "best.yaml", "retraining"} <= names
    with open(searched / "trials.csv", newline="", encoding="utf8") as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["done", "done"]
    best, default = pg.Run.load(searched / "best.yaml"), pg.Run.load(searched / "run.yaml")
    assert str(best.settings["gamma"]) == rows[0]["gamma"] and "gamma" not in default.settings
    assert f"{best.optimizer['RMSprop']['learning_rate']}" == rows[0]["optimizer.learning_rate"]
    compared = json.loads((searched / "comparison.json").read_text())
    assert compared["seeds"] == [1] and compared["default"]["returns"] == [51.0] != compared["best"]["returns"]


def test_going_on_with_what_is_done_says_the_same_and_more_trials_may_be_asked_for(searched, capsys):
    before = (searched / "trials.csv").read_text()
    run_here("tune", "--resume", f"--out={searched}")
    said = capsys.readouterr().out
    assert (searched / "trials.csv").read_text() == before and "2 done, 0 ended early, 0 failed" in said
    assert "1 new seeds (1 to 1)" in said and f"train --config={searched}/best.yaml" in said
    assert "Trial 0" not in said and "Reloading" not in said


def test_an_earlier_search_is_not_lost_by_mistake(searched):
    with pytest.raises(app.UsageError, match="--out must be a folder without an earlier search.*go on with --resume"):
        run_here(*arguments(searched))


@pytest.mark.parametrize(
    ("more", "error", "sentence"),
    [
        (["--set=gama=0.9"], TypeError, "Did you mean `gamma`"),
        (["--space=nothing.yaml"], OSError, "nothing.yaml"),
        (["--tuner=hyperband"], app.UsageError, "--trials must be left out with --tuner=hyperband"),
        (["extra"], app.UsageError, "Everything must be a flag"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(tmp_path, more, error, sentence):
    with pytest.raises(error, match=sentence):
        run_here(*arguments(tmp_path / "out", *more))
    assert not (tmp_path / "out").exists()


def test_resume_knows_the_rest(tmp_path, searched):
    with pytest.raises(app.UsageError, match="--resume must be alone.*Received: --seeds"):
        run_here("tune", "--resume", f"--out={searched}", "--seeds=2")
    with pytest.raises(app.UsageError, match="--resume must name a folder in which `tune` was"):
        run_here("tune", "--resume", f"--out={tmp_path}")


def test_a_space_must_be_ranges(tmp_path):
    (tmp_path / "list.yaml").write_text("[1, 2]")
    with pytest.raises(ValueError, match="--space must hold ranges by setting"):
        run_here(*arguments(tmp_path / "out", f"--space={tmp_path}/list.yaml"))
    (tmp_path / "typo.yaml").write_text("{gama: [0.9]}")
    with pytest.raises(TypeError, match="Did you mean `gamma`"):
        run_here(*arguments(tmp_path / "out", f"--space={tmp_path}/typo.yaml"))


def test_a_worker_needs_the_chief_to_begin(tmp_path, monkeypatch):
    for name, value in (("IP", "127.0.0.1"), ("PORT", "1")):
        monkeypatch.setenv(f"KERASTUNER_ORACLE_{name}", value)
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "worker")
    with pytest.raises(app.UsageError, match="A worker must be told --resume"):
        run_here(*arguments(tmp_path / "out"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_search_that_is_ended_goes_on(number, tmp_path, space):
    out = tmp_path / "out"
    process = begin(*arguments(out, f"--space={space}", trials=4))
    while sum((read_json(t.trial) or {}).get("status") == "COMPLETED" for t in trials_of(out / "search")) < 2:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    process.send_signal(number)
    said = process.communicate(timeout=120)[1]
    if number == signal.SIGTERM:
        assert process.returncode == 143 and f"kerasrl-pg tune --resume --out={out}" in said
    last = begin("tune", "--resume", f"--out={out}", "--trials=5")
    said, errors = last.communicate(timeout=600)
    assert last.returncode == 0 and errors == "", errors
    assert "5 done, 0 ended early, 0 failed" in said and (out / "comparison.json").exists()


@pytest.mark.slow
def test_two_workers(tmp_path, space):
    out = tmp_path / "out"
    process = begin(*arguments(out, f"--space={space}", "--workers=2", trials=4))
    said, errors = process.communicate(timeout=600)
    assert process.returncode == 0 and errors == "", errors
    assert said.count("val_return") == 4 and "4 done, 0 ended early, 0 failed" in said
    assert {path.name for path in (out / "search").glob("worker-*.json")} == {"worker-0.json", "worker-1.json"}


@pytest.mark.slow
def test_a_search_in_which_all_fails_says_why(tmp_path):
    space = tmp_path / "space.yaml"
    space.write_text("{env.gravity: [0.0]}")
    process = begin(*arguments(tmp_path / "out", f"--space={space}", "--seeds=1"))
    said, errors = process.communicate(timeout=600)
    assert process.returncode == 1 and "Traceback" not in errors
    assert "gravity" in errors or "gravity" in said
