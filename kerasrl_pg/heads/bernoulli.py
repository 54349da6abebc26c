"""Independent coin flips: the policy for a MultiBinary space."""

import math

import gymnasium
import keras
import tensorflow as tf
import tensorflow_probability as tfp

from kerasrl_pg.heads.box import event_shape
from kerasrl_pg.heads.head import Head, dtype_of, event

tfd = tfp.distributions

# Logits are kept below this, because LiteRT's sigmoid is not a number from 4.5e26 on. Ours: it is so far off
# that nothing changes, since a probability of exp(-104) is 0 already.
LARGEST = 1e20


@keras.saving.register_keras_serializable("kerasrl_pg")
class Bernoulli(Head):
    """Independent Bernoulli variables, one for each entry of a binary action.

    The raw action is 0 or 1, int32; the environment gets it in the space's dtype, int8 where none
    is said, as a gymnasium `MultiBinary` space wants.

    Args:
        shape: Of one action: a tuple, or an integer n for (n,).
        kernel_initializer: None for the small orthogonal of `Head`.
        **kwargs: `env_dtype` of `Head`, `name` and the rest of `keras.layers.Layer`.

    Raises:
        ValueError: If a size in `shape` is below 1.

    >>> import tensorflow as tf
    >>> from kerasrl_pg.heads import Bernoulli
    >>> head = Bernoulli(3)
    >>> policy = head(tf.zeros([1, 8]))
    >>> round(float(policy.log_prob([[0, 1, 1]])[0]), 4)  # -3 log 2
    -2.0794
    """

    action_dtype = "int32"
    noise_kind = "uniform"

    def __init__(self, shape, kernel_initializer=None, **kwargs):
        shape = event_shape(shape)
        size = math.prod(shape)
        super().__init__(shape, size, kernel_initializer=kernel_initializer, **kwargs)
        self.shape = shape

    @classmethod
    def from_space(cls, space, **kwargs):
        if not isinstance(space, gymnasium.spaces.MultiBinary):
            raise cls._refuse("a gymnasium.spaces.MultiBinary", space)
        return cls(space.shape, env_dtype=dtype_of(space), **kwargs)

    def distribution(self, parameters):
        logits = tf.clip_by_value(event(parameters, self.shape), -LARGEST, LARGEST)
        return tfd.Independent(tfd.Bernoulli(logits), len(self.shape))

    def sample(self, distribution, noise):
        return tf.cast(noise < tf.sigmoid(distribution.distribution.logits), tf.int32)

    def to_env(self, actions):
        return tf.cast(actions, self.env_dtype or "int8")

    def get_config(self):
        return {**super().get_config(), "shape": self.shape}
