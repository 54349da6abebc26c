"""Forbidden actions: every head that takes masks against sums over all its joint actions."""

import itertools

import gymnasium
import numpy as np
import pytest
import tensorflow as tf

from kerasrl_pg import heads, ops
from kerasrl_pg.envs.masks import map_masks
from kerasrl_pg.heads.categorical import ABSENT

spaces = gymnasium.spaces
HEADS = {
    "categorical": lambda: heads.Categorical(5, start=2),
    "multi_categorical": lambda: heads.MultiCategorical([2, 4, 3], start=[0, -1, 5]),
    "multi_categorical_even": lambda: heads.MultiCategorical([3, 3]),
    "multi_categorical_2d": lambda: heads.MultiCategorical([[2, 3], [3, 1]]),
    "composite": lambda: heads.Composite(
        {"z": heads.Categorical(3), "a": (heads.Bernoulli(2), heads.MultiCategorical([3, 2])), "m": heads.Bernoulli(1)}
    ),
}
all_heads = pytest.mark.parametrize("name", HEADS)


def entries(head):
    """For each single choice of an action: where its logits stand in the parameters, and its places in a mask.

    -1 stands for a logit that is always 0, and for what is always allowed.
    """
    if isinstance(head, heads.Composite):
        found, parameters, places = [], 0, 0
        for _, leaf in head.leaves():
            for logits, mask in entries(leaf):
                found.append(
                    ([p if p < 0 else parameters + p for p in logits], [q if q < 0 else places + q for q in mask])
                )
            parameters += leaf.num_parameters
            places += 0 if leaf.mask_shape is None else leaf.mask_shape[0]
        return found
    if isinstance(head, heads.Bernoulli):
        return [([-1, i], [-1, -1]) for i in range(head.num_parameters)]
    nvec = [head.num_actions] if isinstance(head, heads.Categorical) else head.nvec.ravel().tolist()
    starts = np.cumsum([0, *nvec])
    return [([k * max(nvec) + c for c in range(n)], [int(starts[k]) + c for c in range(n)]) for k, n in enumerate(nvec)]


def joint_actions(head):
    """All actions of a head, [A] nested, and for each the logits and the places of its choices [A, entries]."""
    found = entries(head)
    combinations = np.array(list(itertools.product(*[range(len(logits)) for logits, _ in found])), "int32")
    shapes = [spec.shape for spec in tf.nest.flatten(head.action_spec)]
    split = np.split(combinations, np.cumsum([shape.num_elements() for shape in shapes])[:-1], axis=1)
    leaves = [part.reshape(len(combinations), *shape) for part, shape in zip(split, shapes, strict=True)]
    chosen = [[[(logits[c], mask[c]) for (logits, mask), c in zip(found, row, strict=True)] for row in combinations]]
    chosen = np.array(chosen)[0]
    return tf.nest.pack_sequence_as(head.action_spec, leaves), chosen[..., 0], chosen[..., 1]


def oracle(head, parameters, masks):
    """The probabilities of all joint actions [B, A], normalised over the allowed ones at once, and these as bools."""
    _, logits, places = joint_actions(head)
    parameters = np.concatenate([np.float64(parameters), np.zeros((len(parameters), 1))], axis=1)
    allowed = np.concatenate([masks, np.ones((len(masks), 1), bool)], axis=1)[:, places].all(-1)
    weights = np.where(allowed, np.exp(parameters[:, logits].sum(-1)), 0.0)
    return weights / weights.sum(1, keepdims=True), allowed


def random_masks(head, count, seed=0):
    """Masks in which every choice is left something; the first row allows all, the second one thing each."""
    rng = np.random.default_rng(seed)
    masks = rng.uniform(size=(count, *head.mask_shape)) < 0.5
    masks[0], masks[1] = True, False
    for _, places in entries(head):
        if places[0] >= 0:
            masks[np.arange(count), rng.choice(places, count)] = True
    return masks


def logits_of(head, count, seed=0, scale=1.0):
    return np.float32(scale * np.random.default_rng(seed).normal(size=(count, head.num_parameters)))


def every(action, count):
    """Each of A actions for each of `count` rows: [A, count] nested."""
    return tf.nest.map_structure(lambda x: np.repeat(x[:, None], count, axis=1), action)


