"""The command, in a process of its own as a user runs it, or in this one: what it leaves behind and what it refuses."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from absl import app

import kerasrl_pg as pg
from kerasrl_pg import cli
from kerasrl_pg.cli.command import COMMANDS, Stopped, flags_of, help_of
from kerasrl_pg.run import Run

TINY = ["--set=networks.hidden_units=[4]", "--verbose=0", "--episodes=1", "--notensorboard", "--noexport"]


def begin(*arguments, script=None):
    environ = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    command = [sys.executable, *(script or ("-m", "kerasrl_pg.cli")), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ)


def run(*arguments, script=None):
    process = begin(*arguments, script=script)
    process.stdout_text, process.stderr_text = process.communicate(timeout=300)
    return process


def run_here(*arguments):
    """Without the seconds that a process takes to import TensorFlow."""
    cli.call(list(map(str, arguments)))


def a2c(out, *arguments, total_steps=64):
    return [
        "train",
        "--agent=a2c",
        "--env=CartPole-v1",
        "--nopreset",
        f"--total_steps={total_steps}",
        f"--out={out}",
    ] + [
        *TINY,
        *arguments,
    ]


def saved(path, method=pg.A2C, **settings):
    agent = method(networks=pg.Networks((4,)), seed=0, **{"horizon": 8, **settings})
    agent.compile(jit_compile=False)
    agent.fit("CartPole-v1", steps_per_epoch=1, epochs=1, num_envs=4, verbose=0)
    agent.save(path)
    return agent


def weights(path):
    return np.concatenate([np.ravel(w) for w in keras.models.load_model(path).get_weights()])


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The folder of a run made by the command, and what it said."""
    out = tmp_path_factory.mktemp("runs") / "cartpole"
    trained = run(
        "train", "--agent=a2c", "--env=CartPole-v1", "--nopreset", "--total_steps=200", "--episodes=3", f"--out={out}"
    )
    assert trained.returncode == 0 and trained.stderr_text == ""
    return out, trained.stdout_text


def test_train_leaves_one_layout(done):
    out, said = done
    for word in ("steps_per_second", "over 3 episodes", "serving_default", "agent.keras"):
        assert word in said
    names = [
        "agent.keras",
        "arguments.json",
        "evaluation.json",
        "history.csv",
        "run.yaml",
        "saved_model",
        "tensorboard",
    ]
    assert sorted(path.name for path in out.iterdir()) == names
    assert (out / "saved_model" / "1" / "saved_model.pb").exists()
    made = Run.load(out / "run.yaml")
    assert (made.method, made.env, made.total_steps, made.num_envs, made.seed) == (pg.A2C, "CartPole-v1", 200, 8, 0)
    assert json.loads((out / "evaluation.json").read_text())["episodes"] == 3


def test_evaluate(done, tmp_path, capsys):
    out, _ = done
    run_here("evaluate", f"--from={out}/agent.keras", "--env=CartPole-v1", "--episodes=2", "--seed=5")
    line = capsys.readouterr().out
    assert "over 2 episodes" in line
    run_here("evaluate", f"--from={out}", "--episodes=2", "--seed=5")  # In the run's own environment.
    assert capsys.readouterr().out == line
    file = tmp_path / "table.json"
    arguments = [f"--from={out}", f"--from={out}/agent.keras", "--env=CartPole-v1,CartPole-v0", "--seeds=2"]
    run_here("evaluate", *arguments, "--episodes=2", f"--json={file}")
    table, results = capsys.readouterr().out.splitlines(), json.loads(file.read_text())
    assert len(table) == 5 and len(results) == 8
    assert {(r["env"], r["seed"]) for r in results} == {
        ("CartPole-v1", 0),
        ("CartPole-v1", 1),
        ("CartPole-v0", 0),
        ("CartPole-v0", 1),
    }
    mean = np.mean([r["return"] for r in results if r["from"] == str(out) and r["env"] == "CartPole-v1"])
    assert f"{mean:.1f}" in table[1]


