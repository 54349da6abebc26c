import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import keras
import pytest

import kerasrl_pg as pg
from kerasrl_pg.tuning.records import read_json, repair, trials_of, write_json
from kerasrl_pg.tuning.search import TUNERS


def hyper_agent(run, **kwargs):
    space = {"gamma": [0.9, 0.99, 0.999], "optimizer.learning_rate": {"min": 1e-3, "max": 1e-1, "step": 0.05}}
    return pg.tuning.HyperAgent(run, **{"space": space, "seeds": 1, "epochs": 1, "episodes": 2, **kwargs})


def outcome(folder):
    """What a search came to: each trial's values and return, in order."""
    trials = [read_json(trial.trial) for trial in trials_of(folder)]
    return [(t["trial_id"], t["status"], t["hyperparameters"]["values"], t["score"]) for t in trials]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"kind": "rnadom", "trials": 1}, "`kind` must be"),
        ({"kind": "random"}, "`trials` must be given"),
        ({"kind": "hyperband", "trials": 3}, "`trials` must be left out with Hyperband"),
        ({"kind": "random", "trials": 0}, "`trials` must be"),
        ({"kind": "random", "trials": 1, "seed": 0}, "`seed` must be"),
        ({"kind": "random", "trials": 1, "failures": 0}, "`failures` must be"),
    ],
)
def test_wrong_arguments_are_refused(run, tmp_path, arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        pg.tuning.tuner(hyper=hyper_agent(run), folder=tmp_path / "search", **arguments)


class Stop(keras.callbacks.Callback):
    """Ends the process, so to speak, when so many trials have begun."""

    trials, at = 0, None

    def on_train_begin(self, logs=None):
        Stop.trials += 1
        if Stop.trials == Stop.at:
            raise KeyboardInterrupt


class Cheap:
    """Stands in for an agent's training: a return of the values alone."""

    def run(trial, agent, callbacks, fit):
        for callback in callbacks:
            callback.on_train_begin()
        rate = trial.values["optimizer.learning_rate"]
        returns = [100 * trial.values["gamma"] - rate]
        trial.record["runs"] = [{"seed": 0, "returns": returns, "env_steps": [1]}]
        trial._save()


@pytest.fixture
def cheap(monkeypatch):
    from kerasrl_pg.tuning import hyper_agent

    monkeypatch.setattr(hyper_agent._Trial, "run", Cheap.run)
    # Each trial has garbage collected, which takes longer than all the rest.
    monkeypatch.setattr("keras_tuner.src.engine.tuner.gc.collect", lambda: 0)
    monkeypatch.setattr(pg.Agent, "get_build_config", lambda agent: {}, raising=False)
    monkeypatch.setattr(Stop, "trials", 0)
    return monkeypatch


@pytest.mark.parametrize("kind", ["random", "grid"])
@pytest.mark.parametrize("at", [1, 3])
@pytest.mark.quick("3-grid")
def test_a_search_that_was_stopped_ends_as_if_it_never_had_been(run, tmp_path, cheap, kind, at):
    hyper, trials = hyper_agent(run), 4 if kind == "random" else None
    pg.tuning.tuner(kind, hyper, tmp_path / "whole", trials).search(verbose=0)
    for where in (at, 2):
        cheap.setattr(Stop, "at", Stop.trials + where)
        with pytest.raises(KeyboardInterrupt):
            pg.tuning.tuner(kind, hyper, tmp_path / "stopped", trials).search(verbose=0, callbacks=[Stop()])
    pg.tuning.tuner(kind, hyper, tmp_path / "stopped", trials).search(verbose=0, callbacks=[Stop()])
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "whole")
    assert len(outcome(tmp_path / "whole")) == (4 if kind == "random" else 6)
    best = [pg.tuning.results(tmp_path / name).best for name in ("stopped", "whole")]
    assert best[0] == best[1]


