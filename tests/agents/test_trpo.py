"""TRPO: the line search's two promises, kept over hundreds of updates, and bad steps taken back."""

import gymnasium as gym
import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasrl_pg as pg
from kerasrl_pg import ops
from kerasrl_pg.rollouts import Inputs, Rollout

OBSERVATIONS = gym.spaces.Box(-np.inf, np.inf, (3,), np.float32)
BOX = gym.spaces.Box(-1, 1, (2,), np.float32)
SPACES = {
    "categorical": (None, gym.spaces.Discrete(3)),
    "multi_categorical": (None, gym.spaces.MultiDiscrete([2, 3])),
    "bernoulli": (None, gym.spaces.MultiBinary(2)),
    "gaussian": (pg.heads.Gaussian, BOX),
    "tanh_gaussian": (pg.heads.TanhGaussian, BOX),
    "beta": (pg.heads.Beta, BOX),
    "mixture": (pg.heads.GaussianMixture, BOX),
}


def bound(method=pg.TRPO, head="categorical", **kwargs):
    """A small agent that has seen its spaces."""
    kind, actions = SPACES[head]
    settings = {"horizon": 32, "minibatch_size": 32, "update_epochs": 1, "seed": 0}
    agent = method(**{**settings, "networks": pg.Networks((8,), orthogonal=False, head=kind), **kwargs})
    agent.compile(keras.optimizers.SGD(0.01), jit_compile=False)
    agent.bind(OBSERVATIONS, actions)
    return agent


def compiled(agent, xla=False):
    return tf.function(agent.train_step, jit_compile=xla, autograph=False)


def rollout(agent, seed=0, invalid=0.2):
    """One environment's rollout of random states and rewards, with the policy's own actions."""
    rng = np.random.default_rng(seed)
    observations = tf.constant(rng.normal(size=(32, 1, 3)).astype("float32"))
    policy = agent.policy(observations[:, 0])
    actions = agent.head.sample(policy, agent.head.noise([seed, 1], (32,)))
    no = tf.zeros((32, 1), tf.bool)
    rewards = tf.constant(rng.normal(size=(32, 1)).astype("float32"))
    valid = tf.constant(rng.random((32, 1)) >= invalid)
    # Every step an episode of its own, so that advantages are rewards less values.
    return Rollout(
        Inputs(observations),
        actions[:, None],
        policy.log_prob(actions)[:, None],
        rewards,
        ~no,
        no,
        Inputs(observations),
        valid,
    )


def theta(agent):
    return [np.array(w) for w in agent.policy.trainable_weights]


def same(left, right):
    return all(a.tobytes() == b.tobytes() for a, b in zip(left, right, strict=True))


def log_softmax(logits):
    logits = logits.astype("float64")
    return (
        logits
        - np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1, keepdims=True))
        - logits.max(1, keepdims=True)
    )


@pytest.mark.slow
def test_no_accepted_step_breaks_a_promise():
    """400 updates on random data, with steps so long that half of them have to be shortened; judged by NumPy."""
    agent = bound(max_kl=0.5, damping=1e-3, backtracks=2, backtrack_ratio=0.7)
    step = compiled(agent)
    outcomes = {"whole": 0, "shortened": 0, "rejected": 0}
    rng = np.random.default_rng(0)
    for update in range(400):
        if update % 25 == 0:  # Before the policy has become deterministic.
            for weight in agent.policy.trainable_weights:
                weight.assign(rng.normal(size=weight.shape, scale=0.7))
        data = rollout(agent, update)
        states, actions = data.inputs.observations[:, 0], data.actions[:, 0].numpy()
        valid = data.valid[:, 0].numpy()
        advantages = (data.rewards[:, 0] - agent.critic(states).mean()).numpy().astype("float64")[valid]
        advantages = (advantages - advantages.mean()) / advantages.std()
        before, old = theta(agent), log_softmax(agent.policy(states).logits.numpy())[valid]
        logs = step(data)
        new = log_softmax(agent.policy(states).logits.numpy())[valid]
        kl = np.mean(np.sum(np.exp(old) * (old - new), axis=1))
        rows = np.arange(len(advantages)), actions[valid]
        gain = np.mean((np.exp(new[rows] - old[rows]) - 1.0) * advantages)
        assert float(logs["kl"]) == pytest.approx(kl, abs=1e-5)
        assert kl <= 0.5 + 1e-5
        if float(logs["rejected"]):
            assert same(before, theta(agent)) and float(logs["step_fraction"]) == 0.0
            outcomes["rejected"] += 1
        else:
            assert gain > -1e-6 and kl > 0.0
            assert float(logs["policy_loss"]) == pytest.approx(-gain, abs=1e-4)
            outcomes["whole" if float(logs["backtracks"]) == 0 else "shortened"] += 1
    assert min(outcomes.values()) > 20, outcomes


