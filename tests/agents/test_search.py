"""The agents without gradients: what they find, what they count, and that they go on where they were."""

import dataclasses

import gymnasium as gym
import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasrl_pg as pg
from kerasrl_pg.agents.covariance import Adaptation
from kerasrl_pg.agents.hill_climbing import judged, neighbours
from kerasrl_pg.envs import CompiledEnv, CompiledVectorEnv, Transition


@dataclasses.dataclass(frozen=True)
class Aim(CompiledEnv):
    """Three steps an episode; an action's reward is 1 less its squared distance from half the observation."""

    num_envs: int = 4
    max_episode_steps: int | None = 10
    observation_space = gym.spaces.Box(-1.0, 1.0, (1,))
    action_space = gym.spaces.Box(-1.0, 1.0, (1,))

    def reset(self, noise):
        return tf.zeros(noise.shape[0], tf.int32)

    def observe(self, state):
        return tf.gather([0.8, -0.4, 0.2, 0.0], state)[:, None]

    def step(self, state, actions, noise):
        rewards = 1.0 - (actions[:, 0] - 0.5 * self.observe(state)[:, 0]) ** 2
        return Transition(state + 1, rewards, state == 2)


@dataclasses.dataclass(frozen=True)
class Cue(CompiledEnv):
    """A cue of -1 or 1, and then nothing to be seen, when the action has to be the cue's."""

    num_envs: int = 8
    max_episode_steps: int | None = 2
    observation_space = gym.spaces.Box(-1.0, 1.0, (1,))
    action_space = gym.spaces.Discrete(2)
    reset_noise = 1

    def reset(self, noise):
        return tf.stack([tf.where(noise[:, 0] < 0.5, -1.0, 1.0), tf.zeros(noise.shape[0])], -1)

    def observe(self, state):
        return tf.where(state[:, 1] < 0.5, state[:, 0], 0.0)[:, None]

    def step(self, state, actions, noise):
        right = (actions == 1) == (state[:, 0] > 0.0)
        last = state[:, 1] > 0.5
        return Transition(state + [0.0, 1.0], tf.cast(right & last, tf.float32), last)


@dataclasses.dataclass(frozen=True)
class Forbidden(Cue):
    """The last action pays most, and is never allowed: who takes it gets -100."""

    action_space = gym.spaces.Discrete(3)

    def action_masks(self, state):
        return tf.stack([state[:, 0] < 2.0, state[:, 0] < 2.0, state[:, 0] > 2.0], -1)

    def step(self, state, actions, noise):
        after, rewards, ended = super().step(state, actions, noise)[:3]
        return Transition(after, tf.where(actions == 2, -100.0, rewards), ended)


@dataclasses.dataclass(frozen=True)
class Poisoned(Aim):
    """NaN in the second step."""

    def step(self, state, actions, noise):
        after, rewards, ended = super().step(state, actions, noise)[:3]
        return Transition(after, tf.where(state == 1, np.nan, rewards), ended)


TINY = {"networks": pg.Networks((4,), normalize_observations=True), "population_size": 4, "seed": 3}
MAKERS = {
    "hill": lambda **kw: pg.HillClimbing(**{**TINY, **kw}),
    "annealing": lambda **kw: pg.SimulatedAnnealing(**{**TINY, "temperature": 0.1, **kw}),
    "strategies": lambda **kw: pg.EvolutionStrategies(**{**TINY, **kw}),
    "diagonal": lambda **kw: pg.EvolutionStrategies(**{**TINY, "covariance": "diagonal", **kw}),
    "full": lambda **kw: pg.EvolutionStrategies(**{**TINY, "covariance": "full", **kw}),
}
every_search = pytest.mark.parametrize("name", MAKERS)


@pytest.fixture(autouse=True)
def there_is_cma(request):
    if getattr(request.node, "callspec", None) and request.node.callspec.params.get("name") in ("diagonal", "full"):
        pytest.importorskip("cma", reason="a covariance needs cma")


def fitted(name, env, iterations=3, **settings):
    agent = MAKERS[name](**settings)
    agent.fit(env, epochs=1, steps_per_epoch=iterations, verbose=0)
    return agent


def weights(agent):
    """All but what counts the present fit."""
    return [w.numpy() for w in agent.weights if not w.path.endswith("progress")]


def same(left, right):
    return all(np.array_equal(a, b) for a, b in zip(weights(left), weights(right), strict=True))


