"""What every head is: a Keras layer that turns features into a probability distribution.

`head(features)` is a TFP distribution over *raw* actions. A raw action is what is sampled, stored
and given to `log_prob`; `head.to_env(raw)` is what the environment is sent. They differ because
clipping and squashing lose information that the log-probability needs.

Drawing is split in two. `head.noise(seed, shape)` makes all random numbers beforehand, and
`head.sample(distribution, noise)` is a plain function of them, so that the same action comes out of
eager, graph, XLA and LiteRT code.

Some environments forbid actions for a while. `head.read_mask(info["action_mask"])` judges what they say,
and `head.mask(distribution, masks)` is the policy over what is left.
"""

import contextlib
import contextvars

import keras
import numpy as np
import tensorflow as tf

from kerasrl_pg.envs.masks import map_masks
from kerasrl_pg.envs.spaces import shown
from kerasrl_pg.ops import random

_notes = contextvars.ContextVar("notes", default=None)  # Where heads note their parameters, while somebody asks.


class Notes:
    """What `noting` noted.

    Attributes:
        all: The parameters of every call, in order.
    """

    def __init__(self):
        self.all = []

    @property
    def parameters(self):
        """The parameters [..., P] of the one distribution that was made.

        Raises:
            RuntimeError: If a head made none, or several.
        """
        if len(self.all) != 1:
            raise RuntimeError(
                "Inside noting() exactly one Head must be called, once, for its parameters to be known. "
                f"Received: {len(self.all)} calls. Call the policy once, and by itself: model(observations)."
            )
        return self.all[0]


@contextlib.contextmanager
def noting():
    """Notes the parameters of which a policy's head makes its distribution, while the policy is called inside.

    `head.distribution(rows)` rebuilds the distribution of some of their rows, so an old policy is kept as one
    tensor. Critics' heads are not noted. In a graph, what is noted belongs to the graph in which the head is called.

    Returns:
        A context manager giving `Notes`.

    >>> from kerasrl_pg.heads import Categorical
    >>> head = Categorical(2, kernel_initializer="zeros")
    >>> with noting() as notes:
    ...     policy = head(tf.zeros([1, 8]))
    >>> notes.parameters.numpy()
    array([[0., 0.]], dtype=float32)
    """
    notes = Notes()
    token = _notes.set(notes)
    try:
        yield notes
    finally:
        _notes.reset(token)


