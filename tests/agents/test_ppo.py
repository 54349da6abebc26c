"""PPO: the ratio's self-test, the switches, and what it has in common with A2C."""

import gymnasium as gym
import keras
import numpy as np
import pytest
import tensorflow as tf
from test_constrained import ACTIONS, rollout

import kerasrl_pg as pg
from kerasrl_pg import ops

SPACE = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
HEADS = {
    "categorical": (None, gym.spaces.Discrete(3)),
    "multi_categorical": (None, gym.spaces.MultiDiscrete([2, 3])),
    "bernoulli": (None, gym.spaces.MultiBinary(2)),
    "gaussian": (pg.heads.Gaussian, SPACE),
    "gaussian_state_std": (lambda: pg.heads.Gaussian((2,), -1, 1, state_dependent_std=True), SPACE),
    "tanh_gaussian": (pg.heads.TanhGaussian, SPACE),
    "beta": (pg.heads.Beta, SPACE),
    "mixture": (pg.heads.GaussianMixture, SPACE),
}


def ppo(**kwargs):
    settings = {"horizon": 16, "minibatch_size": 16, "update_epochs": 2, "networks": pg.Networks((8,)), "seed": 0}
    return pg.PPO(**{**settings, **kwargs})


XLA, GRAPH, EAGER = {"jit_compile": True}, {"jit_compile": False}, {"run_eagerly": True}


@pytest.mark.parametrize(
    ("head", "mode"),
    [
        *((head, GRAPH) for head in HEADS),
        pytest.param("gaussian_state_std", XLA, marks=pytest.mark.slow),
        ("categorical", XLA),
        ("gaussian", EAGER),
    ],
)
@pytest.mark.quick("gaussian-mode3")
def test_ratio_is_one_while_the_weights_are_the_old_ones(head, mode, bandit):
    """At learning rate 0 every minibatch is a first one: (r - 1) - log r is 0, and nothing is clipped.

    Up to rounding, log r of some 1e-6, since XLA may fuse the two runs differently.
    """
    kind, space = HEADS[head]
    networks = pg.Networks(
        (32, 32), normalize_observations=True, head=kind if isinstance(kind, type) or kind is None else kind()
    )
    agent = ppo(networks=networks)
    agent.compile(keras.optimizers.SGD(0.0), **mode)
    history = agent.fit(bandit(space), epochs=1, steps_per_epoch=2, num_envs=4, verbose=0).history
    assert history["kl"] == [pytest.approx(0.0, abs=1e-11)]
    assert history["clip_fraction"] == [0.0]


def test_recorded_log_probs_are_those_of_the_policy(walk):
    """Independently of the update's own arithmetic: what the actor recorded is what the policy says."""
    recorded = []

    class Watching(pg.PPO):
        def train_step(self, rollout):
            flat = pg.ops.flatten_time(rollout.inputs.observations), pg.ops.flatten_time(rollout.actions)
            recorded.append((pg.ops.flatten_time(rollout.log_probs), self.policy(flat[0]).log_prob(flat[1])))
            return super().train_step(rollout)

    agent = Watching(horizon=8, minibatch_size=16, update_epochs=3, seed=0)
    agent.compile(keras.optimizers.Adam(1e-2), run_eagerly=True)
    agent.fit(walk, epochs=1, steps_per_epoch=3, num_envs=4, verbose=0)
    assert len(recorded) == 3
    for actor, policy in recorded:
        np.testing.assert_allclose(actor, policy, atol=1e-5)


