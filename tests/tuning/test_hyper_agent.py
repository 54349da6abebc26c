import os
import shutil

import gymnasium as gym
import keras
import keras_tuner as kt
import numpy as np
import pytest

import kerasrl_pg as pg
from kerasrl_pg.tuning.records import TrialFolder, read_json, write_json

SPACE = {"gamma": [0.9, 0.99], "optimizer.learning_rate": {"min": 1e-3, "max": 1e-1, "sampling": "log"}}


def hyper_agent(run, **kwargs):
    return pg.tuning.HyperAgent(run, **{"space": SPACE, "seeds": 2, "epochs": 2, "episodes": 2, **kwargs})


class Moody(gym.Wrapper):
    """CartPole that does something wrong after 30 steps."""

    def __init__(self, env, mood):
        super().__init__(env)
        self.mood, self.steps = mood, 0

    def step(self, action):
        observation, reward, *rest = super().step(action)
        self.steps += 1
        if self.steps > 30 and self.mood == "raises":
            raise ZeroDivisionError("The motor is broken.")
        return observation, float("nan") if self.steps > 30 and self.mood == "nan" else reward, *rest


gym.register("Moody-v0", lambda mood="fine": Moody(gym.make("CartPole-v1"), mood), max_episode_steps=20)


@pytest.fixture(scope="module")
def searched(run, tmp_path_factory):
    """A random search of two trials."""
    hyper = hyper_agent(run)
    tuner = pg.tuning.tuner("random", hyper, tmp_path_factory.mktemp("search") / "random", 2)
    tuner.search(verbose=0)
    return tuner


@pytest.mark.slow
def test_each_seed_is_what_it_would_be_alone(searched, run):
    trial = searched.oracle.get_best_trials(1)[0]
    folder = TrialFolder(searched.get_trial_dir(trial.trial_id))
    record, made = folder.record(), pg.Run.load(folder.run)
    assert made.to_dict() == run.changed(record["values"]).to_dict() and made.to_dict() != run.to_dict()
    assert [each["seed"] for each in record["runs"]] == [0, 1]
    agent = made.agent(1)  # The second, which ran the program of the first.
    made.fit(agent, epochs=2, verbose=0)
    alone = agent.evaluate(made.make_env(), episodes=2, seed=1_000_000)["return"]
    assert record["runs"][1]["returns"][-1] == alone
    assert all(each["env_steps"] == [64, 128] for each in record["runs"])
    last = [each["returns"][-1] for each in record["runs"]]
    assert trial.score == np.mean(last) and len({*last}) > 1
    assert trial.metrics.get_best_value("env_steps") == 256
    best = searched.get_best_models(1)[0]
    assert best.evaluate(made.make_env(), episodes=2, seed=1_000_000)["return"] == max(last)


def test_another_search_in_the_folder_is_refused(searched, run, tmp_path):
    folder = str(shutil.copytree(searched.project_dir, tmp_path / "search"))
    with pytest.raises(ValueError, match="holds another search.*has seeds=\\[0, 1\\]. Received: seeds=\\[0, 1, 2\\]"):
        pg.tuning.tuner("random", hyper_agent(run, seeds=3), folder, 2)
    parent, name = os.path.split(folder)
    hyper = hyper_agent(run, episodes=3)
    theirs = kt.RandomSearch(hyper, hyper.objective, max_trials=3, seed=1, directory=parent, project_name=name)
    with pytest.raises(ValueError, match="holds another search"):
        theirs.search(verbose=0)