def masked_parameters(head, masks):
    """Which parameters [B, P] no allowed action has: those of what is masked, or does not exist."""
    used = np.zeros((len(masks), head.num_parameters), bool)
    for logits, places in entries(head):
        for p, q in zip(logits, places, strict=True):
            if p >= 0:
                used[:, p] = True if q < 0 else masks[:, q]
    return ~used


@all_heads
def test_masked_policies_against_sums_over_all_joint_actions(name):
    head, count = HEADS[name](), 7
    masks = random_masks(head, count)
    old, new = logits_of(head, count), logits_of(head, count, seed=1)
    policy, other = (head.mask(head.distribution(x), masks) for x in (old, new))
    (p, allowed), (q, _) = (oracle(head, x, masks) for x in (old, new))
    actions, _, _ = joint_actions(head)
    log_probs = policy.log_prob(every(actions, count)).numpy().T
    np.testing.assert_allclose(log_probs[allowed], np.log(p[allowed]), rtol=1e-5, atol=1e-5)
    assert np.isfinite(log_probs).all()
    assert (log_probs[~allowed] <= ABSENT).all()
    assert (np.exp(log_probs[~allowed]) == 0.0).all()
    np.testing.assert_allclose(np.exp(log_probs).sum(1), 1.0, rtol=1e-5)
    logs = np.log(np.where(allowed, p, 1.0))
    np.testing.assert_allclose(policy.entropy(), -(p * logs).sum(1), rtol=1e-5, atol=1e-5)
    kl = (p * (logs - np.log(np.where(allowed, q, 1.0)))).sum(1)
    np.testing.assert_allclose(policy.kl_divergence(other), kl, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(policy.kl_divergence(policy), np.zeros(count))
    mode = policy.log_prob(policy.mode()).numpy()
    np.testing.assert_allclose(mode, np.log(p.max(1)), rtol=1e-5, atol=1e-5)
    assert type(policy) is type(head.distribution(old))


@all_heads
def test_a_full_mask_changes_nothing(name):
    head = HEADS[name]()
    policy, other = (head.distribution(logits_of(head, 4, seed)) for seed in (0, 1))
    masked = head.mask(policy, np.ones((4, *head.mask_shape), bool))
    mode = policy.mode()
    np.testing.assert_allclose(masked.log_prob(mode), policy.log_prob(mode), rtol=1e-5)
    np.testing.assert_allclose(masked.entropy(), policy.entropy(), rtol=1e-5)
    np.testing.assert_allclose(masked.kl_divergence(other), policy.kl_divergence(other), rtol=1e-5)


@all_heads
def test_gradients_are_those_of_the_sums_and_exactly_zero_where_masked(name):
    head, count, step = HEADS[name](), 5, 1e-5
    masks = random_masks(head, count)
    old, new = logits_of(head, count), logits_of(head, count, seed=1)
    actions, _, _ = joint_actions(head)
    old_p, allowed = oracle(head, old, masks)
    chosen = old_p.argmax(1)
    action = tf.nest.map_structure(lambda x: x[chosen], actions)
    parameters = tf.constant(new)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(parameters)
        policy = head.mask(head.distribution(parameters), masks)
        before = head.mask(head.distribution(old), masks)
        outputs = policy.log_prob(action), policy.entropy(), before.kl_divergence(policy), policy.kl_divergence(before)

    def sums(parameters):
        p, _ = oracle(head, parameters, masks)
        logs, old_logs = (np.log(np.where(allowed, x, 1.0)) for x in (p, old_p))
        rows = np.arange(count)
        return (
            np.log(p[rows, chosen]),
            -(p * logs).sum(1),
            (old_p * (old_logs - logs)).sum(1),
            (p * (logs - old_logs)).sum(1),
        )

    expected = np.zeros((4, *new.shape))
    for i in range(new.shape[1]):
        change = step * (np.arange(new.shape[1]) == i)
        up, down = sums(np.float64(new) + change), sums(np.float64(new) - change)
        expected[:, :, i] = (np.array(up) - np.array(down)) / (2 * step)
    dead = masked_parameters(head, masks)
    assert dead.any()
    for output, gradient in zip(outputs, expected, strict=True):
        ours = tape.gradient(output, parameters).numpy()
        np.testing.assert_allclose(ours, gradient, atol=2e-5)
        assert (ours[dead] == 0.0).all()


@all_heads
@pytest.mark.filterwarnings("ignore")  # tf.lite announces its successor
@pytest.mark.quick("categorical", "composite")
def test_eager_graph_xla_and_litert_agree(name, litert_program):
    head, count = HEADS[name](), 6
    masks, noise = random_masks(head, count), head.noise([3, 4], (count,)).numpy()
    old, new = logits_of(head, count), logits_of(head, count, seed=1)

    def joined(*tensors):
        return tf.concat([tf.reshape(tf.cast(x, tf.float32), [-1]) for x in tf.nest.flatten(tensors)], 0)

    def act(parameters, noise, masks):
        policy = head.mask(head.distribution(parameters), masks)
        raw = head.sample(policy, noise)
        return joined(raw, policy.mode(), head.to_env(raw), policy.log_prob(raw), head.all_masked(masks))

    def learn(new, old, noise, masks):
        with tf.GradientTape() as tape:
            tape.watch(new)
            policy = head.mask(head.distribution(new), masks)
            kl = head.mask(head.distribution(old), masks).kl_divergence(policy)
            result = joined(policy.log_prob(head.sample(policy, noise)), policy.entropy(), kl)
        return tf.concat([act(new, noise, masks), result], 0), tape.gradient(result, new)

    arguments = [tf.constant(x) for x in (new, old, noise, masks)]
    expected, gradient = learn(*arguments)
    for compiled in (tf.function(learn), tf.function(learn, jit_compile=True)):
        ours, slope = compiled(*arguments)
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(slope, gradient, rtol=1e-4, atol=1e-5)
        assert (slope.numpy()[masked_parameters(head, masks)] == 0.0).all()
    program = litert_program(act)
    for scale in (1, 100, 1e4, 1e8, 1e30):
        arguments = [np.float32(scale) * new, noise, masks]
        expected = act(*[tf.constant(x) for x in arguments]).numpy()
        assert np.isfinite(expected).all()
        ours = program(*arguments)[0]
        np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-4 * max(1, np.abs(expected).max()), err_msg=scale)


