"""`gradients` is what an update applies, and moves nothing; `train_on` is that update."""

import gymnasium as gym
import keras
import numpy as np
import pytest
import tensorflow as tf
from test_constrained import ACTIONS, rollout

import kerasrl_pg as pg

NETWORKS = pg.Networks((8,))
WHOLE = {"horizon": 16, "minibatch_size": 32, "update_epochs": 1}
AGENTS = {
    "a2c": lambda **kw: pg.A2C(horizon=16, **kw),
    "ppo": lambda **kw: pg.PPO(**WHOLE, entropy_coef=0.1, **kw),
    "ppo_penalty": lambda **kw: pg.PPOPenalty(**WHOLE, entropy_coef=0.1, **kw),
    "reinforce": lambda **kw: pg.REINFORCE(horizon=16, **kw),
}


def bound(name, **kwargs):
    agent = AGENTS[name](networks=NETWORKS, seed=0, **kwargs)
    agent.compile(keras.optimizers.SGD(0.1), jit_compile=False)
    agent.bind(gym.spaces.Box(-np.inf, np.inf, (3,)), ACTIONS)
    return agent


@pytest.mark.parametrize("name", AGENTS)
def test_what_an_update_applies(name):
    agent, data = bound(name), rollout(np.random.default_rng(0))
    before = [np.array(v) for v in agent.variables]
    gradients, logs = agent.gradients(data)
    for variable, value in zip(agent.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    weights = [np.array(v) for v in agent.network_variables]
    assert agent.train_on(data)["loss"] == pytest.approx(float(logs["loss"]), rel=1e-5)
    for variable, old, gradient in zip(agent.network_variables, weights, gradients["networks"], strict=True):
        np.testing.assert_allclose(variable, old - 0.1 * gradient, rtol=1e-5, atol=1e-6)
    assert int(agent.iterations) == 1 and int(agent.env_steps) == 32


def test_reward_scaling_learns_nothing_from_a_look():
    agent, data = bound("a2c", reward_scaling=True), rollout(np.random.default_rng(0))
    first = agent.gradients(data)[0]["networks"]
    again = agent.gradients(data)[0]["networks"]
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    assert float(agent.reward_scaling.count) == 0.0


def test_optimizers_have_their_own():
    agent = AGENTS["a2c"](networks=NETWORKS, seed=0)
    agent.compile(keras.optimizers.SGD(0.1), critic_optimizer=keras.optimizers.SGD(0.2))
    agent.bind(gym.spaces.Box(-np.inf, np.inf, (3,)), ACTIONS)
    gradients, _ = agent.gradients(rollout(np.random.default_rng(0)))
    assert {name: len(each) for name, each in gradients.items()} == {"policy": 4, "critic": 4}


def test_a_conservative_loss_is_minus_what_its_step_ascends():
    agent = pg.NPG(horizon=16, minibatch_size=32, networks=NETWORKS, seed=0)
    agent.compile()
    agent.bind(gym.spaces.Box(-np.inf, np.inf, (3,)), ACTIONS)
    samples = agent.samples(rollout(np.random.default_rng(0)))
    with tf.GradientTape() as tape:
        loss, _ = agent.loss(samples)
    gradient = pg.ops.flatten_parameters(tape.gradient(loss, agent.policy_values()))
    np.testing.assert_allclose(gradient, -agent.gradient(samples)[1], rtol=1e-5, atol=1e-7)


def test_what_does_not_suit_is_refused():
    agent = bound("ppo")
    with pytest.raises(ValueError, match="`minibatch_size` must divide the rollout, horizon x num_envs = 16 x 3"):
        agent.train_on(rollout(np.random.default_rng(0), num_envs=3))
    with pytest.raises(ValueError, match="The agent must be built before `train_on`"):
        other = pg.A2C()
        other.compile()
        other.train_on(rollout(np.random.default_rng(0)))
    rewards = np.full((16, 2), np.nan, "float32")
    with pytest.raises(ValueError, match="must be finite after an update"):
        agent.train_on(rollout(np.random.default_rng(0), rewards=rewards))
    with pytest.raises(NotImplementedError, match="must implement loss"):
        pg.Agent(horizon=4, estimator=pg.estimators.GAE()).loss(None)


def test_each_part_has_the_gradient_of_its_own_loss():
    agent = pg.REINFORCE(horizon=16, baseline=pg.baselines.ValueFunction(1), networks=NETWORKS, seed=0)
    agent.compile(keras.optimizers.SGD(0.1), keras.optimizers.SGD(0.2), jit_compile=False)
    agent.bind(gym.spaces.Box(-np.inf, np.inf, (3,)), ACTIONS)
    data = rollout(np.random.default_rng(0))
    gradients, _ = agent.gradients(data)
    before = {name: [np.array(v) for v in variables] for name, (_, variables) in agent.moves().items()}
    agent.train_on(data)
    for name, (optimizer, variables) in agent.moves().items():
        assert any(np.abs(gradient).max() > 1e-3 for gradient in gradients[name])
        for variable, old, gradient in zip(variables, before[name], gradients[name], strict=True):
            np.testing.assert_allclose(variable, old - float(optimizer.learning_rate) * gradient, rtol=1e-5, atol=1e-6)


class OnlyALoss(pg.A2C):
    """Says nothing of regularizers."""

    def loss(self, samples):
        distribution, value = self.forward(samples.inputs)
        loss = -pg.ops.masked_mean(samples.advantages * distribution.log_prob(samples.actions), samples.valid)
        return loss + pg.ops.masked_mean(self.critic_head.loss(value, samples.returns), samples.valid), {}


@pytest.mark.parametrize("own", [None, keras.optimizers.SGD], ids=["one optimizer", "two"])
def test_what_regularizers_say_is_added_to_the_loss_of_any_method(own):
    """Once, and to what an update logs and applies as to what `gradients` says."""
    found = []
    for strength in (0.0, 10.0):
        keras.utils.set_random_seed(0)
        penalty = keras.regularizers.L2(strength)
        dense = keras.layers.Dense(4, "tanh", kernel_initializer="ones", kernel_regularizer=penalty)
        x = keras.Input((3,))
        policy = keras.Model(x, pg.heads.Categorical(3)(dense(x)))
        critic = keras.Model(x, pg.heads.NormalValue()(keras.layers.Dense(2)(x)))
        agent = OnlyALoss(policy, critic, horizon=16, seed=0)
        agent.compile(keras.optimizers.SGD(0.1), critic_optimizer=own and own(0.1), jit_compile=False)
        agent.bind(gym.spaces.Box(-np.inf, np.inf, (3,)), ACTIONS)
        data = rollout(np.random.default_rng(0))
        gradients, logs = agent.gradients(data)
        kernel = next(v for v in agent.network_variables if v is dense.kernel)
        before = kernel.numpy()
        (which,) = [g for g in tf.nest.flatten(gradients) if g.shape == (3, 4)]
        assert agent.train_on(data)["loss"] == pytest.approx(float(logs["loss"]), rel=1e-5)
        np.testing.assert_allclose(kernel, before - 0.1 * which, rtol=1e-4, atol=1e-5)
        found.append((float(logs["loss"]), which))
    (loss, gradient), (more, larger) = found
    assert more - loss == pytest.approx(10.0 * 12, rel=1e-4)
    np.testing.assert_allclose(larger - gradient, 2 * 10.0 * np.ones((3, 4)), rtol=1e-4)


def test_reward_scaling_learns_once_from_a_rollout():
    class Twice(pg.A2C):
        def train_step(self, rollout):
            self.samples(rollout)
            return super().train_step(rollout)

    data, counts, weights = rollout(np.random.default_rng(0)), [], []
    for kind in (pg.A2C, Twice):
        agent = kind(horizon=16, networks=NETWORKS, seed=0, reward_scaling=True)
        agent.compile(keras.optimizers.SGD(0.1), jit_compile=False)
        agent.bind(gym.spaces.Box(-np.inf, np.inf, (3,)), ACTIONS)
        agent.train_on(data)
        counts.append(float(agent.reward_scaling.count))
        weights.append(agent.get_weights())
        agent.samples(tf.nest.map_structure(tf.convert_to_tensor, data))
        assert float(agent.reward_scaling.count) == counts[-1]  # A look teaches it nothing.
    assert counts[0] == counts[1] == float(np.sum(data.valid))
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("rows, size", [(96, 64), (32, 64)])
def test_passes_lose_no_rows(rows, size):
    agent, data = bound("ppo"), rollout(np.random.default_rng(0), num_envs=rows // 16)
    samples = agent.samples(tf.nest.map_structure(tf.convert_to_tensor, data))
    with pytest.raises(ValueError, match=f"`size` must divide the rows.*Received: size={size}, {rows} rows"):
        agent.passes(samples, 1, size)
