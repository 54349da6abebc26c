import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasrl_pg import ops
from kerasrl_pg.estimators import GAE, TD0, Estimator, NStep, RewardToGo, WholeReturn

GAMMA, HORIZON, NUM_ENVS = 0.9, 24, 5
FAMILY = [WholeReturn(), RewardToGo(), TD0(), NStep(3), NStep(HORIZON), GAE(), GAE(0.0), GAE(1.0)]
every_estimator = pytest.mark.parametrize("estimator", FAMILY, ids=repr)


def random_rollout(seed=0, garbage=0.0):
    """A rollout of a NEXT_STEP environment: the row after an end is no transition."""
    rng = np.random.default_rng(seed)
    rewards, values, next_values = rng.normal(size=(3, HORIZON, NUM_ENVS)).astype("float32")
    terminated, truncated = rng.random((2, HORIZON, NUM_ENVS)) < 0.15
    valid = np.ones((HORIZON, NUM_ENVS), bool)
    for t in range(1, HORIZON):
        valid[t] = ~((terminated | truncated) & valid)[t - 1]
    valid[-3:, 0] = False  # and a column padded in the middle of an episode
    terminated &= valid
    truncated &= valid
    ends = terminated | truncated
    next_values[:-1] = np.where(ends[:-1] | ~valid[1:], next_values[:-1], values[1:])
    rewards[~valid] = next_values[~valid] = garbage
    return rewards, values, next_values, terminated, truncated, valid


def episodes(terminated, truncated, valid):
    """(environment, first step, last step) of each stretch of valid steps."""
    for n in range(NUM_ENVS):
        first = None
        for t in range(HORIZON):
            if not valid[t, n]:
                continue
            first = t if first is None else first
            last = terminated[t, n] or truncated[t, n] or t == HORIZON - 1 or not valid[t + 1, n]
            if last:
                yield n, first, t
                first = None


def oracle(estimator, rewards, values, next_values, terminated, truncated, valid):
    """Episode by episode, all sums written out."""
    advantages, returns = np.zeros_like(values), values.copy()
    for n, first, last in episodes(terminated, truncated, valid):

        def bootstrapped(t, steps, n=n, last=last):
            """r_t + ... + γ^k V, with no more than `steps` rewards."""
            end = min(t + steps - 1, last)
            total = sum(GAMMA ** (i - t) * rewards[i, n] for i in range(t, end + 1))
            return total + GAMMA ** (end + 1 - t) * (0.0 if terminated[end, n] else next_values[end, n])

        for t in range(first, last + 1):
            to_go = bootstrapped(t, HORIZON)
            if isinstance(estimator, WholeReturn):
                credit, target = bootstrapped(first, HORIZON), to_go
            elif isinstance(estimator, RewardToGo):
                credit = target = to_go
            elif isinstance(estimator, TD0):
                credit = target = bootstrapped(t, 1)
            elif isinstance(estimator, NStep):
                credit = target = bootstrapped(t, estimator.n)
            else:
                lam, left = estimator.gae_lambda, last - t + 1
                shares = [(1 - lam) * lam**k for k in range(left - 1)] + [lam ** (left - 1)]
                credit = target = sum(share * bootstrapped(t, k + 1) for k, share in enumerate(shares))
            advantages[t, n], returns[t, n] = credit - values[t, n], target
    return advantages, returns