def allowed_actions(head, actions, masks):
    """Whether each action [B] is allowed by its row."""
    joint, _, places = joint_actions(head)
    flat = [
        np.concatenate([np.reshape(x, (len(x), -1)) for x in tf.nest.flatten(nest)], 1) for nest in (joint, actions)
    ]
    which = (flat[1][:, None] == flat[0][None]).all(-1).argmax(1)
    _, allowed = oracle(head, np.zeros((len(masks), head.num_parameters)), masks)
    return allowed[np.arange(len(masks)), which]


@all_heads
def test_samples_have_the_masked_probabilities(name):
    head, count = HEADS[name](), 20_000
    masks = np.repeat(random_masks(head, 3, seed=2)[2:], count, axis=0)
    parameters = np.repeat(logits_of(head, 1), count, axis=0)
    policy = head.mask(head.distribution(parameters), masks)
    p, allowed = oracle(head, parameters[:1], masks[:1])
    joint, _, _ = joint_actions(head)
    joint = np.concatenate([np.reshape(x, (len(x), -1)) for x in tf.nest.flatten(joint)], 1)
    for actions in (head.sample(policy, head.noise([5, 6], (count,))), policy.sample(seed=3)):
        drawn = np.concatenate([np.reshape(x, (count, -1)) for x in tf.nest.flatten(actions)], 1)
        frequencies = np.array([(drawn == row).all(1).mean() for row in joint])
        assert (frequencies[~allowed[0]] == 0.0).all()
        assert (np.abs(frequencies - p[0]) < 4.5 * np.sqrt(p[0] * (1 - p[0]) / count) + 1e-9).all()


@all_heads
@pytest.mark.parametrize(("kept", "lost"), [(-1e8, 1e8), (1e8, -1e8), (-3e38, 3e38), (3e38, 3e38), (-1e9, 0), (0, 1e9)])
def test_extreme_logits_never_choose_what_is_masked(name, kept, lost):
    head, count = HEADS[name](), 60
    masks = random_masks(head, count)
    dead = masked_parameters(head, masks)
    parameters = tf.constant(np.where(dead, np.float32(lost), np.float32(kept)))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(parameters)
        policy = head.mask(head.distribution(parameters), masks)
        actions = head.sample(policy, head.noise([7, 8], (count,)))
        outputs = policy.log_prob(actions), policy.entropy(), policy.kl_divergence(policy)
    ends = np.where(np.random.default_rng(0).uniform(size=(count, *head.noise_shape)) < 0.5, 2.0**-24, 1 - 2.0**-24)
    for chosen in (actions, head.sample(policy, np.float32(ends)), policy.mode(), policy.sample(seed=1)):
        assert allowed_actions(head, chosen, masks).all()
    for output in outputs:
        gradient = tape.gradient(output, parameters).numpy()
        assert np.isfinite(output).all()
        assert np.isfinite(gradient).all()
        assert (gradient[dead] == 0.0).all()