def test_what_failed_has_its_reason_and_the_search_goes_on(tmp_path, capsys):
    settings = {"horizon": 8, "networks": {"Networks": {"hidden_units": [4]}}}
    run = pg.Run(pg.A2C, "Moody-v0", total_steps=128, num_envs=1, settings=settings)
    hyper = hyper_agent(run, space={"env.mood": ["raises", "nan", "fine"]}, seeds=1, epochs=1)
    tuner = pg.tuning.tuner("grid", hyper, tmp_path / "search")
    tuner.oracle.verbose = 0
    tuner.search()
    said = capsys.readouterr().out
    assert said.count("failed. Seed 0:") == 2 and "val_return" in said
    assert [trial.status for trial in tuner.oracle.trials.values()] == ["FAILED", "FAILED", "COMPLETED"]
    reasons = [TrialFolder(tuner.get_trial_dir(name)).record()["failed"] for name in tuner.oracle.trials]
    assert "The motor is broken." in reasons[0] and "nan" in reasons[1].lower() and reasons[2] is None
    assert "The motor is broken." in next(iter(tuner.oracle.trials.values())).message


def test_values_that_contradict_each_other_fail_and_many_failures_end_the_search(tmp_path, run):
    made = pg.Run(pg.PPO, run.env, total_steps=128, settings={"horizon": 8, "minibatch_size": 16})
    hyper = hyper_agent(made, space={"minibatch_size": [7, 9, 11, 16]}, seeds=1, epochs=1)
    tuner = pg.tuning.tuner("grid", hyper, tmp_path / "search", failures=2)
    with pytest.raises(RuntimeError, match="exceeded the limit of 2"):
        tuner.search(verbose=0)
    rows = pg.tuning.results(tuner).rows
    assert [row.status for row in rows] == ["failed", "failed"]
    assert "`minibatch_size` must divide" in rows[0].reason


def test_a_function_may_make_the_agents_and_another_the_values(tmp_path, run):
    asked = []

    def make(seed, values):
        asked.append((seed, values))
        return run.agent(seed, gamma=values["gamma"])

    def space(hp):
        return {"gamma": hp.Choice("gamma", [0.9])}

    hyper = pg.tuning.HyperAgent(make, run.make_env(), 64, space, seeds=[5, 7], epochs=1, episodes=2, aggregate="iqm")
    tuner = kt.GridSearch(hyper, hyper.objective, directory=tmp_path, project_name="search")
    tuner.search(verbose=0)
    assert (7, {"gamma": 0.9}) in asked and {seed for seed, _ in asked} == {5, 7}
    found = pg.tuning.results(tuner)
    assert [row.values for row in found.rows] == [{"gamma": 0.9}] and set(found.best.returns) == {5, 7}
    with pytest.raises(ValueError, match="must have been of a Run"):
        found.best_run  # noqa: B018


@pytest.mark.slow
def test_hyperband_goes_on_from_the_checkpoint_of_each_seed(tmp_path, run):
    made = run.changed({"reward_scaling": True, "anneal_learning_rate": True, "total_steps": 96})
    hyper = hyper_agent(made, epochs=3)
    tuner = pg.tuning.tuner("hyperband", hyper, tmp_path / "search", factor=3)
    tuner.search(verbose=0)
    later = [t for t in tuner.oracle.trials.values() if t.hyperparameters.values["tuner/initial_epoch"]]
    assert later and {t.hyperparameters.values["tuner/epochs"] for t in tuner.oracle.trials.values()} == {1, 3}
    folder = TrialFolder(tuner.get_trial_dir(later[0].trial_id))
    first = TrialFolder(tuner.get_trial_dir(later[0].hyperparameters.values["tuner/trial_id"]))
    for number, each in enumerate(folder.record()["runs"]):
        alone = pg.Run.load(folder.run).agent(each["seed"])
        made.fit(alone, epochs=3, verbose=0)
        went_on = keras.models.load_model(folder.agent(each["seed"]))
        assert all(np.array_equal(a, b) for a, b in zip(alone.get_weights(), went_on.get_weights(), strict=True))
        assert each["returns"][:1] == first.record()["runs"][number]["returns"] and len(each["returns"]) == 3
        assert each["env_steps"] == [64, 96]  # Nothing was trained twice.