def test_info_says_what_there_is(done, capsys):
    out, _ = done
    run_here("info", out, out / "agent.keras", out / "run.yaml", out / "saved_model" / "1", out / "saved_model")
    said = capsys.readouterr().out
    for part in (": a run", "a saved A2C, after 200", "a file of settings", "a SavedModel", "exports, versions 1"):
        assert part in said
    assert "Discrete(2)" in said and "serving_default: observation float32[B, 4] -> action" in said
    assert "3 deterministic episodes, environment CartPole-v1, seed 1" in said and "as the card says" in said
    (command,) = (line for line in said.splitlines() if line.startswith("  command: kerasrl-pg train --"))
    assert "--total_steps=200" in command and command.endswith(f"--out={out}")
    with pytest.raises(FileNotFoundError, match="no file, folder or dataset"):
        run_here("info", out / "nothing")


def test_list_names_everything(capsys):
    run_here("list")
    said = capsys.readouterr().out
    for name in (
        "PPO ",
        "PPO_CARTPOLE",
        "pg.envs.CartPole",
        "kerasrl_pg/Vacuum-v0",
        "TanhGaussian",
        "GAE",
        "WeightedAverage",
        "Tabular",
    ):
        assert name in said
    run_here("list", "heads")
    assert capsys.readouterr().out.startswith("Heads:\n  Bernoulli")


def test_plot_draws_seeds_and_single_runs(done, tmp_path):
    pytest.importorskip("matplotlib")
    out, _ = done
    run_here(*a2c(tmp_path / "two", "--seeds=2", total_steps=640))
    run_here("plot", out, tmp_path / "two", f"--out={tmp_path}/curves.png")
    run_here("plot", out, "--log=entropy", f"--out={tmp_path}/entropy.svg")
    assert (tmp_path / "curves.png").stat().st_size > 5000 and (tmp_path / "entropy.svg").exists()
    with pytest.raises(ValueError, match="--log must be one of epoch, .*entropy.* Received: --log=entropie"):
        run_here("plot", out, "--log=entropie", f"--out={tmp_path}/x.png")
    with pytest.raises(FileNotFoundError, match="which has no history.csv"):
        run_here("plot", tmp_path / "three", f"--out={tmp_path}/x.png")


