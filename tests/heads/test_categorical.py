import gymnasium
import numpy as np
import pytest
import tensorflow as tf

from kerasrl_pg.heads import Categorical, MultiCategorical
from kerasrl_pg.heads.categorical import ABSENT, gumbel_max

LOGITS = np.float32([[1.0, -0.5, 0.0], [3.0, 3.0, -2.0]])


def softmax(logits):
    weights = np.exp(logits.astype("float64"))
    return weights / weights.sum(-1, keepdims=True)


def test_closed_forms():
    head, p, q = Categorical(3), softmax(LOGITS), softmax(LOGITS[::-1])
    policy, other = head.distribution(LOGITS), head.distribution(LOGITS[::-1])
    np.testing.assert_allclose(policy.log_prob([2, 0]), np.log([p[0, 2], p[1, 0]]), rtol=1e-5)
    np.testing.assert_allclose(policy.entropy(), -(p * np.log(p)).sum(-1), rtol=1e-5)
    np.testing.assert_allclose(policy.kl_divergence(other), (p * np.log(p / q)).sum(-1), rtol=1e-5)
    np.testing.assert_array_equal(policy.mode(), [0, 0])


def test_score_is_indicator_minus_probabilities():
    """The softmax's score (chapter, section 4.5): one-hot of the action minus the probabilities."""
    logits = tf.constant(LOGITS)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        log_prob = Categorical(3).distribution(logits).log_prob([1, 2])
    score = np.eye(3)[[1, 2]] - softmax(LOGITS)
    np.testing.assert_allclose(tape.gradient(log_prob, logits), score, atol=1e-6)


def test_gumbel_max_frequencies():
    count = 40_000
    head = Categorical(3)
    logits = np.repeat(LOGITS[:1], count, axis=0)
    actions = head.sample(head.distribution(logits), head.noise([0, 0], (count,)))
    p = softmax(LOGITS[0])
    frequencies = np.bincount(actions, minlength=3) / count
    assert (np.abs(frequencies - p) < 4 * np.sqrt(p * (1 - p) / count)).all()


def test_gumbel_max_at_the_ends_of_the_noise():
    """Even the largest uniform cannot lift what does not exist."""
    uniform = np.float32([[2.0**-24, 1 - 2.0**-24], [1 - 2.0**-24, 2.0**-24]])
    np.testing.assert_array_equal(gumbel_max(np.float32([[0, 0]]), uniform), [1, 0])
    np.testing.assert_array_equal(gumbel_max(np.float32([[0, ABSENT]]), uniform), [0, 0])


def test_equal_choices_stay_equal_however_large_their_logits():
    """Beside a logit of 1e9 the noise used to be rounded away, and the first of equal ones always won."""
    uniform = np.random.default_rng(0).uniform(0.01, 0.99, (1000, 3)).astype("float32")
    for level in (0.0, 1e9, -1e9, 3e38):
        counts = np.bincount(gumbel_max(np.float32([level, level, -3.3e38]), uniform), minlength=3)
        assert counts[:2].min() > 400, level


def test_start_shifts_the_environment_action_only():
    actions = Categorical(3, start=-1).to_env(np.int32([0, 2]))
    np.testing.assert_array_equal(actions, [-1, 1])
    assert actions.dtype == tf.int64


@pytest.mark.parametrize("num_actions", [0, -1, 2.5])
def test_categorical_refuses(num_actions):
    with pytest.raises(ValueError, match="`num_actions` must be a whole number.*Received: num_actions="):
        Categorical(num_actions)


def test_multi_categorical_is_a_product_of_softmaxes():
    nvec = np.array([[2, 3], [4, 1]])
    head = MultiCategorical(nvec, start=[[0, 1], [5, 5]])
    parameters = np.random.default_rng(0).normal(size=(5, 16)).astype("float32")
    other = parameters + np.random.default_rng(1).normal(size=(5, 16)).astype("float32")
    p, q = head.distribution(parameters), head.distribution(other)
    log_prob, entropy, kl = np.zeros(5), np.zeros(5), np.zeros(5)
    actions = p.mode().numpy()
    for index, n in np.ndenumerate(nvec):
        a, b = (softmax(x.reshape(5, 2, 2, 4)[(slice(None), *index)][:, :n]) for x in (parameters, other))
        np.testing.assert_array_equal(actions[(slice(None), *index)], a.argmax(-1))
        log_prob += np.log(a.max(-1))
        entropy -= (a * np.log(a)).sum(-1)
        kl += (a * np.log(a / b)).sum(-1)
    np.testing.assert_allclose(p.log_prob(actions), log_prob, rtol=1e-5)
    np.testing.assert_allclose(p.entropy(), entropy, rtol=1e-5)
    np.testing.assert_allclose(p.kl_divergence(q), kl, rtol=1e-4)
    np.testing.assert_array_equal(head.to_env(actions), actions + np.array([[0, 1], [5, 5]]))


