"""How far a policy may move: in its parameters, in its distributions, or at a price.

θ are a policy's trainable parameters as one vector [P], g = ∇J its policy gradient, and
F = E[∇log π ∇log π^T] its Fisher matrix. Gradients are ascended. Nothing here is written to: what a
function is told about a policy, it is told by functions.
"""

import tensorflow as tf

from kerasrl_pg.ops.shapes import check_same_shape

ZERO = tf.UnconnectedGradients.ZERO
PENALTY_BOUNDS = 1e-6, 1e6  # Ours: halved 150 times a float32 is 0, and doubling it then is of no use.


def flatten_parameters(tensors):
    """Tensors of any shapes as one vector.

    Args:
        tensors: List of float tensors or variables.

    Returns:
        float32 [P], their entries in order, whatever their precision. Gradients flow.

    >>> flatten_parameters([tf.constant([[1.0, 2.0]]), tf.constant(3.0)]).numpy()
    array([1., 2., 3.], dtype=float32)
    """
    return tf.concat([tf.cast(tf.reshape(tensor, [-1]), tf.float32) for tensor in tensors], axis=0)


def split_parameters(vector, like):
    """The inverse of `flatten_parameters`.

    Args:
        vector: float [P].
        like: List of tensors or variables, whose static shapes have P entries together.

    Returns:
        List of float tensors of those shapes and precisions. Gradients flow.

    >>> [x.numpy().tolist() for x in split_parameters(tf.range(3.0), [tf.zeros((1, 2)), tf.zeros(())])]
    [[[0.0, 1.0]], 2.0]
    """
    sizes = [tf.TensorShape(tensor.shape).num_elements() for tensor in like]
    parts = tf.split(vector, sizes)
    return [tf.cast(tf.reshape(part, tensor.shape), tensor.dtype) for part, tensor in zip(parts, like, strict=True)]


def all_finite(*tensors):
    """Whether no entry is NaN or infinite.

    Args:
        *tensors: Float tensors of any shapes.

    Returns:
        Bool scalar.

    >>> bool(all_finite(tf.ones(2), 3.0)), bool(all_finite(tf.constant([1.0, float("nan")])))
    (True, False)
    """
    return tf.reduce_all([tf.reduce_all(tf.math.is_finite(tensor)) for tensor in tensors])


def parameter_step_size(gradient, max_squared_norm):
    """β for a step βd of the greatest length that ‖βd‖² <= ε allows, d = ∇J.

        β = sqrt( ε / ‖d‖² )

    The lecture notes first print the constraint on θ, ‖θ‖² <= ε; that on the step, a line below, is
    meant, for the other would forbid large weights and not large steps.

    Args:
        gradient: float [P], d.
        max_squared_norm: ε > 0, in the unit of a parameter squared.

    Returns:
        Float scalar; 0 where d is 0 or not finite, or ‖d‖² is in float32, and there is nowhere to go.

    Source: the lecture notes' 3.6.1.

    >>> float(parameter_step_size(tf.constant([3.0, 4.0]), max_squared_norm=0.25))
    0.10000000149011612
    """
    return _root_of_ratio(max_squared_norm, tf.reduce_sum(tf.square(gradient)))


def natural_step_size(gradient, direction, max_kl):
    """β* for a step β* d whose KL divergence is δ in second order, d = F⁻¹ ∇J.

        β* = sqrt( 2 δ / (∇J^T F⁻¹ ∇J) ),    so that    ½ (β* d)^T F (β* d) = δ

    The lecture notes print a factor 1/λ, which belongs to their d* = F⁻¹ ∇J / λ and not to β*, and the
    constraint as d^T F d <= ε, without the half that their own Lagrangian and the paper have.

    The iterates of conjugate gradient keep x^T (g - Fx) = 0, so the formula holds for them, however
    far from the solution they are, and needs no product more.

    Args:
        gradient: float [P], ∇J.
        direction: float [P], F⁻¹ ∇J, or (F + cI)⁻¹ ∇J, whose step has a KL divergence below δ.
        max_kl: δ > 0, nats.

    Returns:
        Float scalar; 0 where ∇J^T d is not positive or not finite.

    Raises:
        ValueError: If the shapes differ.

    Source: Schulman et al. 2015 (arXiv 1502.05477), appendix C; the lecture notes' 3.6.2.

    >>> fisher = tf.linalg.diag([2.0, 0.5])
    >>> gradient = tf.constant([1.0, 1.0])
    >>> direction = tf.linalg.solve(fisher, gradient[:, None])[:, 0]
    >>> step = natural_step_size(gradient, direction, max_kl=0.01) * direction
    >>> round(float(0.5 * tf.tensordot(step, tf.linalg.matvec(fisher, step), 1)), 6)
    0.01
    """
    check_same_shape(gradient=gradient, direction=direction)
    return _root_of_ratio(2.0 * max_kl, tf.reduce_sum(gradient * direction))


