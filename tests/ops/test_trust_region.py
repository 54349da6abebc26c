"""Fisher products, solvers, step sizes and the line search, against what NumPy says."""

import doctest
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasrl_pg import heads, ops
from kerasrl_pg.ops import trust_region

RNG = np.random.default_rng(0)
HEADS = {
    "categorical": lambda: heads.Categorical(3),
    "multi_categorical": lambda: heads.MultiCategorical([2, 3]),
    "bernoulli": lambda: heads.Bernoulli(2),
    "gaussian": lambda: heads.Gaussian(1, initial_log_std=-0.5),
    "gaussian_state_std": lambda: heads.Gaussian(1, state_dependent_std=True),
    "tanh_gaussian": lambda: heads.TanhGaussian([-1.0], [2.0]),
    "beta": lambda: heads.Beta([-1.0], [2.0]),
    "mixture": lambda: heads.GaussianMixture(1, 2),
}
every_head = pytest.mark.parametrize("name", HEADS)


def test_examples_are_true():
    results = doctest.testmod(trust_region, extraglobs={"tf": tf})
    assert results.attempted > 0 and results.failed == 0


def small_policy(head, layer=None, shape=(2,)):
    """A policy of some thirty parameters, whose states differ."""
    inputs = keras.Input(shape)
    layer = layer or keras.layers.Dense(3, "tanh", kernel_initializer=keras.initializers.RandomNormal(0.0, 1.0, seed=1))
    policy = keras.Model(inputs, head(layer(inputs)))
    head.dense.kernel.assign(np.random.default_rng(2).normal(size=head.dense.kernel.shape))
    return policy


def values(policy):
    return [variable.value for variable in policy.trainable_variables]


def exact_kl(old, new):
    return tf.reduce_mean(old.kl_divergence(new))


def fisher_of(policy, x, mean_kl=exact_kl):
    """F by the library, [P, P]."""
    size = sum(int(np.prod(v.shape)) for v in policy.trainable_variables)

    def explicit(x):
        return ops.explicit_fisher(ops.fisher_vector_product(lambda: policy(x), mean_kl, values(policy)), size)

    return tf.function(explicit, autograph=False)(x).numpy()


def hessian_of_kl(policy, x):
    """The dense second derivative in the parameters, with no thought of what it is made of."""
    old = tf.nest.map_structure(tf.stop_gradient, policy(x), expand_composites=True)

    def hessian(x):
        with tf.GradientTape(persistent=True) as outer:
            with tf.GradientTape() as inner:
                kl = exact_kl(old, policy(x))
            gradient = ops.flatten_parameters(inner.gradient(kl, values(policy), None, ops.trust_region.ZERO))
        blocks = outer.jacobian(gradient, values(policy), ops.trust_region.ZERO, experimental_use_pfor=False)
        return tf.concat([tf.reshape(block, [gradient.shape[0], -1]) for block in blocks], axis=1)

    return tf.function(hessian, autograph=False)(x).numpy()


def scores(policy, x, log_prob):
    """∇θ of the numbers `log_prob(π(.|x))` [A], each a row: [A, P]."""

    def jacobian(x):
        with tf.GradientTape(persistent=True) as tape:
            log_probs = log_prob(policy(x[None]))
        rows = tape.jacobian(log_probs, values(policy), ops.trust_region.ZERO, experimental_use_pfor=False)
        return tf.concat([tf.reshape(row, [log_probs.shape[0], -1]) for row in rows], axis=1)

    return tf.function(jacobian, autograph=False)(x).numpy().astype("float64")


def expectation(name, policy, x):
    """Actions [A, ...] and weights [A] that integrate over π(.|x)."""
    choices = {"categorical": [3], "multi_categorical": [2, 3], "bernoulli": [2, 2]}
    if name in choices:
        actions = np.array(list(itertools.product(*map(range, choices[name]))), "int32")
        actions = actions[:, 0] if name == "categorical" else actions
        return actions, np.exp(policy(x[None]).log_prob(actions[:, None]).numpy()[:, 0])
    distribution = policy(x[None])
    if name == "beta":
        # The action is sin² t, so that the integrand is smooth at the ends.
        t, weights = np.polynomial.legendre.leggauss(60)
        t = (t + 1) * np.pi / 4
        actions = np.clip(np.sin(t) ** 2, 1e-6, 1 - 1e-6).reshape(-1, 1).astype("float32")
        density = np.exp(distribution.log_prob(actions[:, None]).numpy()[:, 0])
        return actions, density * weights * np.pi / 4 * np.sin(2 * t)
    if name == "mixture":
        actions = np.linspace(-12, 12, 1201).reshape(-1, 1).astype("float32")
        return actions, np.exp(distribution.log_prob(actions[:, None]).numpy()[:, 0]) * 24 / 1200
    normal = distribution.distribution
    nodes, weights = np.polynomial.hermite_e.hermegauss(12)
    actions = normal.loc.numpy()[0] + normal.scale.numpy()[0] * nodes[:, None]
    return actions.astype("float32"), weights / weights.sum()