@every_search
@pytest.mark.quick("diagonal")
def test_it_goes_on_bit_for_bit_after_loading(name, tmp_path):
    straight, first = fitted(name, Aim(), 4), fitted(name, Aim(), 2)
    first.save(tmp_path / "agent.keras")
    loaded = keras.models.load_model(tmp_path / "agent.keras")
    assert same(first, loaded)
    loaded.fit(Aim(), epochs=1, steps_per_epoch=2, verbose=0)
    assert same(straight, loaded) and not same(straight, first)
    again = type(first).from_config(first.get_config())
    assert again.get_config() == first.get_config()


@pytest.mark.slow
def test_another_seed_finds_something_else():
    assert not same(fitted("hill", Aim(), 1), fitted("hill", Aim(), 1, seed=4))


@every_search
@pytest.mark.quick("diagonal")
def test_it_learns_what_is_known(name):
    """1 is the most that a step pays; the first policies get about 0.9."""
    settings = {"networks": pg.Networks(()), "population_size": 16, "noise": 0.3}
    agent = MAKERS[name](**settings | ({"temperature": 0.001} if name == "annealing" else {}))
    if name == "strategies":
        agent.compile(keras.optimizers.Adam(0.1))
    before = agent_return(agent, 0)
    agent.fit(Aim(num_envs=16), epochs=1, steps_per_epoch=40, verbose=0)
    assert before < 2.96 < 2.995 < agent_return(agent, 0) <= 3.0


def agent_return(agent, seed):
    agent.bind(Aim.observation_space, Aim.action_space)
    if not agent.iterations.numpy():  # Far from what is best.
        agent.move_to(tf.fill((agent.size,), -0.3))
    return agent.evaluate(Aim(), episodes=4, seed=seed)["return"]


