"""The scores ∇log π of policies that are softmaxes of linear functions."""

import tensorflow as tf


def compatible_features(features, probabilities):
    """ψ(s, a) = φ(s, a) - E_π[φ(s, ·)], the score of a softmax that is linear in φ, of all actions.

        ∇_θ log π(a|s) = φ(s, a) - Σ_a' π(a'|s) φ(s, a'),    π(a|s) ∝ exp(θᵀ φ(s, a))

    They are centred, Σ_a π(a|s) ψ(s, a) = 0. An approximation wᵀψ(s, a) of the advantages by least squares, weighed by
    how often π visits (s, a), may stand in their place in ∇J without changing it, and its w is the natural gradient
    F⁻¹ ∇J. The chapter (4.5) prints the softmax's denominator as a sum over s, too; over a' is meant.

    Args:
        features: float [..., A, p], φ(s, a). Gradients flow into it.
        probabilities: float [..., A], π(a|s), 0 for actions that a mask forbids. Gradients flow into it.

    Returns:
        float [..., A, p].

    Raises:
        ValueError: If the shapes do not fit.

    Source: the chapter, section 4.5.1; Sutton et al. 2000, "Policy gradient methods for reinforcement learning with
    function approximation", theorem 2 and section 3; Kakade 2001, "A natural policy gradient", theorem 1.

    >>> compatible_features(tf.constant([[1.0], [0.0]]), tf.constant([0.25, 0.75])).numpy()
    array([[ 0.75],
           [-0.25]], dtype=float32)
    """
    features, probabilities = tf.convert_to_tensor(features), tf.convert_to_tensor(probabilities)
    if not features.shape[:-1].is_compatible_with(probabilities.shape):
        raise ValueError(
            "`features` must be [..., A, p] where `probabilities` are [..., A]. "
            f"Received: features.shape={features.shape}, probabilities.shape={probabilities.shape}."
        )
    return features - tf.reduce_sum(probabilities[..., None] * features, axis=-2, keepdims=True)


def linear_softmax_score(features, probabilities, actions):
    """∇_θ log π(a|s) of the actions taken, for a softmax that is linear in φ.

    Args:
        features, probabilities: As for `compatible_features`.
        actions: int [...], in 0 ... A - 1.

    Returns:
        float [..., p].

    Raises:
        ValueError: If the shapes do not fit.

    Source: the chapter, section 4.5.1.

    >>> linear_softmax_score(tf.constant([[1.0], [0.0]]), tf.constant([0.25, 0.75]), tf.constant(1)).numpy()
    array([-0.25], dtype=float32)
    """
    compatible, actions = compatible_features(features, probabilities), tf.convert_to_tensor(actions)
    if not compatible.shape[:-2].is_compatible_with(actions.shape):
        raise ValueError(
            "`actions` must be [...] where `features` are [..., A, p]. "
            f"Received: actions.shape={actions.shape}, features.shape={compatible.shape}."
        )
    return tf.gather(compatible, actions, axis=-2, batch_dims=actions.shape.rank)