def test_equal_logits_stay_equally_likely_however_large():
    head, masks = heads.Categorical(4), np.array([True, False, True, False])
    for level in (0.0, 1e8, -1e8, -1e9, 3e38):
        policy = head.mask(head.distribution(np.full((1, 4), level, "float32")), masks)
        np.testing.assert_allclose(policy.log_prob([[0], [2]]), np.full((2, 1), -np.log(2)), rtol=1e-6)
        np.testing.assert_allclose(policy.entropy(), [np.log(2)], rtol=1e-6)


@all_heads
def test_where_nothing_is_allowed_it_is_said_and_all_stays_finite(name):
    head = HEADS[name]()
    groups = [places for _, places in entries(head) if places[0] >= 0]
    masks = np.ones((len(groups) + 2, *head.mask_shape), bool)
    for row, places in enumerate(groups):  # each choice by itself without any
        masks[row, places] = False
    masks[-2] = False
    expected = np.array([True] * (len(groups) + 1) + [False])
    for told in (head.all_masked(masks), head.all_masked(tf.constant(masks)).numpy()):
        np.testing.assert_array_equal(told, expected)
    assert isinstance(head.all_masked(masks), np.ndarray)
    np.testing.assert_array_equal(head.all_masked(masks[:, None][:, [0, 0]]), np.stack([expected] * 2, 1))
    assert bool(head.all_masked(masks[0])) and not bool(head.all_masked(masks[-1]))
    parameters = tf.constant(logits_of(head, len(masks)))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(parameters)
        policy = head.mask(head.distribution(parameters), masks)
        outputs = policy.log_prob(policy.mode()), policy.entropy(), policy.kl_divergence(policy)
    for output in outputs:
        assert np.isfinite(output).all()
        assert np.isfinite(tape.gradient(output, parameters)).all()


@all_heads
def test_leading_dimensions_and_two_masks(name):
    head = HEADS[name]()
    one, two = random_masks(head, 6), random_masks(head, 6, seed=1)
    both = one & two
    usable = ~head.all_masked(both)
    parameters = logits_of(head, 6)
    policy = head.distribution(parameters)
    twice, once = head.mask(head.mask(policy, one), both), head.mask(policy, both)
    np.testing.assert_allclose(twice.entropy()[usable], once.entropy()[usable], rtol=1e-5, atol=1e-6)
    folded = head.distribution(parameters.reshape(2, 3, -1))
    folded = head.mask(folded, one.reshape(2, 3, -1))
    assert folded.batch_shape == (2, 3)
    np.testing.assert_allclose(folded.entropy().numpy().ravel(), head.mask(policy, one).entropy(), rtol=1e-6)


@all_heads
def test_fisher_products_keep_off_what_is_masked(name):
    head, count = HEADS[name](), 3
    masks = random_masks(head, count, seed=3)
    variable = tf.Variable(logits_of(head, count))
    product = ops.fisher_vector_product(
        lambda: head.mask(head.distribution(variable), masks),
        lambda old, new: tf.reduce_mean(old.kl_divergence(new)),
        [variable],
    )
    size = count * head.num_parameters
    fisher = np.array(ops.explicit_fisher(product, size)).reshape(count, head.num_parameters, size)
    assert np.isfinite(fisher).all()
    assert (fisher[masked_parameters(head, masks)] == 0.0).all()
    # Against the mean of the scores' outer products, over all joint actions.
    p, _ = oracle(head, variable.numpy(), masks)
    actions, _, _ = joint_actions(head)
    expected = np.zeros((size, size))
    for a in range(p.shape[1]):
        with tf.GradientTape() as tape:
            policy = head.mask(head.distribution(variable), masks)
            log_prob = policy.log_prob(tf.nest.map_structure(lambda x, a=a: np.repeat(x[a : a + 1], count, 0), actions))
        score = tape.gradient(log_prob, variable).numpy()
        for row in range(count):
            block = slice(row * head.num_parameters, (row + 1) * head.num_parameters)
            expected[block, block] += p[row, a] * np.outer(score[row], score[row]) / count
    np.testing.assert_allclose(fisher.reshape(size, size), expected, atol=1e-5)