def fisher_by_scores(name, policy, x):
    """Σ_a π(a|s) ∇log π ∇log π^T, mean over states s: the notes' definition."""
    total = 0.0
    for state in x:
        actions, weights = expectation(name, policy, state)
        rows = scores(policy, state, lambda policy, a=actions: policy.log_prob(a[:, None])[:, 0])
        total = total + rows.T @ (weights[:, None] * rows)
    return total / len(x)


@every_head
@pytest.mark.quick(*(name for name in HEADS if name != "beta"))  # Whose gradients take ten seconds to build.
def test_products_are_those_of_the_hessian_of_the_kl(name):
    policy = small_policy(HEADS[name]())
    x = RNG.normal(size=(5, 2)).astype("float32")
    expected = hessian_of_kl(policy, x)
    assert np.abs(expected).max() > 0.05
    np.testing.assert_allclose(fisher_of(policy, x), expected, atol=2e-6 * np.abs(expected).max())


@pytest.mark.parametrize("name", [name for name in HEADS if name != "mixture"])
@pytest.mark.quick("categorical", "bernoulli", "gaussian_state_std")
def test_products_are_those_of_the_scores_outer_products(name):
    policy = small_policy(HEADS[name]())
    x = RNG.normal(size=(3, 2)).astype("float32")
    expected = fisher_by_scores(name, policy, x)
    tolerance = 1e-3 if name == "beta" else 1e-5
    np.testing.assert_allclose(fisher_of(policy, x), expected, atol=tolerance * np.abs(expected).max())


def test_mixtures_have_the_fisher_matrix_of_component_and_action():
    """Its KL is a bound; its Hessian is the Fisher matrix of the pair, which is never below that of the action."""
    policy = small_policy(HEADS["mixture"]())
    x = RNG.normal(size=(3, 2)).astype("float32")
    nodes, weights = np.polynomial.hermite_e.hermegauss(12)
    weights /= weights.sum()
    expected = 0.0
    for state in x:
        distribution = policy(state[None])
        normal = distribution.components_distribution.distribution
        chances = distribution.mixture_distribution.probs_parameter().numpy()[0]
        for k, chance in enumerate(chances):
            actions = (normal.loc[0, k] + normal.scale[0, k] * nodes[:, None]).numpy().astype("float32")

            def log_prob(policy, k=k, actions=actions):
                parts = policy.components_distribution.log_prob(actions[:, None])[:, k]
                return parts + tf.nn.log_softmax(policy.mixture_distribution.logits)[0, k]

            rows = scores(policy, state, log_prob)
            expected = expected + chance * rows.T @ (weights[:, None] * rows) / len(x)
    fisher = fisher_of(policy, x)
    np.testing.assert_allclose(fisher, expected, atol=1e-5 * np.abs(expected).max())
    actions_own = fisher_by_scores("mixture", policy, x)
    surplus = np.linalg.eigvalsh(fisher - actions_own)
    assert surplus.min() > -1e-4 * np.abs(fisher).max()
    assert surplus.max() > 1e-2 * np.abs(fisher).max()


def test_sampled_divergence_gives_the_outer_products_of_these_actions():
    policy = small_policy(heads.Categorical(3))
    x, actions = RNG.normal(size=(6, 2)).astype("float32"), np.array([0, 1, 2, 2, 0, 1])

    def sampled(old, new):
        return tf.reduce_mean(ops.kl_k3(new.log_prob(actions), old.log_prob(actions)))

    rows = np.concatenate([scores(policy, s, lambda p, a=a: p.log_prob(a)) for s, a in zip(x, actions, strict=True)])
    np.testing.assert_allclose(fisher_of(policy, x, sampled), rows.T @ rows / 6, atol=1e-6)