def _root_of_ratio(above, below):
    # `below` is infinite where squares of finite numbers are.
    usable = tf.math.is_finite(below) & (below > 0.0)
    return tf.where(usable, tf.sqrt(above / tf.where(usable, below, 1.0)), 0.0)


def fisher_vector_product(policy, mean_kl, variables):
    """v ↦ Fv, F the Hessian of the mean KL(π_old || π_θ) at θ = θ_old, which is the Fisher matrix.

        F = J^T M J,    J = ∂z/∂θ,    M = ∂²/∂z² KL(z_old || z) at z = z_old,

    z the tensors a distribution is made of. That is the whole Hessian and no approximation: what is
    missing, the KL's slope in z times z's curvature in θ, is 0, for the slope is at z_old. Jv takes
    two passes back, the second through the first: J^T u is linear in u, and its derivative along v
    is Jv. So nothing is recomputed for another v, and a product costs two thirds of what
    differentiating the KL twice in θ does (measured, two layers of 64 units).

    Where `mean_kl` estimates the divergence by (r - 1) - log r of sampled actions (`kl_k3`), F is the
    mean of ∇log π ∇log π^T over these actions.

    Args:
        policy: Function without arguments giving the distribution π_θ on the batch; it must read
            `variables`, and its tensors must be those of TFP's composite tensors.
        mean_kl: Function (old, new) of two distributions giving a float scalar, nats, mean over the
            batch. `old` is π_θ itself with gradients stopped.
        variables: List of `tf.Variable`, θ. No gradient flows through the products.

    Returns:
        A function from a vector float [P] to Fv, float [P]. It may be called inside `tf.while_loop`.

    Source: Schulman et al. 2015 (arXiv 1502.05477), appendix C (J^T M J); Pearlmutter 1994, "Fast
    exact multiplication by the Hessian".

    >>> import tensorflow_probability as tfp
    >>> logit = tf.Variable([0.0])
    >>> product = fisher_vector_product(
    ...     lambda: tfp.distributions.Bernoulli(logits=2.0 * logit),
    ...     lambda old, new: tf.reduce_mean(old.kl_divergence(new)),
    ...     [logit],
    ... )
    >>> product(tf.constant([3.0])).numpy()  # 3 times 2² p (1 - p)
    array([3.], dtype=float32)
    """
    with tf.GradientTape(persistent=True) as forward:
        distribution = policy()
        z = tf.nest.flatten(distribution, expand_composites=True)

    def rebuild(parts):
        return tf.nest.pack_sequence_as(distribution, parts, expand_composites=True)

    with tf.GradientTape(persistent=True) as transposed:
        u = [tf.zeros_like(part) for part in z]
        transposed.watch(u)
        pulled = flatten_parameters(forward.gradient(z, variables, u, ZERO))
    with tf.GradientTape(persistent=True) as second:
        second.watch(z)
        with tf.GradientTape() as first:
            first.watch(z)
            divergence = mean_kl(rebuild([tf.stop_gradient(part) for part in z]), rebuild(z))
        slope = first.gradient(divergence, z, None, ZERO)

    def product(vector):
        change = transposed.gradient(pulled, u, vector, ZERO)
        curved = second.gradient(slope, z, change, ZERO)
        return flatten_parameters(forward.gradient(z, variables, curved, ZERO))

    return product


def explicit_fisher(product, size):
    """F written out, by its products with the unit vectors.

    Args:
        product: Function from a vector [P] to Fv [P].
        size: P, an int. Memory and time grow with P²; meant for small models.

    Returns:
        float [P, P].

    >>> explicit_fisher(lambda v: tf.constant([2.0, 3.0]) * v, 2).numpy()
    array([[2., 0.],
           [0., 3.]], dtype=float32)
    """
    return tf.map_fn(product, tf.eye(size))


