"""The adaptive Lagrangian: the multiplier's rule, its place in logs and checkpoint, and the price's effect."""

import gymnasium as gym
import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import kerasrl_pg as pg
from kerasrl_pg import ops
from kerasrl_pg.rollouts import Inputs

tfd = tfp.distributions
BOX = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
HEADS = {
    "categorical": (None, gym.spaces.Discrete(3)),
    "multi_categorical": (None, gym.spaces.MultiDiscrete([2, 3])),
    "bernoulli": (None, gym.spaces.MultiBinary(2)),
    "gaussian": (pg.heads.Gaussian, BOX),
    "tanh_gaussian": (pg.heads.TanhGaussian, BOX),
    "beta": (pg.heads.Beta, BOX),
    "mixture": (pg.heads.GaussianMixture, BOX),
}


def penalty(method=pg.PPOPenalty, **kwargs):
    settings = {"horizon": 16, "minibatch_size": 16, "update_epochs": 2, "networks": pg.Networks((8,)), "seed": 0}
    return method(**{**settings, **kwargs})


def fit(agent, env, iterations=1, optimizer=None, **kwargs):
    agent.compile(optimizer or keras.optimizers.Adam(1e-3), **{"jit_compile": False, **kwargs})
    return agent.fit(env, epochs=iterations, steps_per_epoch=1, num_envs=4, seed=0, verbose=0).history


class Rigged(pg.PPOPenalty):
    """Measures the KL divergences it is told to, one an iteration."""

    def mean_kl(self, samples):
        return tf.gather(tf.constant(self.kls), self.iterations.value)


@pytest.mark.parametrize("mode", [{"jit_compile": True}, {"jit_compile": False}, {"run_eagerly": True}])
@pytest.mark.quick("mode1")
def test_multiplier_follows_the_rule(mode, walk):
    agent = penalty(Rigged, target_kl=0.01, initial_penalty=2.0, update_epochs=1)
    agent.kls = [0.001, 0.0066, 0.0067, 0.0149, 0.0151, 0.2, 0.2, 0.01, 0.002]
    history = fit(agent, walk, len(agent.kls), **mode)
    assert history["penalty"] == [2.0, 1.0, 0.5, 0.5, 0.5, 1.0, 2.0, 4.0, 4.0]
    assert history["kl"] == pytest.approx(agent.kls)
    assert float(agent.penalty) == 2.0


def test_multiplier_is_saved(walk, tmp_path):
    agent = penalty()
    fit(agent, walk, 3, keras.optimizers.SGD(0.0))
    assert float(agent.penalty) == 0.125
    agent.save(tmp_path / "agent.keras")
    agent.save_weights(tmp_path / "agent.weights.h5")
    loaded = keras.models.load_model(tmp_path / "agent.keras")
    assert float(loaded.penalty) == 0.125
    assert loaded.fit(walk, epochs=1, steps_per_epoch=1, num_envs=4, verbose=0).history["penalty"] == [0.125]
    fresh = penalty()
    fresh.load_weights(tmp_path / "agent.weights.h5")
    assert float(fresh.penalty) == 0.125


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.quick("tanh_gaussian")
def test_every_minibatch_meets_its_own_rows_of_the_old_policy(head, bandit):
    """At learning rate 0 the divergence is 0 in every row, up to rounding, and its price is, too."""
    kind, space = HEADS[head]
    networks = pg.Networks((8,), orthogonal=False, normalize_observations=True, head=kind)
    agent = penalty(networks=networks, initial_penalty=1e3, value_coef=0.0)

    # Bandits show one observation only; so each environment gets its own.
    makers = [
        lambda i=i: gym.wrappers.TransformObservation(bandit(space)(), lambda x, i=i: x * i / 4, None) for i in range(4)
    ]
    agent.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    history = agent.fit(gym.vector.SyncVectorEnv(makers), epochs=1, steps_per_epoch=1, verbose=0).history
    assert history["kl"] == [pytest.approx(0.0, abs=1e-6)]
    assert history["loss"] == pytest.approx(history["policy_loss"], abs=1e-3)


def test_gradient_at_ratio_one_is_a2cs(walk):
    """One pass over one minibatch: the divergence and its gradient are 0, whatever the multiplier."""
    shared = {"horizon": 8, "networks": pg.Networks((8,), orthogonal=False), "seed": 1, "entropy_coef": 1.0}
    shared["estimator"] = pg.estimators.GAE(0.9)
    agents = (
        pg.A2C(normalize_advantages=True, **shared),
        pg.PPOPenalty(minibatch_size=32, update_epochs=1, initial_penalty=1000.0, **shared),
    )
    for agent in agents:
        fit(agent, walk, 1, keras.optimizers.SGD(0.1))
    for a, b in zip(agents[0].network_variables, agents[1].network_variables, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)  # a thousand times the rounding of a zero


@pytest.mark.parametrize("estimator", [None, "sampled"])
@pytest.mark.slow
def test_a_high_price_keeps_the_policy_in_its_place(estimator, walk):
    divergences = [
        fit(
            penalty(initial_penalty=price, update_epochs=20, kl_estimator=estimator),
            walk,
            optimizer=keras.optimizers.Adam(0.02),
        )["kl"][0]
        for price in (1e-6, 100.0)
    ]
    assert divergences[1] < 0.1 * divergences[0]


@pytest.mark.slow
def test_multiplier_finds_its_place():
    """Over a fit the divergence comes to lie about the target, from a multiplier far too high."""
    agent = penalty(target_kl=0.01, initial_penalty=1000.0, horizon=64)
    kls = fit(agent, "CartPole-v1", 40, keras.optimizers.Adam(3e-3))["kl"]
    assert max(kls[:4]) < 0.005
    assert 0.005 < np.median(kls[20:]) < 0.02


