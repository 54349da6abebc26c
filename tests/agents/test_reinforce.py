"""REINFORCE: its gradient against exact ones, the baselines, whole episodes."""

import gymnasium as gym
import keras
import numpy as np
import pytest
import tensorflow as tf
from exact import GAMMA, Stairs, exact_gradient, mean_update, slope, tabular

import kerasrl_pg as pg

TO_GO, WHOLE = pg.estimators.RewardToGo(), pg.estimators.WholeReturn()
AVERAGES = {
    "average": pg.baselines.AverageReturn(),
    "time": pg.baselines.TimeDependent(),
    "weighted": pg.baselines.WeightedAverage(),
    "weighted by step": pg.baselines.WeightedAverage(by_step=True),
}
BASELINES = {"none": None, **AVERAGES}


def reinforce(**settings):
    agent = pg.REINFORCE(tabular(), gamma=GAMMA, seed=0, **settings)
    agent.compile(keras.optimizers.SGD(1.0), jit_compile=False)
    agent.bind(Stairs.observation_space, Stairs.action_space)
    return agent


CASES = [
    *((credit, "none", count) for credit in ("to_go", "to_go_discounted", "whole") for count in ((1, 1), (1, 2))),
    *((credit, name, (1, 8)) for credit in ("to_go", "to_go_discounted") for name in AVERAGES),
    *((credit, name, (1, 2)) for credit in ("to_go", "whole") for name in AVERAGES),
    *((credit, name, (2, 1)) for credit in ("to_go", "whole") for name in AVERAGES),
]


@pytest.mark.parametrize(
    ("credit", "baseline", "count"),
    [pytest.param(*case, marks=pytest.mark.slow if i % 5 else ()) for i, case in enumerate(CASES)],
)
def test_the_mean_update_is_the_exact_gradient(credit, baseline, count):
    """Over all that can happen, with trajectories of one, two and three steps: no sampling, no interval."""
    episodes, num_envs = count
    agent = reinforce(
        estimator=WHOLE if credit == "whole" else TO_GO,
        baseline=BASELINES[baseline],
        discounted_gradient=credit == "to_go_discounted",
        episodes=episodes,
    )
    # Σ_t ∇log π R(τ) = Σ_t γ^t ∇log π R_t in the mean: what came before the action has mean zero.
    exact = exact_gradient(weighed=credit != "to_go")
    factor, rest = slope(mean_update(agent, episodes, num_envs), exact)
    assert factor == pytest.approx(1.0, abs=1e-4) and rest < 1e-4
    assert slope(exact_gradient(True), exact_gradient(False))[1] > 0.1


@pytest.mark.slow
@pytest.mark.parametrize(("episodes", "num_envs"), [(1, 2), (2, 1), (1, 8)])
@pytest.mark.parametrize("baseline", ["average", "time"])
def test_the_mean_of_fitted_updates_is_the_exact_gradient(baseline, episodes, num_envs):
    """As above by `fit`, within the interval of 4,000 updates."""
    agent = reinforce(baseline=BASELINES[baseline], episodes=episodes, horizon=3 * episodes)
    kernel, updates = agent.head.dense.kernel, []
    start = kernel.numpy()

    class Record(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            updates.append((kernel.numpy() - start)[:3])
            kernel.assign(start)

    agent.fit(Stairs, epochs=1, steps_per_epoch=4000, num_envs=num_envs, callbacks=[Record()], verbose=0)
    exact = exact_gradient(weighed=False)
    slopes = np.array([slope(update, exact)[0] for update in updates])
    assert abs(slopes.mean() - 1.0) < 3.5 * slopes.std() / np.sqrt(len(slopes)) < 0.2


@pytest.mark.parametrize("baseline", AVERAGES.values())
def test_an_average_over_other_episodes_is_refused_where_there_are_none(baseline):
    agent = pg.REINFORCE(tabular(), baseline=baseline, horizon=3)
    agent.compile("sgd")
    with pytest.raises(ValueError, match="is the average of the other episodes, and needs .* 2 .*Received: 1 x 1"):
        agent.fit(Stairs, epochs=1, steps_per_epoch=1, verbose=0)
    agent.fit(Stairs, epochs=1, steps_per_epoch=1, num_envs=2, verbose=0)


def test_one_episode_is_not_standardised_by_itself():
    agent = pg.REINFORCE(tabular(), estimator=WHOLE, normalize_advantages=True, horizon=3)
    agent.compile("sgd")
    with pytest.raises(ValueError, match="`normalize_advantages` must be False with one episode"):
        agent.fit(Stairs, epochs=1, steps_per_epoch=1, verbose=0)


def test_standardising_subtracts_the_mean_of_the_other_episodes():
    """What is divided by the deviation of its batch is, times that deviation, the exact gradient."""
    agent = reinforce(estimator=WHOLE, normalize_advantages=True)

    def deviation(data):
        no = tf.zeros_like(data.rewards)
        ends = pg.ops.episode_ends(data.terminated, data.truncated, data.valid)
        returns = pg.ops.whole_returns(data.rewards, no, data.terminated, ends, GAMMA)
        return returns.numpy()[data.valid.numpy()].std()

    factor, rest = slope(mean_update(agent, 1, 8, deviation), exact_gradient(True))
    assert factor == pytest.approx(1.0, abs=2e-3) and rest < 2e-3


def test_the_whole_return_is_not_discounted_twice():
    with pytest.raises(ValueError, match="`discounted_gradient` must be False with WholeReturn"):
        pg.REINFORCE(estimator=WHOLE, discounted_gradient=True)
    agent = pg.REINFORCE(discounted_gradient=True)
    with pytest.raises(ValueError, match="`discounted_gradient` must be False with WholeReturn"):
        agent.estimator = WHOLE
    assert agent.estimator == TO_GO


class Clock(gym.Env):
    """Eight steps of reward 1, whatever is done."""

    observation_space = gym.spaces.Discrete(4)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, terminated_at):
        self.end = terminated_at

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return 0, {}

    def step(self, action):
        self.time += 1
        return 0, 1.0, self.time == self.end, False, {}


