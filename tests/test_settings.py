"""A setting is written once: what a subclass does with it is saved, and is what programs are traced with."""

import keras
import pytest

import kerasrl_pg as pg
from kerasrl_pg import estimators

TINY = {"networks": pg.Networks((4,)), "seed": 0}


@keras.saving.register_keras_serializable("tests")
class FixesOne(pg.A2C):
    """Fixes an argument of its base."""

    def __init__(self, policy=None, critic=None, **kwargs):
        super().__init__(policy, critic, estimator=estimators.NStep(3), name="fixed", **kwargs)


@keras.saving.register_keras_serializable("tests")
class ForgetsConfig(pg.A2C):
    """Has an argument of its own, and no `get_config`; keeps it under another name."""

    def __init__(self, policy=None, critic=None, *, bonus=0.0, **kwargs):
        super().__init__(policy, critic, **kwargs)
        self._kept = bonus

    def loss(self, samples):
        loss, logs = super().loss(samples)
        return loss, {**logs, "bonus": self._kept + 0.0 * loss}


@keras.saving.register_keras_serializable("tests")
class KeepsIt(ForgetsConfig):
    def __init__(self, policy=None, critic=None, *, bonus=0.0, **kwargs):
        super().__init__(policy, critic, bonus=bonus, **kwargs)
        self.bonus = bonus


def fit(agent, env):
    return agent.fit(env, num_envs=2, epochs=1, steps_per_epoch=1, verbose=0).history


def test_a_subclass_may_fix_an_argument_of_its_base(walk, tmp_path):
    agent = FixesOne(gamma=0.5, **TINY)
    agent.compile(jit_compile=False)
    fit(agent, walk)
    agent.save(tmp_path / "agent.keras")
    again = keras.models.load_model(tmp_path / "agent.keras")
    assert again.estimator == estimators.NStep(3) and again.gamma == 0.5
    one, other = ({k: v for k, v in a.get_config().items() if k not in ("policy", "critic")} for a in (again, agent))
    assert one == other  # Keras notes in networks how they were built.


def test_what_was_set_later_is_saved(walk):
    agent = FixesOne(**TINY)
    agent.estimator, agent.entropy_coef = estimators.TD0(), 0.5
    again = FixesOne.from_config(agent.get_config())
    assert again.estimator == estimators.TD0() and again.entropy_coef == 0.5


@pytest.mark.parametrize("kind", [ForgetsConfig, KeepsIt])
@pytest.mark.quick("ForgetsConfig")
def test_an_argument_without_get_config_is_saved(kind, walk, tmp_path):
    agent = kind(bonus=3.0, **TINY)
    agent.compile(jit_compile=False)
    fit(agent, walk)
    agent.save(tmp_path / "agent.keras")
    again = keras.models.load_model(tmp_path / "agent.keras")
    assert fit(again, walk)["bonus"] == [3.0]


def test_a_setting_under_another_name_is_no_part_of_an_old_program(walk):
    agent = ForgetsConfig(bonus=3.0, **TINY)
    agent.compile(jit_compile=False)
    assert fit(agent, walk)["bonus"] == [3.0]
    program = agent.programs.latest
    assert fit(agent, walk)["bonus"] == [3.0]
    assert agent.programs.latest is program
    agent._kept = 5.0
    assert fit(agent, walk)["bonus"] == [5.0]


def test_a_drawn_seed_is_saved(walk):
    agent = pg.A2C(networks=pg.Networks((4,)))
    again = pg.A2C.from_config(agent.get_config())
    for one in (agent, again):
        one.bind(*(getattr(walk(), f"{name}_space") for name in ("observation", "action")))
    for one, other in zip(agent.get_weights(), again.get_weights(), strict=True):
        assert (one == other).all()


@pytest.mark.parametrize("name, value", [("reward_scaling", True), ("networks", pg.Networks((8,)))])
def test_what_is_built_with_an_agent_cannot_be_set_later(name, value):
    agent = pg.PPO(**TINY)
    with pytest.raises(ValueError, match=f"`{name}` must be given when PPO is made"):
        setattr(agent, name, value)


class SaysIt(pg.REINFORCE):
    loss_is_mean = True
    _seen = 0  # An author's own business.


class SetsIt(SaysIt):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.loss_is_mean = False


def test_what_a_class_says_cannot_be_set_of_an_object():
    """No program would hear of it, and no file."""
    agent = SaysIt(**TINY)
    with pytest.raises(
        AttributeError, match="`loss_is_mean` is said by the class SaysIt, and cannot be set afterwards"
    ):
        agent.loss_is_mean = False
    agent._seen += 1
    assert agent._seen == 1
    own = SetsIt(**TINY)
    own.loss_is_mean = True
    assert own.loss_is_mean


@pytest.mark.parametrize("name", ["horizon", "estimator", "gamma", "reward_scaling", "reward_clip"])
def test_cloning_refuses_what_rewards_and_rollouts_would_need(name):
    with pytest.raises(TypeError, match=f"`{name}` must be left out of BehaviorCloning"):
        pg.BehaviorCloning(**{name: 0.5})