def test_hyperband_with_more_epochs_than_shares_is_refused(tmp_path, run):
    hyper = hyper_agent(run, epochs=2)
    tuner = kt.Hyperband(hyper, hyper.objective, max_epochs=9, directory=tmp_path)
    tuner.oracle.create_trial("other")
    hp = kt.HyperParameters()
    hp.values = {"tuner/epochs": 3}
    with pytest.raises(ValueError, match="`max_epochs` must be at most HyperAgent's `epochs`, 2"):
        hyper.fit(hp, None, epochs=3)


def test_the_search_may_not_say_what_is_said_already(run):
    with pytest.raises(ValueError, match="must leave out.*Received: total_steps"):
        hyper_agent(run).fit(kt.HyperParameters(), None, total_steps=1)


def test_own_callbacks_are_anew_for_each_seed(tmp_path, run):
    class Note(keras.callbacks.Callback):
        began = []

        def on_train_begin(self, logs=None):
            assert not hasattr(self, "used")
            self.used = True
            Note.began.append(self)

        def on_epoch_end(self, epoch, logs=None):
            assert "val_return" in logs

    hyper_agent(run).fit(kt.HyperParameters(), hyper_agent(run).build(kt.HyperParameters()), callbacks=[Note()])
    assert len({id(each) for each in Note.began}) == 2


def test_hopeless_trials_end_early(tmp_path, run):
    hyper = hyper_agent(run, stopping=pg.tuning.Median(0.5, 1), epochs=2)
    tuner = pg.tuning.tuner("random", hyper, tmp_path / "search", 2)
    first = tuner.oracle.create_trial("other")
    first.status = "COMPLETED"
    tuner.oracle.update_trial(first.trial_id, {"val_return": 900.0})
    tuner.oracle.end_trial(first)
    runs = [{"seed": seed, "returns": [900.0, 900.0], "env_steps": [64, 128]} for seed in (0, 1)]
    record = {"values": {}, "runs": runs, "stopped": None, "failed": None}
    write_json(TrialFolder(tuner.get_trial_dir(first.trial_id)).seeds, record)
    tuner.search(verbose=0)
    row = next(row for row in pg.tuning.results(tuner).rows if row.trial == "1")
    assert row.status == "ended early" and [*row.returns] == [0] and row.epochs == 1
    assert "below the median of the trials before it, 900.0" in row.reason
    assert pg.tuning.results(tuner).best.trial == "0"


@pytest.mark.slow
def test_finished_seeds_of_a_killed_trial_are_kept(tmp_path, run, searched):
    class Kill(keras.callbacks.Callback):
        """Ends the process, so to speak, in the second seed's training."""

        fits = 0

        def on_train_begin(self, logs=None):
            Kill.fits += 1
            if Kill.fits == 2:
                raise KeyboardInterrupt

    hyper = hyper_agent(run)
    with pytest.raises(KeyboardInterrupt):
        pg.tuning.tuner("random", hyper, tmp_path / "search", 1).search(verbose=0, callbacks=[Kill()])
    before = read_json(tmp_path / "search" / "trial_0" / "seeds.json")["runs"]
    assert [each["seed"] for each in before] == [0]
    again = pg.tuning.tuner("random", hyper, tmp_path / "search", 1)
    again.search(verbose=0, callbacks=[Kill()])
    assert Kill.fits == 3
    trials = [TrialFolder(tuner.get_trial_dir("0")) for tuner in (again, searched)]
    assert trials[0].record() == trials[1].record() and trials[0].record()["runs"][0] == before[0]
    best = [tuner.load_model(tuner.oracle.get_trial("0")).get_weights() for tuner in (again, searched)]
    assert all(np.array_equal(a, b) for a, b in zip(*best, strict=True))