@pytest.mark.parametrize("seed", range(2))
@every_estimator
def test_against_the_oracle(estimator, seed):
    rollout = random_rollout(seed)
    for actual, expected in zip(estimator(*rollout, GAMMA), oracle(estimator, *rollout), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


@every_estimator
def test_what_stands_in_an_invalid_row_does_not_matter(estimator):
    clean = estimator(*random_rollout(), GAMMA)
    dirty = estimator(*random_rollout(garbage=np.nan), GAMMA)
    for a, b in zip(clean, dirty, strict=True):
        np.testing.assert_array_equal(a, b)


@every_estimator
@pytest.mark.parametrize("gamma", [0.9, 0.99])
def test_reward_one_for_ever_with_time_limits_is_a_fixed_point(estimator, gamma):
    """V = 1 / (1 - γ) is right in spite of the truncations, and every estimator must see it."""
    horizon, value = 35, 1.0 / (1.0 - gamma)
    ones, no = np.ones((horizon, 2), "float32"), np.zeros((horizon, 2), bool)
    truncated = (np.arange(horizon)[:, None] + [1, 6]) % 10 == 0
    advantages, returns = estimator(ones, value * ones, value * ones, no, truncated, ~no, gamma)
    np.testing.assert_allclose(advantages, 0 * ones, atol=1e-6 * value)
    np.testing.assert_allclose(returns, value * ones, rtol=1e-6)


def test_both_flags_mean_terminated():
    yes, no = np.ones((1, 1), bool), np.zeros((1, 1), bool)
    one, seven = np.ones((1, 1), "float32"), np.full((1, 1), 7.0, "float32")
    for estimator in FAMILY:
        for truncated in (yes, no):
            _, returns = estimator(one, seven, seven, yes, truncated, yes, GAMMA)
            assert float(returns[0, 0]) == 1.0, estimator


def test_identities():
    rollout = random_rollout()
    pairs = [(GAE(1.0), RewardToGo()), (GAE(0.0), TD0()), (NStep(1), TD0()), (NStep(99), GAE(1.0))]
    for a, b in pairs:
        for x, y in zip(a(*rollout, GAMMA), b(*rollout, GAMMA), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5, err_msg=f"{a} {b}")


@every_estimator
def test_no_gradient_flows(estimator):
    rewards, values, next_values, *flags = (tf.constant(x) for x in random_rollout())
    with tf.GradientTape() as tape:
        tape.watch([rewards, values, next_values])
        advantages, returns = estimator(rewards, values, next_values, *flags, GAMMA)
        total = tf.reduce_sum(advantages + returns)
    assert tape.gradient(total, [rewards, values, next_values]) == [None, None, None]


@every_estimator
def test_eager_graph_and_xla_agree(estimator):
    rollout = [tf.constant(x) for x in random_rollout()]
    eager = estimator(*rollout, GAMMA)
    graph = tf.function(estimator.__call__)(*rollout, tf.constant(GAMMA))
    xla = tf.function(estimator.__call__, jit_compile=True)(*rollout, tf.constant(GAMMA))
    for a, b, c in zip(eager, graph, xla, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(c, a, rtol=1e-5, atol=1e-6)


@every_estimator
def test_shapes_are_checked(estimator):
    rewards, values, *rest = random_rollout()
    with pytest.raises(ValueError, match="`rewards` and `values` must have the same shape"):
        estimator(rewards, values[..., None], *rest, GAMMA)


@every_estimator
def test_keras_saves_it(estimator):
    config = keras.saving.serialize_keras_object(estimator)
    assert config["registered_name"] == f"kerasrl_pg>{type(estimator).__name__}"
    again = keras.saving.deserialize_keras_object(config)
    assert again == estimator and hash(again) == hash(estimator)
    assert repr(again) == repr(estimator)
    assert eval(repr(estimator)) == estimator


def test_equality():
    assert GAE(0.9) != GAE(0.8) and NStep(1) != TD0() and GAE() != 0.95
    assert NStep(np.int64(5)) == NStep(5)


@pytest.mark.parametrize("gae_lambda", [-0.1, 1.01, float("nan"), None, "0.9"])
def test_bad_lambda_is_refused(gae_lambda):
    with pytest.raises(ValueError, match=r"`gae_lambda` must be a number in \[0, 1\].*Received"):
        GAE(gae_lambda)


@pytest.mark.parametrize(
    ("n", "error", "sentence"),
    [
        (0, ValueError, "`n` must be at least 1.*Received: n=0"),
        (-3, ValueError, "`n` must be at least 1.*Received: n=-3"),
        (2.0, TypeError, "`n` must be an int.*Received: n=2.0"),
        (True, TypeError, "`n` must be an int.*Received: n=True"),
    ],
)
def test_bad_n_is_refused(n, error, sentence):
    with pytest.raises(error, match=sentence):
        NStep(n)


def test_own_estimator():
    class Rewards(Estimator):
        def estimate(self, rewards, values, next_values, terminated, ends, gamma):
            returns = ops.discounted_sum(rewards, ends, gamma)
            return returns - values, returns

    rewards, values, next_values, *flags = random_rollout()
    expected = RewardToGo()(rewards, values, 0 * next_values, *flags, GAMMA)
    actual = Rewards()(rewards, values, next_values, *flags, GAMMA)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(NotImplementedError, match="`Estimator` must override `estimate"):
        Estimator()(rewards, values, next_values, *flags, GAMMA)
