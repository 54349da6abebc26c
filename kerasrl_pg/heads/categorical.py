"""Softmax policies over a finite set of actions, or over several sets at once."""

import math

import gymnasium
import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from kerasrl_pg.heads.head import Head, dtype_of, event

tfd = tfp.distributions

# Logit of a choice that does not exist: exp gives exactly 0 and, unlike -inf, 0 log 0 stays 0.
ABSENT = -1e9


def gumbel_max(logits, uniform):
    """A draw from softmax(logits), by the Gumbel-max trick.

    argmax_i (logits_i - log(-log u_i)) has the probabilities softmax(logits). Noise of 24 bits
    cannot lift a choice by more than 16.6 nats, or push one down by more than 2.8: choices of a
    probability below about 1e-8 are never drawn.

    Args:
        logits: [..., n].
        uniform: [..., n] in the open (0, 1).

    Returns:
        int32 [...].

    Source: Maddison, Tarlow, Minka 2014, "A* Sampling".
    """
    # Beside a logit of 1e8 the noise would be rounded away, and the first of equal ones always win.
    logits -= tf.reduce_max(logits, axis=-1, keepdims=True)
    return tf.argmax(logits - tf.math.log(-tf.math.log(uniform)), axis=-1, output_type=tf.int32)


@keras.saving.register_keras_serializable("kerasrl_pg")
class Categorical(Head):
    """A softmax over `num_actions` actions (chapter, section 4.5.2).

    The raw action is the index 0 ... num_actions - 1, int32; the environment gets index + `start`
    in the space's dtype, int64 where none is said.

    Args:
        num_actions: number of actions, at least 1.
        start: the environment's smallest action. 0, as in gymnasium.
        kernel_initializer: None for the small orthogonal of `Head`.
        **kwargs: `env_dtype` of `Head`, `name` and the rest of `keras.layers.Layer`.

    Raises:
        ValueError: if `num_actions` is not a positive integer.

    Source: the softmax of the chapter, section 4.5; there its denominator sums over a'.

    >>> import tensorflow as tf
    >>> from kerasrl_pg.heads import Categorical
    >>> head = Categorical(4, start=1)
    >>> policy = head(tf.zeros([3, 8]))
    >>> round(float(policy.entropy()[0]), 4)  # log 4
    1.3863
    >>> actions = head.sample(policy, head.noise([0, 1], [3]))
    >>> actions.shape, head.to_env(actions).dtype
    (TensorShape([3]), tf.int64)
    """

    action_dtype = "int32"
    noise_kind = "uniform"

    def __init__(self, num_actions, start=0, kernel_initializer=None, **kwargs):
        if int(num_actions) != num_actions or num_actions < 1:
            raise ValueError(f"num_actions must be a whole number of at least 1. Received: num_actions={num_actions}.")
        num_actions = int(num_actions)
        super().__init__((), num_actions, (num_actions,), kernel_initializer, **kwargs)
        self.num_actions = num_actions
        self.start = int(start)

    @classmethod
    def from_space(cls, space, **kwargs):
        if not isinstance(space, gymnasium.spaces.Discrete):
            raise cls._refuse("a gymnasium.spaces.Discrete", space)
        return cls(int(space.n), start=int(space.start), env_dtype=dtype_of(space), **kwargs)

    def distribution(self, parameters):
        return tfd.Categorical(logits=parameters)

    def sample(self, distribution, noise):
        return gumbel_max(distribution.logits, noise)

    def to_env(self, actions):
        return tf.cast(tf.cast(actions, tf.int64) + self.start, self.env_dtype or "int64")

    def get_config(self):
        return {**super().get_config(), "num_actions": self.num_actions, "start": self.start}


@keras.saving.register_keras_serializable("kerasrl_pg")
class MultiCategorical(Head):
    """Several independent softmaxes, one for each entry of `nvec`.

    All are computed as one rectangle [*nvec.shape, max(nvec)], which is faster than a list of
    them; the places that an entry does not have get probability 0 and gradient 0.

    The raw action is int32 of shape nvec.shape; the environment gets it plus `start` in the space's
    dtype, int64 where none is said.

    Args:
        nvec: numbers of choices, an array of integers of any shape, each at least 1.
        start: the environment's smallest choices, broadcast to `nvec`; None for 0.
        kernel_initializer: None for the small orthogonal of `Head`.
        **kwargs: `env_dtype` of `Head`, `name` and the rest of `keras.layers.Layer`.

    Raises:
        ValueError: if `nvec` is empty or holds anything but positive integers.

    >>> import tensorflow as tf
    >>> from kerasrl_pg.heads import MultiCategorical
    >>> head = MultiCategorical([2, 3])
    >>> policy = head(tf.zeros([1, 8]))
    >>> round(float(policy.entropy()[0]), 4)  # log 2 + log 3
    1.7918
    >>> policy.mode().numpy()
    array([[0, 0]], dtype=int32)
    """

    action_dtype = "int32"
    noise_kind = "uniform"

    def __init__(self, nvec, start=None, kernel_initializer=None, **kwargs):
        choices = np.asarray(nvec)
        if choices.ndim < 1 or choices.size < 1 or (choices < 1).any() or (choices % 1).any():
            raise ValueError(f"nvec must be a list (or array) of whole numbers of at least 1. Received: nvec={nvec}.")
        choices = choices.astype(int)
        rectangle = (*choices.shape, int(choices.max()))
        super().__init__(choices.shape, int(np.prod(rectangle)), rectangle, kernel_initializer, **kwargs)
        self.nvec = choices
        self.start = np.broadcast_to(0 if start is None else start, choices.shape).astype(int)
        self._present = np.arange(rectangle[-1]) < choices[..., None]

    @classmethod
    def from_space(cls, space, **kwargs):
        if not isinstance(space, gymnasium.spaces.MultiDiscrete):
            raise cls._refuse("a gymnasium.spaces.MultiDiscrete", space)
        return cls(space.nvec, start=space.start, env_dtype=dtype_of(space), **kwargs)

    def distribution(self, parameters):
        logits = event(parameters, self.noise_shape)
        if not self._present.all():
            # The largest as 0, so that none that exists lies below `ABSENT`.
            largest = tf.reduce_max(tf.where(self._present, logits, -math.inf), axis=-1, keepdims=True)
            logits = tf.where(self._present, logits - tf.stop_gradient(largest), ABSENT)
        return tfd.Independent(tfd.Categorical(logits=logits), self.nvec.ndim)

    def sample(self, distribution, noise):
        return gumbel_max(distribution.distribution.logits, noise)

    def to_env(self, actions):
        return tf.cast(tf.cast(actions, tf.int64) + self.start, self.env_dtype or "int64")

    def get_config(self):
        return {
            **super().get_config(),
            "nvec": self.nvec.tolist(),
            "start": self.start.tolist(),
        }
