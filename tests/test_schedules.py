"""Schedules of the iteration and over the budget: what they give, to which coefficients, where a fit goes on, logs."""

import gymnasium as gym
import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasrl_pg as pg
from kerasrl_pg.schedules import InverseSquareRoot, OverBudget, linear

CORRIDOR = pg.envs.Corridor(num_envs=2)
KERAS = keras.optimizers.schedules
SMALL = {"networks": pg.models.Tabular(), "horizon": 4, "seed": 0}
MINIBATCHES = {"minibatch_size": 8, "update_epochs": 1}
# Every coefficient of every agent that takes a schedule; found below by what their `Setting`s say.
AGENTS = {
    "REINFORCE": (lambda **kw: pg.REINFORCE(**{**SMALL, "horizon": 20, **kw}), ["entropy_coef"]),
    "A2C": (lambda **kw: pg.A2C(**SMALL, **kw), ["value_coef", "entropy_coef"]),
    "PPO": (
        lambda **kw: pg.PPO(**SMALL, **MINIBATCHES, **kw),
        ["clip_ratio", "value_coef", "entropy_coef", "value_clip", "target_kl"],
    ),
    "PPOPenalty": (
        lambda **kw: pg.PPOPenalty(**SMALL, **MINIBATCHES, **kw),
        ["target_kl", "value_coef", "entropy_coef"],
    ),
    "NPG": (lambda **kw: pg.NPG(**SMALL, **MINIBATCHES, **kw), ["entropy_coef", "max_kl", "damping"]),
    "TRPO": (lambda **kw: pg.TRPO(**SMALL, **MINIBATCHES, **kw), ["entropy_coef", "max_kl", "damping"]),
    "ConstrainedGradient": (
        lambda **kw: pg.ConstrainedGradient(**SMALL, **MINIBATCHES, **kw),
        ["entropy_coef", "max_squared_norm"],
    ),
}


def compiled(agent, optimizer=None, **kwargs):
    agent.compile(optimizer or keras.optimizers.SGD(0.1), jit_compile=False, **kwargs)
    return agent


def takes_a_schedule(setting):
    return setting._how.get("schedule", False)


@pytest.mark.parametrize("name", AGENTS)
@pytest.mark.quick("TRPO", "PPO")
def test_every_coefficient_follows_the_share_of_the_budget(name):
    """On four iterations: 0.8, 0.65, 0.5, 0.35 of what falls from 0.8 to 0.2, in the logs and in one program."""
    make, coefficients = AGENTS[name]
    kind = type(make())
    found = [n for n in pg.settings.settings(kind) if takes_a_schedule(getattr(kind, n))]
    assert sorted(found) == sorted(coefficients)
    agent = compiled(make(**{coefficient: linear(0.8, 0.2) for coefficient in coefficients}))
    history = agent.fit(CORRIDOR, epochs=4, steps_per_epoch=1, verbose=0).history
    for coefficient in coefficients:
        np.testing.assert_allclose(history[coefficient], [0.8, 0.65, 0.5, 0.35], atol=1e-6)
    assert agent.programs.latest.experimental_get_tracing_count() == 1


