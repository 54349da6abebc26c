"""A softmax over scores: one function of state and action, evaluated at each action."""

import keras
import tensorflow as tf

from kerasrl_pg.heads.categorical import Categorical


@keras.saving.register_keras_serializable("kerasrl_pg")
class ScoredCategorical(Categorical):
    """A softmax over scores that are linear in features of state and action (chapter, sections 4.5.1 and 4.5.2).

        π(a|s) = exp(θᵀ φ(s, a)) / Σ_a' exp(θᵀ φ(s, a'))

    The features are [..., A, p], a row for each action, and θ [p] scores all of them, so that no weight depends on how
    many actions there are or in which order they stand. φ may be given, or what a network makes of state and action.
    There is no bias: what is added to all scores changes nothing.

    Args:
        num_actions: A, number of actions, at least 1.
        start: The environment's smallest action. 0, as in gymnasium.
        kernel_initializer: Of θ [p, 1]; None for the small orthogonal of `Head`.
        **kwargs: `env_dtype` of `Head`, `name` and the rest of `keras.layers.Layer`.

    Raises:
        ValueError: If `num_actions` is not a positive integer, the space is not Discrete, or the features have no row
            for each action.

    Source: the chapter, section 4.5.1; Sutton and Barto 2018, section 13.1, soft-max in action preferences.

    >>> import tensorflow as tf
    >>> from kerasrl_pg.heads import ScoredCategorical
    >>> head = ScoredCategorical(3, kernel_initializer="ones")
    >>> policy = head(tf.constant([[[0.0, 0.0], [0.0, 0.0], [0.3, 0.3931472]]]))
    >>> policy.probs_parameter().numpy().round(4)
    array([[0.25, 0.25, 0.5 ]], dtype=float32)
    """

    def __init__(self, num_actions, start=0, kernel_initializer=None, **kwargs):
        super().__init__(num_actions, start, kernel_initializer, **{**kwargs, "use_bias": False})

    def _dense(self):
        return keras.layers.Dense(1, use_bias=False, kernel_initializer=self.kernel_initializer, dtype="float32")

    def build(self, input_shape):
        if len(input_shape) < 2 or input_shape[-2] != self.num_actions:
            raise ValueError(
                f"The features of a ScoredCategorical must be [..., {self.num_actions}, p], a row for each action. "
                f"Received: shape {tuple(input_shape)}. For features of the state alone take a Categorical."
            )
        super().build(input_shape)

    def parameters(self, features):
        """Features [..., A, p] to logits [..., A]."""
        return tf.squeeze(super().parameters(features), -1)

    def compute_output_spec(self, features):
        return keras.KerasTensor(features.shape[:-2], self.action_dtype)
