import keras_tuner as kt
import pytest

import kerasrl_pg as pg
from kerasrl_pg.agents.minibatches import check_minibatch_size
from kerasrl_pg.tuning import spaces

AGENTS = [name.lower() for name in sorted(spaces.SPACES)]


def test_every_agent_has_a_space_with_sources():
    assert {*AGENTS} <= {*pg.run.agents()}
    for agent in pg.run.agents():
        assert {*spaces.sources(agent)} == {*spaces.space(agent)}
        assert all(len(source) > 8 for source in spaces.sources(agent).values())


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.quick("ppo", "reinforce", "hillclimbing", "importancesampling")
def test_a_run_takes_all_that_is_in_its_space(agent):
    run = pg.Run(pg.run.method_of(agent), "CartPole-v1", total_steps=100_000, num_envs=8)
    for path, given in spaces.space(run).items():
        spaces.check_range(path, given)
        changed = [run.changed({path: value}) for value in spaces.edges(given)]
        assert len({str(each.to_dict()) for each in changed}) == len(changed) > 1


@pytest.mark.parametrize("num_envs", [1, 3, 8, 16])
@pytest.mark.parametrize("agent", ["ppo", "ppopenalty", "a2c", "trpo"])
def test_rollouts_can_be_cut_into_all_minibatches(agent, num_envs):
    run = pg.Run(pg.run.method_of(agent), "CartPole-v1", total_steps=20_000, num_envs=num_envs)
    space = spaces.space(run)
    for horizon in space["horizon"]:
        assert 5 * horizon * num_envs <= run.total_steps
        for size in space.get("minibatch_size", []):
            check_minibatch_size(size, horizon, num_envs)


def test_compiled_environments_know_how_many_they_are():
    run = pg.Run(pg.PPO, {"CartPole": {"num_envs": 2}}, total_steps=100_000)
    assert max(spaces.space(run)["minibatch_size"]) == 64


def test_a_space_is_a_copy():
    spaces.space("ppo")["gamma"].append(2.0)
    assert 2.0 not in spaces.space("ppo")["gamma"]


SPACE = {
    "whole": [16, 32],
    "text": ["tanh", "relu"],
    "mixed": [None, 0.99, [64, 64], {"GAE": {"gae_lambda": 0.9}}],
    "flag": [False, True],
    "few": {"min": 2, "max": 9},
    "rate": {"min": 1e-5, "max": 1e-2, "sampling": "log"},
    "tenths": {"min": 0.1, "max": 0.5, "step": 0.1},
    "always": {"min_delta": 0.5},
}


def draw(hp):
    return {path: spaces.draw(hp, path, given) for path, given in SPACE.items()}


def test_values_are_of_the_space_and_the_same_after_kerastuners_messages():
    hp = kt.HyperParameters()
    draw(hp)
    for seed in range(20):
        hp.values = {each.name: each.random_sample(seed + index) for index, each in enumerate(hp.space)}
        values = draw(hp)
        assert all(values[path] in SPACE[path] for path in ("whole", "text", "mixed", "flag"))
        assert values["few"] in range(2, 10) and type(values["few"]) is int
        assert 1e-5 <= values["rate"] <= 1e-2 and values["rate"] == float(f"{values['rate']:.6g}")
        assert values["tenths"] in (0.1, 0.2, 0.3, 0.4, 0.5) and values["always"] == {"min_delta": 0.5}
        # A worker has them with 32 bits.
        assert draw(kt.HyperParameters.from_proto(hp.to_proto())) == values
        assert {path: spaces.plain(value) for path, value in hp.values.items()} == values


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ([], "at least one choice"),
        ({"min": 1}, "numbers as `min` and `max`"),
        ({"min": 1, "max": True}, "numbers as `min` and `max`"),
        ({"min": 2, "max": 1}, "`min` below the `max`"),
        ({"min": 0, "max": 1, "sampling": "log"}, "above 0 with log sampling"),
        ({"min": 1, "max": 2, "sampling": "logg"}, "Did you mean 'log'"),
        ({"min": 1, "max": 2, "step": 0}, "`step` above 0"),
    ],
)
def test_what_is_no_range_is_refused(given, sentence):
    with pytest.raises(ValueError, match=sentence):
        spaces.check_range("gamma", given)


def test_unknown_parts_of_a_range_are_named():
    with pytest.raises(TypeError, match="Did you mean `sampling`"):
        spaces.check_range("gamma", {"min": 1, "max": 2, "samplng": "log"})


def test_methods_of_ones_own_have_those_of_their_base():
    class Mine(pg.PPO):
        pass

    assert spaces.space(Mine) == spaces.space("ppo")
    with pytest.raises(ValueError, match="`space` must be given"):
        spaces.space(type("Mine", (pg.Agent,), {}))