@pytest.mark.parametrize("envs", ["half", "twice", "host"])
@every_search
@pytest.mark.quick("strategies-host")
def test_compiled_and_host_populations_are_the_same(name, envs):
    """Where nothing is left to chance; however many environments share the members."""
    env = {
        "half": lambda: Aim(num_envs=2),
        "twice": lambda: Aim(num_envs=8),
        "host": lambda: CompiledVectorEnv(Aim(num_envs=2)),
    }[envs]()
    one, other = fitted(name, Aim(num_envs=4)), fitted(name, env)
    np.testing.assert_allclose(one.theta(), other.theta(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["compiled", "host"])
@pytest.mark.quick("host")
def test_every_step_of_every_member_counts(kind):
    env = Aim(num_envs=4) if kind == "compiled" else CompiledVectorEnv(Aim(num_envs=4))
    agent = fitted("hill", env, 2, episodes=2)
    assert int(agent.env_steps.numpy()) == 2 * 4 * 2 * 3  # Iterations, members, episodes, steps.
    # A population may take ten steps for each member, the time limit; the budget is never exceeded.
    agent = MAKERS["hill"]()
    with pytest.raises(ValueError, match="`total_steps` must be at least"):
        agent.fit(env, total_steps=30, epochs=1, verbose=0)
    history = agent.fit(env, total_steps=100, epochs=1, verbose=0).history
    assert 60 < history["env_steps"][-1] <= 100 and history["env_steps"][-1] % 12 == 0
    # What is cut off counts with what it has.
    agent = MAKERS["hill"](horizon=2)
    history = agent.fit(env, epochs=1, steps_per_epoch=1, verbose=0).history
    assert int(agent.env_steps.numpy()) == 8 and history["mean_return"][-1] <= 2.0


def test_uneven_episodes_count_as_they_are():
    """Of gymnasium's CartPole, whose own steps are counted."""

    class Counting(gym.Wrapper):
        steps = 0

        def step(self, action):
            Counting.steps += 1
            return self.env.step(action)

    agent = fitted("strategies", lambda: Counting(gym.make("CartPole-v1")), 2, population_size=6)
    # An environment whose member has played may wait; the steps it makes meanwhile are not the method's.
    assert 6 * 2 * 8 < int(agent.env_steps.numpy()) <= Counting.steps


def test_one_program_serves_all_fits():
    agent = fitted("annealing", Aim(), 1)
    program = agent.programs.latest
    agent.fit(Aim(), epochs=2, steps_per_epoch=1, verbose=0)
    assert agent.programs.latest is program and program.experimental_get_tracing_count() == 1


@pytest.mark.slow
@pytest.mark.parametrize("memory", [None, pg.models.History(2), pg.models.GRU(3)], ids=["none", "history", "gru"])
def test_who_remembers_the_cue_is_right(memory):
    networks = pg.Networks((), memory=memory)
    agent = pg.EvolutionStrategies(networks=networks, population_size=16, noise=0.5, episodes=4, seed=1)
    agent.compile(keras.optimizers.Adam(0.2))
    agent.fit(Cue(num_envs=16), epochs=1, steps_per_epoch=30, verbose=0)
    right = agent.evaluate(Cue(num_envs=8), episodes=64)["return"]
    assert right == 1.0 if memory else 0.2 < right < 0.8


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.quick("False")
def test_what_is_forbidden_is_never_done(deterministic):
    agent = MAKERS["strategies"](population_size=8, deterministic=deterministic, noise=1.0)
    history = agent.fit(Forbidden(num_envs=8), epochs=1, steps_per_epoch=5, verbose=0).history
    assert agent.action_masks == "info" and history["mean_return"][-1] >= 0.0


def test_members_act_by_mode_or_by_sample():
    """Members that differ little from a fair coin: by mode each is always right or always wrong."""
    for deterministic, low, high in ((True, 0.0, 0.0), (False, 0.2, 0.8)):
        agent = pg.HillClimbing(
            networks=pg.Networks(()), population_size=2, noise=1e-3, least_noise=1e-3, most_noise=1e-3, episodes=40,
            deterministic=deterministic, reevaluate=False, seed=0,
        )  # fmt: skip
        env = Cue(num_envs=2)
        agent.bind(env.observation_space, env.action_space)
        agent.move_to(tf.constant([0.0, 0.0, 0.01, 0.0] if agent.size == 4 else tf.zeros(agent.size)))
        history = agent.fit(env, epochs=1, steps_per_epoch=1, verbose=0).history
        spread = np.array(agent.present)[0]
        assert history["best_return"][-1] == spread
        if deterministic:
            # The second observation is 0, so that the mode is one action whatever the cue: right half of the time.
            assert 0.2 < spread < 0.8
        else:
            assert low < spread < high


def test_the_normaliser_learns_what_the_population_saw():
    agent = fitted("hill", Aim(), 2)
    (layer,) = (layer for layer in agent.policy.layers if isinstance(layer, pg.models.RunningNormalization))
    np.testing.assert_allclose(layer.mean, [0.2], atol=1e-6)
    assert float(layer.count) == pytest.approx(2 * 4 * 3, abs=1.0)


@every_search
@pytest.mark.quick("full")
def test_what_is_not_finite_is_undone(name):
    agent = fitted(name, Aim(), 1)
    before = weights(agent)
    with pytest.raises(ValueError, match=r"`rewards` must be finite.*environment 0.*step 1 of the population"):
        agent.fit(Poisoned(), epochs=1, steps_per_epoch=1, verbose=0)
    assert all(np.array_equal(a, b) for a, b in zip(before, weights(agent), strict=True))


def test_hill_climbing_keeps_the_mean_of_what_the_present_weights_got():
    theta, noise = tf.constant([1.0, 2.0]), tf.constant([[1.0, 0.0], [0.0, 1.0]])
    assert neighbours(theta, 0.5, noise, True).numpy().tolist() == [[1.0, 2.0], [1.0, 2.5]]
    assert neighbours(theta, 0.5, noise, False).numpy().tolist() == [[1.5, 2.0], [1.0, 2.5]]
    value, count, others = judged(tf.constant([4.0, 3.0]), tf.constant([8.0, 1.0, 2.0]), True)
    assert (float(value), float(count), others.numpy().tolist()) == (5.0, 4.0, [1.0, 2.0])
    value, count, others = judged(tf.constant([4.0, 3.0]), tf.constant([8.0, 1.0]), False)
    assert (float(value), float(count), others.numpy().tolist()) == (4.0, 3.0, [8.0, 1.0])


class Told:
    """A search that is told returns in place of playing."""

    def tell(self, *returns):
        vars(self)["members"] = []

        def play(members):
            self.members.append(members.numpy())
            return tf.constant(returns, tf.float32)

        return {name: float(value) for name, value in self.iteration(play).items()}


def told(method, **settings):
    agent = type("ToldOf", (Told, method), {})(networks=pg.Networks(()), population_size=3, seed=0, **settings)
    agent.bind(Aim.observation_space, Aim.action_space)
    return agent


def test_hill_climbing_moves_to_what_is_better_and_adapts_its_noise():
    agent = told(pg.HillClimbing, noise=0.2)
    theta = agent.theta().numpy()
    logs = agent.tell(1.0, 0.0, 1.0)
    assert logs["improved"] == 0.0 and logs["present_return"] == 1.0  # Equals are no success.
    np.testing.assert_array_equal(agent.theta(), theta)
    np.testing.assert_array_equal(agent.members[0][0], theta)
    logs = agent.tell(3.0, 2.0, 2.5)
    assert logs["improved"] == 1.0 and logs["present_return"] == 2.5  # More than 2, the mean of 1 and 3.
    np.testing.assert_array_equal(agent.theta(), agent.members[0][2])
    assert logs["noise"] == pytest.approx(0.2 * 2.0 * 0.5)


def test_annealing_goes_downhill_while_it_is_hot():
    """From 1 to 0: with probability e^-1 at temperature 1, never when it is cold."""
    for temperature, low, high in ((1.0, 0.18, 0.56), (0.0, 0.0, 0.0)):
        agent, moves = told(pg.SimulatedAnnealing, temperature=temperature), 0
        for _ in range(60):
            agent.present.assign([1.0, 1e6])
            logs = agent.tell(1.0, 0.0, -1.0)
            moves += logs["accepted"]
            assert logs["worse"] == logs["accepted"]
        assert low <= moves / 60 <= high
    agent.present.assign([1.0, 1e6])
    assert agent.tell(1.0, 0.0, 1.5)["accepted"] == 1.0


def test_evolution_strategies_climb_the_estimate():
    agent = pg.EvolutionStrategies(networks=pg.Networks(()), population_size=64, noise=0.1, seed=0)
    agent.compile(keras.optimizers.SGD(0.05))
    agent.bind(Aim.observation_space, Aim.action_space)
    slope, before = np.arange(1.0, agent.size + 1.0, dtype="float32"), agent.theta().numpy()
    seen = []
    agent.iteration(lambda members: seen.append(members.numpy()) or tf.linalg.matvec(members, slope))
    moved = agent.theta().numpy() - before
    assert moved @ slope / np.linalg.norm(moved) / np.linalg.norm(slope) > 0.9
    np.testing.assert_allclose(seen[0][:32] + seen[0][32:], np.tile(2 * before, (32, 1)), atol=1e-5)


@pytest.mark.parametrize("covariance", [None, "diagonal"])
def test_regularizers_are_taken_off_the_objective(covariance):
    """Returns are all equal, so that nothing else moves the weights."""
    if covariance:
        pytest.importorskip("cma", reason="a covariance needs cma")
    inputs = keras.Input((1,))
    head = pg.heads.Gaussian.from_space(Aim.action_space)
    hidden = keras.layers.Dense(2, kernel_initializer="ones", kernel_regularizer=keras.regularizers.L2(1.0))
    agent = pg.EvolutionStrategies(keras.Model(inputs, head(hidden(inputs))), covariance=covariance, seed=0)
    agent.compile(None if covariance else keras.optimizers.SGD(0.1))
    agent.bind(Aim.observation_space, Aim.action_space)
    for _ in range(10):
        agent.iteration(lambda members: tf.zeros(members.shape[0]))
    assert np.abs(hidden.kernel).max() < 0.5


@pytest.mark.parametrize("full", [True, False])
def test_the_covariance_is_that_of_the_package_bit_for_bit(full):
    cma = pytest.importorskip("cma", reason="a covariance needs cma")
    rng = np.random.default_rng(0)
    scales = 10.0 ** np.arange(5)

    def objective(members):
        return [-float(((x - 1.0) ** 2 * scales).sum()) for x in members]

    drawn = []
    options = {"popsize": 8, "randn": lambda *shape: drawn[-1].reshape(shape), "seed": np.nan, "verbose": -9,
               "CMA_diagonal": not full, "conditioncov_alleviate": False, "verb_log": 0}  # fmt: skip
    whole = cma.CMAEvolutionStrategy(np.zeros(5), 0.5, options)
    kept = {}

    def add(name, shape, dtype):
        kept[name] = tf.Variable(tf.zeros(shape, dtype))
        return kept[name]

    mine, theta = Adaptation(5, full, 0.5, add), np.zeros(5)
    for _ in range(60):
        drawn.append(rng.normal(size=(8, 5)))
        members = whole.ask()
        whole.tell(members, [-value for value in objective(members)])
        strategy, members = mine.ask(theta, drawn[-1])
        theta = mine.tell(strategy, members, objective(members))
    np.testing.assert_array_equal(theta, whole.mean)
    assert float(mine.noise) == whole.sigma and int(mine.told) == 60
    assert -objective([theta])[0] < 10.0 < -objective([np.zeros(5)])[0]


@pytest.mark.parametrize(
    ("make", "settings", "sentence"),
    [
        ("hill", {"population_size": 0}, "`population_size` must be"),
        ("hill", {"population_size": 1}, "`population_size` must be at least 2 with `reevaluate`"),
        ("hill", {"noise": 3.0}, "`noise` must lie within `least_noise` and `most_noise`"),
        ("hill", {"anneal_learning_rate": True}, "`anneal_learning_rate` must be False, since HillClimbing has no"),
        ("annealing", {"temperature": -1.0}, "`temperature` must be"),
        ("strategies", {"population_size": 3}, "`population_size` must be even"),
        ("strategies", {"covariance": "round"}, "`covariance` must be None, 'diagonal' or 'full'"),
        ("full", {"population_size": 2}, "`population_size` must be at least 4 with a `covariance`"),
        ("full", {"noise": pg.schedules.linear(0.1)}, "`noise` must be a number"),
        ("full", {"anneal_learning_rate": True}, "`anneal_learning_rate` must be False"),
        ("hill", {"estimator": pg.estimators.TD0()}, "`estimator` must be left out of HillClimbing"),
        ("hill", {"critic": None}, "`critic` must be left out"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, settings, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence):
        MAKERS[make](**settings)


def test_what_a_search_cannot_do_is_refused():
    agent = MAKERS["hill"]()
    with pytest.raises(
        ValueError, match="`optimizer` must be left out, since HillClimbing moves the weights by a rule"
    ):
        agent.compile(keras.optimizers.Adam(0.1))
    for verb in ("train_on", "gradients"):
        with pytest.raises(NotImplementedError, match=f"`{verb}` has no.*Call `fit`"):
            getattr(agent, verb)(None)
    with pytest.raises(ValueError, match="`num_envs` must be a multiple or a divisor of `population_size`"):
        agent.fit(Aim(num_envs=3), epochs=1, steps_per_epoch=1, verbose=0)
    with pytest.raises(ValueError, match="`horizon` must be given for an environment without a time limit"):
        agent.fit(Aim(max_episode_steps=None), epochs=1, steps_per_epoch=1, verbose=0)
    pytest.importorskip("cma", reason="a covariance needs cma")
    agent = pg.EvolutionStrategies(covariance="full", networks=pg.Networks((64, 64)))
    with pytest.raises(
        ValueError, match="`covariance` must be 'diagonal' or None of a policy of more than 1000 weights"
    ):
        agent.bind(Aim.observation_space, Aim.action_space)
    agent = MAKERS["full"]()
    agent.noise = 0.5  # Nothing has adapted yet.
    agent.bind(Aim.observation_space, Aim.action_space)
    with pytest.raises(ValueError, match="`noise` must be set before the networks are made.*Received: noise=0.1"):
        agent.noise = 0.1
    assert agent.noise == 0.5 == float(agent.adaptation.noise)


@pytest.mark.slow
@every_search
def test_a_search_has_the_verbs_of_every_agent(name, tmp_path):
    agent = MAKERS[name]()
    best = keras.callbacks.ModelCheckpoint(
        tmp_path / "best.keras", monitor="val_return", mode="max", save_best_only=True
    )
    history = agent.fit(Aim(), epochs=2, steps_per_epoch=2, validation_env=Aim(), callbacks=best, verbose=0).history
    assert {"mean_return", "best_return", "val_return", "episode_return", "env_steps"} <= {*history}
    for key in {*history} - {"episode_return", "episode_length", "env_steps", "steps_per_second"}:
        assert key.startswith("val_") or f"`{key}`" in type(agent).__doc__, key
    assert (tmp_path / "best.keras").exists()
    agent.export(tmp_path / "model" / "1")
    assert Aim.action_space.contains(agent.act(np.zeros(1, np.float32)))