def solve_fisher(fisher, gradient, damping=0.0):
    """(F + cI)⁻¹ g, and where F is singular and c is 0 the solution of least norm, F⁺ g.

    A softmax over n logits has a singular Fisher matrix, for adding a number to all of them changes
    nothing. The gradient has no part in such a direction, and F⁺ takes no step in it.

    Args:
        fisher: float [P, P], symmetric, positive semidefinite up to rounding.
        gradient: float [P].
        damping: c >= 0.

    Returns:
        float [P]; 0 where an entry of F or g is not finite. Eigenvalues of F below P times the
        rounding error of its greatest count as 0.

    Raises:
        ValueError: If the shapes do not fit.

    Source: Kakade 2001, "A natural policy gradient"; the lecture notes' 3.6.2.

    >>> fisher = tf.constant([[1.0, -1.0], [-1.0, 1.0]])
    >>> solve_fisher(fisher, tf.constant([1.0, -1.0])).numpy().round(3)
    array([ 0.5, -0.5], dtype=float32)
    """
    check_same_shape(**{"fisher[0]": fisher[0], "gradient": gradient})
    usable = all_finite(fisher, gradient)
    # TensorFlow's decomposition raises an error at NaN where XLA's returns it.
    values, vectors = tf.linalg.eigh(tf.where(usable, fisher, tf.eye(fisher.shape[0])))
    floor = values[-1] * (fisher.shape[0] * 2.0**-23)
    values = tf.where(values > floor, values, 0.0) + damping
    inverse = tf.where(values > 0.0, 1.0 / tf.where(values > 0.0, values, 1.0), 0.0)
    solution = tf.linalg.matvec(vectors, inverse * tf.linalg.matvec(vectors, gradient, transpose_a=True))
    return tf.where(usable, solution, 0.0)


def conjugate_gradient(product, b, iterations=10, tolerance=1e-6):
    """Solves Ax = b for a symmetric, positive semidefinite A known by its products.

    It stops early where the residual is small, and where A shows no curvature along the search
    direction that float32 could tell from rounding: A is singular there, and the step is endless.

    Args:
        product: Function from a vector [P] to Av [P].
        b: float [P].
        iterations: The most products taken, at least 1. 10: OpenAI Baselines' trpo_mpi and Spinning Up.
        tolerance: Of ‖b - Ax‖ / ‖b‖. 1e-6, ours: what float32 resolves.

    Returns:
        x: float [P]; 0 where b is 0 or not finite, or ‖b‖² is in float32.
        residual: float scalar, ‖b - Ax‖ / ‖b‖ by the recursion; 0 where x is.

    Source: Nocedal and Wright 2006, "Numerical Optimization", algorithm 5.2.

    >>> x, residual = conjugate_gradient(lambda v: tf.constant([2.0, 4.0]) * v, tf.constant([1.0, 1.0]))
    >>> x.numpy().round(4), float(residual) < 1e-6
    (array([0.5 , 0.25], dtype=float32), True)
    """
    square = tf.reduce_sum(b * b)
    usable = tf.math.is_finite(square) & (square > 0.0)
    b, square = tf.where(usable, b, 0.0), tf.where(usable, square, 0.0)

    def going(index, curved, x, r, p, rr, steepest):
        return (index < iterations) & curved & (rr > tolerance**2 * square)

    def body(index, curved, x, r, p, rr, steepest):
        z = product(p)
        curvature = tf.reduce_sum(p * z)
        bend = curvature / tf.reduce_sum(p * p)
        steepest = tf.maximum(steepest, bend)
        # Never by its negation: TensorFlow's graphs rewrite ~(a > b) to a <= b, which is false at NaN.
        curved = bend > 1e-6 * steepest
        alpha = tf.where(curved, rr / tf.where(curved, curvature, 1.0), 0.0)
        x = x + alpha * p
        r = r - tf.where(curved, alpha * z, 0.0)
        following = tf.reduce_sum(r * r)
        return index + 1, curved, x, r, r + following / rr * p, following, steepest

    start = (tf.constant(0), tf.constant(True), tf.zeros_like(b), b, b, square, tf.constant(0.0))
    _, _, x, _, _, rr, _ = tf.while_loop(going, body, start, maximum_iterations=iterations)
    return x, tf.sqrt(tf.math.divide_no_nan(rr, square))


