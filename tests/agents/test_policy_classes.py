"""Tabular, linear and scored policies in every agent; and what linear ones have to do with the natural gradient."""

import gymnasium as gym
import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasrl_pg as pg
from kerasrl_pg.models import Linear, Scored, Tabular
from kerasrl_pg.rollouts.records import Inputs

WAYS = np.float32([[1, 0], [-1, 1]])
SETTINGS = {"horizon": 8, "minibatch_size": 16, "update_epochs": 2}
AGENTS = {
    "reinforce": lambda **kw: pg.REINFORCE(horizon=20, **kw),
    "reinforce_value": lambda **kw: pg.REINFORCE(horizon=20, baseline=pg.baselines.ValueFunction(), **kw),
    "a2c": lambda **kw: pg.A2C(horizon=8, **kw),
    "constrained": lambda **kw: pg.ConstrainedGradient(horizon=8, minibatch_size=32, **kw),
    "npg": lambda **kw: pg.NPG(horizon=8, minibatch_size=32, **kw),
    "trpo": lambda **kw: pg.TRPO(horizon=8, minibatch_size=32, **kw),
    "ppo_penalty": lambda **kw: pg.PPOPenalty(**SETTINGS, **kw),
    "ppo": lambda **kw: pg.PPO(**SETTINGS, **kw),
}


@keras.saving.register_keras_serializable("tests")
def place_and_way(place):
    """φ(s, a) [B, 2, 4]: what each action does, alone and times the place."""
    ways = keras.ops.expand_dims(keras.ops.ones_like(keras.ops.cast(place, "float32")), (1, 2)) * WAYS
    place = keras.ops.expand_dims(keras.ops.cast(place, "float32"), (1, 2))
    return keras.ops.concatenate([ways, ways * place / 5.0], -1)


CLASSES = {
    "tabular": Tabular(),
    "linear": Linear(place_and_way, critic=Tabular()),
    "scored": Scored(WAYS, hidden_units=(8,)),
}


QUICK = ("reinforce_value", "npg", "ppo")  # One of each kind of step; the rest is slow.
EACH = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in AGENTS]


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("name", EACH)
@pytest.mark.quick("npg-scored")
def test_every_agent_moves_saves_and_loads_every_class(name, kind, tmp_path):
    agent = AGENTS[name](networks=CLASSES[kind], seed=0, gamma=0.9)
    agent.compile(keras.optimizers.SGD(0.1), jit_compile=False)
    corridor = pg.envs.Corridor(num_envs=4, max_episode_steps=20)
    agent.bind(corridor.observation_space, corridor.action_space)
    before, states = agent.policy.get_weights(), np.arange(6)
    agent.fit(corridor, epochs=1, steps_per_epoch=2, verbose=0)
    moved = max(np.abs(a - b).max() for a, b in zip(before, agent.policy.get_weights(), strict=True))
    assert moved > 1e-4 and agent.programs.latest.experimental_get_tracing_count() == 1
    agent.save(tmp_path / "agent.keras")
    loaded = keras.models.load_model(tmp_path / "agent.keras")
    np.testing.assert_array_equal(loaded(states).logits, agent(states).logits)


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.quick("tabular")
def test_solves_a_corridor_on_either_kind_of_environment_and_is_exported(kind, tmp_path):
    agent = pg.A2C(networks=CLASSES[kind], seed=0, gamma=0.9, horizon=16)
    agent.compile(keras.optimizers.Adam(0.05), jit_compile=False)
    corridor = pg.envs.Corridor(num_envs=8)
    agent.fit(corridor, epochs=1, steps_per_epoch=60, verbose=0)
    assert agent.evaluate(corridor, episodes=8)["return"] == -5.0
    agent.export(tmp_path / "1", verify=False)
    served = tf.saved_model.load(str(tmp_path / "1")).signatures["serving_default"]
    answer = served(observation=tf.range(6, dtype=agent.observation_spec.specs.dtype))["action"]
    assert answer.numpy()[:5].tolist() == [1] * 5
    host = gym.make("FrozenLake-v1", is_slippery=False)
    other = pg.A2C(networks=Tabular(), seed=0, horizon=8)
    other.compile(keras.optimizers.Adam(0.05), jit_compile=False)
    other.fit(host, epochs=1, steps_per_epoch=1, verbose=0)
    assert other.actor_critic.policy.count_params() == 16 * 4