LAYERS = {
    "gru": (lambda: keras.layers.GRU(3), (4, 2)),
    "convolution": (lambda: keras.Sequential([keras.layers.Conv1D(2, 2), keras.layers.Flatten()]), (4, 2)),
    "normalised": (lambda: keras.Sequential([keras.layers.LayerNormalization(), keras.layers.Dense(3, "gelu")]), (3,)),
}


@pytest.mark.parametrize(("layer", "jit"), [*((layer, False) for layer in LAYERS), ("gru", True), ("normalised", True)])
@pytest.mark.quick("convolution-False", "normalised-True")
def test_any_keras_model_inside_a_loop(layer, jit):
    """The products are made from outside's intermediate results, also through a recurrent layer's own loop."""
    make, shape = LAYERS[layer]
    keras.utils.set_random_seed(0)
    policy = small_policy(heads.Categorical(3), make(), shape)
    x = RNG.normal(size=(4, *shape)).astype("float32")
    expected = hessian_of_kl(policy, x)
    vector = RNG.normal(size=len(expected)).astype("float32")

    def twice(x):
        product = ops.fisher_vector_product(lambda: policy(x), exact_kl, values(policy))
        return tf.while_loop(lambda i, _: i < 2, lambda i, v: (i + 1, product(v)), (0, tf.constant(vector)))[1]

    np.testing.assert_allclose(
        tf.function(twice, jit_compile=jit, autograph=False)(x), expected @ expected @ vector, rtol=1e-3, atol=1e-5
    )


def test_no_gradient_of_the_old_policy_and_none_at_it():
    """Moving both sides of the KL would give a Hessian of 0."""
    policy = small_policy(heads.Gaussian(1))
    x = RNG.normal(size=(4, 2)).astype("float32")
    assert np.linalg.eigvalsh(fisher_of(policy, x)).max() > 0.1


# Solvers


def symmetric(size, rank, seed=0, spread=1.0):
    a = np.random.default_rng(seed).normal(size=(size, rank)) * np.logspace(0, -spread, rank)
    return (a @ a.T / rank).astype("float32")


def solved_by_cg(matrix, b, **kwargs):
    x, residual = ops.conjugate_gradient(lambda v: tf.linalg.matvec(matrix, v), tf.constant(b), **kwargs)
    return x.numpy(), float(residual)