def test_masks_and_the_log_probability_of_what_is_masked():
    head = heads.MultiCategorical([2, 3])
    policy = head.mask(head.distribution(np.zeros((1, 6), "float32")), np.array([[True, False, True, True, False]]))
    np.testing.assert_allclose(policy.log_prob([[1, 0]]), [ABSENT], rtol=1e-6)
    np.testing.assert_allclose(policy.log_prob([[1, 2]]), [2 * ABSENT], rtol=1e-6)


@pytest.mark.parametrize("dtype", ["bool", "int8", "int64", "uint8", "float32"])
def test_read_mask_of_any_dtype(dtype):
    head = heads.Categorical(3)
    for given in (np.array([1, 0, 1], dtype), np.array([[1, 0, 1], [0, 0, 0]], dtype)):
        read = head.read_mask(given)
        assert read.dtype == bool
        np.testing.assert_array_equal(read, given == 1)
    np.testing.assert_array_equal(head.read_mask([1, 0, 1]), [True, False, True])


def test_read_mask_of_several_choices():
    head = heads.MultiCategorical([[2, 3], [1, 2]])
    flat = np.int8([1, 0, 0, 1, 1, 1, 0, 1])
    nested = ((flat[:2], flat[2:5]), (flat[5:6], flat[6:]))
    for given in (flat, nested, flat.tolist()):
        np.testing.assert_array_equal(head.read_mask(given), flat == 1)
    batch = np.stack([flat, 1 - flat])
    nested_batch = ((batch[:, :2], batch[:, 2:5]), (batch[:, 5:6], batch[:, 6:]))
    objects = np.empty(2, object)
    objects[0] = nested
    objects[1] = tuple(tuple(1 - part for part in row) for row in nested)
    for given in (batch, nested_batch, objects):
        np.testing.assert_array_equal(head.read_mask(given), batch == 1)


def test_read_mask_of_a_composite():
    head = heads.Composite(
        {
            "z": heads.Categorical(2),
            "a": (heads.Gaussian(1), heads.MultiCategorical([2, 1])),
            "m": {"b": heads.Categorical(2), "a": heads.Bernoulli(1)},
        }
    )
    # In the order of sorted keys: a[1], m.b, z.
    full = {"z": np.int8([0, 1]), "a": (None, (np.int8([1, 0]), np.int8([1]))), "m": {"b": np.int8([1, 0]), "a": None}}
    np.testing.assert_array_equal(head.read_mask(full), np.array([1, 0, 1, 1, 0, 0, 1], bool))
    np.testing.assert_array_equal(head.read_mask({"z": [0, 1]}), np.array([1, 1, 1, 1, 1, 0, 1], bool))
    np.testing.assert_array_equal(head.read_mask({"m": {}, "z": [0, 1], "a": (None, None)})[-2:], [False, True])
    np.testing.assert_array_equal(head.read_mask({}), np.ones(7, bool))
    batch = {"m": {}, "z": np.int8([[0, 1], [1, 0], [1, 1]]), "a": (None, np.ones((3, 3), bool))}
    np.testing.assert_array_equal(head.read_mask(batch)[:, -2:], batch["z"] == 1)
    assert head.read_mask(batch).shape == (3, 7)


def joined_in_a_graph(head, masks):
    return tf.function(lambda: head.join_masks(map_masks(tf.constant, masks), 2), autograph=False)()


