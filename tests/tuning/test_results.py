import csv
import math

import numpy as np
import pytest

import kerasrl_pg as pg
from kerasrl_pg.seeds import bootstrap_interval, interquartile_mean
from kerasrl_pg.tuning.records import TrialFolder, write_json
from kerasrl_pg.tuning.results import Comparison

SPACE = {
    "gamma": [0.9, 0.99],
    "optimizer.learning_rate": {"min": 1e-4, "max": 1e-1, "sampling": "log"},
    "networks.hidden_units": [[4], [8, 8]],
    "entropy_coef": {"min": 0.0, "max": 0.1},
}


def values(gamma, rate):
    return {"gamma": gamma, "optimizer.learning_rate": rate, "networks.hidden_units": [8, 8], "entropy_coef": 0.05}


def write(folder, number, status, values=None, returns=(), message=None, **record):
    trial = TrialFolder(folder / f"trial_{number}")
    trial.path.mkdir(parents=True)
    held = {"gamma": "0.9", "tuner/epochs": 2}
    write_json(trial.trial, {"status": status, "message": message, "hyperparameters": {"values": held}})
    if values is not None:
        runs = [{"seed": seed, "returns": [1.0, value], "env_steps": [8, 16]} for seed, value in enumerate(returns)]
        write_json(trial.seeds, {"values": values, "runs": runs, "stopped": None, "failed": None, **record})


@pytest.fixture
def folder(run, tmp_path):
    """A search by hand."""
    hyper = pg.tuning.HyperAgent(run, space=SPACE, seeds=3)
    hyper.remember(tmp_path)
    write(tmp_path, 0, "COMPLETED", values(0.9, 0.001), [10.0, 20.0, 30.0])
    write(tmp_path, 1, "COMPLETED", values(0.99, 0.01), [40.0, 50.0, 90.0])
    write(tmp_path, 2, "COMPLETED", values(0.99, 0.02), [2.0], stopped="Ended after epoch 2: hopeless.")
    write(tmp_path, 3, "FAILED", values(0.99, 0.1), [5.0], failed="Seed 1: ValueError: a | NaN\nin the critic")
    write(tmp_path, 4, "FAILED", message="Traceback\n  line\nValueError: no such setting\n")
    write(tmp_path, 5, "FAILED")
    write(tmp_path, 10, "RUNNING", values(0.9, 0.03), [7.0])
    return tmp_path


def test_rows_say_what_each_trial_came_to(folder):
    found = pg.tuning.results(folder)
    assert [row.trial for row in found.rows] == ["1", "0", "2", "10", "3", "4", "5"]
    assert [row.status for row in found.rows] == ["done", "done", "ended early", "not finished"] + ["failed"] * 3
    best = found.best
    assert best is found.rows[0] and best.val_return == 60.0 and best.returns == {0: 40.0, 1: 50.0, 2: 90.0}
    assert best.interval == bootstrap_interval([40.0, 50.0, 90.0], statistic=np.mean) and best.epochs == 2
    assert found.rows[2].val_return == 2.0 and found.rows[2].reason == "Ended after epoch 2: hopeless."
    assert math.isnan(found.rows[4].val_return) and "NaN" in found.rows[4].reason
    assert found.rows[5].reason == "ValueError: no such setting" and found.rows[5].values == {"gamma": 0.9}
    assert found.rows[6].reason == "No reason was kept."


def test_table_and_picture(folder, tmp_path):
    pytest.importorskip("matplotlib")
    found = pg.tuning.results(folder)
    out = tmp_path / "out"
    assert [path.name for path in found.write(out)] == ["trials.csv", "trials.md", "trials.png"]
    with open(out / "trials.csv", newline="", encoding="utf8") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["val_return"] == "60.0" and rows[0]["seed 2"] == "90.0" and rows[0]["gamma"] == "0.99"
    assert rows[0]["networks.hidden_units"] == "[8, 8]" and rows[2]["seed 1"] == ""
    lines = (out / "trials.md").read_text().splitlines()
    assert len(lines) == 9 and len({line.replace("\\|", "").count("|") for line in lines}) == 1
    assert "a \\| NaN in the critic" in lines[6]
    assert (out / "trials.png").stat().st_size > 10_000


def test_the_best_settings_are_a_file_that_train_takes(folder, run, tmp_path):
    found = pg.tuning.results(folder)
    found.save_best(tmp_path / "best.yaml")
    best = pg.Run.load(tmp_path / "best.yaml")
    assert best.settings["gamma"] == 0.99 and best.optimizer["RMSprop"]["learning_rate"] == 0.01
    assert best.total_steps == run.total_steps and "Trial 1 of a search of 7 with 3 seeds: return 60.0" in best.source
    assert found.default.to_dict() == run.to_dict()


def test_a_search_in_which_nothing_is_done_has_no_best(run, tmp_path):
    with pytest.raises(FileNotFoundError, match="no search of a HyperAgent"):
        pg.tuning.results(tmp_path)
    pg.tuning.HyperAgent(run, space=SPACE).remember(tmp_path)
    write(tmp_path, 0, "FAILED", values(0.9, 0.1), failed="Why.")
    with pytest.raises(ValueError, match="a trial that is done"):
        pg.tuning.results(tmp_path).best  # noqa: B018


def test_seeds_that_chose_the_best_do_not_judge_it(folder):
    with pytest.raises(ValueError, match=r"`seeds` must be new ones. Received: \[2\]"):
        pg.tuning.results(folder).retrain([2, 3])


@pytest.mark.slow
def test_best_and_default_on_new_seeds(folder, run, tmp_path):
    comparison = pg.tuning.results(folder).retrain(1, episodes=3, folder=tmp_path / "again")
    assert comparison.seeds == [3] and comparison.best.shape == comparison.default.shape == (1,)
    agent = run.agent(3)
    run.fit(agent, epochs=1, verbose=0)
    assert agent.evaluate(run.make_env(), 3, seed=2_000_000)["return"] == comparison.default[0]
    assert "1 new seeds (3 to 3), 3 episodes each" in str(comparison)


def test_what_a_comparison_says():
    better = Comparison(list(range(8)), np.arange(8.0) + 100, np.arange(8.0), 5)
    gain, low, high = better.difference
    assert gain == 100.0 and 94.0 < low < 100.0 < high < 106.0 and better.holds
    assert "The best settings are better." in str(better)
    same = Comparison(list(range(8)), np.arange(8.0), np.arange(8.0) - 0.5, 5)
    assert not same.holds and "That may be chance." in str(same)
    data = better.to_dict()
    assert data["best"]["iqm"] == interquartile_mean(better.best) and data["interval"] == [low, high]
    assert data["default"]["returns"] == list(range(8))
