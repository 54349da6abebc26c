"""One battery over every agent: configuration, saving, compilers, learning, reproducibility."""

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import gymnasium as gym
import keras
import numpy as np
import pytest
import tensorflow as tf
from test_constrained import ACTIONS, rollout

import kerasrl_pg as pg

TINY = {"networks": pg.Networks(hidden_units=(8,), normalize_observations=True), "seed": 3, "gamma": 0.9}
MAKERS = {
    "a2c": lambda **kw: pg.A2C(**{"horizon": 8, **TINY, **kw}),
    "ppo": lambda **kw: pg.PPO(**{"horizon": 8, "minibatch_size": 16, "update_epochs": 2, **TINY, **kw}),
    "constrained": lambda **kw: pg.ConstrainedGradient(**{"horizon": 8, "minibatch_size": 8, **TINY, **kw}),
    "npg": lambda **kw: pg.NPG(**{"horizon": 8, "minibatch_size": 8, **TINY, **kw}),
    "ppo_penalty": lambda **kw: pg.PPOPenalty(**{"horizon": 8, "minibatch_size": 8, "update_epochs": 2, **TINY, **kw}),
    "trpo": lambda **kw: pg.TRPO(**{"horizon": 8, "minibatch_size": 8, **TINY, **kw}),
    "reinforce": lambda **kw: pg.REINFORCE(**{"horizon": 24, "episodes": 2, **TINY, **kw}),
    "reinforce_value": lambda **kw: pg.REINFORCE(
        **{"horizon": 24, "episodes": 2, "baseline": pg.baselines.ValueFunction(3), **TINY, **kw}
    ),
}
SPACES = {
    "discrete": gym.spaces.Discrete(3, start=1),
    "multi_discrete": gym.spaces.MultiDiscrete([2, 3]),
    "multi_binary": gym.spaces.MultiBinary(2),
    "box": gym.spaces.Box(-2.0, 2.0, (1,), np.float32),
}

slow = pytest.mark.slow
every_agent = pytest.mark.parametrize("name", MAKERS)


def some_agents(*names):
    """These; `make slow` runs the others, too."""
    others = (name for name in MAKERS if name not in names)
    return pytest.mark.parametrize("name", [*names, *(pytest.param(name, marks=slow) for name in others)])


one_of_each_family = some_agents("a2c", "ppo", "reinforce_value", "trpo")


def fitted(make, env, iterations=2, compile_kwargs=None, **kwargs):
    agent = make(**kwargs)
    # XLA compiles for seconds what these tests run for milliseconds; one test compares the compilers.
    agent.compile(keras.optimizers.Adam(1e-2), **{"jit_compile": False, **(compile_kwargs or {})})
    agent.fit(env, epochs=1, steps_per_epoch=iterations, num_envs=4, verbose=0)
    return agent


def weights(agent):
    return [np.array(w) for w in agent.get_weights()]


def same(left, right):
    return all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


@pytest.fixture(scope="module", params=MAKERS)
def trained(request, tmp_path_factory, walk):
    """Each agent after two iterations on the walk, the file it was saved in then, and what it is after two more."""
    name, file = request.param, tmp_path_factory.mktemp("trained") / "agent.keras"
    agent = fitted(MAKERS[name], walk)
    agent.save(file)
    optimizer = [v.numpy().tolist() for v in agent.optimizer.variables]
    then = weights(agent), optimizer, agent(np.arange(5)).logits.numpy(), int(agent.env_steps.numpy())
    history = agent.fit(walk, epochs=2, steps_per_epoch=1, num_envs=4, verbose=0).history
    return Trained(name, agent, file, *then, weights(agent), history)


class Trained(NamedTuple):
    name: str
    agent: pg.Agent
    file: Path
    weights: list
    optimizer: list
    logits: np.ndarray
    env_steps: int
    after: list
    history: dict


def test_config_round_trip(trained):
    agent = trained.agent
    config = agent.get_config()
    twin = type(agent).from_config(config)
    assert twin.get_config() == config
    assert [w.shape for w in twin.weights] == [w.shape for w in agent.weights]


