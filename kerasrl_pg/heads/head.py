"""What every head is: a Keras layer that turns features into a probability distribution.

`head(features)` is a TFP distribution over *raw* actions. A raw action is what is sampled, stored
and given to `log_prob`; `head.to_env(raw)` is what the environment is sent. They differ because
clipping and squashing lose information that the log-probability needs.

Drawing is split in two. `head.noise(seed, shape)` makes all random numbers beforehand, and
`head.sample(distribution, noise)` is a plain function of them, so that the same action comes out of
eager, graph, XLA and LiteRT code.
"""

import keras
import numpy as np
import tensorflow as tf

from kerasrl_pg.ops import random


def event(flat, shape):
    """The last axis of `flat` [..., P] folded into `shape`: [..., *shape]."""
    if len(shape) == 1:
        return flat
    return tf.reshape(flat, [*_leading(flat), *shape])


def _leading(tensor):
    """All dimensions of a tensor but the last: integers where known, else one tensor each."""
    dynamic = tf.shape(tensor)
    return [dynamic[i] if size is None else size for i, size in enumerate(tensor.shape[:-1])]


def dtype_of(space):
    """The name of the dtype in which actions go to a gymnasium space; None for a space that is no array of numbers.

    >>> import gymnasium as gym
    >>> dtype_of(gym.spaces.Discrete(3, dtype="int32"))
    'int32'
    """
    if not isinstance(space.dtype, np.dtype) or space.dtype.kind not in "biuf":
        return None
    return "float64" if space.dtype.itemsize > 8 else space.dtype.name  # TensorFlow knows no longer one.


class DistributionLayer(keras.layers.Layer):
    """One Dense whose outputs are the parameters of a distribution. Base of all heads.

    Always float32: log-probabilities are differences of large numbers, and a ratio of two
    policies that should be 1 is not in bfloat16.

    Args:
        num_parameters: outputs of the Dense.
        kernel_initializer: initializer of its kernel.
        **kwargs: `name` and the rest of `keras.layers.Layer`.

    Raises:
        ValueError: for a `dtype` other than float32.
    """

    def __init__(self, num_parameters, kernel_initializer, **kwargs):
        if kwargs.get("dtype") is None:
            kwargs["dtype"] = "float32"  # also under a global mixed-precision policy
        super().__init__(**kwargs)
        if self.compute_dtype != "float32":
            raise ValueError(
                "Heads compute in float32, because log-probabilities lose their meaning in less. "
                f"Received: dtype={self.compute_dtype!r}. Leave `dtype` out; layers before the "
                "head may use any dtype."
            )
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.dense = keras.layers.Dense(num_parameters, kernel_initializer=self.kernel_initializer, dtype="float32")

    def build(self, input_shape):
        self.dense.build(input_shape)

    def parameters(self, features):
        """Features [..., F] to one flat float32 tensor [..., P].

        This tensor is all that has to be kept of an old policy: `distribution` rebuilds the rest.
        """
        features = tf.cast(features, tf.float32)
        if not self.built:
            self.build(features.shape)
        return self.dense(features)

    def distribution(self, parameters):
        """The distribution that the tensor `parameters` [..., P] describes. No weights in here."""
        raise NotImplementedError(f"{type(self).__name__} must implement distribution(parameters).")

    def call(self, features):
        return self.distribution(self.parameters(features))

    def get_config(self):
        return {
            **super().get_config(),
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


class Head(DistributionLayer):
    """Base of the policy heads: features in, a distribution over raw actions out.

    A family sets the attributes below and implements `distribution`, `sample`, `from_space` and,
    where raw and environment actions differ, `to_env`. Its distributions offer `mode`, `log_prob`,
    `entropy`, `kl_divergence` with their own kind, and TFP's `sample(seed=)`.

    Attributes:
        action_shape, action_dtype: of one raw action.
        env_dtype: of what `to_env` gives, a name; None until something says it, then the family's own.
        noise_kind: the function of `ops.random` that makes the noise, "uniform" or "normal".
        noise_shape: shape of the noise of one action.

    Args:
        action_shape: tuple.
        num_parameters: P, the size of `parameters(features)`.
        noise_shape: tuple; `action_shape` when None.
        kernel_initializer: None for `Orthogonal(0.01)`: a policy that starts out nearly the same in
            every state and far from saturation (Andrychowicz et al. 2021, "What Matters in
            On-Policy Reinforcement Learning?", section 3.2; Engstrom et al. 2020).
        env_dtype: dtype of the action space; `from_space` says it, and an agent does where nobody has.
        **kwargs: `name` and the rest of `keras.layers.Layer`.
    """

    action_dtype = "float32"
    noise_kind = "normal"

    def __init__(
        self, action_shape, num_parameters, noise_shape=None, kernel_initializer=None, env_dtype=None, **kwargs
    ):
        if kernel_initializer is None:
            kernel_initializer = keras.initializers.Orthogonal(gain=0.01)
        super().__init__(num_parameters, kernel_initializer, **kwargs)
        self.action_shape = tuple(action_shape)
        self.noise_shape = self.action_shape if noise_shape is None else tuple(noise_shape)
        self.env_dtype = None if env_dtype is None else tf.as_dtype(env_dtype).name

    @classmethod
    def from_space(cls, space, **kwargs):
        """The head of this family for a gymnasium space; `kwargs` go to the constructor."""
        raise NotImplementedError(f"{cls.__name__} must implement from_space(space).")

    @classmethod
    def _refuse(cls, wanted, space, remedy="heads.default_head(space) picks a family that fits"):
        """The sentence for a space that this family cannot serve."""
        return ValueError(f"{cls.__name__} serves {wanted}. Received: space={space}; {remedy}.")

    def compute_output_spec(self, features):
        # A functional model wants tensors; this stands for one raw action.
        return keras.KerasTensor((*features.shape[:-1], *self.action_shape), self.action_dtype)

    def noise(self, seed, shape):
        """Random numbers for `shape` actions.

        Args:
            seed: int32[2], as for `ops.random`.
            shape: leading dimensions, for example [N] or [T, N].

        Returns:
            float32 [*shape, *noise_shape].
        """
        return getattr(random, self.noise_kind)(seed, (*shape, *self.noise_shape))

    def sample(self, distribution, noise):
        """Raw actions [..., *action_shape] from noise [..., *noise_shape], deterministically."""
        raise NotImplementedError(f"{type(self).__name__} must implement sample.")

    def to_env(self, actions):
        """Raw actions to what the environment accepts; the same numbers unless a head says more."""
        return tf.cast(tf.convert_to_tensor(actions, self.action_dtype), self.env_dtype or self.action_dtype)

    def get_config(self):
        return {**super().get_config(), "env_dtype": self.env_dtype}