@pytest.mark.slow
def test_report(done, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    out, _ = done
    run_here("report", f"--from={out}", f"--out={tmp_path}/report.html", "--episodes=2", "--rollouts=2")
    assert capsys.readouterr().out == f"Report: {tmp_path}/report.html\n"
    with pytest.raises(app.UsageError, match="which has no run.yaml"):
        run_here("report", f"--from={tmp_path}", f"--out={tmp_path}/report.html")


@pytest.mark.slow
def test_films_of_a_run_and_of_its_making(tmp_path, capsys):
    from PIL import Image

    arguments = [
        "--env=kerasrl_pg/Vacuum-v0",
        f"--out={tmp_path}/run",
        "--video_steps=40",
        "--total_steps=80",
        "--num_envs=8",
    ]
    run_here("train", "--agent=a2c", *arguments, *TINY)
    films = sorted((tmp_path / "run" / "videos").iterdir())
    assert [path.name for path in films] == [f"step-000000{steps}.gif" for steps in ("00", "40", "80")]
    run_here(
        "video",
        f"--from={tmp_path}/run",
        f"--out={tmp_path}/film.gif",
        "--max_steps=7",
        "--episodes=2",
        "--nodeterministic",
    )
    assert "Episode 1: return" in capsys.readouterr().out
    assert 2 <= Image.open(tmp_path / "film.gif").n_frames <= 9  # Pillow joins what is the same.
    with pytest.raises(ValueError, match="must end in .gif or .mp4"):
        run_here("video", f"--from={tmp_path}/run", f"--out={tmp_path}/film.avi")


def test_a_window(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    saved(tmp_path / "agent.keras")
    run_here("play", f"--from={tmp_path}/agent.keras", "--env=CartPole-v1", "--seed=3")
    said = capsys.readouterr().out
    result = keras.models.load_model(tmp_path / "agent.keras").evaluate("CartPole-v1", episodes=1, seed=3)
    assert said.startswith("Episode 1: return ") and result["episodes"] == 1


def test_a_config_and_changes(tmp_path):
    run_here(*a2c(tmp_path / "a", "--set=horizon=4", "--set=estimator={NStep: {n: 2}}", "--learning_rate=0.01"))
    made = Run.load(tmp_path / "a" / "run.yaml")
    assert made.settings == {
        "networks": {"Networks": {"hidden_units": [4]}},
        "horizon": 4,
        "estimator": {"NStep": {"n": 2}},
    }
    assert made.optimizer["Adam"]["learning_rate"] == 0.01
    run_here("train", f"--config={tmp_path}/a/run.yaml", f"--out={tmp_path}/b", *TINY)
    assert Run.load(tmp_path / "b" / "run.yaml") == made
    np.testing.assert_array_equal(weights(tmp_path / "a" / "agent.keras"), weights(tmp_path / "b" / "agent.keras"))
    run_here(
        "train",
        f"--config={tmp_path}/a/run.yaml",
        f"--out={tmp_path}/c",
        "--seed=5",
        "--set=env.sutton_barto_reward=true",
        *TINY,
    )
    other = Run.load(tmp_path / "c" / "run.yaml")
    assert other.seed == 5 and other.env == {"id": "CartPole-v1", "kwargs": {"sutton_barto_reward": True}}
    with pytest.raises(app.UsageError, match="--agent must be left out with --config, which says A2C"):
        run_here("train", f"--config={tmp_path}/a/run.yaml", "--agent=ppo", f"--out={tmp_path}/d")
    with pytest.raises(TypeError, match="Did you mean `horizon`"):
        run_here(*a2c(tmp_path / "d", "--set=horizn=4"))
    with pytest.raises(app.UsageError, match="--set must be name=value"):
        run_here(*a2c(tmp_path / "d", "--set=horizon"))
    assert not (tmp_path / "d").exists()


def test_a_preset_is_taken_and_may_be_left_out(tmp_path):
    run_here("train", "--agent=ppo", "--env=CartPole-v1", "--total_steps=1024", f"--out={tmp_path}/a", *TINY)
    made = Run.load(tmp_path / "a" / "run.yaml")
    assert made.settings["minibatch_size"] == 128 and made.source == pg.presets.PPO_CARTPOLE.source
    with pytest.raises(app.UsageError, match="--total_steps must be given where there is no preset"):
        run_here("train", "--agent=ppo", "--env=CartPole-v1", "--nopreset", f"--out={tmp_path}/b")


# Stopping and going on


@pytest.mark.slow
def test_what_is_killed_goes_on(tmp_path):
    out = tmp_path / "run"
    arguments = ["--agent=a2c", "--env=CartPole-v1", "--nopreset", "--total_steps=40000", "--checkpoint_seconds=0.1"]
    process = begin("train", *arguments, *TINY, "--epochs=200", f"--out={out}")
    deadline = time.monotonic() + 120
    while not (out / "checkpoint.keras").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    process.kill()
    process.communicate()
    assert not (out / "agent.keras").exists()
    reached = int(keras.models.load_model(out / "checkpoint.keras").env_steps)
    assert 0 < reached < 40_000
    with pytest.raises(app.UsageError, match="checkpoint.keras.*go on with --resume"):
        run_here("train", *arguments, *TINY, f"--out={out}")
    with pytest.raises(app.UsageError, match="--resume must be alone with --out.* Received: --seed"):
        run_here("train", "--resume", "--seed=3", f"--out={out}")
    run_here("train", "--resume", f"--out={out}")
    assert int(keras.models.load_model(out / "agent.keras").env_steps) == 40_000
    steps = [float(row["env_steps"]) for row in csv.DictReader((out / "history.csv").open())]
    assert len(steps) == 200 and steps == sorted(set(steps)) and steps[-1] == 40_000  # Each epoch once.
    assert not (out / "checkpoint.keras").exists() and (out / "evaluation.json").exists()
    before = (out / "agent.keras").read_bytes()
    run_here("train", "--resume", f"--out={out}")  # There is nothing left to do.
    assert (out / "agent.keras").read_bytes() == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.quick("15")
def test_a_signal_ends_it_with_a_save(number, tmp_path, monkeypatch):
    """Heard in the middle, saved after the iteration; the run then goes on, and spends the same budget."""
    before = signal.getsignal(number)
    run_here(*a2c(tmp_path / "whole", total_steps=1200))

    class Signalling(pg.callbacks.Checkpoint):
        def on_train_batch_end(self, batch, logs=None):
            if int(self.model.env_steps) == 600:
                signal.raise_signal(number)
            super().on_train_batch_end(batch, logs)

    with monkeypatch.context() as patch:
        patch.setattr(pg.callbacks, "Checkpoint", Signalling)
        with pytest.raises(Stopped, match="Stopped after 600 environment steps.*train --resume --out=") as caught:
            run_here(*a2c(tmp_path / "cut", total_steps=1200))
    assert caught.value.number == number
    assert signal.getsignal(number) is before
    run_here("train", "--resume", f"--out={tmp_path}/cut")
    for name in ("whole", "cut"):
        assert int(keras.models.load_model(tmp_path / name / "agent.keras").env_steps) == 1200
    rows = [list(csv.DictReader((tmp_path / name / "history.csv").open())) for name in ("whole", "cut")]
    assert [row["env_steps"] for row in rows[0]] == [row["env_steps"] for row in rows[1]]


def test_a_full_disk_costs_a_checkpoint_and_not_the_run(tmp_path, monkeypatch, capsys):
    def full(self, path, *args, **kwargs):
        raise OSError("No space left on device.")

    agent = pg.A2C(networks=pg.Networks((4,)), horizon=8, seed=0)
    agent.compile(jit_compile=False)
    with monkeypatch.context() as patch:
        patch.setattr(pg.A2C, "save", full)
        checkpoint = pg.callbacks.Checkpoint(tmp_path / "c.keras", seconds=1e-6)
        agent.fit("CartPole-v1", total_steps=32, num_envs=2, callbacks=checkpoint, verbose=0)
    assert int(agent.env_steps) == 32 and "No checkpoint was written: No space left" in capsys.readouterr().out


@pytest.mark.slow
def test_seeds_are_trained_one_by_one_and_go_on(tmp_path, capsys):
    out = tmp_path / "two"
    run_here(*a2c(out, "--seeds=2", "--seed=3"))
    assert [path.name for path in sorted(out.glob("seed-*"))] == ["seed-3", "seed-4"]
    assert "2 seeds: IQM" in capsys.readouterr().out
    run_here(*a2c(tmp_path / "one", "--seed=4"))
    np.testing.assert_array_equal(weights(out / "seed-4" / "agent.keras"), weights(tmp_path / "one" / "agent.keras"))
    first = (out / "seed-3" / "agent.keras").read_bytes()
    for name in ("agent.keras", "evaluation.json"):  # As if it had been killed in the second.
        (out / "seed-4" / name).unlink()
    run_here("train", "--resume", f"--out={out}")
    assert (out / "seed-3" / "agent.keras").read_bytes() == first
    np.testing.assert_array_equal(weights(out / "seed-4" / "agent.keras"), weights(tmp_path / "one" / "agent.keras"))
    with pytest.raises(app.UsageError, match="without an earlier run"):
        run_here(*a2c(out, "--seeds=2", "--seed=3"))
    with pytest.raises(FileNotFoundError, match="which holds none. Its seeds are in .*seed-3"):
        run_here("export", f"--from={out}", f"--out={tmp_path}/x")


# Training on, and what is in a folder


def test_lab(tmp_path, capsys, monkeypatch):
    from kerasrl_pg.lab import pictures

    one = {"clipped_objective": pictures.clipped_objective}
    monkeypatch.setattr(pictures, "PICTURES", one)  # The others take minutes; a slow test draws them.
    run_here("lab", f"--out={tmp_path}/pictures")
    assert "1 of 1: clipped_objective" in capsys.readouterr().out
    assert (tmp_path / "pictures" / "clipped_objective.png").exists()
    with pytest.raises(app.UsageError, match="--out must be given"):
        run_here("lab")


@pytest.mark.slow
def test_the_installed_command_is_silent_and_the_library_is_not(tmp_path):
    script = tmp_path / "kerasrl-pg"
    script.write_text("from kerasrl_pg.cli import main\nmain()")
    helped = run("--help", script=[script])
    assert "Usage: kerasrl-pg COMMAND" in helped.stdout_text and "completion" in helped.stdout_text
    assert helped.stderr_text == "" and helped.returncode == 0
    imported = run(script=["-c", "import kerasrl_pg, os; print(os.environ.get('TF_CPP_MIN_LOG_LEVEL'))"])
    assert imported.stdout_text == "None\n" and "port.cc" in imported.stderr_text


@pytest.mark.slow
def test_training_goes_on_by_the_saved_agents_method(tmp_path):
    saved(tmp_path / "agent.keras", pg.TRPO, horizon=16, minibatch_size=16)
    arguments = ["train", f"--from={tmp_path}/agent.keras", "--env=CartPole-v1", "--total_steps=128", "--num_envs=4"]
    arguments += ["--verbose=0", "--episodes=1", "--noexport", f"--out={tmp_path}/out"]
    with pytest.raises(app.UsageError, match="--agent must be left out .* saved agent's, trpo. Received: --agent=ppo"):
        run_here(*arguments, "--agent=ppo")
    run_here(*arguments, "--agent=trpo")
    loaded = keras.models.load_model(tmp_path / "out" / "agent.keras")
    assert isinstance(loaded, pg.TRPO) and int(loaded.env_steps) == 64 + 128
    with pytest.raises(app.UsageError, match="--config, --set and --seeds must be left out with --from"):
        run_here(*arguments, "--set=gamma=0.5")


def test_a_second_run_into_a_folder_loses_nothing(tmp_path):
    saved(tmp_path / "first.keras")
    out = tmp_path / "out"

    def arguments(*more):
        basic = [
            "--env=CartPole-v1",
            "--total_steps=64",
            "--num_envs=4",
            "--verbose=0",
            "--episodes=1",
            "--notensorboard",
        ]
        return ["train", *basic, "--noexport", "--nopreset", f"--out={out}", *more]

    run_here(*arguments(f"--from={tmp_path}/first.keras"))
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert sorted(before) == ["agent.keras", "arguments.json", "evaluation.json", "history.csv"]

    for more in ((), (f"--from={tmp_path}/first.keras",)):
        with pytest.raises(app.UsageError, match="an earlier run. Received: .*--from=.* or .*--overwrite"):
            run_here(*arguments(*more))
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before

    run_here(*arguments(f"--from={out}/agent.keras"))
    run_here(*arguments(f"--from={out}"))
    names = ["agent-1.keras", "agent-2.keras", "agent.keras"]
    assert sorted(path.name for path in out.glob("agent*")) == names
    assert sorted(path.name for path in out.glob("*.csv")) == ["history-2.csv", "history-3.csv", "history.csv"]
    assert (out / "agent-1.keras").read_bytes() == before["agent.keras"]
    assert (out / "history.csv").read_bytes() == before["history.csv"]
    assert [int(keras.models.load_model(out / name).env_steps) for name in names] == [96, 160, 224]

    run_here(*arguments(f"--from={tmp_path}/first.keras", "--overwrite"))
    assert int(keras.models.load_model(out / "agent.keras").env_steps) == 96


def test_a_history_without_an_agent_is_an_earlier_run_too(tmp_path):
    (tmp_path / "history.csv").write_text("epoch\n0\n")
    with pytest.raises(app.UsageError, match="which has history.csv"):
        run_here(*a2c(tmp_path))
    assert (tmp_path / "history.csv").read_text() == "epoch\n0\n"
    run_here(*a2c(tmp_path, "--overwrite"))
    assert (tmp_path / "history.csv").read_text().startswith("epoch,")


def test_export_makes_the_next_version_in_a_folder_of_versions(tmp_path, monkeypatch, capsys):
    saved(tmp_path / "agent.keras")
    monkeypatch.setattr(pg.A2C, "export", lambda self, path, **kwargs: path)
    (tmp_path / "versions" / "9").mkdir(parents=True)
    for out, made in (("versions", "versions/10"), ("versions/3", "versions/3"), ("other", "other")):
        run_here("export", f"--from={tmp_path}/agent.keras", f"--out={tmp_path}/{out}")
        assert capsys.readouterr().out == f"SavedModel: {tmp_path}/{made}\n"


# Mistakes


def ended(arguments, monkeypatch, capsys):
    """The exit code and the sentence of a command in this process."""
    monkeypatch.setattr(sys, "argv", ["kerasrl-pg", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return caught.value.code, capsys.readouterr().err


def test_a_missing_extra_is_a_sentence_and_no_traceback(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    code, said = ended(["lab", f"--out={tmp_path}"], monkeypatch, capsys)
    assert code == 1 and said == "ImportError: Pictures need matplotlib: pip install kerasrl-pg[lab]\n"


def test_a_damaged_agent_is_named(tmp_path, monkeypatch, capsys):
    (tmp_path / "agent.keras").write_bytes(b"PK")
    code, said = ended(["evaluate", f"--from={tmp_path}/agent.keras", "--env=CartPole-v1"], monkeypatch, capsys)
    assert code == 1 and "The saved agent is damaged: " in said and "Received: --from=" in said


def test_a_refusal_is_a_sentence_and_no_traceback(tmp_path, monkeypatch, capsys):
    arguments = "train", "--env=CartPole-v1", f"--out={tmp_path}/x", "--total_steps=5"
    code, said = ended(arguments, monkeypatch, capsys)
    assert code == 1
    assert "`total_steps` must be at least one rollout" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("dance",), "Expected one command of train, .*evaluate, .*Received: dance"),
        (("trian",), "Did you mean train"),
        (("train", "--env=CartPole-v1"), "--out must be given"),
        (("train", "CartPole-v1", "--out=x"), "Everything must be a flag"),
        (("train", "--enw=x"), "Unknown command line flag 'enw'. Did you mean: env"),
        (("train", "--agent=ppoo", "--out=x"), "flag --agent=ppoo: value should be one of"),
        (("train", "--resume", "--out=x"), "--resume must name a folder in which `train` was"),
        (("evaluate", "--env=CartPole-v1"), "--from must be given"),
        (("export", "--from=agent.keras"), "--out must be given"),
        (("plot", "--out=x.png"), "must be given runs' folders"),
        (("list", "cats"), "list must be of agents, .* Received: cats"),
        (("info",), "must be given files or folders"),
        (("completion", "fish"), "must be of bash or zsh. Received: fish"),
    ],
)
def test_refusals(arguments, sentence, monkeypatch, capsys):
    with pytest.raises(app.UsageError, match=sentence):
        run_here(*arguments)
    assert ended(arguments, monkeypatch, capsys)[0] == 2


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name, capsys):
    run_here(name, "--help")
    said = capsys.readouterr().out
    assert said.startswith(f"kerasrl-pg {name}: ") and "--[no]debug" in said and "repeat this option" not in said
    assert max(map(len, said.splitlines())) <= 125
    assert said == help_of(name, flags_of(name)) + "\n"


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion(shell, tmp_path, capsys):
    run_here("completion", shell)
    script = capsys.readouterr().out
    if shell == "zsh":
        assert script.startswith("autoload")
        return
    (tmp_path / "completion.sh").write_text(script)
    for words, expected in (("kerasrl-pg ev", "evaluate"), ("kerasrl-pg train --total", "--total_steps=")):
        parts = words.split()
        asked = f"source {tmp_path}/completion.sh; COMP_WORDS=({words}); COMP_CWORD={len(parts) - 1}; "
        asked += "_kerasrl_pg; echo $COMPREPLY"
        assert subprocess.run(["bash", "-c", asked], capture_output=True, text=True).stdout.strip() == expected