def test_join_masks_is_read_mask_for_tensors():
    z, two, one = np.bool_([[0, 1], [1, 0]]), np.bool_([[1, 0], [0, 1]]), np.bool_([[1], [0]])
    composite = heads.Composite(
        {
            "z": heads.Categorical(2),
            "a": (heads.Gaussian(1), heads.MultiCategorical([2, 1])),
            "m": {"b": heads.Categorical(2), "a": heads.Bernoulli(1)},
        }
    )
    square = heads.MultiCategorical([[2, 1], [1, 2]])
    for head, masks in (
        (composite, {"z": z, "a": (None, (two, one)), "m": {"b": ~z, "a": None}}),
        (composite, {"z": z, "a": (None, np.concatenate([two, one], -1))}),
        (composite, {"z": z, "m": None, "a": (None, None)}),
        (composite, {"a": None, "m": {"b": z}}),
        (square, ((two, one), (~one, z))),
        (square, np.concatenate([two, one, ~one, z], -1)),
        (heads.Categorical(2), z),
    ):
        np.testing.assert_array_equal(head.join_masks(masks, 2), head.read_mask(masks))
        np.testing.assert_array_equal(joined_in_a_graph(head, masks), head.read_mask(masks))
    lists = square.join_masks([[two, one], [one, z]], 2)
    np.testing.assert_array_equal(lists, square.read_mask(((two, one), (one, z))))
    for head, masks, sentence in (
        (composite, {"z": z[:, :1]}, r"must be an array of 0 and 1 with 2 entries.*\(2, 1\).*That is the mask of 'z'"),
        (composite, {"z": np.float32(z)}, "must give tensors of bool.*Received: float32 of shape"),
        (composite, {"z": [True, False]}, "must give tensors of bool.*Received: True"),
        (composite, {"a": (z, None)}, "Masks must be for choices.*That is the mask of 0. That is the mask of 'a'"),
        (composite, {"q": z}, "must be nested as the action space: a dictionary with keys"),
        (composite, {"_z": z, "m": {"b": z}}, "`action_masks` must name parts of the action. Received: '_z'"),
        (composite, {"z": z[:1]}, r"a mask for each of the 2 environments. Received: masks of shape \(1, 7\)"),
        (composite, {"z": z[:1], "m": {"b": z}}, "must be of one batch shape"),
        (square, ((one, two), (one, z)), r"`action_mask\[0\]\[0\]` must be an array of 0 and 1 with 2 entries"),
        (square, (two, one), "must be tuples of arrays nested as nvec"),
        (square, ((two, None), (one, z)), r"`action_mask\[0\]\[1\]` must be an array"),
        (square, (), "must be tuples of arrays nested as nvec"),
        (heads.Categorical(2), {"z": z}, "must be an array of 0 and 1 with 2 entries"),
        (heads.Gaussian(2), z, "Masks must be for choices"),
        (heads.Composite((heads.Gaussian(2),)), (z,), "Masks must be for choices"),
    ):
        with pytest.raises(ValueError, match=sentence):
            head.join_masks(masks, 2)


class Masked(gymnasium.Env):
    """Gives a mask beside its observations."""

    observation_space = spaces.Box(-1, 1, (1,))

    def __init__(self, space, mask):
        self.action_space, self.mask = space, mask

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {"action_mask": self.mask}


def test_read_mask_of_gymnasiums_vector_environments():
    one, two = np.int8([1, 0]), np.int8([0, 1, 1])
    cases = [
        (spaces.Discrete(2), one, one),
        (spaces.MultiDiscrete([2, 3]), (one, two), np.r_[one, two]),
        (
            spaces.Dict(b=spaces.Discrete(2), a=spaces.MultiDiscrete([2, 3])),
            {"b": one, "a": (one, two)},
            np.r_[one, two, one],
        ),
        (spaces.Tuple([spaces.Discrete(2), spaces.Box(-1, 1), spaces.Discrete(3)]), (one, None, two), np.r_[one, two]),
    ]
    for space, mask, flat in cases:
        envs = gymnasium.vector.SyncVectorEnv([lambda space=space, mask=mask: Masked(space, mask)] * 3)
        _, infos = envs.reset()
        head = heads.default_head(space)
        np.testing.assert_array_equal(head.read_mask(infos["action_mask"]), np.stack([flat == 1] * 3))
        np.testing.assert_array_equal(head.read_mask(mask), flat == 1)