@pytest.mark.parametrize(
    ("head", "xla", "updates"),
    [
        *((head, False, 100 if head == "gaussian" else 5) for head in SPACES),
        pytest.param("beta", True, 5, marks=pytest.mark.slow),
        ("mixture", True, 5),
    ],
)
@pytest.mark.quick("mixture-False-5")
def test_promises_are_kept_with_every_head(head, xla, updates):
    agent = bound(head=head, max_kl=0.05, damping=1e-3)
    step, accepted = compiled(agent, xla), 0
    for seed in range(updates):
        data = rollout(agent, seed)
        old = agent.policy(data.inputs.observations[:, 0])
        logs = step(data)
        kl = ops.masked_mean(old.kl_divergence(agent.policy(data.inputs.observations[:, 0])), data.valid[:, 0])
        assert float(kl) <= 0.05 * (1 + 1e-4)
        assert float(logs["kl"]) == pytest.approx(float(kl), rel=1e-3, abs=1e-6)
        assert float(logs["policy_loss"]) < 1e-6
        accepted += 1 - float(logs["rejected"])
    assert accepted >= 0.8 * updates


@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
@pytest.mark.quick("eager", "graph")
def test_without_line_search_it_is_npg(mode):
    agents = bound(pg.NPG, max_kl=0.1), bound(pg.TRPO, max_kl=0.1, backtracks=None)
    steps = [agent.train_step if mode == "eager" else compiled(agent, mode == "xla") for agent in agents]
    for seed in range(1 if mode == "eager" else 5):
        logs = [step(rollout(agent, seed)) for step, agent in zip(steps, agents, strict=True)]
        assert same(theta(agents[0]), theta(agents[1]))
        assert {name: float(value) for name, value in logs[0].items()} == {k: float(v) for k, v in logs[1].items()}