@every_agent
@pytest.mark.parametrize(
    ("unknown", "hint"),
    [
        ("horizn", "Did you mean `horizon`"),
        ("learning_rate", "Keras optimizer given to `compile`"),
        ("clip", "Its arg"),
    ],
)
def test_an_unknown_argument_is_named(name, unknown, hint):
    with pytest.raises(TypeError, match=f"has no argument `{unknown}`. .*{hint}.*reward_clip, "):
        MAKERS[name](**{unknown: 1})


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *(pytest.param(n, "float32", marks=slow if n in ("constrained", "npg", "reinforce") else ()) for n in MAKERS),
        ("trpo", "float64"),
    ],
)
@pytest.mark.quick("a2c-float32", "reinforce_value-float32")
def test_regularizers_of_the_weights_are_part_of_the_loss(name, dtype, bandit):
    """So strong ones pull the weights to 0 that would hardly move."""
    norms = {}
    for strength in (0.0, 10.0):
        inputs = keras.Input((2,))
        models = []
        for head in (pg.heads.Categorical(3, start=1), pg.heads.NormalValue()):
            regularizer = keras.regularizers.L2(strength)
            start = keras.initializers.GlorotUniform(seed=0)
            hidden = keras.layers.Dense(
                8, "tanh", kernel_initializer=start, kernel_regularizer=regularizer, dtype=dtype
            )
            models.append(keras.Model(inputs, head(hidden(inputs))))
        critic = models[1] if MAKERS[name]().needs_critic else None
        agent = MAKERS[name](policy=models[0], critic=critic, networks=None)
        agent.compile(keras.optimizers.SGD(0.02), jit_compile=False)
        agent.fit(bandit(SPACES["discrete"]), epochs=1, steps_per_epoch=5, num_envs=4, verbose=0)
        for kind, model in zip(("policy", "critic"), models, strict=True):
            norms[kind, strength] = float(np.linalg.norm(model.layers[1].kernel))
    assert norms["policy", 10.0] < 0.9 * norms["policy", 0.0]
    assert critic is None or norms["critic", 10.0] < 0.9 * norms["critic", 0.0]


@pytest.mark.parametrize(
    ("name", "policy"),
    [
        ("a2c", "mixed_bfloat16"),
        ("ppo_penalty", "float64"),
        ("ppo_penalty", "mixed_float16"),
        ("trpo", "mixed_float16"),
    ],
)
@pytest.mark.quick("a2c-mixed_bfloat16")
def test_precisions_learn_alike(name, policy, walk, tmp_path):
    """As far as float32 moves the weights, which loss scaling must not change; and all of it can be saved."""
    moved, before = {}, keras.config.dtype_policy()
    try:
        for each in ("float32", policy):
            keras.config.set_dtype_policy(each)
            agent = MAKERS[name](reward_scaling=True)
            agent.compile(keras.optimizers.SGD(1e-2, global_clipnorm=10.0), jit_compile=False)
            agent.bind(gym.spaces.Discrete(5), gym.spaces.Discrete(2))
            start = weights(agent.critic)
            agent.fit(walk, epochs=1, steps_per_epoch=2, num_envs=4, verbose=0)
            moved[each] = sum(np.abs(a - b).sum() for a, b in zip(weights(agent.critic), start, strict=True))
        agent.save(tmp_path / "agent.keras")
        assert same(weights(keras.models.load_model(tmp_path / "agent.keras")), weights(agent))
    finally:
        keras.config.set_dtype_policy(before)
    assert 0.3 * moved["float32"] < moved[policy] < 3.0 * moved["float32"]


def test_saved_agent_acts_the_same_and_comes_back_compiled(trained):
    loaded = keras.models.load_model(trained.file)
    assert np.array_equal(trained.logits, loaded(np.arange(5)).logits)
    assert same(trained.weights, weights(loaded))
    assert int(loaded.env_steps.numpy()) == trained.env_steps > 0
    assert [v.numpy().tolist() for v in loaded.optimizer.variables] == trained.optimizer