def test_absent_choices_are_never_drawn_and_get_no_gradient():
    head = MultiCategorical([1, 4, 2])
    parameters = tf.constant(np.random.default_rng(0).normal(size=(500, 12)), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(parameters)
        policy = head.distribution(parameters)
        actions = head.sample(policy, head.noise([0, 0], (500,)))
        loss = policy.log_prob(actions) + policy.entropy() + policy.kl_divergence(policy)
    assert (actions.numpy() < [1, 4, 2]).all()
    assert (actions.numpy().max(0) == [0, 3, 1]).all()
    absent = np.arange(4) >= np.array([[1], [4], [2]])
    gradient = tape.gradient(loss, parameters).numpy().reshape(500, 3, 4)
    assert (gradient[:, absent] == 0).all()
    assert (gradient[:, 1] != 0).any()


@pytest.mark.parametrize("level", [-3e38, -1e10, -1e9, 1e10, 3e38])
def test_absent_choices_stay_absent_however_large_the_logits(level):
    head = MultiCategorical([2, 3])
    parameters = np.full((50, 6), level, "float32")
    policy = head.distribution(parameters)
    for actions in (head.sample(policy, head.noise([0, 1], (50,))), policy.mode()):
        assert (actions < [2, 3]).numpy().all()
    np.testing.assert_allclose(policy.entropy(), np.full(50, np.log(6)), rtol=1e-6)
    np.testing.assert_allclose(policy.log_prob(policy.mode()), np.full(50, -np.log(6)), rtol=1e-6)
    with tf.GradientTape() as tape:
        logits = tf.constant(parameters)
        tape.watch(logits)
        log_prob = head.distribution(logits).log_prob(tf.zeros((50, 2), tf.int32))
    expected = np.float32([1 / 2, -1 / 2, 0, 2 / 3, -1 / 3, -1 / 3])
    np.testing.assert_allclose(tape.gradient(log_prob, logits)[0], expected, atol=1e-6)


@pytest.mark.parametrize("nvec", [[], 3, [2, 0], [2.5]])
def test_multi_categorical_refuses(nvec):
    with pytest.raises(ValueError, match="`nvec` must be a list .*Received: nvec="):
        MultiCategorical(nvec)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "int64", "uint64"])
def test_boxes_of_few_integers(dtype):
    """Every element of the space is reached, and nothing else, in the space's own dtype."""
    low, high = np.array([[0, 3], [5, 7]], dtype), np.array([[2, 3], [6, 12]], dtype)
    if dtype.startswith("i"):
        low, high = low - 4, high - 4
    space = gymnasium.spaces.Box(low.astype(dtype), high.astype(dtype), (2, 2), dtype)
    head = MultiCategorical.from_space(space)
    np.testing.assert_array_equal(head.nvec, [[3, 1], [2, 6]])
    policy = head.distribution(np.zeros((2000, head.num_parameters), "float32"))
    sent = head.to_env(head.sample(policy, head.noise([0, 0], (2000,)))).numpy()
    assert all(space.contains(action) for action in sent[:50])
    np.testing.assert_array_equal(sent.min(0), space.low)
    np.testing.assert_array_equal(sent.max(0), space.high)
    assert len(np.unique(sent[:, 1, 1])) == 6
    assert head.mask_shape == (12,)


@pytest.mark.parametrize(("dtype", "end"), [("int64", "min"), ("int64", "max"), ("uint64", "max"), ("uint8", "max")])
def test_boxes_at_the_ends_of_their_dtype(dtype, end):
    bound = int(getattr(np.iinfo(dtype), end))
    low = np.array([bound if end == "min" else bound - 3], dtype)
    space = gymnasium.spaces.Box(low, low + np.array(3, dtype), dtype=dtype)
    head = MultiCategorical.from_space(space)
    again = MultiCategorical.from_config(head.get_config())
    for each in (head, again):
        sent = each.to_env(np.int32([[0], [3]])).numpy()
        assert sent.dtype == dtype
        np.testing.assert_array_equal(sent, np.stack([space.low, space.high]))


def test_a_box_of_one_integer():
    space = gymnasium.spaces.Box(-1, 3, (), np.int16)
    head = Categorical.from_space(space)
    assert (head.num_actions, head.start, head.env_dtype, head.action_shape) == (5, -1, "int16", ())
    sent = head.to_env([0, 4]).numpy()
    np.testing.assert_array_equal(sent, [-1, 3])
    assert all(space.contains(np.asarray(action)) for action in sent)


def test_boxes_of_a_byte_still_have_a_head_and_larger_ones_a_remedy():
    assert MultiCategorical.from_space(gymnasium.spaces.Box(0, 255, (256,), np.uint8)).num_parameters == 2**16
    for space, count in (
        (gymnasium.spaces.Box(0, 256, (2,), np.int32), "257 an entry, 514 in all"),
        (gymnasium.spaces.Box(0, 255, (257,), np.uint8), "256 an entry, 65,792 in all"),
        (gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.int64), "18,446,744,073,709,551,6"),
        (gymnasium.spaces.Box(0, np.iinfo("uint64").max, (1,), np.uint64), "18,446,744,073,709,551,6"),
    ):
        sentence = (
            f"MultiCategorical serves a Box of integers with at most 256 .*{count}.*Received: space=.*TransformAction"
        )
        with pytest.raises(ValueError, match=sentence):
            MultiCategorical.from_space(space)
    with pytest.raises(
        ValueError, match="Categorical serves a Box of integers with at most 256 .*257 an entry, 257 in"
    ):
        Categorical.from_space(gymnasium.spaces.Box(0, 256, (), np.int32))
    with pytest.raises(ValueError, match="MultiCategorical serves a Box with at least one entry"):
        MultiCategorical.from_space(gymnasium.spaces.Box(0, 3, (2, 0), np.int32))