def backtracking_line_search(evaluate, start, max_kl, ratio=0.8, backtracks=10):
    """The greatest of the fractions 1, ρ, ρ², ... of a step that keeps the bound and improves.

    A fraction is taken where KL <= δ, J > J(0), and all values are finite; any other is shortened. The lecture
    notes (3.6.3) shorten where KL < δ, which is the case to be content with; KL > δ is meant.

    Args:
        evaluate: Function from a fraction, a float scalar, to a tuple of float scalars (KL, J, and
            what else is to be known of the place); it may move a policy's variables there.
        start: What `evaluate` gives at fraction 0.
        max_kl: δ > 0, nats.
        ratio: ρ in (0, 1). 0.8, Spinning Up and Stable-Baselines3-Contrib; the notes and OpenAI
            Baselines have 0.5.
        backtracks: How many times at most the step is shortened, at least 0. 10, ours; all of these
            try ten fractions, and so shorten nine times.

    Returns:
        fraction: Float scalar, 0 where none was accepted.
        shortened: int scalar, how many fractions were refused.
        values: what `evaluate` gave there; `start` where none was accepted.

    Source: Schulman et al. 2015 (arXiv 1502.05477), appendix C; the lecture notes' 3.6.3.

    >>> evaluate = lambda fraction: (fraction**2, fraction)
    >>> fraction, shortened, _ = backtracking_line_search(evaluate, (0.0, 0.0), max_kl=0.5, ratio=0.5)
    >>> float(fraction), int(shortened)
    (0.5, 1)
    """
    start = tf.nest.map_structure(tf.convert_to_tensor, start)

    def body(tried, fraction, values):
        fraction = tf.pow(tf.cast(ratio, tf.float32), tf.cast(tried, tf.float32))
        values = tf.nest.pack_sequence_as(start, tf.nest.flatten(evaluate(fraction)))
        accepted = (values[0] <= max_kl) & (values[1] > start[1]) & all_finite(*tf.nest.flatten(values))
        values = tf.nest.map_structure(lambda new, old: tf.where(accepted, new, old), values, start)
        return tried + 1, tf.where(accepted, fraction, 0.0), values

    tried, fraction, values = tf.while_loop(
        lambda tried, fraction, _: (tried <= backtracks) & (fraction == 0.0),
        body,
        (tf.constant(0), tf.constant(0.0), start),
        maximum_iterations=backtracks + 1,
    )
    return fraction, tf.where(fraction > 0.0, tried - 1, tried), values


def kl_penalized_objective(ratio, advantages, kl, penalty):
    """π/π_old A - λ KL(π_old || π), TRPO's constraint as a price.

    Args:
        ratio: float [T, N], from `importance_ratio`. Gradients flow into it.
        advantages: float [T, N]. No gradient flows into it.
        kl: float [T, N], nats. Gradients flow into it.
        penalty: λ >= 0, in the advantages' unit per nat. No gradient flows into it.

    Returns:
        float [T, N], in the advantages' unit.

    Raises:
        ValueError: If the shapes differ.

    Source: Schulman et al. 2017 (arXiv 1707.06347), eq. 8; the lecture notes' 3.6.3.

    >>> kl_penalized_objective(tf.constant([1.5]), tf.constant([2.0]), tf.constant([0.1]), 10.0).numpy()
    array([2.], dtype=float32)
    """
    check_same_shape(ratio=ratio, advantages=advantages, kl=kl)
    return ratio * tf.stop_gradient(advantages) - tf.stop_gradient(penalty) * kl


def adapt_penalty(penalty, kl, target_kl, bounds=PENALTY_BOUNDS):
    """λ for the next update: half where the policy moved too little, twice where too much.

        λ ← λ / 2   if KL < δ / 1.5,      λ ← 2 λ   if KL > 1.5 δ

    Args:
        penalty: λ > 0, within `bounds`.
        kl: Float scalar, mean KL(π_old || π) of the update, nats. NaN leaves λ alone.
        target_kl: δ > 0, nats.
        bounds: λ stays within these two.

    Returns:
        Float scalar.

    Source: Schulman et al. 2017 (arXiv 1707.06347), section 4; the lecture notes' 3.6.3, which
    double at equality, too.

    >>> [float(adapt_penalty(1.0, kl, target_kl=0.01)) for kl in (0.005, 0.01, 0.02)]
    [0.5, 1.0, 2.0]
    """
    penalty = tf.convert_to_tensor(penalty, tf.float32)
    adapted = tf.where(kl > 1.5 * target_kl, 2.0 * penalty, tf.where(kl < target_kl / 1.5, 0.5 * penalty, penalty))
    return tf.clip_by_value(adapted, *bounds)