@pytest.mark.quick("ppo", "npg")
def test_training_goes_on_bit_for_bit_after_loading(trained, walk):
    loaded = keras.models.load_model(trained.file)
    loaded.fit(walk, epochs=2, steps_per_epoch=1, num_envs=4, verbose=0)
    assert same(trained.after, weights(loaded))
    assert not same(trained.after, trained.weights)


@pytest.mark.quick("ppo")
def test_one_seed_gives_identical_weights_and_another_does_not(trained, walk):
    assert same(trained.weights, weights(fitted(MAKERS[trained.name], walk)))
    if trained.name in ("ppo", "trpo", "reinforce"):  # one of each family
        assert not same(trained.weights, weights(fitted(MAKERS[trained.name], walk, seed=4)))


@one_of_each_family
@pytest.mark.quick("ppo")
def test_eager_graph_and_xla_agree(name, walk):
    xla = fitted(MAKERS[name], walk, 1, {"jit_compile": True})
    graph = fitted(MAKERS[name], walk, 1, {"jit_compile": False})
    eager = fitted(MAKERS[name], walk, 1, {"run_eagerly": True})
    for other in (graph, eager):
        for a, b in zip(weights(xla), weights(other), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_one_trace_over_fits_and_budgets(trained, walk):
    program = trained.agent.programs.latest
    trained.agent.fit(walk, total_steps=400, epochs=2, num_envs=4, verbose=0)
    assert trained.agent.programs.latest is program and program.experimental_get_tracing_count() == 1


# Every agent in a box, PPO on all spaces, the other two families on choices too; `make slow` has every agent on both,
# and one of each family on all. What heads have to do with agents is in the agents' own tests.
@pytest.mark.parametrize(
    ("name", "space"),
    [
        pytest.param(n, s, marks=() if n == "ppo" or s == "box" or (n in ("a2c", "trpo") and s == "discrete") else slow)
        for n in MAKERS
        for s in SPACES
        if n in ("a2c", "ppo", "trpo") or s in ("discrete", "box")
    ],
)
@pytest.mark.quick("reinforce_value-box", "ppo-multi_binary")
def test_learns_a_bandit_on_every_action_space(name, space, bandit):
    env = bandit(SPACES[space])
    kwargs = {"horizon": 2, "episodes": 2} if name.startswith("reinforce") else {"horizon": 2, "entropy_coef": 0.0}
    whole = {} if name.startswith(("a2c", "reinforce")) else {"minibatch_size": 64}
    agent = MAKERS[name](**kwargs, **whole)
    agent.compile(keras.optimizers.Adam(0.03), jit_compile=(name, space) == ("ppo", "discrete"))
    agent.fit(env, epochs=1, steps_per_epoch=80, num_envs=32, verbose=0)
    assert agent.evaluate(env, episodes=4)["return"] > 0.8


def test_logs_are_finite_and_documented(trained):
    history = trained.history
    assert {
        "loss",
        "policy_loss",
        "entropy",
        "episode_return",
        "episode_length",
        "env_steps",
        "steps_per_second",
    } <= set(history)
    assert all(np.isfinite(values).all() and len(values) == 2 for values in history.values())
    for key in set(history) - {"episode_return", "episode_length", "env_steps", "steps_per_second"}:
        assert f"`{key}`" in type(trained.agent).__doc__, f"{key} is logged but not documented"


@pytest.mark.parametrize("name", ["a2c", "ppo", "reinforce_value"])
@pytest.mark.quick("ppo")
def test_value_of_reward_one_for_ever_is_one_over_one_minus_gamma(name, forever):
    horizon = {"horizon": 20} if name == "reinforce_value" else {"horizon": 10}
    critic = {"baseline": pg.baselines.ValueFunction(20)} if name == "reinforce_value" else {"value_coef": 1.0}
    passes = {"update_epochs": 8, "minibatch_size": 40} if name == "ppo" else {}
    agent = MAKERS[name](networks=pg.Networks(hidden_units=()), gamma=0.8, **horizon, **critic, **passes)
    agent.compile(keras.optimizers.Adam(0.1), jit_compile=False)
    agent.fit(forever, epochs=1, steps_per_epoch=150, num_envs=4, verbose=0)
    value = float(agent.critic(np.ones((1, 1), np.float32)).mean()[0])
    assert value == pytest.approx(5.0, abs=0.05)


@pytest.mark.slow
def test_a_new_process_continues_bit_for_bit(tmp_path):
    """The whole claim once, through another interpreter: save, load there, train on, compare."""
    agent = pg.PPO(
        horizon=16, minibatch_size=32, update_epochs=2, seed=1, reward_scaling=True, anneal_learning_rate=True
    )
    agent.compile()
    agent.fit("CartPole-v1", epochs=4, steps_per_epoch=1, num_envs=2, verbose=0, callbacks=[StopAfter(2)])
    agent.save(tmp_path / "agent.keras")
    program = (
        "import sys, keras, numpy as np, kerasrl_pg\n"
        "agent = keras.models.load_model(sys.argv[1])\n"
        "agent.fit('CartPole-v1', epochs=4, initial_epoch=2, steps_per_epoch=1, num_envs=2, verbose=0)\n"
        "np.savez(sys.argv[2], *[np.array(w) for w in agent.get_weights()])\n"
    )
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "agent.keras"), str(tmp_path / "weights.npz")], check=True
    )
    agent.fit("CartPole-v1", epochs=4, initial_epoch=2, steps_per_epoch=1, num_envs=2, verbose=0)
    with np.load(tmp_path / "weights.npz") as file:
        assert same(weights(agent), list(file.values()))


