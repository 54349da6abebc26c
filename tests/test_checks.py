"""Settings: checked whenever they are set, and together."""

import gymnasium as gym
import keras
import pytest

import kerasrl_pg as pg
from kerasrl_pg.checks import check_number
from kerasrl_pg.settings import Setting, settings

METHODS = (pg.A2C, pg.ConstrainedGradient, pg.NPG, pg.PPO, pg.PPOPenalty, pg.REINFORCE, pg.TRPO)


@pytest.mark.parametrize(
    ("method", "name", "value", "sentence"),
    [
        (pg.PPO, "clip_ratio", -1.0, r"`clip_ratio` must be a number in \(0.0, inf\). Received: clip_ratio=-1.0"),
        (pg.A2C, "gamma", 7.0, r"`gamma` must be a number in \[0.0, 1.0\]"),
        (pg.A2C, "estimator", "gae", "`estimator` must be one of kerasrl_pg.estimators"),
        (pg.PPO, "horizon", None, "`horizon` must be a whole number"),
        (pg.PPO, "minibatch_size", 1, "`normalize_advantages` must be False where there is one advantage at a time"),
        (pg.PPO, "anneal_learning_rate", "yes", "`anneal_learning_rate` must be True, False or a"),
        (pg.PPOPenalty, "initial_penalty", 2.0, "`initial_penalty` must be given when PPOPenalty is made"),
        (pg.TRPO, "backtrack_ratio", 1.0, "`backtrack_ratio` must be below 1"),
        (pg.NPG, "fisher_fraction", 0.0, "`fisher_fraction`"),
        (pg.REINFORCE, "estimator", pg.estimators.GAE(0.9), r"`estimator` must be RewardToGo\(\) or WholeReturn\(\)"),
        (pg.REINFORCE, "baseline", "average", "`baseline` must be None or one of"),
        (pg.A2C, "seed", -1, "`seed` must be a whole number"),
    ],
)
def test_what_the_constructor_refuses_is_refused_later_and_the_former_value_stays(method, name, value, sentence):
    agent = method(seed=0)
    before = getattr(agent, name)
    with pytest.raises((ValueError, TypeError), match=sentence):
        setattr(agent, name, value)
    assert getattr(agent, name) == before
    if name != "initial_penalty":
        with pytest.raises((ValueError, TypeError), match=sentence):
            method(**{name: value})


def test_settings_that_contradict_each_other_are_refused_later_too():
    agent = pg.NPG(damping=0.0, seed=0)
    with pytest.raises(ValueError, match="`damping` must be positive"):
        agent.fisher_fraction = 0.5
    assert agent.fisher_fraction == 1.0
    agent.damping = 0.1
    agent.fisher_fraction = 0.5
    assert agent.get_config()["fisher_fraction"] == 0.5


def test_settings_that_contradict_the_networks_are_refused_at_every_fit(walk):
    """Not at the first alone, as when the agent is taken for built because it was nearly."""
    networks = pg.Networks((4,), critic_head=pg.heads.HistogramValue(0.0, 1.0))
    agent = pg.PPO(value_clip=0.2, networks=networks, horizon=8, minibatch_size=8, seed=0)
    agent.compile(jit_compile=False)
    for _ in range(2):
        with pytest.raises(ValueError, match="`value_clip` must be None with a critic that is no NormalValue"):
            agent.fit(walk, epochs=1, steps_per_epoch=1, verbose=0)
    agent.value_clip = None
    agent.fit(walk, epochs=1, steps_per_epoch=1, verbose=0)
    with pytest.raises(ValueError, match="`value_clip` must be None"):
        agent.value_clip = 0.2


def test_a_baseline_cannot_bring_a_critic_later(walk):
    agent = pg.REINFORCE(networks=pg.Networks((4,)), seed=0)
    agent.bind(gym.spaces.Discrete(5), gym.spaces.Discrete(2))
    with pytest.raises(ValueError, match=r"`baseline` must not be ValueFunction\(\) of an agent that was built"):
        agent.baseline = pg.baselines.ValueFunction()
    agent.baseline = pg.baselines.AverageReturn()


@pytest.mark.parametrize(
    ("method", "wrong", "right"),
    [(pg.A2C, "entropy_coeff", "entropy_coef"), (pg.PPO, "clip_rato", "clip_ratio"), (pg.TRPO, "max_k1", "max_kl")],
)
def test_a_misspelt_setting_is_no_new_attribute(method, wrong, right):
    agent = method(seed=0)
    with pytest.raises(AttributeError, match=f"`{method.__name__}` has no setting `{wrong}`. Did you mean `{right}`"):
        setattr(agent, wrong, 0.5)
    agent.note = "an attribute of the user's own"
    assert agent.note == "an attribute of the user's own"


@pytest.mark.parametrize("name", ["policy", "critic"])
def test_networks_are_not_exchanged_behind_heads_and_optimizers(name):
    agent = pg.A2C(networks=pg.Networks((4,)), seed=0)
    agent.bind(gym.spaces.Discrete(5), gym.spaces.Discrete(2))
    with pytest.raises(ValueError, match=f"`{name}` must be given when A2C is made"):
        setattr(agent, name, keras.models.clone_model(getattr(agent, name)))


@pytest.mark.parametrize("method", METHODS)
def test_every_setting_is_saved(method):
    agent = method(seed=5)
    config = agent.get_config()
    assert set(settings(method)) <= set(config)
    assert type(agent).from_config(config).get_config() == config
    agent.gamma = 0.5
    assert type(agent).from_config(agent.get_config()).gamma == 0.5


def test_a_setting_of_a_method_s_own_is_checked_and_saved():
    @keras.saving.register_keras_serializable("tests")
    class Own(pg.A2C):
        temperature = Setting(check_number, 0.0, exclusive=True)

        def __init__(self, policy=None, critic=None, *, temperature=1.0, **kwargs):
            super().__init__(policy, critic, **kwargs)
            self.temperature = temperature

    agent = Own(temperature=2.0, seed=0)
    assert Own.from_config(agent.get_config()).temperature == 2.0
    with pytest.raises(ValueError, match="`temperature` must be a number"):
        agent.temperature = 0.0


def test_an_optimizer_of_another_agent_is_refused():
    optimizer = keras.optimizers.Adam(1e-3)
    agents = [pg.A2C(networks=pg.Networks((4,)), seed=0) for _ in range(2)]
    for agent in agents:
        agent.bind(gym.spaces.Discrete(5), gym.spaces.Discrete(2))
    agents[0].compile(optimizer)
    agents[0].compile(optimizer)
    with pytest.raises(ValueError, match="`optimizer` must be a fresh one"):
        agents[1].compile(optimizer)
