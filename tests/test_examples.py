"""Every example runs, on a small budget."""

import ast
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def run(monkeypatch):
    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / f"{name}.py"))

    return run


def test_cartpole_then_serve(run, tmp_path, capsys):
    run("cartpole", 1024, tmp_path)
    pytest.importorskip("uvicorn")
    run("serve", tmp_path / "cartpole", "CartPole-v1", 2)
    shown = capsys.readouterr().out
    actions = [line.split()[-1] for line in shown.splitlines() if ": action " in line]
    assert len(actions) == 3 and len({*actions}) == 1
    assert "return over 2 episodes: " in shown and "a sampled action: " in shown
    assert len((EXAMPLES / "serve.py").read_text(encoding="utf8").splitlines()) <= 60


def test_own_networks(run, capsys):
    run("own_networks", 1024)
    assert "Independent" in capsys.readouterr().out


def test_callbacks(run, tmp_path):
    run("callbacks", 640, tmp_path)
    assert (tmp_path / "best.keras").exists() and (tmp_path / "log.csv").exists()


@pytest.mark.parametrize("name", ["vtrace", "advantage_weighted"])
def test_methods_of_forty_lines(name, run):
    run(name, 1024)
    assert len((EXAMPLES / f"{name}.py").read_text(encoding="utf8").splitlines()) <= 40


@pytest.mark.slow
def test_memory(run, capsys):
    run("memory", 1024)
    assert "for a reward of" in capsys.readouterr().out


@pytest.mark.slow
def test_vacuum(run, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    run("vacuum", 4096, tmp_path)
    rows = dict(line.rsplit(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    exact = [rows[name] for name in ("deterministic, exact", "drawing, exact", "seeing its cell, exact")]
    assert exact == ["-0.812", "0.775", "0.875"] and {"drawing, learned", "remembering, learned"} < {*rows}
    assert (tmp_path / "vacuum.png").exists() and (tmp_path / "vacuum.gif").read_bytes().startswith(b"GIF89a")


@pytest.mark.slow
def test_laboratory(run, capsys):
    run("laboratory", 50)
    shown = capsys.readouterr().out
    assert "| baseline | variance |" in shown and "TD(0), critic off by 1" in shown
    assert len((EXAMPLES / "laboratory.py").read_text(encoding="utf8").splitlines()) <= 60


@pytest.mark.slow
def test_own_baseline(run, capsys):
    run("own_baseline", 4)
    shown = capsys.readouterr().out
    assert shown.count("the gradient's variance is") == 4 and "LinearBaseline: " in shown
    assert len((EXAMPLES / "own_baseline.py").read_text(encoding="utf8").splitlines()) <= 60


@pytest.mark.slow
def test_stored(run, capsys):
    pytest.importorskip("minari")
    run("stored", 20, 1, 1024)
    shown = capsys.readouterr().out
    assert shown.count("of another, ") == 4 and shown.count("learned from it: ") == 2
    assert len((EXAMPLES / "stored.py").read_text(encoding="utf8").splitlines()) <= 60


@pytest.mark.slow
def test_search(run, capsys):
    run("search", 20_000)
    shown = capsys.readouterr().out
    assert shown.startswith("hill climbing: populations of ") and shown.count("the policy found") >= 3


def test_schedules(run, capsys):
    run("schedules", 2048)
    shown = capsys.readouterr().out
    rows = [line.split() for line in shown.splitlines()]
    rows = [list(map(float, row)) for row in rows[rows.index(next(r for r in rows if "gae_lambda" in r)) + 1 :][:4]]
    assert [row[2] for row in rows] == sorted((row[2] for row in rows), reverse=True) and rows[0][2] == 0.3
    assert len((EXAMPLES / "schedules.py").read_text(encoding="utf8").splitlines()) <= 60


@pytest.mark.slow
def test_policy_classes(run, capsys):
    run("policy_classes", 32_768)
    shown = capsys.readouterr().out
    assert "Tabular: θ [(16, 4)]" in shown and "Linear: θ [(16, 1)]" in shown
    assert shown.count(", return 1.00") == 3
    assert shown.count("first cell, move") == 8


def test_own_method(run, capsys):
    run("own_method", 512)
    assert "'return'" in capsys.readouterr().out


def test_own_compiled_env(run, capsys):
    run("own_compiled_env", 16_384)
    result = ast.literal_eval(capsys.readouterr().out.splitlines()[-1])
    assert result["return"] > -5.0  # A free fall's is about -15.


@pytest.mark.slow
def test_seeds(run, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    run("seeds", 16_384, tmp_path)
    assert "interquartile mean" in capsys.readouterr().out
    assert (tmp_path / "4.keras").exists() and (tmp_path / "seeds.png").exists()


@pytest.mark.slow
def test_trust_region(run, capsys):
    run("trust_region", 5)
    rows = capsys.readouterr().out.splitlines()[1:]
    assert [row.split()[0] for row in rows] == ["ConstrainedGradient", "NPG", "TRPO"]
    assert rows[-1].split()[4] == "0%"


@pytest.mark.slow
def test_tune(run, tmp_path, capsys):
    pytest.importorskip("keras_tuner")
    run("tune", 1, 5 * 32 * 8, tmp_path, 1)
    shown = capsys.readouterr().out
    assert "Trial 0: val_return" in shown and "optimizer.learning_rate" in shown and "1 new seeds (3 to 3)" in shown
    assert (tmp_path / "best.yaml").exists() and (tmp_path / "trials.csv").exists()


@pytest.mark.slow
def test_a_day(tmp_path):
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", EXAMPLES / "a_day.sh", tmp_path, "4000"],
        env={**os.environ, "PATH": path, "TRIALS": "2"},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "Played through the server: {'return'" in done.stdout
    for name in ("tuned/best.yaml", "run/agent.keras", "evaluation.json", "curve.png", "report.html", "film.gif"):
        assert (tmp_path / name).stat().st_size > 0, name
    card = json.loads((tmp_path / "served/1/assets.extra/card.json").read_text(encoding="utf8"))
    assert 0 < card["environment_steps"] <= 80_000


def test_no_example_is_long():
    for path in EXAMPLES.glob("*.py"):
        assert len(path.read_text(encoding="utf8").splitlines()) <= 60, path.name
