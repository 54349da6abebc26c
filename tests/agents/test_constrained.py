"""The gradient step constrained in parameter space, and what all conservative updates share."""

import gymnasium as gym
import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasrl_pg as pg
from kerasrl_pg import ops
from kerasrl_pg.rollouts import Inputs, Rollout

OBSERVATIONS = gym.spaces.Box(-np.inf, np.inf, (3,), np.float32)
ACTIONS = gym.spaces.Discrete(3)
METHODS = {"constrained": pg.ConstrainedGradient, "npg": pg.NPG, "trpo": pg.TRPO}
every_method = pytest.mark.parametrize("name", METHODS)


def bound(method=pg.ConstrainedGradient, actions=ACTIONS, compile_kwargs=None, **kwargs):
    """A small agent that has seen its spaces; and its train_step, compiled."""
    settings = {"horizon": 16, "minibatch_size": 8, "networks": pg.Networks((8,)), "seed": 0}
    agent = method(**{**settings, **kwargs})
    agent.compile(**{"jit_compile": False, **(compile_kwargs or {})})
    agent.bind(OBSERVATIONS, actions)
    return agent, tf.function(agent.train_step, autograph=False)


def rollout(rng, actions=ACTIONS, horizon=16, num_envs=2, invalid=0.0, **changes):
    """Random numbers in the shape of a rollout."""
    actions.seed(int(rng.integers(2**31)))
    taken = np.stack([[actions.sample() for _ in range(num_envs)] for _ in range(horizon)])
    if taken.dtype.kind != "f":
        taken = taken.astype("int32")
    facts = {
        "inputs": Inputs(rng.normal(size=(horizon, num_envs, 3)).astype("float32")),
        "actions": taken,
        "log_probs": np.zeros((horizon, num_envs), "float32"),
        "rewards": rng.normal(size=(horizon, num_envs)).astype("float32"),
        "terminated": rng.random((horizon, num_envs)) < 0.1,
        "truncated": np.zeros((horizon, num_envs), bool),
        "next_inputs": Inputs(rng.normal(size=(horizon, num_envs, 3)).astype("float32")),
        "valid": rng.random((horizon, num_envs)) >= invalid,
    }
    return tf.nest.map_structure(tf.constant, Rollout(**{**facts, **changes}))


def weights(model):
    return [np.array(w) for w in model.trainable_weights]


def moved(before, model):
    """Δθ as one vector."""
    return np.concatenate([(np.array(w) - b).ravel() for w, b in zip(model.trainable_weights, before, strict=True)])


def same(before, model):
    return all(a.tobytes() == b.tobytes() for a, b in zip(before, weights(model), strict=True))


@pytest.mark.parametrize("squared", [1e-4, 0.3])
@pytest.mark.parametrize("actions", [ACTIONS, gym.spaces.Box(-1, 1, (2,), np.float32)], ids=["discrete", "box"])
@pytest.mark.quick("box-0.3", "discrete-0.0001")
def test_step_has_exactly_the_length_allowed(squared, actions):
    rng = np.random.default_rng(1)
    agent, step = bound(actions=actions, max_squared_norm=squared)
    for _ in range(3):
        before = weights(agent.policy)
        logs = step(rollout(rng, actions))
        assert np.sum(moved(before, agent.policy).astype("float64") ** 2) == pytest.approx(squared, rel=1e-3)
        assert float(logs["rejected"]) == 0.0


def test_step_points_along_the_policy_gradient():
    agent, step = bound(estimator=pg.estimators.TD0(), max_squared_norm=0.01)
    data = rollout(np.random.default_rng(2), invalid=0.3)
    values = agent.critic(ops.flatten_time(data.inputs.observations)).mean().numpy().reshape(16, 2)
    following = agent.critic(ops.flatten_time(data.next_inputs.observations)).mean().numpy().reshape(16, 2)
    advantages = data.rewards + 0.99 * (1 - np.float32(data.terminated)) * following - values
    valid = data.valid.numpy()
    advantages = np.where(valid, advantages - advantages.numpy()[valid].mean(), 0.0)
    with tf.GradientTape() as tape:
        log_probs = agent.policy(ops.flatten_time(data.inputs.observations)).log_prob(ops.flatten_time(data.actions))
        objective = tf.reduce_sum(log_probs * advantages.ravel())
    variables = agent.policy.trainable_variables
    gradient = ops.flatten_parameters(tape.gradient(objective, [v.value for v in variables])).numpy()
    before = weights(agent.policy)
    step(data)
    expected = 0.1 * gradient / np.linalg.norm(gradient)
    np.testing.assert_allclose(moved(before, agent.policy), expected, atol=2e-5)