def test_where_the_whole_step_is_good_it_is_npgs():
    agents = bound(pg.NPG, max_kl=1e-3), bound(pg.TRPO, max_kl=1e-3)
    data = rollout(agents[0])
    logs = [compiled(agent)(data) for agent in agents]
    assert float(logs[1]["step_fraction"]) == 1.0 and float(logs[1]["backtracks"]) == 0.0
    for a, b in zip(*map(theta, agents), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


class Rigged(pg.TRPO):
    """Takes another step than the one computed."""

    def take(self, step, before, batch):
        return super().take(self.rig(step), before, batch)


RIGS = {
    "downhill": (lambda step: -step, 0.01),  # the KL is kept, the surrogate is not improved
    "too_far": (lambda step: 1e4 * step, 0.01),  # uphill, and far beyond the KL
    "nan": (lambda step: float("nan") * step, 0.01),
    "infinite": (lambda step: float("inf") * step, 0.01),
    "overflow": (lambda step: 1e38 * step, 1e30),  # under a bound that would take anything
    "zero": (lambda step: 0.0 * step, 0.01),
}


@pytest.mark.parametrize(
    ("rig", "mode"),
    [
        *((rig, "graph") for rig in RIGS),
        ("downhill", "eager"),
        pytest.param("downhill", "xla", marks=pytest.mark.slow),
        ("nan", "xla"),
    ],
)
@pytest.mark.quick("nan-graph", "downhill-graph")
def test_a_bad_step_is_taken_back_bit_by_bit(rig, mode):
    rig, max_kl = RIGS[rig]
    agent = bound(Rigged, max_kl=max_kl)
    agent.rig = rig
    agent.policy.trainable_weights[-1].assign([-0.0, 0.0, 1e-40])  # as they were: zeros' signs, subnormal numbers
    before = theta(agent)
    step = agent.train_step if mode == "eager" else compiled(agent, mode == "xla")
    logs = step(rollout(agent))
    assert same(before, theta(agent))
    assert float(logs["rejected"]) == 1.0
    assert float(logs["step_fraction"]) == 0.0
    assert float(logs["backtracks"]) == 11.0
    assert float(logs["kl"]) == 0.0


@pytest.mark.parametrize("shortenings", [1, 4])
def test_a_step_too_long_is_shortened_to_what_fits(shortenings):
    """NPG's step just fits where nothing of third order adds to it; one ρ^-n as long needs n shortenings."""
    settings = {"networks": pg.Networks(()), "max_kl": 1e-3, "damping": 1e-6, "cg_iterations": 50}
    agent = bound(Rigged, backtrack_ratio=0.5, **settings)
    agent.rig = lambda step: 0.9 * 2.0**shortenings * step
    logs = compiled(agent)(rollout(agent))
    assert float(logs["backtracks"]) == shortenings
    assert float(logs["step_fraction"]) == 0.5**shortenings
    assert 3e-4 < float(logs["kl"]) <= 1e-3


def test_divergence_is_judged_where_the_weights_constraints_leave_them():
    """The step asks for a log σ beyond its bound; the one judged and kept is that at the bound."""
    agent = bound(Rigged, "gaussian", max_kl=2.0)
    step = [tf.fill(v.shape, 0.5 if v is agent.head.log_std else 0.0) for v in agent.policy.trainable_variables]
    agent.rig = lambda _: ops.flatten_parameters(step)
    agent.head.log_std.assign([1.9, 1.9])
    data = rollout(agent)
    rigged = data._replace(rewards=tf.norm(data.actions, axis=-1))  # wide samples are the good ones
    old = agent.policy(data.inputs.observations[:, 0])
    logs = compiled(agent)(rigged)
    assert float(logs["rejected"]) == 0.0
    np.testing.assert_array_equal(agent.head.log_std, [2.0, 2.0])
    kl = ops.masked_mean(old.kl_divergence(agent.policy(data.inputs.observations[:, 0])), data.valid[:, 0])
    assert float(logs["kl"]) == pytest.approx(float(kl), rel=1e-3)


def test_improvement_counts_the_entropy_bonus():
    """With a bonus that outweighs everything, what is accepted has more entropy."""
    agent = bound(entropy_coef=100.0, max_kl=0.05)
    step = compiled(agent)
    for seed in range(5):
        data = rollout(agent, seed)
        before = ops.masked_mean(agent.policy(data.inputs.observations[:, 0]).entropy(), data.valid[:, 0])
        logs = step(data)
        assert float(logs["rejected"]) or float(logs["entropy"]) > float(before)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"backtracks": -1}, "`backtracks` must be a whole number .*Received: backtracks=-1"),
        ({"backtrack_ratio": 0.0}, "`backtrack_ratio` must be a number .*Received: backtrack_ratio=0.0"),
        ({"backtrack_ratio": 1.0}, "`backtrack_ratio` must be below 1"),
        ({"max_kl": -1e-3}, "`max_kl` must be a number .*Received: max_kl=-0.001"),
        ({"max_kl": None}, "`max_kl` must be a number .*Received: max_kl=None"),
    ],
)
def test_refused_at_construction_by_name(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        pg.TRPO(**settings)


MODELS = {
    "recurrent": (keras.layers.GRU(4), (5, 2)),
    "convolutional": (
        keras.Sequential([keras.layers.Conv2D(2, 2, activation="relu"), keras.layers.Flatten()]),
        (4, 4, 1),
    ),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.quick("convolutional")
def test_any_keras_model(name, bandit):
    """A subclassed policy around a recurrent or a convolutional layer, in a whole fit."""
    layer, shape = MODELS[name]

    class Policy(keras.Model):
        def __init__(self):
            super().__init__()
            self.layer, self.head = layer, pg.heads.Categorical(3)

        def call(self, x):
            return self.head(self.layer(tf.cast(x, tf.float32)))

    inputs = keras.Input(shape)
    critic = keras.Model(inputs, pg.heads.NormalValue()(keras.layers.Flatten()(inputs)))
    env = bandit(gym.spaces.Discrete(3))

    def make():
        return gym.wrappers.TransformObservation(
            env(),
            lambda x: np.resize(x, shape).astype("float32"),
            gym.spaces.Box(-1, 1, shape, np.float32),
        )

    agent = pg.TRPO(Policy(), critic, horizon=2, minibatch_size=16, max_kl=0.05, seed=0)
    agent.compile(jit_compile=False)
    agent.fit(make, epochs=1, steps_per_epoch=40, num_envs=16, verbose=0)
    assert agent.evaluate(make, episodes=4)["return"] == 1.0
