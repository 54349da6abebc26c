"""`measure`: every estimate against what it claims to estimate, and estimates that are wrong in known ways."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_policies import POLICIES, critic

import kerasrl_pg as pg
from kerasrl_pg import lab
from kerasrl_pg.lab.env import MDPEnv

GAMMA, STEPS = 0.7, 4
WRONG = np.array([2.0, -1.0, 0.0, 1.0])  # A critic's values.
BASELINES = [b for b in vars(pg.baselines).values() if isinstance(b, type) and b.__module__ == pg.baselines.__name__]
BASELINES = [b for b in BASELINES if b is not pg.baselines.Baseline and not b.needs_critic]


def world(seed=0, num_envs=2):
    return pg.envs.TabularMDP(
        num_envs=num_envs, max_episode_steps=STEPS, num_states=4, num_actions=3, branching=3, seed=seed
    )


def exact_values(env, policy):
    endless = lab.MDP.of(env, GAMMA, None)
    return endless.evaluate(lab.PolicyTable(policy, endless.observations).probabilities()).values


def made(method, env, kind, values=None, jit_compile=False, seed=0, **settings):
    """An agent of `method` whose critic, if any, is exact where `values` is "exact", else that."""
    policy = POLICIES[kind](4, 3, seed)
    values = exact_values(env, policy) if isinstance(values, str) else values
    agent = method(policy, None if values is None else critic(values), gamma=GAMMA, seed=0, **settings)
    agent.compile(keras.optimizers.SGD(1.0), jit_compile=jit_compile)
    return agent


class OnPolicy:
    """Settings of the agents that take rows, without what is no policy gradient."""

    A2C = {"horizon": STEPS, "entropy_coef": 0.0}
    PPO = {"horizon": STEPS, "minibatch_size": STEPS, "normalize_advantages": False}


ESTIMATES = {
    "whole return": lambda *a, **k: made(pg.REINFORCE, *a, estimator=pg.estimators.WholeReturn(), **k),
    "reward-to-go": lambda *a, **k: made(pg.REINFORCE, *a, **k),
    "with γ^t": lambda *a, **k: made(pg.REINFORCE, *a, discounted_gradient=True, **k),
    **{
        b.__name__: lambda *a, b=b, **k: made(pg.REINFORCE, *a, baseline=b(), discounted_gradient=True, **k)
        for b in BASELINES
    },
    "value function": lambda *a, **k: made(pg.REINFORCE, *a, "exact", baseline=pg.baselines.ValueFunction(), **k),
    "GAE(1)": lambda *a, **k: made(pg.A2C, *a, "exact", **OnPolicy.A2C, **k),
    "TD(0)": lambda *a, **k: made(pg.A2C, *a, "exact", estimator=pg.estimators.TD0(), **OnPolicy.A2C, **k),
    "GAE(0.5)": lambda *a, **k: made(pg.PPO, *a, "exact", estimator=pg.estimators.GAE(0.5), **OnPolicy.PPO, **k),
    "A3C, not stale": lambda *a, **k: made(pg.A3C, *a, "exact", **OnPolicy.A2C, **k),
}
WRONG_CRITICS = {
    "TD(0)": lambda *a, **k: made(pg.A2C, *a, WRONG, estimator=pg.estimators.TD0(), **OnPolicy.A2C, **k),
    "GAE(0.5)": lambda *a, **k: made(pg.PPO, *a, WRONG, estimator=pg.estimators.GAE(0.5), **OnPolicy.PPO, **k),
    "two steps": lambda *a, **k: made(pg.A2C, *a, WRONG, estimator=pg.estimators.NStep(2), **OnPolicy.A2C, **k),
}


class WrongSign(pg.REINFORCE):
    def loss(self, samples):
        loss, logs = super().loss(samples)
        return -loss, logs


class Undiscounted(pg.REINFORCE):
    """Says that it weighs by γ^t and does not."""

    def credit(self, rollout):
        self._constructed, self.discounted_gradient = False, False
        credit = super().credit(rollout)
        self.discounted_gradient = self._constructed = True
        return credit


class Leaked(pg.baselines.AverageReturn):
    """The mean of all episodes, the one that it judges included."""

    def __call__(self, returns, ends, valid):
        return returns * 0.0 + pg.ops.masked_mean(returns, valid)


@pytest.mark.parametrize("name", ESTIMATES)
@pytest.mark.quick("WeightedAverage", "whole return", "GAE(1)", "A3C, not stale", "reward-to-go")
def test_unbiased(name):
    kind = [*POLICIES][[*ESTIMATES].index(name) % 3]
    env = world(seed=[*ESTIMATES].index(name))
    found = lab.measure(ESTIMATES[name](env, kind), env, samples=1000)
    assert found.unbiased, (found.bias / found.interval).round(2)
    assert np.linalg.norm(found.interval) < 2 * np.linalg.norm(found.exact)  # Narrow enough to tell something.


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        pytest.param(WrongSign, {}, id="sign"),
        pytest.param(Undiscounted, {"discounted_gradient": True}, id="discount"),
        pytest.param(pg.REINFORCE, {"baseline": Leaked()}, id="leak"),
    ],
)
@pytest.mark.quick("sign", "leak")
def test_what_is_wrong_is_seen(kind, settings):
    env = world()
    found = lab.measure(made(kind, env, "tabular", **settings), env, samples=1000)
    assert not found.unbiased
    assert found.squared_bias > 0.01


@pytest.mark.parametrize("name", WRONG_CRITICS)
@pytest.mark.quick("GAE(0.5)")
def test_a_wrong_critic_biases_by_what_the_process_predicts(name):
    env = world(seed=1)
    agent = WRONG_CRITICS[name](env, "tabular")
    found = lab.measure(agent, env, samples=1000)
    predicted = lab.Expectation(agent, lab.MDP.of(env, GAMMA), STEPS).predicted()
    assert not found.unbiased
    assert found.agrees_with(predicted), ((found.mean - predicted) / found.interval).round(2)


def natural(env, samples):
    settings = {"horizon": STEPS, "minibatch_size": STEPS, "normalize_advantages": False, "cg_iterations": None}
    agent = made(pg.NPG, env, "tabular", "exact", damping=0.01, **settings)
    return lab.measure(agent, env, samples=samples, natural=True)


def test_the_natural_direction():
    found = natural(world(num_envs=1000), 20)
    assert found.cosine > 0.97
    assert found.unbiased, (found.bias / found.interval).round(2)  # But for 1/N of many rows.
    plain = lab.measure(made(pg.REINFORCE, world(), "tabular"), world(), samples=2).exact
    assert np.dot(plain, found.exact) / np.linalg.norm(plain) / np.linalg.norm(found.exact) < 0.95


def test_no_weight_moves_and_seeds_tell():
    env = world()
    agent = made(pg.REINFORCE, env, "tabular")
    agent.bind(env.observation_space, env.action_space)
    before = [np.array(v) for v in agent.variables]
    one, same, other = (lab.measure(agent, env, samples=10, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.mean, same.mean)
    assert np.abs(one.mean - other.mean).max() > 0.0
    for variable, value in zip(agent.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_it_is_what_an_update_applies():
    # Over the very rollout that is measured: one step of plain descent adds the estimate to the weights.
    env = world(num_envs=3)
    agent = made(pg.A2C, env, "neural", "exact", **OnPolicy.A2C)
    agent.bind(env.observation_space, env.action_space)
    from kerasrl_pg.lab.measure import estimate
    from kerasrl_pg.rollouts import compiled

    seeds = [np.int32([0, stream]) for stream in range(3)]
    rollout, _, _ = compiled.collect(env, agent.actor_critic, compiled.start(env, seeds[0]), seeds, STEPS)
    before = [np.array(v) for v in agent.policy.trainable_variables]
    found = estimate(agent, rollout).numpy()
    agent.train_on(rollout)
    moved = [np.array(v) - b for v, b in zip(agent.policy.trainable_variables, before, strict=True)]
    np.testing.assert_allclose(found, np.concatenate([m.reshape(-1) for m in moved]), atol=1e-6)


@pytest.mark.slow
def test_inequalities():
    env = world(num_envs=4)
    whole, to_go = (lab.measure(ESTIMATES[name](env, "tabular"), env, 800) for name in ("whole return", "with γ^t"))
    np.testing.assert_allclose(whole.exact, to_go.exact)
    assert to_go.variance + 3 * to_go.variance_error < whole.variance - 3 * whole.variance_error


@pytest.mark.slow
def test_weighted_average_below_average_below_none():
    """A choice between 10, nine times in ten, and 5. In closed form, for N episodes and a known constant b:
    N Var = Σ_a π_a ‖∇log π_a‖² (R_a - b)² - ‖∇J‖²."""
    mdp = lab.MDP(np.ones((1, 2, 1)), [[10.0, 5.0]], [1.0], 1.0, horizon=1)
    env, pi, returns = MDPEnv(num_envs=32, mdp=mdp), np.array([0.9, 0.1]), np.array([10.0, 5.0])

    def variance(b):
        scores = np.eye(2) - pi
        terms = scores * (returns - b)[:, None]
        return (pi @ np.sum(terms**2, 1) - np.sum((pi @ terms) ** 2)) / 32

    averages = pg.baselines.AverageReturn(), pg.baselines.WeightedAverage()
    found = []
    for baseline in (None, *averages):
        agent = pg.REINFORCE(networks=pg.models.Tabular([np.log(pi)]), baseline=baseline, gamma=1.0, seed=0)
        agent.compile(keras.optimizers.SGD(1.0), jit_compile=False)
        found.append(lab.measure(agent, env, samples=400))
    none, average, weighted = (m.variance for m in found)
    assert all(m.unbiased for m in found)
    assert none == pytest.approx(variance(0.0), rel=0.2) and average == pytest.approx(variance(9.5), rel=0.25)
    assert weighted < 0.5 * average < 0.5 * none
    assert variance(5.5) == pytest.approx(0.0, abs=1e-12)  # What weights tend to, with many episodes.


@pytest.mark.slow
def test_variance_falls_as_one_over_episodes():
    env, counts = world(), [1, 4, 16]
    found = lab.sweep(lambda: made(pg.REINFORCE, env, "tabular"), env, samples=500, num_envs=counts)
    variances = [measured.variance for _, measured in found]
    slope = np.polyfit(np.log(counts), np.log(variances), 1)[0]
    assert slope == pytest.approx(-1.0, abs=0.1)  # The slow one says it to 0.05.
    text = lab.table(found)
    assert text.splitlines()[0].startswith("| num_envs | variance |") and len(text.splitlines()) == 5


def test_summary_by_hand():
    from kerasrl_pg.lab.measure import summary

    found = summary(np.array([[1.0, 0.0], [3.0, 0.0], [2.0, 3.0]]), np.array([1.0, 0.0]))
    np.testing.assert_allclose(found.mean, [2.0, 1.0])
    assert found.variance == pytest.approx(1.0 + 3.0)
    assert found.squared_error == pytest.approx((0 + 4 + 1 + 9) / 3)
    assert found.cosine == pytest.approx((1 + 1 + 2 / 13**0.5) / 3)
    assert found.squared_bias == pytest.approx(2.0 - 4.0 / 3)
    # Two components at 99 %: 0.25 % on each side.
    np.testing.assert_allclose(found.interval, 2.807034 * np.sqrt([1.0, 3.0]) / 3**0.5, rtol=1e-5)


def test_refusals():
    env = world()
    agent = made(pg.REINFORCE, env, "tabular", baseline=pg.baselines.AverageReturn())
    with pytest.raises(ValueError, match="`baseline` AverageReturn is the average of the other episodes"):
        lab.measure(agent, world(num_envs=1), samples=10)
    with pytest.raises(TypeError, match="`env` must be a CompiledEnv"):
        lab.measure(agent, "FrozenLake-v1", samples=10)
    with pytest.raises(ValueError, match="`samples` must be"):
        lab.measure(agent, env, samples=1)


class Masked(pg.envs.TabularMDP):
    def action_masks(self, state):
        return tf.stack([tf.fill(tf.shape(state), True), state > 0, state < 2], -1)


def test_what_would_be_measured_against_another_policy_is_refused():
    env = Masked(num_envs=2, max_episode_steps=STEPS, num_states=4)
    mdp = lab.MDP.of(world(), GAMMA)
    for given in (env, (env, mdp)):
        with pytest.raises(ValueError, match="`env` must allow every action in every state .* `action_masks` forbid"):
            lab.measure(made(pg.REINFORCE, world(), "tabular"), given, samples=10)
    agent = pg.A2C(horizon=4, networks=pg.Networks(()), seed=0)
    agent.compile(jit_compile=False)
    agent.fit(env, epochs=1, steps_per_epoch=1, verbose=0)
    with pytest.raises(ValueError, match="without memory and masks. Received: .*, whose actions are masked"):
        lab.policy_gradient(mdp, agent)
    agent = pg.A2C(horizon=4, networks=pg.Networks((), memory=pg.models.GRU(2)), seed=0)
    with pytest.raises(ValueError, match="which is not built. Call `bind`"):
        lab.policy_gradient(mdp, agent)
    agent.bind(env.observation_space, env.action_space)
    with pytest.raises(ValueError, match=", which remembers"):
        lab.policy_gradient(mdp, agent)


def test_gradients_that_are_not_finite_are_named():
    agent = made(pg.REINFORCE, world(), "tabular")
    exact = np.zeros(12)
    agent.policy.trainable_variables[0].assign(np.full((4, 3), np.nan))
    with pytest.raises(ValueError, match="`agent` must give gradients that are finite. .* 10 estimates 10 are not"):
        lab.measure(agent, world(), samples=10, exact=exact)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_all_over_a_hundred_thousand_episodes(seed):
    env = world(seed, num_envs=2)
    cases = {(name, kind): None for name in ESTIMATES for kind in POLICIES}
    own = []
    for name, kind in cases:
        agent = ESTIMATES[name](env, kind, jit_compile=True, seed=seed)
        # The family of all 5 x 9 x 3 cases together at 99 %.
        found = lab.measure(agent, env, samples=50_000, confidence=1 - 0.01 / (5 * len(cases)))
        assert found.unbiased, (name, kind, (found.bias / found.interval).round(2))
        own.append(lab.measure(agent, env, samples=50_000).unbiased)
    assert np.mean(own) > 0.9
    for make in WRONG_CRITICS.values():
        for kind in POLICIES:
            agent = make(env, kind, jit_compile=True, seed=seed)
            found = lab.measure(agent, env, samples=50_000, confidence=1 - 0.01 / (5 * 9))
            assert found.agrees_with(lab.Expectation(agent, lab.MDP.of(env, GAMMA), STEPS).predicted())
            assert not found.unbiased


@pytest.mark.slow
def test_variance_falls_as_one_over_episodes_to_five_hundredths():
    env, counts = world(), [1, 2, 4, 8, 16, 32, 64]
    found = lab.sweep(
        lambda: made(pg.REINFORCE, env, "tabular", jit_compile=True), env, samples=20_000, num_envs=counts
    )
    slope = np.polyfit(np.log(counts), np.log([m.variance for _, m in found]), 1)[0]
    assert slope == pytest.approx(-1.0, abs=0.05)


@pytest.mark.slow
def test_the_natural_direction_of_many_rows():
    found = natural(world(num_envs=20_000), 50)
    assert found.cosine > 0.998 and found.unbiased