class Lengths(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.moved, self.weights = [], self.model.policy.get_weights()[0]

    def on_epoch_end(self, epoch, logs=None):
        weights = self.model.policy.get_weights()[0]
        self.moved.append(np.sum((weights - self.weights) ** 2))
        self.weights = weights


@pytest.mark.parametrize(("coefficient", "expected"), [
    (linear(0.08), [0.08, 0.06, 0.04, 0.02]),
    (OverBudget(KERAS.PiecewiseConstantDecay([0.5], [0.08, 0.02])), [0.08, 0.08, 0.08, 0.02]),
    (KERAS.PolynomialDecay(0.08, 4, 0.0), [0.08, 0.06, 0.04, 0.02]),
    (InverseSquareRoot(0.08), [0.08, 0.08 / 2**0.5, 0.08 / 3**0.5, 0.04]),
])  # fmt: skip
@pytest.mark.quick("coefficient1-expected1")
def test_what_is_logged_is_what_is_applied(coefficient, expected):
    """The squared length of a constrained step is its coefficient."""
    agent = compiled(pg.ConstrainedGradient(**SMALL, **MINIBATCHES, max_squared_norm=coefficient))
    lengths = Lengths()
    history = agent.fit(CORRIDOR, epochs=4, steps_per_epoch=1, verbose=0, callbacks=[lengths]).history
    np.testing.assert_allclose(lengths.moved, expected, rtol=1e-4)
    np.testing.assert_allclose(history["max_squared_norm"], expected, rtol=1e-5)


def test_the_budget_is_the_fits_own_and_the_iteration_the_agents():
    for coefficient, again in ((linear(0.08), 0.08), (KERAS.PolynomialDecay(0.08, 4, 0.0), 0.04)):
        agent = compiled(pg.ConstrainedGradient(**SMALL, **MINIBATCHES, max_squared_norm=coefficient))
        agent.fit(CORRIDOR, epochs=2, steps_per_epoch=1, verbose=0)
        history = agent.fit(CORRIDOR, epochs=2, steps_per_epoch=1, verbose=0).history
        assert history["max_squared_norm"][0] == pytest.approx(again)


@pytest.mark.parametrize("budget", [{"total_steps": 32}, {"steps_per_epoch": 1}])
@pytest.mark.parametrize("env", ["host", "compiled"])
@pytest.mark.quick("compiled-budget1", "host-budget0")
def test_in_steps_or_iterations_on_any_environment(budget, env):
    env = CORRIDOR if env == "compiled" else "CartPole-v1"
    networks = pg.Networks((4,)) if env == "CartPole-v1" else SMALL["networks"]
    agent = compiled(pg.A2C(**{**SMALL, "networks": networks}, entropy_coef=linear(1.0)))
    history = agent.fit(env, epochs=4, num_envs=None if env is CORRIDOR else 2, verbose=0, **budget).history
    np.testing.assert_allclose(history["entropy_coef"], [1.0, 0.75, 0.5, 0.25])


@pytest.mark.slow
def test_a_resumed_fit_goes_on_where_it_was(tmp_path):
    def agent():
        return compiled(pg.A2C(**SMALL, entropy_coef=linear(1.0), estimator=pg.estimators.GAE(linear(1.0, 0.5))))

    class Interrupted(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    whole = agent()
    expected = whole.fit(CORRIDOR, epochs=4, steps_per_epoch=2, verbose=0).history
    first, backup = agent(), tmp_path / "backup"
    arguments = {"epochs": 4, "steps_per_epoch": 2, "verbose": 0}
    with pytest.raises(KeyboardInterrupt):
        callbacks = [keras.callbacks.BackupAndRestore(backup), Interrupted()]
        first.fit(CORRIDOR, callbacks=callbacks, **arguments)
    second = agent()
    found = second.fit(CORRIDOR, callbacks=[keras.callbacks.BackupAndRestore(backup)], **arguments).history
    assert found["entropy_coef"] == expected["entropy_coef"][-len(found["entropy_coef"]) :]
    for one, other in zip(second.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_lambda_follows_its_schedule():
    """GAE's λ falls from 1 to 0: the first update is that of λ = 1, one after the budget that of 0."""
    found = {}
    for name, gae_lambda in {"falling": linear(1.0), "one": 1.0}.items():
        agent = compiled(pg.A2C(**SMALL, estimator=pg.estimators.GAE(gae_lambda)), keras.optimizers.SGD(0.5))
        history = agent.fit(CORRIDOR, epochs=1, steps_per_epoch=1, verbose=0).history
        found[name] = agent.policy.get_weights()[0]
        assert history.get("gae_lambda", [1.0]) == [1.0]
    np.testing.assert_allclose(found["falling"], found["one"], atol=1e-7)
    # All is spent: λ is 0.
    agent = compiled(pg.A2C(**SMALL, estimator=pg.estimators.GAE(linear(1.0))))
    agent.fit(CORRIDOR, epochs=1, steps_per_epoch=1, verbose=0)
    rng = np.random.default_rng(0)
    no = tf.zeros((4, 2), tf.bool)
    inputs = pg.rollouts.Inputs(tf.constant(rng.integers(6, size=(4, 2)), tf.int32))
    rewards = tf.constant(rng.normal(size=(4, 2)), tf.float32)
    rollout = pg.rollouts.Rollout(inputs, tf.zeros((4, 2), tf.int32), rewards, rewards, no, no, inputs, ~no)
    values = agent.values(inputs)
    advantages, _ = pg.estimators.TD0()(rewards, values, values, no, no, ~no, agent.gamma)
    np.testing.assert_allclose(agent.estimate(rollout)[0], advantages, rtol=1e-6)


class Deviations(keras.callbacks.Callback):
    """The σ that each rollout is played with: those of its actions, seen by the environment."""

    unsquash = None

    def on_epoch_begin(self, epoch, logs=None):
        Pushed.actions.clear()

    def on_epoch_end(self, epoch, logs=None):
        before = Pushed.actions if self.unsquash is None else self.unsquash(np.array(Pushed.actions))
        self.found = [*getattr(self, "found", []), np.std(before, axis=0)]


class Pushed(gym.Env):
    observation_space, action_space, actions = gym.spaces.Box(-1, 1, (1,)), gym.spaces.Box(-9, 9, (2,)), []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, "float32"), {}

    def step(self, action):
        Pushed.actions.append(action)
        return np.zeros(1, "float32"), 0.0, False, False, {}


@pytest.mark.parametrize("head", [pg.heads.Gaussian, pg.heads.TanhGaussian])
@pytest.mark.quick("TanhGaussian")
def test_exploration_noise_follows_its_schedule(head, tmp_path):
    """σ 0.8, 0.6, 0.4 and 0.2 in the rollouts of four iterations, in what is logged and in the file."""
    low, high = Pushed.action_space.low, Pushed.action_space.high
    arguments = (2, low, high) if head is pg.heads.Gaussian else (low, high)
    inputs = keras.Input((1,))
    policy = keras.Model(inputs, head(*arguments, std=linear(0.8, 1e-2))(inputs))
    critic = keras.Model(inputs, pg.heads.NormalValue()(inputs))
    agent = compiled(pg.A2C(policy, critic, horizon=500, seed=0), keras.optimizers.SGD(0.0))
    deviations = Deviations()
    if head is pg.heads.TanhGaussian:
        deviations.unsquash = lambda actions: np.arctanh(actions / 9.0)
    arguments = {"epochs": 4, "steps_per_epoch": 1, "num_envs": 1, "verbose": 0}
    history = agent.fit(Pushed, callbacks=[deviations], **arguments).history
    expected = np.array([0.8, 0.6025, 0.405, 0.2075])
    np.testing.assert_allclose(history["std"], expected, rtol=1e-5)
    np.testing.assert_allclose(deviations.found, np.repeat(expected[:, None], 2, 1), rtol=0.12)
    assert agent.programs.latest.experimental_get_tracing_count() == 1
    agent.save(tmp_path / "agent.keras")
    loaded = keras.models.load_model(tmp_path / "agent.keras")
    assert isinstance(loaded.head.std, OverBudget)
    np.testing.assert_allclose(np.exp(loaded.head.log_std), 1e-2, rtol=1e-4)  # What the budget ends with.
    history = loaded.fit(Pushed, **arguments).history
    np.testing.assert_allclose(history["std"], expected, rtol=1e-5)


def test_exploration_noise_in_compiled_environments_and_in_parts_of_actions():
    env = pg.envs.Pendulum(num_envs=4)
    inputs = keras.Input(env.observation_space.shape)
    head = pg.heads.Gaussian((1,), -2.0, 2.0, std=linear(0.5, 0.1))
    agent = compiled(pg.PPO(keras.Model(inputs, head(inputs)), keras.Model(inputs, pg.heads.NormalValue()(inputs)),
                            horizon=8, minibatch_size=32, seed=0))  # fmt: skip
    history = agent.fit(env, epochs=4, steps_per_epoch=1, verbose=0).history
    np.testing.assert_allclose(history["std"], [0.5, 0.4, 0.3, 0.2], rtol=1e-5)
    # Each update's own σ, which its log-probabilities are of.
    entropies = 0.5 * np.log(2 * np.pi * np.e * np.square(history["std"]))
    np.testing.assert_allclose(history["entropy"], entropies, rtol=1e-4)
    both = pg.heads.Composite({"go": pg.heads.Categorical(2), "push": pg.heads.Gaussian(2, std=linear(0.5, 0.1))})
    assert [*both.scheduled()] == ["std_push"]


def test_a_constant_deviation_is_not_trained():
    head = pg.heads.Gaussian(2, std=0.25)
    head(tf.zeros((1, 3)))
    np.testing.assert_allclose(np.exp(head.log_std), 0.25)
    assert not head.log_std.trainable and head.scheduled() == {}
    again = pg.heads.Gaussian.from_config(head.get_config())
    assert again.std == 0.25
    for wrong in (0.0, 1e-3, 8.0, True, linear(0.5)):
        with pytest.raises(ValueError, match="`std` must be a"):
            pg.heads.Gaussian(2, std=wrong)
    for setting in ({"initial_log_std": -1.0}, {"state_dependent_std": True}):
        with pytest.raises(ValueError, match="`std` must be None where σ is trained"):
            pg.heads.Gaussian(2, std=0.5, **setting)


def test_learning_rates_are_annealed_by_any_schedule_over_the_budget():
    factors = OverBudget(KERAS.PiecewiseConstantDecay([0.4], [1.0, 0.5]))
    agent = compiled(pg.A2C(**SMALL, anneal_learning_rate=factors), keras.optimizers.SGD(0.2))
    history = agent.fit(CORRIDOR, epochs=4, steps_per_epoch=1, verbose=0).history
    np.testing.assert_allclose(history["learning_rate"], [0.2, 0.2, 0.1, 0.1])
    assert float(agent.optimizer.learning_rate) == pytest.approx(0.2)


def test_an_optimizers_own_schedule_is_logged():
    agent = compiled(pg.A2C(**SMALL), keras.optimizers.SGD(InverseSquareRoot(0.4)))
    history = agent.fit(CORRIDOR, epochs=4, steps_per_epoch=1, verbose=0).history
    np.testing.assert_allclose(history["learning_rate"], 0.4 / np.sqrt([1, 2, 3, 4]), rtol=1e-6)


def test_saved_and_loaded(tmp_path):
    agent = compiled(pg.PPO(
        **SMALL, **MINIBATCHES, clip_ratio=linear(0.3, 0.1), entropy_coef=InverseSquareRoot(0.1),
        anneal_learning_rate=OverBudget(KERAS.CosineDecay(1.0, 1.0)), estimator=pg.estimators.GAE(linear(1.0, 0.9)),
    ))  # fmt: skip
    agent.fit(CORRIDOR, epochs=1, steps_per_epoch=1, verbose=0)
    agent.save(tmp_path / "agent.keras")
    loaded = keras.models.load_model(tmp_path / "agent.keras")
    histories = [a.fit(CORRIDOR, epochs=3, steps_per_epoch=1, verbose=0, seed=1).history for a in (agent, loaded)]
    for name in ("clip_ratio", "entropy_coef", "learning_rate", "gae_lambda"):
        assert histories[0][name] == histories[1][name] and len(set(histories[0][name])) == 3
    assert agent.get_config()["estimator"] == loaded.get_config()["estimator"]


def test_a_schedule_set_between_fits_holds():
    agent = compiled(pg.A2C(**SMALL))
    agent.fit(CORRIDOR, epochs=1, steps_per_epoch=1, verbose=0)
    agent.entropy_coef = linear(0.5)
    history = agent.fit(CORRIDOR, epochs=2, steps_per_epoch=1, verbose=0).history
    np.testing.assert_allclose(history["entropy_coef"], [0.5, 0.25])


def test_refusals():
    with pytest.raises(ValueError, match=r"`initial` must be a number in \(0.0, inf\). Received: initial=0"):
        InverseSquareRoot(0)
    with pytest.raises(TypeError, match="`schedule` must be a Keras schedule.*Received: schedule=0.1"):
        OverBudget(0.1)
    with pytest.raises(ValueError, match="The optimizer's `learning_rate` must be.*anneal_learning_rate=OverBudget"):
        compiled(pg.A2C(**SMALL), keras.optimizers.Adam(linear(1e-3)))
    with pytest.raises(ValueError, match=r"`clip_ratio` must be a schedule of numbers in \(0.0, inf\].*at 75% of the"):
        pg.PPO(clip_ratio=OverBudget(KERAS.PiecewiseConstantDecay([0.7], [0.2, 0.0])))
    with pytest.raises(ValueError, match=r"`gae_lambda` must be a schedule of numbers in .*gives 1.5 at 0%"):
        pg.estimators.GAE(linear(1.5, 0.5))
    with pytest.raises(ValueError, match="`anneal_learning_rate` must be True, False or a schedules.OverBudget"):
        pg.A2C(anneal_learning_rate=0.5)
    with pytest.raises(ValueError, match="`gamma` must be a number in"):
        pg.A2C(gamma=linear(0.9))
    with pytest.raises(ValueError, match="`anneal_learning_rate` must be False with an optimizer that has a schedule"):
        compiled(pg.A2C(**SMALL, anneal_learning_rate=linear(1.0)), keras.optimizers.SGD(InverseSquareRoot(0.1)))