def test_more_trials_go_on_with_the_same_search(run, tmp_path, cheap):
    for trials in (2, 4):
        pg.tuning.tuner("random", hyper_agent(run), tmp_path / "grown", trials).search(verbose=0)
    pg.tuning.tuner("random", hyper_agent(run), tmp_path / "whole", 4).search(verbose=0)
    assert outcome(tmp_path / "grown") == outcome(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        cheap.setattr(Stop, "at", Stop.trials + 1)
        again = pg.tuning.tuner("random", hyper_agent(run), tmp_path / "grown", 4, overwrite=True)
        again.search(verbose=0, callbacks=[Stop()])
    assert len(outcome(tmp_path / "grown")) == 1


@pytest.mark.parametrize("cut", ["oracle.json", "trial_1/trial.json", "tuner0.json", "orphan", "ended"])
@pytest.mark.quick("oracle.json", "orphan")
def test_what_a_kill_cuts_off_is_made_whole(run, tmp_path, cheap, cut):
    hyper, folder = hyper_agent(run), tmp_path / "search"
    pg.tuning.tuner("random", hyper, tmp_path / "whole", 3).search(verbose=0)
    cheap.setattr(Stop, "at", 2)
    with pytest.raises(KeyboardInterrupt):
        pg.tuning.tuner("random", hyper, folder, 3).search(verbose=0, callbacks=[Stop()])
    if cut == "orphan":  # Its trial.json was written, and not yet the oracle's.
        write_json(folder / "trial_2" / "trial.json", read_json(folder / "trial_1" / "trial.json"))
    elif cut == "ended":  # The oracle has noted that it ended, and not yet that it is not under way.
        state = read_json(folder / "oracle.json")
        state["end_order"].append("1")
        write_json(folder / "oracle.json", {**state, "ongoing_trials": {"tuner0": "1"}})
    else:
        text = (folder / cut).read_text()
        (folder / cut).write_text(text[: len(text) // 2])
    said = repair(folder)
    assert said or cut == "tuner0.json"
    assert repair(folder) == []
    if cut == "ended":
        assert read_json(folder / "oracle.json")["ongoing_trials"] == {}
        return
    pg.tuning.tuner("random", hyper, folder, 3).search(verbose=0)
    assert outcome(folder) == outcome(tmp_path / "whole")


def test_there_is_nothing_to_repair_where_nothing_is(tmp_path):
    assert repair(tmp_path / "nothing") == [] and repair(tmp_path) == []


SCRIPT = """
import sys
import kerasrl_pg as pg

pg.Agent.compiled_with_xla = property(lambda agent: False)  # It would take most of the time.
kind, folder, trials = sys.argv[1], sys.argv[2], int(sys.argv[3]) or None
settings = {"horizon": 8, "networks": {"Networks": {"hidden_units": [4]}}}
run = pg.Run(pg.A2C, {"CartPole": {"num_envs": 4, "max_episode_steps": 60}}, total_steps=512, settings=settings)
space = {"gamma": [0.9, 0.99], "optimizer.learning_rate": {"min": 1e-3, "max": 1e-1, "sampling": "log"}}
hyper = pg.tuning.HyperAgent(run, space=space, seeds=2, epochs=3, episodes=4)
tuner = pg.tuning.tuner(kind, hyper, folder, trials)
tuner.search()
print("The end.", flush=True)
"""


def begin(script, *arguments, **environ):
    command = [sys.executable, "-c", script, *map(str, arguments)]
    environ = {**os.environ, "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", **environ}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environ)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "trials"), [("random", 6), ("hyperband", 0), ("grid", 5)])
def test_a_search_killed_twice_ends_with_the_same_trials_and_the_same_best(kind, trials, tmp_path):
    whole = begin(SCRIPT, kind, tmp_path / "whole", trials)
    assert "The end." in whole.communicate(timeout=600)[0]
    done = 0
    for _ in range(2):
        process = begin(SCRIPT, kind, tmp_path / "killed", trials)
        while True:  # Until the seeds of a further trial are under way.
            ended = [
                t for t in trials_of(tmp_path / "killed") if (read_json(t.trial) or {}).get("status") == "COMPLETED"
            ]
            if len(ended) > done and (read_json(tmp_path / "killed" / "oracle.json") or {}).get("ongoing_trials"):
                break
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.01)
        done = len(ended)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    last = begin(SCRIPT, kind, tmp_path / "killed", trials)
    assert "The end." in last.communicate(timeout=600)[0]
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole") and len(outcome(tmp_path / "whole")) >= 5
    found = [pg.tuning.results(tmp_path / name) for name in ("killed", "whole")]
    assert found[0].rows == found[1].rows and found[0].best == found[1].best


@pytest.mark.slow
def test_a_chief_and_two_workers(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": port}
    names = ("chief", "one", "two")
    started = [begin(SCRIPT, "random", tmp_path / "search", 6, KERASTUNER_TUNER_ID=name, **shared) for name in names]
    said = [process.communicate(timeout=600)[0] for process in started]
    assert all("The end." in text for text in said)
    assert min(text.count("val_return") for text in said[1:]) >= 1  # Both had trials.
    assert begin(SCRIPT, "random", tmp_path / "alone", 6).wait(600) == 0
    together, alone = outcome(tmp_path / "search"), outcome(tmp_path / "alone")
    assert [trial[:2] for trial in together] == [trial[:2] for trial in alone]
    for mine, theirs in zip(together, alone, strict=True):  # KerasTuner's messages have 32 bits.
        assert mine[3] == pytest.approx(theirs[3], rel=1e-6)
    values = [[row.values for row in pg.tuning.results(tmp_path / n).rows] for n in ("search", "alone")]
    assert values[0] == values[1]
    assert json.loads((Path(tmp_path) / "search" / "search.json").read_text())["seeds"] == [0, 1]


def test_every_kind_is_kerastuners_own():
    assert {kind.__module__.split(".")[0] for kind in TUNERS.values()} == {"keras_tuner"}