def test_critic_may_have_its_own_optimizer_and_share_layers(walk):
    agent = penalty()
    agent.compile("sgd", critic_optimizer="adam", jit_compile=False)
    agent.fit(walk, epochs=1, steps_per_epoch=1, num_envs=4, verbose=0)
    shared = penalty(networks=pg.Networks((8,), shared=True))
    assert np.isfinite(fit(shared, walk)["loss"][0])


def test_an_update_whose_divergence_is_not_finite_is_undone(walk):
    agent = penalty(Rigged)
    agent.kls = [float("nan")]
    agent.compile(keras.optimizers.SGD(0.1), jit_compile=False)
    with pytest.raises(ValueError, match="`kl` must be finite after an update"):
        agent.fit(walk, epochs=2, steps_per_epoch=1, num_envs=4, seed=0, verbose=0)
    assert float(agent.penalty) == 1.0 and int(agent.iterations) == 0


def test_target_may_be_a_schedule(walk):
    target = keras.optimizers.schedules.PiecewiseConstantDecay([0], [0.01, 1.0])
    agent = penalty(Rigged, target_kl=target)
    agent.kls = [0.2, 0.2, 0.2]
    assert fit(agent, walk, 3)["penalty"] == [1.0, 2.0, 1.0]
    assert type(agent).from_config(agent.get_config()).get_config() == agent.get_config()


class Constant(pg.heads.Gaussian):
    """σ = 1 for each of 64 dimensions: a tensor with an entry for each of a rollout's 64 rows, by chance."""

    def distribution(self, parameters):
        loc, _ = tf.split(parameters, 2, axis=-1)
        return tfd.Independent(tfd.Normal(loc, tf.ones(64)), 1)


def test_constants_of_a_distribution_are_no_rows(bandit):
    space = gym.spaces.Box(-1.0, 1.0, (64,), np.float32)
    agent = penalty(networks=pg.Networks((8,), head=Constant))
    agent.compile(keras.optimizers.SGD(1e-3), jit_compile=False)
    history = agent.fit(bandit(space), epochs=1, steps_per_epoch=1, num_envs=4, verbose=0).history
    assert 0.0 < history["kl"][0] < np.inf


def test_padding_rows_are_no_data(walk):
    """The rows in which an environment resets itself change nothing, whatever they hold."""
    agents, kls = [], []
    for junk in (False, True):

        class Padded(pg.PPOPenalty):
            def train_step(self, rollout, junk=junk):
                valid = rollout.valid & (tf.range(16)[:, None] % 3 > 0)
                ends = rollout.terminated | (tf.range(16)[:, None] % 3 == 2)
                rollout = rollout._replace(valid=valid, terminated=ends)
                if junk:
                    rollout = rollout._replace(
                        rewards=tf.where(valid, rollout.rewards, 1e3),
                        actions=tf.where(valid, rollout.actions, 1 - rollout.actions),
                        inputs=Inputs(tf.where(valid, rollout.inputs.observations, 4 - rollout.inputs.observations)),
                    )
                return super().train_step(rollout)

        agents.append(penalty(Padded))
        kls += fit(agents[-1], walk, optimizer=keras.optimizers.SGD(0.1))["kl"]
    assert kls[1] == pytest.approx(kls[0], rel=1e-3)
    for a, b in zip(agents[0].network_variables, agents[1].network_variables, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"target_kl": -0.01}, "`target_kl` must be a number .*Received: target_kl=-0.01"),
        ({"target_kl": None}, "`target_kl` must be a number .*Received: target_kl=None"),
        ({"target_kl": float("inf")}, "`target_kl` must be a number .*Received: target_kl=inf"),
        ({"initial_penalty": 1e8}, "`initial_penalty` must be a number in .*1000000.0.*Received: initial_penalty="),
        ({"initial_penalty": 0.0}, "`initial_penalty` must be a number .*Received: initial_penalty=0.0"),
        ({"kl_estimator": True}, "`kl_estimator` must be 'sampled' or None. Received: kl_estimator=True"),
        ({"update_epochs": 0}, "`update_epochs` must be a whole number"),
        ({"value_coef": -1.0}, "`value_coef` must be a number"),
        ({"entropy_coef": -1.0}, "`entropy_coef` must be a number"),
    ],
)
def test_refused_at_construction_by_name(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        pg.PPOPenalty(**settings)


def test_minibatches_must_divide_the_rollout(walk):
    agent = penalty(minibatch_size=24)
    agent.compile()
    with pytest.raises(ValueError, match="`minibatch_size` must divide the rollout"):
        agent.fit(walk, num_envs=4, epochs=1, steps_per_epoch=1, verbose=0)


def test_divergence_logged_is_that_of_the_whole_update(walk):
    """Against the policy before and after, by the distributions themselves."""
    seen = {}

    class Watching(pg.PPOPenalty):
        def train_step(self, rollout):
            observations = ops.flatten_time(rollout.inputs.observations)
            old = self.policy(observations)
            logs = super().train_step(rollout)
            seen["kl"] = float(tf.reduce_mean(old.kl_divergence(self.policy(observations))))
            return logs

    history = fit(penalty(Watching), walk, optimizer=keras.optimizers.SGD(0.1), jit_compile="auto", run_eagerly=True)
    assert history["kl"][0] == pytest.approx(seen["kl"], rel=1e-4)
    assert seen["kl"] > 1e-6