@pytest.mark.parametrize("ends", [[5] * 8, [8] * 8, [5, 8] * 4], ids=["ended", "cut", "both"])
def test_a_trajectory_that_the_horizon_cuts_is_a_trajectory(ends):
    """The loss is per trajectory, -log π Σ_t R_t of five steps, whether they end there or are cut there."""
    makers = iter(ends)
    agent = pg.REINFORCE(tabular(), horizon=5, gamma=1.0, seed=0)
    agent.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    agent.bind(Clock.observation_space, Clock.action_space)
    agent.head.dense.kernel.assign(np.zeros((4, 2), np.float32))
    history = agent.fit(lambda: Clock(next(makers)), epochs=1, steps_per_epoch=1, num_envs=8, verbose=0).history
    assert history["policy_loss"][0] == pytest.approx(np.log(2) * (5 + 4 + 3 + 2 + 1), rel=1e-5)
    assert history["episodes"] == [float(ends.count(5))]


def test_two_cut_pieces_of_one_environment_are_two_trajectories(walk):
    """Where an environment has ended one episode and is cut in its second."""
    agent = pg.REINFORCE(tabular(), horizon=7, episodes=2, gamma=1.0, seed=0)
    agent.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    agent.bind(Clock.observation_space, Clock.action_space)
    agent.head.dense.kernel.assign(np.zeros((4, 2), np.float32))
    history = agent.fit(lambda: Clock(5), epochs=1, steps_per_epoch=1, num_envs=1, verbose=0).history
    assert history["policy_loss"][0] == pytest.approx(np.log(2) * (15 + 3) / 2, rel=1e-5)


def test_baselines_lower_the_variance():
    """Notes 3.3: Var[∇log π (R - b)] <= Var[∇log π R], over updates of eight episodes."""
    rng = np.random.default_rng(0)
    returns = rng.choice([10.0, 11.0], p=[0.6, 0.4], size=(1, 4000)).astype("float32")
    scores = np.where(returns == 10.0, 0.4, -0.6)
    everywhere = np.ones_like(returns, bool)
    for baseline in (pg.baselines.AverageReturn(), pg.baselines.TimeDependent()):
        centred = returns - baseline(returns, everywhere, everywhere).numpy()
        assert (scores * centred).var() < 0.01 * (scores * returns).var()


def test_rollouts_are_whole_episodes_and_padding_does_not_count(walk):
    seen = []

    class Watching(pg.REINFORCE):
        def train_step(self, rollout):
            seen.append(tf.nest.map_structure(lambda x: x.numpy(), rollout))
            return super().train_step(rollout)

    agent = Watching(episodes=3, networks=pg.Networks((8,)), seed=0)
    agent.compile(run_eagerly=True)
    history = agent.fit(walk, epochs=1, steps_per_epoch=2, num_envs=2, verbose=0).history
    assert history["episodes"] == [6.0]
    for rollout in seen:
        ends = (rollout.terminated | rollout.truncated) & rollout.valid
        np.testing.assert_array_equal(ends.sum(0), [3, 3])
        for n in range(2):
            last = np.flatnonzero(rollout.valid[:, n])[-1]
            assert ends[last, n] and rollout.valid[: last + 1, n].all()
    # Steps of the environment that waited for the other one are counted, because they were taken.
    assert history["env_steps"][0] >= sum(r.valid.sum() for r in seen)