@pytest.mark.parametrize("damping", [0.1, 1e-3])
def test_conjugate_gradient_gives_the_explicit_inverse(damping):
    matrix, b = symmetric(20, 30) + damping * np.eye(20, dtype="float32"), RNG.normal(size=20).astype("float32")
    expected = np.linalg.solve(matrix.astype("float64"), b)
    x, residual = solved_by_cg(matrix, b, iterations=60)
    np.testing.assert_allclose(x, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
    assert residual < 1e-5
    exact = ops.solve_fisher(symmetric(20, 30), b, damping)
    np.testing.assert_allclose(exact, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("iterations", [1, 3, 6])
def test_conjugate_gradient_is_the_textbooks(iterations):
    matrix, b = symmetric(12, 20).astype("float64") + 0.1 * np.eye(12), RNG.normal(size=12)
    x, r = np.zeros(12), b.copy()
    p = r.copy()
    for _ in range(iterations):
        alpha = r @ r / (p @ matrix @ p)
        x, new = x + alpha * p, r - alpha * matrix @ p
        p, r = new + new @ new / (r @ r) * p, new
    ours, residual = solved_by_cg(matrix.astype("float32"), b.astype("float32"), iterations=iterations)
    np.testing.assert_allclose(ours, x, rtol=1e-3, atol=1e-4)
    assert residual == pytest.approx(np.linalg.norm(b - matrix @ x) / np.linalg.norm(b), rel=1e-3)
    # What `natural_step_size` relies on, however few the iterations.
    assert x @ matrix @ x == pytest.approx(b @ x)


def test_damping_is_added_to_small_eigenvalues():
    """However much greater the others are: what is rounding error in F is none in F + cI."""
    fisher = tf.linalg.diag([1e5, 1.0, 0.0])
    np.testing.assert_allclose(ops.solve_fisher(fisher, tf.ones(3), 1e-2), [1e-5, 1 / 1.01, 100.0], rtol=1e-5)


@pytest.mark.parametrize("size", [1e-25, 1e25])
def test_gradients_whose_square_float32_has_not_give_no_direction(size):
    x, residual = solved_by_cg(np.eye(3, dtype="float32"), np.full(3, size, "float32"))
    np.testing.assert_array_equal(x, np.zeros(3))
    assert residual == 0.0
    assert float(ops.parameter_step_size(tf.fill([3], size), 0.1)) == 0.0


def test_singular_matrices_are_survived():
    matrix = symmetric(10, 6)
    b = matrix @ RNG.normal(size=10).astype("float32")  # in its range, as a policy gradient is in F's
    expected = np.linalg.pinv(matrix.astype("float64"), rcond=1e-5) @ b
    for x in (solved_by_cg(matrix, b, iterations=30)[0], ops.solve_fisher(matrix, b)):
        np.testing.assert_allclose(x, expected, atol=1e-3 * np.abs(expected).max())
    outside = np.linalg.eigh(matrix)[1][:, 0].astype("float32")
    x, _ = solved_by_cg(matrix, b + outside, iterations=100)
    assert np.isfinite(x).all()
    assert np.abs(ops.solve_fisher(matrix, b + outside).numpy() - expected).max() < 1e-2 * np.abs(expected).max()


@pytest.mark.parametrize("jit", [False, True])
def test_zero_and_nan_give_no_direction(jit):
    def solve(matrix, b):
        x, residual = ops.conjugate_gradient(lambda v: tf.linalg.matvec(matrix, v), b)
        return x, residual, ops.solve_fisher(matrix, b)

    solve = tf.function(solve, jit_compile=jit, autograph=False)
    good, zero, bad = tf.eye(3), tf.zeros(3), tf.constant([1.0, np.nan, np.inf])
    for b in (zero, bad):
        for x in solve(good, b):
            assert (x.numpy() == 0).all()
    x, _, exact = solve(tf.fill((3, 3), np.nan), tf.ones(3))
    assert (x.numpy() == 0).all() and (exact.numpy() == 0).all()
    x, residual, exact = solve(tf.zeros((3, 3)), tf.ones(3))  # no curvature at all
    assert (x.numpy() == 0).all() and float(residual) == 1.0 and (exact.numpy() == 0).all()


def test_natural_gradient_of_a_softmax_is_the_advantage():
    """F = diag π - ππ^T and ∇J = π (A - E A) give F⁺ ∇J = A less its mean (Kakade 2001, section 3)."""
    probabilities, advantages = np.array([0.2, 0.5, 0.3]), np.array([1.0, -2.0, 0.5])
    fisher = np.diag(probabilities) - np.outer(probabilities, probabilities)
    gradient = probabilities * (advantages - probabilities @ advantages)
    solution = ops.solve_fisher(tf.constant(fisher, tf.float32), tf.constant(gradient, tf.float32))
    np.testing.assert_allclose(solution, advantages - advantages.mean(), rtol=1e-5)


# Step sizes


def test_step_sizes():
    fisher = symmetric(5, 8) + 0.1 * np.eye(5, dtype="float32")
    gradient = RNG.normal(size=5).astype("float32")
    direction = np.linalg.solve(fisher, gradient)
    step = float(ops.natural_step_size(gradient, direction, 0.02)) * direction
    assert 0.5 * step @ fisher @ step == pytest.approx(0.02, rel=1e-4)
    assert step @ gradient > 0
    assert np.sum((float(ops.parameter_step_size(gradient, 0.3)) * gradient) ** 2) == pytest.approx(0.3, rel=1e-5)


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf, 1e30])
def test_no_step_without_a_usable_length(bad):
    bad = tf.fill(3, bad)
    assert float(ops.parameter_step_size(bad, 0.1)) == 0.0
    assert float(ops.natural_step_size(bad, bad, 0.1)) == 0.0
    assert float(ops.natural_step_size(tf.ones(3), -tf.ones(3), 0.1)) == 0.0


def test_vectors_come_apart_as_they_were():
    tensors = [RNG.normal(size=shape).astype("float32") for shape in ((2, 3), (), (4,))]
    for ours, expected in zip(ops.split_parameters(ops.flatten_parameters(tensors), tensors), tensors, strict=True):
        np.testing.assert_array_equal(ours, expected)