def test_gradient_at_ratio_one_is_a2cs(walk):
    """One pass over one minibatch, advantages as they are: PPO's step is A2C's."""
    shared = {
        "horizon": 8,
        "networks": pg.Networks((8,)),
        "seed": 1,
        "entropy_coef": 0.01,
        "estimator": pg.estimators.GAE(0.9),
    }
    agents = pg.A2C(**shared), pg.PPO(minibatch_size=32, update_epochs=1, normalize_advantages=False, **shared)
    for agent in agents:
        agent.compile(keras.optimizers.SGD(0.1), jit_compile=False)
        agent.fit(walk, epochs=1, steps_per_epoch=1, num_envs=4, seed=0, verbose=0)
    for a, b in zip(agents[0].network_variables, agents[1].network_variables, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_passes_end_early_on_the_kl_divergence(walk):
    def updates(target_kl, rate):
        agent = ppo(update_epochs=5, target_kl=target_kl)
        agent.compile(keras.optimizers.SGD(rate), jit_compile=False)
        return agent.fit(walk, epochs=1, steps_per_epoch=1, num_envs=4, verbose=0).history["updates"][0]

    assert updates(None, 0.5) == 20.0
    assert updates(0.01, 0.0) == 20.0
    # The first minibatch sees the old policy; the second shows how far the first step went.
    assert updates(1e-6, 5.0) == 2.0


def test_value_clipping_holds_the_critic_back(walk):
    def moved(value_clip):
        agent = ppo(value_clip=value_clip, value_coef=1.0, update_epochs=30)
        agent.compile(keras.optimizers.Adam(0.05), jit_compile=False)
        agent.bind(gym.spaces.Discrete(5), gym.spaces.Discrete(2))
        before = agent.critic(np.arange(5)).mean().numpy()
        agent.fit(walk, epochs=1, steps_per_epoch=1, num_envs=4, verbose=0)
        return np.abs(agent.critic(np.arange(5)).mean().numpy() - before)[1:4].mean()

    assert moved(1e-4) < 0.5 * moved(None)


def test_learning_rate_anneals_to_zero_and_survives_saving(walk, tmp_path):
    rates = []
    watch = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: rates.clear(),
        on_train_batch_end=lambda batch, logs: rates.append(logs["learning_rate"]),
    )
    agent = ppo(anneal_learning_rate=True)
    agent.compile(keras.optimizers.Adam(0.1), jit_compile=False)
    agent.fit(walk, total_steps=256, epochs=2, num_envs=4, callbacks=[watch], verbose=0)
    assert rates == pytest.approx([0.05, (0.05 + 0.025) / 2])  # Means over the epoch so far.
    assert float(agent.optimizer.learning_rate) == pytest.approx(0.1)
    agent.save(tmp_path / "agent.keras")
    agent = keras.models.load_model(tmp_path / "agent.keras")
    rates.clear()
    agent.fit(walk, total_steps=256, epochs=2, initial_epoch=1, num_envs=4, callbacks=[watch], verbose=0)
    assert rates == pytest.approx([0.05, (0.05 + 0.025) / 2])


def test_what_is_annealed_is_the_rate_that_was_set(walk):
    """By hand between two fits, or by Keras's scheduler in one: neither is overridden."""
    agent = ppo(anneal_learning_rate=True)
    agent.compile(keras.optimizers.Adam(0.1), jit_compile=False)
    budget = {"epochs": 2, "steps_per_epoch": 1, "num_envs": 4, "verbose": 0}
    assert agent.fit(walk, **budget).history["learning_rate"] == pytest.approx([0.1, 0.05])
    agent.optimizer.learning_rate = 0.02
    assert agent.fit(walk, **budget).history["learning_rate"] == pytest.approx([0.02, 0.01])
    rates = []
    watch = keras.callbacks.LambdaCallback(on_train_batch_end=lambda _, logs: rates.append(logs["learning_rate"]))
    scheduler = keras.callbacks.LearningRateScheduler(lambda epoch: [0.4, 0.8][epoch])
    agent.fit(walk, **budget, callbacks=[scheduler, watch])
    assert rates == pytest.approx([0.4, 0.4])
    assert agent.programs.latest.experimental_get_tracing_count() == 1


def test_files_of_earlier_versions_anneal_from_the_rate_they_were_compiled_with(walk):
    """They hold the annealed rate in the optimizer, and the other in the compile settings."""
    agent = ppo(anneal_learning_rate=True)
    agent.compile(keras.optimizers.Adam(0.1), jit_compile=False)
    config = agent.get_compile_config()
    config["base_learning_rates"] = config.pop("learning_rates")
    agent.compile_from_config(config)
    agent.optimizer.learning_rate = 0.001
    history = agent.fit(walk, epochs=2, steps_per_epoch=1, num_envs=4, verbose=0).history
    assert history["learning_rate"] == pytest.approx([0.1, 0.05])


def test_annealing_and_a_schedule_of_the_optimizer_contradict():
    schedule = keras.optimizers.schedules.PolynomialDecay(1e-3, 100)
    with pytest.raises(ValueError, match="`anneal_learning_rate` must be False with an optimizer that has a schedule"):
        ppo(anneal_learning_rate=True).compile(keras.optimizers.Adam(schedule))