class StopAfter(keras.callbacks.Callback):
    def __init__(self, epochs):
        super().__init__()
        self.epochs = epochs

    def on_epoch_end(self, epoch, logs=None):
        if epoch + 1 == self.epochs:
            self.model.stop_training = True


def test_autoreset_modes_train_to_identical_weights(walk):
    agents = []
    for mode in (None, "NextStep", "SameStep", "Disabled"):
        agents.append(MAKERS["a2c"]())
        agents[-1].compile(run_eagerly=True)
        envs = walk if mode is None else gym.vector.SyncVectorEnv([walk] * 4, autoreset_mode=mode)
        agents[-1].fit(envs, num_envs=4, epochs=1, steps_per_epoch=3, verbose=0, seed=5)
        assert same(weights(agents[-1]), weights(agents[0])), mode


@pytest.mark.quick("a2c", "trpo")
def test_every_kind_of_env(trained, walk):
    agent, single, vector = trained.agent, walk(), gym.vector.SyncVectorEnv([walk] * 4)
    if trained.name != "ppo":  # One environment does not fill a minibatch of 16.
        agent.fit(single, epochs=1, steps_per_epoch=1, verbose=0)
    agent.fit(vector, epochs=1, steps_per_epoch=1, verbose=0)
    assert tf.math.is_finite(agent.evaluate(vector, episodes=5, deterministic=False)["return"])


def test_envpool():
    envpool = pytest.importorskip("envpool")
    envs = envpool.make("CartPole-v1", env_type="gymnasium", num_envs=4, seed=1)
    agent = MAKERS["ppo"](horizon=32)
    agent.compile(jit_compile=False)
    history = agent.fit(envs, epochs=1, steps_per_epoch=3, verbose=0).history
    # The rows in which EnvPool resets itself are no steps.
    assert 0 < history["env_steps"][0] < 3 * 32 * 4
    assert history["episode_return"][0] == history["episode_length"][0]


class Explosive(gym.Env):
    """One step an episode; its reward is as large as float32 knows from the `at`-th episode on."""

    observation_space = gym.spaces.Discrete(5)
    action_space = gym.spaces.Discrete(2)
    episodes = 0

    def __init__(self, at):
        self.at = at

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episodes += 1
        return 0, {}

    def step(self, action):
        return 0, 3e38 if self.episodes >= self.at else 1.0, True, False, {}