def test_a_trial_killed_when_all_its_seeds_were_done_is_only_noted(tmp_path, run, searched):
    folder = tmp_path / "search"
    shutil.copytree(searched.project_dir, folder)
    for path in (folder, folder / "trial_1"):
        name = "oracle" if path == folder else "trial"
        write_json(path / f"{name}.json", read_json(path / ("oracle-begun.json" if path == folder else "begun.json")))
    (folder / "trial_1" / "build_config.json").unlink()
    tuner = pg.tuning.tuner("random", hyper_agent(run), folder, 2)
    assert [*tuner.oracle._retry_queue] == ["1"]

    class Never(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            raise AssertionError("It was trained again.")

    tuner.search(verbose=0, callbacks=[Never()])
    assert pg.tuning.results(tuner).rows == pg.tuning.results(searched).rows
    for trial in ("0", "1"):
        weights = [each.load_model(each.oracle.get_trial(trial)).get_weights() for each in (tuner, searched)]
        assert all(np.array_equal(a, b) for a, b in zip(*weights, strict=True))


def test_training_outside_of_a_search(tmp_path, run, monkeypatch):
    hyper = hyper_agent(run, epochs=1)
    record = hyper.train({"gamma": 0.5}, tmp_path)
    with pytest.raises(ValueError, match="holds another search"):
        hyper_agent(run, epochs=2).train({"gamma": 0.5}, tmp_path)
    monkeypatch.setattr(pg.Agent, "fit", None)  # Nothing is trained again.
    assert hyper.train({"gamma": 0.5}, tmp_path)["runs"] == record["runs"]


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"space": {"gama": [0.9]}}, TypeError, "Did you mean `gamma`"),
        ({"space": {"gamma": {"min": 0.9, "max": 1.1}}}, ValueError, r"Received: gamma=1.1. `gamma` must be"),
        ({"space": {}}, ValueError, "with at least one"),
        ({"seeds": [1, 1]}, ValueError, "`seeds` must be different"),
        ({"seeds": 0}, ValueError, "`seeds` must be"),
        ({"epochs": 0}, ValueError, "`epochs` must be"),
        ({"aggregate": "median"}, ValueError, "`aggregate` must be"),
        ({"stopping": "median"}, TypeError, "must be a pg.tuning.Median"),
        ({"env": lambda: None}, TypeError, "goes with a function that makes agents"),
    ],
)
def test_wrong_settings_are_refused_at_construction(run, arguments, error, sentence):
    with pytest.raises(error, match=sentence):
        hyper_agent(run, **arguments)


def test_functions_need_what_a_run_has():
    with pytest.raises(ValueError, match="`total_steps` must be given"):
        pg.tuning.HyperAgent(lambda seed, values: None, "CartPole-v1")
    with pytest.raises(TypeError, match="`run` must be a pg.Run"):
        pg.tuning.HyperAgent(pg.PPO, "CartPole-v1", 100, SPACE)


def test_env_and_budget_may_be_given_beside_a_run():
    hyper = pg.tuning.HyperAgent(pg.presets.A2C_CARTPOLE, pg.envs.CartPole(num_envs=2), 500, {"gamma": [0.9, 0.99]})
    assert hyper.run.total_steps == hyper.total_steps == 500 and hyper.env == pg.envs.CartPole(num_envs=2)
    assert hyper.num_envs is None


@pytest.mark.slow
@pytest.mark.usefixtures("one_ray")
def test_workers_play_in_trials(tmp_path):
    """And come to what one process comes to."""
    scores = []
    for more in ({}, {"workers": 2}):
        run = pg.Run(pg.A2C, "CartPole-v1", total_steps=160, num_envs=2)
        hyper = hyper_agent(run, space={"gamma": [0.9, 0.99]})
        tuner = pg.tuning.tuner("grid", hyper, tmp_path / str(len(scores)), 2)
        tuner.search(verbose=0, **more)
        scores.append([trial.score for trial in tuner.oracle.get_best_trials(2)])
    assert scores[0] == scores[1] and len(scores[0]) == 2