def test_gymnasium_and_heads_mean_the_same_by_a_mask():
    rng = np.random.default_rng(0)
    space = spaces.Dict(
        z=spaces.Discrete(4, start=3),
        a=spaces.Tuple([spaces.MultiDiscrete([[2, 3]], start=[[5, 1]]), spaces.Box(-1, 1)]),
    )
    head = heads.default_head(space)
    for seed in range(20):
        masks = [np.int8(rng.integers(0, 2, n)) for n in (4, 2, 3)]
        for mask in masks:
            mask[rng.integers(len(mask))] = 1
        nested = {"z": masks[0], "a": (((masks[1], masks[2]),), None)}
        space.seed(seed)
        theirs = {tuple(np.ravel(s["a"][0])) + (s["z"],) for s in (space.sample(mask=nested) for _ in range(200))}
        allowed = np.repeat(head.read_mask(nested)[None], 200, 0)
        policy = head.mask(head.distribution(np.zeros((200, head.num_parameters), "float32")), allowed)
        sent = head.to_env(head.sample(policy, head.noise([0, seed], (200,))))
        ours = {tuple(np.ravel(a)) + (z,) for a, z in zip(sent["a"][0].numpy(), sent["z"].numpy(), strict=True)}
        assert ours == theirs


DICT = heads.Composite({"a": heads.Categorical(2), "b": heads.Gaussian(1)})
TUPLE = heads.Composite((heads.Categorical(2), heads.MultiCategorical([2, 2])))


@pytest.mark.parametrize(
    ("head", "mask", "sentence"),
    [
        (heads.Categorical(3), [1, 0], r"array of 0 and 1 with 3 entries.*Received: shape \(2,\) of int64"),
        (heads.Categorical(3), None, "array of 0 and 1 with 3 entries.*Received: None"),
        (heads.Categorical(3), "abc", "array of 0 and 1 with 3 entries.*Received: 'abc'"),
        (heads.Categorical(3), 1, r"Received: shape \(\) of int64"),
        (heads.Categorical(3), [[1, 0, 1], [1]], r"Received: \[\[1, 0, 1\], \[1\]\]"),
        (heads.Categorical(3), [1, 2, 0], "must hold 1 for what is allowed and 0 for what is not. Received: 2"),
        (heads.Categorical(3), [1.0, np.nan, 0.0], "must hold 1 for what is allowed.*Received: nan"),
        (heads.Categorical(3), [1, -1, 0], "must hold 1 for what is allowed.*Received: -1"),
        (heads.MultiCategorical([2, 3]), [1, 0], r"with 5 entries.*Received: shape \(2,\)"),
        (heads.MultiCategorical([2, 3]), ([1, 0],), r"nested as nvec, of shape \(2,\).*all 5 choices.*Received: \("),
        (heads.MultiCategorical([2, 3]), ([1, 0], [1, 0]), r"`action_mask\[1\]` must be .* 3 entries"),
        (heads.MultiCategorical([2, 3]), ([1, 0], [[1, 0, 1]]), "of one batch shape for all entries"),
        (heads.MultiCategorical([[2], [3]]), ([1, 0], [1, 0, 1]), "nested as nvec"),
        (DICT, [1, 0], r"nested as the action space: a dictionary with keys of \['a', 'b'\].*Received: \[1, 0\]"),
        (DICT, {"c": [1, 0]}, "nested as the action space"),
        (DICT, {"a": [1, 0, 1]}, "with 2 entries.*That is the mask of 'a'"),
        (DICT, {"b": [1]}, "Masks must be for choices.*masks for a Gaussian.*That is the mask of 'b'"),
        (TUPLE, {"a": [1, 0]}, "nested as the action space: a tuple of 2"),
        (TUPLE, ([1, 0],), "nested as the action space: a tuple of 2"),
        (TUPLE, ([1, 0], [[1, 0, 1, 0]]), r"one batch shape for all parts. Received: \{0: \(\), 1: \(1,\)\}"),
    ],
)
def test_read_mask_refuses(head, mask, sentence):
    with pytest.raises(ValueError, match=f"(?s){sentence}"):
        head.read_mask(mask)


@pytest.mark.parametrize(
    "head",
    [
        heads.Bernoulli(2),
        heads.Gaussian(1),
        heads.TanhGaussian([-1], [1]),
        heads.Beta([-1], [1]),
        heads.GaussianMixture(1),
        heads.Composite({"a": heads.Gaussian(1)}),
    ],
    ids=lambda head: type(head).__name__,
)
def test_heads_without_masks(head):
    assert head.mask_shape is None
    policy = head(np.zeros((1, 2), "float32"))
    for call in (lambda: head.mask(policy, [[True]]), lambda: head.all_masked([[True]]), lambda: head.read_mask([1])):
        with pytest.raises(ValueError, match=f"Masks must be for choices.*Received: masks for a {type(head).__name__}"):
            call()