def test_bound_may_fall_by_a_schedule():
    rng = np.random.default_rng(3)
    agent, step = bound(max_squared_norm=keras.optimizers.schedules.PiecewiseConstantDecay([0], [0.04, 1e-4]))
    for iteration, expected in enumerate([0.04, 1e-4]):
        agent.iterations.assign(iteration)
        before = weights(agent.policy)
        step(rollout(rng))
        assert np.sum(moved(before, agent.policy) ** 2) == pytest.approx(expected, rel=1e-3)
    assert type(agent).from_config(agent.get_config()).get_config() == agent.get_config()


# What all conservative updates share


@every_method
@pytest.mark.quick("trpo")
def test_no_valid_row_no_gradient_no_step(name):
    agent, step = bound(METHODS[name])
    before = weights(agent.policy)
    logs = step(rollout(np.random.default_rng(3), invalid=1.1))
    assert same(before, agent.policy)
    assert float(logs["rejected"]) == 1.0
    assert all(np.isfinite(float(value)) for value in logs.values())


@pytest.mark.parametrize(("name", "xla"), [*((name, False) for name in METHODS), ("trpo", True)])
@pytest.mark.quick("trpo-False")
def test_a_step_that_is_not_finite_is_not_taken(name, xla):
    agent, _ = bound(METHODS[name])
    step = tf.function(agent.train_step, autograph=False, jit_compile=xla)
    rewards = np.random.default_rng(4).normal(size=(16, 2)).astype("float32")
    rewards[3, 1] = np.nan
    policy = weights(agent.policy)
    logs = step(rollout(np.random.default_rng(4), rewards=rewards))
    assert float(logs["rejected"]) == 1.0 and np.isnan(float(logs["loss"]))
    assert same(policy, agent.policy)


@every_method
@pytest.mark.quick("constrained")
def test_rows_that_are_no_transitions_are_no_data(name):
    ends = np.arange(32).reshape(16, 2) % 5 == 4  # Cut up, or values would leak over the gaps.
    results = []
    for junk in (0.0, 50.0):
        agent, step = bound(METHODS[name])
        rng = np.random.default_rng(5)
        data = rollout(rng, invalid=0.4, terminated=ends)
        gap = ~data.valid.numpy()
        spoilt = data.inputs.observations.numpy()
        spoilt[gap] += junk
        actions = np.where(gap, 0 if junk else 2, data.actions)
        rewards = np.where(gap, junk, data.rewards).astype("float32")
        step(
            data._replace(
                inputs=Inputs(tf.constant(spoilt)), actions=tf.constant(actions), rewards=tf.constant(rewards)
            )
        )
        results.append(weights(agent.policy) + weights(agent.critic))
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@every_method
@pytest.mark.quick("npg")
def test_regression_leaves_shared_layers_to_the_policy(name):
    """One trunk under both: the policy's step moves it, and keeps its bound; the regression moves the value head."""
    agent, step = bound(METHODS[name], networks=pg.Networks((8,), shared=True))
    observation = np.random.default_rng(6).normal(size=(20, 3)).astype("float32")
    head = agent.critic_head.dense
    seen = {}

    class Watching(METHODS[name]):
        def critic_loss(self, samples):
            seen.setdefault("before", (agent.policy(observation).logits, tf.identity(head.kernel.value)))
            return super().critic_loss(samples)

    agent.__class__ = Watching
    agent.train_step(rollout(np.random.default_rng(6)))
    np.testing.assert_array_equal(agent.policy(observation).logits, seen["before"][0])
    assert np.abs(head.kernel - seen["before"][1]).max() > 0
    assert len(agent.actor_critic.critic_alone) == 2