def test_value_baseline_learns_the_returns(walk):
    agent = pg.REINFORCE(
        baseline=pg.baselines.ValueFunction(20), networks=pg.Networks((16,)), episodes=16, gamma=1.0, seed=0
    )
    # A falling rate averages over the rollouts, whose own means scatter by 0.05.
    rate = keras.optimizers.schedules.PolynomialDecay(0.03, 600, 1e-4)
    agent.compile(keras.optimizers.SGD(0.0), critic_optimizer=keras.optimizers.Adam(rate), jit_compile=False)
    agent.fit(walk, epochs=1, steps_per_epoch=30, num_envs=8, verbose=0)
    # A random walk with even odds from 1, 2, 3 reaches 4 before 0 with probability 1/4, 1/2, 3/4.
    np.testing.assert_allclose(agent.critic(np.arange(5)).mean()[1:4], [0.25, 0.5, 0.75], atol=0.1)


def with_values(optimizer, critic_optimizer=None, shared=False):
    networks = pg.Networks((8,), shared=shared)
    agent = pg.REINFORCE(baseline=pg.baselines.ValueFunction(3), networks=networks, episodes=2, seed=0)
    agent.compile(optimizer, critic_optimizer, jit_compile=False)
    return agent


@pytest.mark.parametrize("shared", [False, True])
def test_each_network_s_updates_count_for_themselves(shared, walk):
    """Under a constant gradient Adam's step is the learning rate, however often the critic is moved between."""
    agent = with_values(keras.optimizers.Adam(0.1), shared=shared)
    agent.bind(gym.spaces.Discrete(5), gym.spaces.Discrete(2))
    weight, steps = agent.head.dense.bias, []
    for _ in range(30):
        before = weight.numpy()
        agent.descend(lambda _: (tf.reduce_sum(weight.value), {}), None, "policy")
        steps.append(float((before - weight.numpy())[0]))
        for _ in range(3):
            agent.descend(lambda _: (tf.reduce_sum(agent.critic_head.dense.bias.value), {}), None, "critic")
    np.testing.assert_allclose(steps, 0.1, rtol=1e-4)
    assert int(agent.optimizer.iterations) == 30 and int(agent.critic_optimizer.iterations) == 90


@pytest.mark.slow
def test_one_optimizer_is_two_of_the_same_settings(walk, tmp_path):
    schedule = keras.optimizers.schedules.PolynomialDecay(0.05, 4, 0.0)

    def optimizer():
        return keras.optimizers.Adam(schedule, global_clipnorm=0.5)

    agents = [with_values(optimizer()), with_values(optimizer(), optimizer())]
    for agent in agents:
        agent.fit(walk, epochs=1, steps_per_epoch=3, verbose=0)
    assert all(np.array_equal(a, b) for a, b in zip(*(agent.get_weights() for agent in agents), strict=True))
    # A decay over four updates is not spent after one, of three critic's steps.
    assert float(agents[0].optimizer.learning_rate) == pytest.approx(0.05 / 4)
    agents[0].save(tmp_path / "agent.keras")
    loaded = keras.models.load_model(tmp_path / "agent.keras")
    for name in ("optimizer", "critic_optimizer"):
        mine, theirs = getattr(agents[0], name).variables, getattr(loaded, name).variables
        assert all(np.array_equal(a, b) for a, b in zip(mine, theirs, strict=True)) and len(mine) > 2


def test_accumulated_gradients_are_the_policy_s_own(walk):
    agent = with_values(keras.optimizers.SGD(0.1, gradient_accumulation_steps=2))
    agent.bind(gym.spaces.Discrete(5), gym.spaces.Discrete(2))
    before = agent.policy.get_weights()
    moved = []
    for _ in range(4):
        agent.fit(walk, epochs=1, steps_per_epoch=1, num_envs=4, verbose=0)
        after = agent.policy.get_weights()
        moved.append(any((a != b).any() for a, b in zip(before, after, strict=True)))
        before = after
    assert moved == [False, True, False, True]


def test_a_method_that_moves_the_critic_alone_needs_an_optimizer_for_it(walk):
    class Forgetful(pg.REINFORCE):
        alternates = False

    agent = Forgetful(baseline=pg.baselines.ValueFunction(1), networks=pg.Networks((8,)), seed=0)
    agent.compile("sgd", jit_compile=False)
    with pytest.raises(ValueError, match="`alternates` must be True of Forgetful"):
        agent.fit(walk, epochs=1, steps_per_epoch=1, verbose=0)


def test_no_time_limit_and_no_horizon_is_refused():
    agent = pg.REINFORCE()
    agent.compile()
    with pytest.raises(ValueError, match="`horizon` must be given for an environment without a time limit"):
        agent.fit(Stairs, epochs=1, steps_per_epoch=1, verbose=0)


def test_without_critic_there_is_none(walk):
    agent = pg.REINFORCE(networks=pg.Networks((8,)), seed=0)
    with pytest.raises(ValueError, match="`critic_optimizer` must be left out"):
        agent.compile(critic_optimizer="adam")
    agent.compile(jit_compile=False)
    agent.fit(walk, epochs=1, steps_per_epoch=1, verbose=0)
    assert agent.critic is None and agent.critic_head is None