# Line search


def naive_search(kls, objectives, start, max_kl, ratio):
    for index, (kl, objective) in enumerate(zip(kls, objectives, strict=True)):
        if kl <= max_kl and objective > start:
            return ratio**index, index, (kl, objective)
    return 0.0, len(kls), (0.0, start)


@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
def test_line_search_against_a_loop(mode):
    backtracks = 4

    def search(kls, objectives):
        def evaluate(fraction):
            index = tf.cast(tf.round(tf.math.log(fraction) / tf.math.log(0.5)), tf.int32)
            return kls[index], objectives[index]

        return ops.backtracking_line_search(evaluate, (0.0, 1.0), 0.1, ratio=0.5, backtracks=backtracks)

    if mode != "eager":
        search = tf.function(search, jit_compile=mode == "xla", autograph=False)
    seen = set()
    special = np.array([np.nan, np.inf, -np.inf, 0.1, 1.0], "float32")
    for _ in range(30 if mode == "eager" else 200):
        kls = np.where(RNG.random(5) < 0.2, RNG.choice(special, 5), RNG.uniform(0, 0.3, 5)).astype("float32")
        objectives = np.where(RNG.random(5) < 0.2, RNG.choice(special, 5), RNG.uniform(0, 2, 5)).astype("float32")
        told = (np.where(np.isinf(x), np.nan, x) for x in (kls, objectives))
        expected = naive_search(*told, 1.0, np.float32(0.1), 0.5)
        fraction, shortened, last = search(tf.constant(kls), tf.constant(objectives))
        assert (float(fraction), int(shortened)) == expected[:2]
        assert (float(last[0]), float(last[1])) == pytest.approx(expected[2])
        seen.add(int(shortened))
    assert len(seen) >= 4 and 5 in seen


def test_line_search_takes_the_whole_step_or_none():
    good, bad = (lambda fraction: (0.05, fraction)), (lambda fraction: (0.05, -fraction))
    assert [float(x) for x in ops.backtracking_line_search(good, (0.0, 0.0), 0.1, backtracks=0)[:2]] == [1.0, 0.0]
    assert [float(x) for x in ops.backtracking_line_search(bad, (0.0, 0.0), 0.1, backtracks=0)[:2]] == [0.0, 1.0]


# The adaptive penalty


def test_penalty_follows_the_rule():
    penalty, expected = 1.0, 1.0
    for kl in [0.001, 0.0066, 0.0067, 0.01, 0.0149, 0.0151, 0.5, 0.5, 0.001, 0.02]:
        if kl < 0.01 / 1.5:
            expected /= 2
        elif kl > 0.01 * 1.5:
            expected *= 2
        penalty = float(ops.adapt_penalty(penalty, kl, 0.01))
        assert penalty == expected
    assert expected == 2.0
    assert float(ops.adapt_penalty(3.0, np.nan, 0.01)) == 3.0


def test_penalty_comes_back_from_its_bounds():
    penalty = 1.0
    for kl in [0.0] * 200 + [1.0] * 20:
        penalty = float(ops.adapt_penalty(penalty, kl, 0.01))
    assert penalty == pytest.approx(1e-6 * 2**20, rel=1e-5)
    for _ in range(200):
        penalty = float(ops.adapt_penalty(penalty, 1.0, 0.01))
    assert penalty == 1e6


def test_penalized_objective_and_its_gradient():
    ratio, advantages, kl, penalty = (tf.constant(RNG.normal(size=4).astype("float32")) for _ in range(4))
    with tf.GradientTape() as tape:
        tape.watch([ratio, advantages, kl, penalty])
        objective = ops.kl_penalized_objective(ratio, advantages, kl, penalty)
    np.testing.assert_allclose(objective, ratio.numpy() * advantages.numpy() - penalty.numpy() * kl.numpy(), rtol=1e-5)
    slopes = tape.gradient(objective, [ratio, advantages, kl, penalty])
    np.testing.assert_array_equal(slopes[0], advantages)
    np.testing.assert_array_equal(slopes[2], -penalty)
    assert slopes[1] is None and slopes[3] is None
    with pytest.raises(ValueError, match="`ratio` and `kl` must have the same shape"):
        ops.kl_penalized_objective(ratio, advantages, kl[:, None], 1.0)