@every_method
@pytest.mark.quick("constrained")
def test_advantages_are_standardized_only_where_asked(name):
    """Rewards about 10 leave a mean in the surrogate, which standardized ones have not."""
    data = rollout(np.random.default_rng(7))
    data = data._replace(rewards=data.rewards + 10.0)
    for asked in (True, False):
        _, step = bound(METHODS[name], normalize_advantages=asked, gamma=0.0)
        assert (abs(float(step(data)["policy_loss"])) < 1.0) == asked


@every_method
@pytest.mark.quick("constrained")
def test_regression_makes_its_passes(name):
    agent, step = bound(METHODS[name], update_epochs=3, minibatch_size=16)
    step(rollout(np.random.default_rng(8)))
    assert int(agent.optimizer.iterations) == 3 * 2


def test_a_critic_without_layers_of_its_own_is_refused():
    class Sum(pg.heads.NormalValue):
        def build(self, input_shape):
            pass

        def parameters(self, features):
            return tf.reduce_sum(features, -1, keepdims=True)

    inputs = keras.Input((3,))
    features = keras.layers.Dense(4)(inputs)
    policy = keras.Model(inputs, {"policy": pg.heads.Categorical(3)(features), "value": Sum()(features)})
    with pytest.raises(ValueError, match="must leave the critic a layer of its own"):
        pg.ConstrainedGradient(policy).bind(OBSERVATIONS, ACTIONS)


@every_method
@pytest.mark.quick("trpo")
def test_optimizer_moves_the_critic_alone(name):
    rng = np.random.default_rng(7)
    agent, step = bound(METHODS[name], compile_kwargs={"optimizer": keras.optimizers.SGD(0.0)})
    critic, policy = weights(agent.critic), weights(agent.policy)
    step(rollout(rng))
    assert same(critic, agent.critic) and not same(policy, agent.policy)
    by_other_name, _ = bound(METHODS[name], compile_kwargs={"critic_optimizer": keras.optimizers.SGD(0.5)})
    assert float(by_other_name.optimizer.learning_rate) == 0.5
    assert isinstance(bound(METHODS[name])[0].optimizer, keras.optimizers.Adam)
    with pytest.raises(ValueError, match="`optimizer` must be left out with `critic_optimizer`"):
        agent.compile("adam", critic_optimizer="adam")


def test_weights_constraints_hold_after_the_step():
    """The step is no optimizer's, so nobody else would put log σ back inside its bounds."""
    box = gym.spaces.Box(-1, 1, (2,), np.float32)
    agent, step = bound(actions=box, max_squared_norm=1e4)
    step(rollout(np.random.default_rng(8), box))
    log_std = agent.head.log_std.numpy()
    assert (np.abs(log_std - [-5.0, -5.0]) < 1e-6).any() or (np.abs(log_std - [2.0, 2.0]) < 1e-6).any()
    assert (log_std >= -5).all() and (log_std <= 2).all()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("max_squared_norm", -1.0),
        ("max_squared_norm", 0.0),
        ("entropy_coef", -0.1),
        ("update_epochs", 0),
        ("minibatch_size", 0),
        ("horizon", 0),
    ],
)
def test_refused_at_construction_by_name(setting, value):
    with pytest.raises(ValueError, match=f"`{setting}` must be .*Received: {setting}="):
        pg.ConstrainedGradient(**{setting: value})


def test_minibatches_must_divide_the_rollout(walk):
    agent = pg.ConstrainedGradient(horizon=10, minibatch_size=16)
    agent.compile()
    with pytest.raises(ValueError, match="`minibatch_size` must divide the rollout, horizon x num_envs = 10 x 2 = 20"):
        agent.fit(walk, num_envs=2, epochs=1, steps_per_epoch=1, verbose=0)


def test_entropy_bonus_is_ascended():
    rng = np.random.default_rng(9)
    entropies = []
    for coefficient in (0.0, 100.0):
        agent, step = bound(entropy_coef=coefficient, networks=pg.Networks((8,), orthogonal=False))
        before = agent.policy(np.eye(3, dtype="float32")).entropy().numpy().mean()
        step(rollout(rng))
        entropies.append(agent.policy(np.eye(3, dtype="float32")).entropy().numpy().mean() - before)
    assert entropies[1] > max(entropies[0], 0.0)