@pytest.mark.slow
def test_masks_forbid_what_a_table_prefers():
    class Masked(pg.envs.Corridor):
        def action_masks(self, state):
            return tf.stack([tf.fill(tf.shape(state), False), tf.fill(tf.shape(state), True)], -1)

    for networks in (Tabular(initializer=[[5.0, -5.0]] * 6), Scored(hidden_units=(4,))):
        agent = pg.PPO(**SETTINGS, networks=networks, seed=0)
        agent.compile(jit_compile=False)
        agent.fit(Masked(num_envs=4), epochs=1, steps_per_epoch=1, verbose=0)
        assert agent.evaluate(Masked(num_envs=4), episodes=4, deterministic=False)["return"] == -5.0


@pytest.mark.parametrize("kind", ["tabular", "linear"])
def test_the_natural_gradient_is_the_least_squares_fit_of_the_advantages_on_the_scores(kind):
    """Kakade 2002, theorem 1: with compatible features, w* of f_w(s, a) = wᵀ∇log π(a|s) is F⁻¹∇J."""
    networks = CLASSES[kind]
    agent = pg.NPG(
        networks=networks, seed=0, horizon=64, minibatch_size=512, damping=1e-3, cg_iterations=200,
        normalize_advantages=False, fisher_fraction=1.0,
    )  # fmt: skip
    agent.compile(jit_compile=False)
    corridor = pg.envs.Corridor(num_envs=8)
    agent.bind(corridor.observation_space, corridor.action_space)
    variables = agent.policy.trainable_variables
    rng = np.random.default_rng(0)
    for variable in variables:
        variable.assign(rng.normal(size=variable.shape))
    states = rng.choice(6, (64, 8), p=[0.5, 0.25, 0.1, 0.08, 0.05, 0.02]).astype("int32")
    actions = rng.integers(2, size=states.shape).astype("int32")
    advantages = rng.normal(size=states.shape).astype("float32")

    with tf.GradientTape() as tape:
        log_probs = agent(states.reshape(-1)).log_prob(actions.reshape(-1))
    jacobians = tape.jacobian(log_probs, [v.value for v in variables])
    scores = np.concatenate([np.reshape(j, (512, -1)) for j in jacobians], 1)
    # All actions of each visited state, by their probabilities: the Fisher matrix is no sample of what was done.
    fisher, flat = 0.0, agent(np.arange(6))
    for action in (0, 1):
        with tf.GradientTape() as tape:
            every = agent(np.arange(6)).log_prob(np.full(6, action, "int32"))
        each = np.concatenate([np.reshape(j, (6, -1)) for j in tape.jacobian(every, [v.value for v in variables])], 1)
        weight = np.bincount(states.reshape(-1), minlength=6) / 512 * flat.probs_parameter().numpy()[:, action]
        fisher = fisher + (each * weight[:, None]).T @ each
    gradient = scores.T @ advantages.reshape(-1) / 512
    expected = np.linalg.solve(fisher + 1e-3 * np.eye(len(fisher)), gradient)

    no = np.zeros(states.shape, bool)
    agent.credit = lambda rollout: (tf.constant(advantages), tf.zeros_like(advantages), tf.zeros_like(advantages))
    log_probs = tf.reshape(log_probs, states.shape)
    rollout = pg.rollouts.Rollout(Inputs(states), actions, log_probs, advantages, no, no, Inputs(states), ~no)
    before = np.concatenate([np.reshape(v, -1) for v in variables])
    agent.train_on(tf.nest.map_structure(tf.constant, rollout))
    step = np.concatenate([np.reshape(v, -1) for v in variables]) - before
    cosine = step @ expected / np.linalg.norm(step) / np.linalg.norm(expected)
    assert cosine == pytest.approx(1.0, abs=1e-4)
    plain = step @ gradient / np.linalg.norm(step) / np.linalg.norm(gradient)
    assert plain < 0.95  # The gradient itself points elsewhere.