def everything(agent):
    return [v.numpy() for v in agent._iteration(4).variables]


class Snapshots(keras.callbacks.Callback):
    """Everything that an iteration may change, after each."""

    def on_train_begin(self, logs=None):
        self.taken = []

    def on_train_batch_end(self, batch, logs=None):
        self.taken.append(everything(self.model))


@pytest.mark.parametrize(
    ("name", "mode"),
    [*((name, {}) for name in MAKERS), ("ppo", {"jit_compile": True}), ("ppo", {"run_eagerly": True})],
)
@pytest.mark.quick("ppo-mode8", "trpo-mode5")
def test_an_update_that_is_not_finite_is_undone_and_named(name, mode):
    """Weights, optimizers, statistics, counters and random state: all as after the last finished update."""
    agent = MAKERS[name](horizon=8)
    agent.compile(keras.optimizers.Adam(1e-2), **{"jit_compile": False, **mode})
    snapshots = Snapshots()
    at = 6 if name.startswith("reinforce") else 20  # In the third iteration.
    with pytest.raises(ValueError, match=r"loss` must be finite after an update. .*largest \|reward\| is 3e\+38"):
        agent.fit(lambda: Explosive(at), epochs=3, steps_per_epoch=2, num_envs=4, callbacks=[snapshots], verbose=0)
    assert len(snapshots.taken) == int(agent.iterations) == 2
    assert same(everything(agent), snapshots.taken[-1])
    assert all(np.isfinite(value).all() for value in everything(agent))


def test_weights_that_were_not_finite_before_are_told_apart(walk):
    agent = fitted(MAKERS["a2c"], walk)
    agent.critic_head.dense.kernel.assign(np.full((8, 1), np.nan))
    with pytest.raises(ValueError, match="kernel` of the critic must be finite. .*a weight that was NaN .* before"):
        agent.fit(walk, epochs=1, steps_per_epoch=1, num_envs=4, verbose=0)


@pytest.mark.parametrize(
    ("method", "settings", "num_envs"),
    [
        (pg.PPO, {"horizon": 1, "minibatch_size": 1, "normalize_advantages": "batch"}, 1),
        (pg.A2C, {"horizon": 1, "normalize_advantages": True}, 1),
        (pg.TRPO, {"horizon": 1, "minibatch_size": 1}, 1),
        (pg.PPOPenalty, {"horizon": 1, "minibatch_size": 1}, 1),
    ],
)
@pytest.mark.quick("PPO-settings0-1")
def test_a_lone_advantage_is_not_standardised(method, settings, num_envs, walk):
    """It would be 0, and nothing learned without a word."""
    agent = method(**settings, networks=pg.Networks((4,)), seed=0)
    agent.compile(jit_compile=False)
    with pytest.raises(ValueError, match="`normalize_advantages` must be False where there is one advantage at a time"):
        agent.fit(walk, epochs=1, steps_per_epoch=1, num_envs=num_envs, verbose=0)
    agent.normalize_advantages = False
    before = weights(agent)
    agent.fit(walk, epochs=1, steps_per_epoch=1, num_envs=num_envs, verbose=0)
    assert not same(before, weights(agent)[: len(before)])


@pytest.mark.parametrize("name", [name for name in MAKERS if name not in ("constrained", "npg", "trpo")])
def test_the_critics_error_alone_is_not_scaled_to_one(name):
    """Advantages of 1e-6 of the returns are noise; the others' steps are of one length whatever their scale."""
    agent = MAKERS[name](normalize_advantages="batch" if name == "ppo" else True)
    data = rollout(np.random.default_rng(0))
    agent.bind(gym.spaces.Box(-np.inf, np.inf, (3,)), ACTIONS)
    ones = tf.ones_like(data.rewards)
    agent.estimate = lambda data: (1e-6 * data.rewards, ones, ones)
    assert 0.0 < np.std(agent.credit(data)[0]) < 0.01