def heads_of(model, kind=None):
    """The heads of a Keras model, but not those that are parts of another.

    Args:
        model: Keras model or layer.
        kind: Class of the heads; None for `Head`.

    Returns:
        List of layers.

    >>> from kerasrl_pg.heads import Categorical, Composite
    >>> model = keras.Sequential([keras.layers.Dense(4), Composite((Categorical(2), Categorical(3)))])
    >>> [type(head).__name__ for head in heads_of(model)]
    ['Composite']
    """
    heads = [layer for layer in model._flatten_layers() if isinstance(layer, kind or Head)]
    parts = {id(part) for head in heads for part in head._flatten_layers(include_self=False)}
    return [head for head in heads if id(head) not in parts]


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
        num_parameters: Outputs of the Dense; None for a layer without one, which makes its parameters itself.
        kernel_initializer: Initializer of its kernel.
        use_bias: Whether it has a bias; False for parameters that are linear in the features and nothing else.
        **kwargs: `name` and the rest of `keras.layers.Layer`.

    Attributes:
        num_parameters: P, the last size of `parameters(features)`.

    Raises:
        ValueError: For a `dtype` other than float32.
    """

    def __init__(self, num_parameters, kernel_initializer, use_bias=True, **kwargs):
        if kwargs.get("dtype") is None:
            kwargs["dtype"] = "float32"  # also under a global mixed-precision policy
        super().__init__(**kwargs)
        if self.compute_dtype != "float32":
            raise ValueError(
                "Heads compute in float32, because log-probabilities lose their meaning in less. "
                f"Received: dtype={self.compute_dtype!r}. Leave `dtype` out; layers before the "
                "head may use any dtype."
            )
        self.num_parameters = num_parameters
        self.use_bias = use_bias
        if num_parameters is None:
            return
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.dense = self._dense()

    def _dense(self):
        """The layer from features to parameters."""
        return keras.layers.Dense(
            self.num_parameters, use_bias=self.use_bias, kernel_initializer=self.kernel_initializer, dtype="float32"
        )

    def build(self, input_shape):
        self.dense.build(input_shape)

    def parameters(self, features):
        """Features [..., F] to one flat float32 tensor [..., P].

        This tensor is all that has to be kept of an old policy: `distribution` rebuilds the rest.
        """
        features = tf.cast(features, self.compute_dtype)
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
            **({} if self.use_bias else {"use_bias": False}),  # Heads of your own need not know of it.
        }


class Head(DistributionLayer):
    """Base of the policy heads: features in, a distribution over raw actions out.

    A family sets the attributes below and implements `distribution`, `sample`, `from_space` and,
    where raw and environment actions differ, `to_env`. Its distributions offer `mode`, `log_prob`,
    `entropy`, `kl_divergence` with their own kind, and TFP's `sample(seed=)`. A family whose actions
    can be forbidden sets `mask_shape` and implements `mask`, `all_masked` and `_read_mask`.

    Attributes:
        action_shape, action_dtype: Of one raw action; None where that is several tensors. `action_spec` says it
            of every head.
        env_dtype: Of what `to_env` gives, a name; None until something says it, then the family's own.
        mask_shape: Shape of the mask of one action; None where the head takes no masks.
        noise_kind: The function of `ops.random` that makes the noise, "uniform" or "normal".
        noise_shape: Shape of the noise of one action.

    Args:
        action_shape: Tuple.
        num_parameters: P, the size of `parameters(features)`.
        noise_shape: Tuple; `action_shape` when None.
        kernel_initializer: None for `Orthogonal(0.01)`: a policy that starts out nearly the same in
            every state and far from saturation (Andrychowicz et al. 2021, "What Matters in
            On-Policy Reinforcement Learning?", section 3.2; Engstrom et al. 2020).
        env_dtype: Dtype of the action space; `from_space` says it, and an agent does where nobody has.
        **kwargs: `use_bias` of `DistributionLayer`, `name` and the rest of `keras.layers.Layer`.
    """

    action_dtype = "float32"
    mask_shape = None
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

    def call(self, features):
        parameters = self.parameters(features)
        if _notes.get() is not None:
            _notes.get().all.append(parameters)
        return self.distribution(parameters)

    def compute_output_spec(self, features):
        # A functional model wants tensors; this stands for one raw action.
        return keras.KerasTensor((*features.shape[:-1], *self.action_shape), self.action_dtype)

    @property
    def action_spec(self):
        """One raw action without batch dimensions: a `tf.TensorSpec`, or a nest of them."""
        return tf.TensorSpec(self.action_shape, self.action_dtype)

    def named(self, actions):
        """The tensors of an action by their names, as a served model gives them.

        Args:
            actions: Raw or of the environment, or whatever is nested as `action_spec`.

        Returns:
            A flat dictionary: "action", or a name for each part of a `Composite`.
        """
        return {"action": actions}

    def scheduled(self):
        """Heads, itself or parts of it, whose σ follows a schedule, by the name under which it is logged."""
        return {}

    def take_env_dtype(self, space):
        """Takes over the dtype of a gymnasium space for `to_env`, where nobody has said one."""
        if self.env_dtype is None:
            self.env_dtype = dtype_of(space)

    def noise(self, seed, shape):
        """Random numbers for `shape` actions.

        Args:
            seed: int32[2], as for `ops.random`.
            shape: Leading dimensions, for example [N] or [T, N].

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

    def from_env(self, actions):
        """Raw actions [..., *action_shape] that `to_env` takes to these: for actions that others have stored.

        Where several lead to one, as to the bounds that a Gaussian is cut off at, the nearest; and strictly inside the
        bounds where a density is 0 or infinite on them.
        """
        return tf.cast(tf.convert_to_tensor(actions), self.action_dtype)

    def mask(self, distribution, masks):
        """The distribution over what is allowed: its probabilities of all else 0, the others renormalised.

        The log-probability of what is not allowed is -1e9 or less, finite. No gradient flows into it. Where nothing
        is allowed the result is finite and means nothing; refuse such rows by `all_masked` beforehand.

        Args:
            distribution: Of this head, batch shape [...]; masks may have been applied to it.
            masks: bool [..., *mask_shape], True for what is allowed.

        Returns:
            A distribution of the same kind.

        Raises:
            ValueError: If the head takes no masks.
        """
        raise self._maskless()

    def all_masked(self, masks):
        """Where nothing is allowed, so that there is no action.

        Args:
            masks: bool [..., *mask_shape], a NumPy array or a tensor.

        Returns:
            bool [...], likewise; True where one of the choices that make up an action is left without any.

        Raises:
            ValueError: If the head takes no masks.
        """
        raise self._maskless()

    def read_mask(self, mask):
        """What an environment says is allowed, for one action or a batch, as one array.

        Args:
            mask: Arrays of 0 and 1, bool or numbers, nested as gymnasium's `space.sample(mask)` wants; see the
                families. An object array holds one mask for each environment, as in a vector environment's `info`.

        Returns:
            Bool array [..., *mask_shape]. Whether anything is left allowed is not judged here.

        Raises:
            ValueError: If it is nested otherwise, of another shape, holds anything but 0 and 1, or the head takes no
                masks.
        """
        if self.mask_shape is None:
            raise self._maskless()
        if isinstance(mask, np.ndarray) and mask.dtype == object:
            return np.stack([self.read_mask(each) for each in mask.flat]).reshape(*mask.shape, *self.mask_shape)
        return self._read_mask(mask)

    def join_masks(self, masks, num_envs):
        """What a compiled environment says is allowed, as one tensor.

        Args:
            masks: bool tensors [N, K], nested as `read_mask` has them; not without any.
            num_envs: N.

        Returns:
            bool tensor [N, *mask_shape].

        Raises:
            ValueError: If they are nested otherwise, no masks of this head, or the head takes none.
        """

        def ones(mask):
            """In place of what has no numbers yet, for `read_mask` to judge."""
            tensor = isinstance(mask, (tf.Tensor, np.ndarray)) and tf.as_dtype(mask.dtype) == tf.bool
            if not tensor or None in tuple(mask.shape):
                got = f"{mask.dtype} of shape {mask.shape}" if hasattr(mask, "shape") else shown(mask)
                raise ValueError(f"`action_masks` must give tensors of bool, of fixed shapes. Received: {got}.")
            return np.ones(mask.shape, bool)

        shape = self.read_mask(map_masks(ones, masks)).shape
        if shape != (num_envs, *self.mask_shape):
            raise ValueError(
                f"`action_masks` must give a mask for each of the {num_envs} environments. "
                f"Received: masks of shape {shape}, joined."
            )
        return tf.ensure_shape(self._joined(masks, num_envs), shape)

    def _joined(self, masks, num_envs):
        """One tensor of what has been judged; a head whose masks are nested joins them here."""
        return tf.convert_to_tensor(masks)

    def _maskless(self):
        return ValueError(
            "Masks must be for choices: those of a Categorical, a MultiCategorical, or a Composite with one of these. "
            f"Received: masks for a {type(self).__name__}, {self.name!r}. Leave the masks out."
        )

    def get_config(self):
        return {**super().get_config(), "env_dtype": self.env_dtype}
