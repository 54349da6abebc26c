"""How long the score ∇ log π(a|s) of each action is, for policies of any kind."""

import tensorflow as tf

MOST_NUMBERS = 2**23  # Ours: of per-sample gradients held at once, 32 MiB; what makes them takes some times as much.


def squared_score_norms(log_prob, rows, variables):
    """‖∇_θ log π(a_b|s_b)‖² of each row b, from a gradient of its own for each.

    Rows are differentiated in chunks of at most 2²³ / P, P the number of weights, so that what is held at once does not
    grow with B. Whatever TensorFlow cannot vectorise runs row by row.

    Args:
        log_prob: Function from a nest of tensors [1, ...] to log π(a|s) [1], nats, without regard to other rows.
        rows: Nest of tensors [B, ...], B known, at least 1.
        variables: θ, a list of `tf.Variable`s.

    Returns:
        float32 [B], in nats² per squared unit of θ. No gradient flows through it.

    Raises:
        ValueError: If there are no rows, or no variables.

    Source: the lecture notes' 3.3, "weighted average".

    >>> theta = tf.Variable([0.0, 0.0])
    >>> x = tf.constant([[3.0, 4.0], [1.0, 0.0]])
    >>> squared_score_norms(lambda row: tf.linalg.matvec(row, theta), x, [theta]).numpy()
    array([25.,  1.], dtype=float32)
    """
    count = tf.nest.flatten(rows)[0].shape[0]
    if not count:
        raise ValueError(f"`rows` must hold tensors [B, ...] with B known and at least 1. Received: B={count}.")
    if not variables:
        raise ValueError("`variables` must hold at least one variable. Received: none.")
    size = sum(variable.shape.num_elements() for variable in variables)
    chunks = min(count, -(-count * size // MOST_NUMBERS))
    chunk = -(-count // chunks)

    def of_row(row):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            value = log_prob(tf.nest.map_structure(lambda x: x[None], row))
        gradients = tape.gradient(value, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return tf.add_n([tf.reduce_sum(tf.square(tf.convert_to_tensor(gradient))) for gradient in gradients])

    def chunked(x):
        x = tf.concat([x, tf.repeat(x[:1], chunks * chunk - count, axis=0)], 0)
        return tf.reshape(x, [chunks, chunk, *x.shape[1:]])

    if chunks == 1:
        norms = tf.vectorized_map(of_row, rows)
    else:
        norms = tf.map_fn(
            lambda part: tf.vectorized_map(of_row, part),
            tf.nest.map_structure(chunked, rows),
            fn_output_signature=tf.TensorSpec([chunk], tf.float32),
            parallel_iterations=1,
        )
    return tf.stop_gradient(tf.reshape(norms, [-1])[:count])