def test_a_coefficient_may_be_a_schedule_and_is_saved(walk, tmp_path):
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([1], [1e-9, 0.5])
    agent = ppo(clip_ratio=schedule, entropy_coef=keras.optimizers.schedules.PolynomialDecay(0.1, 10))
    agent.compile(keras.optimizers.SGD(0.5), jit_compile=False)
    kwargs = {"num_envs": 4, "verbose": 0}
    first = agent.fit(walk, epochs=1, steps_per_epoch=1, **kwargs).history["clip_fraction"][0]
    later = agent.fit(walk, epochs=1, steps_per_epoch=3, **kwargs).history["clip_fraction"][0]
    assert first > 0.5 > later  # A range of width 0, then one of 0.5, and no new trace.
    assert agent.programs.latest.experimental_get_tracing_count() == 1
    agent.save(tmp_path / "agent.keras")
    assert (
        keras.models.load_model(tmp_path / "agent.keras").get_config()["clip_ratio"] == agent.get_config()["clip_ratio"]
    )


@pytest.mark.parametrize("kind", ["minibatch", "batch", False])
def test_advantage_normalisation_switches(kind):
    """At ratio 1 the loss of some rows is minus the mean of the advantages that it takes."""
    agent, data = ppo(normalize_advantages=kind), rollout(np.random.default_rng(0))
    agent.bind(gym.spaces.Box(-np.inf, np.inf, (3,)), ACTIONS)
    raw = tf.reshape(agent.estimate(data)[0], [-1])
    rows = tf.nest.map_structure(lambda x: x[:12], agent.samples(data))
    taken = {"minibatch": ops.standardize(raw[:12]), "batch": ops.standardize(raw)[:12], False: raw[:12]}[kind]
    _, logs = agent.loss(agent.standardized(rows))
    assert float(logs["policy_loss"]) == pytest.approx(-np.mean(taken), rel=1e-4, abs=1e-6)
    assert (abs(float(logs["policy_loss"])) < 1e-6) == (kind == "minibatch")


@pytest.mark.parametrize("kind", ["minibatch", "batch"])
def test_the_critics_error_alone_is_not_scaled_to_one(kind):
    """Where advantages are 1e-6 of the returns, other ratios than 1 make no loss of size 1."""
    agent, data = ppo(normalize_advantages=kind), rollout(np.random.default_rng(0))
    agent.bind(gym.spaces.Box(-np.inf, np.inf, (3,)), ACTIONS)
    noise, ones = 1e-6 * np.sign(data.rewards), np.ones_like(data.rewards)
    agent.estimate = lambda data: (tf.constant(noise), tf.constant(ones), tf.constant(ones))
    rows = agent.samples(data)
    rows = rows._replace(old_log_probs=rows.old_log_probs + 0.5 * rows.advantages / tf.reduce_max(rows.advantages))
    loss = abs(float(agent.loss(agent.standardized(rows))[1]["policy_loss"]))
    assert 0.0 < loss < 1e-3


def test_reward_scaling_and_clipping_leave_the_reported_returns_raw(bandit):
    env = bandit(SPACE)
    plain, scaled = ppo(), ppo(reward_scaling=True, reward_clip=0.01)
    histories = []
    for agent in (plain, scaled):
        agent.compile(keras.optimizers.SGD(0.0), jit_compile=False)
        histories.append(agent.fit(env, epochs=1, steps_per_epoch=2, num_envs=4, verbose=0).history)
    assert histories[0]["episode_return"] == histories[1]["episode_return"]
    assert histories[0]["critic_loss"] > histories[1]["critic_loss"]
    assert float(scaled.reward_scaling.count) == 2 * 16 * 4


def test_histogram_critic_trains(walk):
    agent = ppo(
        networks=pg.Networks((8,), critic_head=pg.heads.HistogramValue(-0.5, 1.5, num_bins=21)), update_epochs=10
    )
    agent.compile(keras.optimizers.Adam(0.02), jit_compile=False)
    history = agent.fit(walk, epochs=2, steps_per_epoch=4, num_envs=4, verbose=0).history
    assert history["critic_loss"][1] < history["critic_loss"][0]
    assert tf.reduce_all(tf.abs(agent.critic(np.arange(5)).mean()) < 1.5)
