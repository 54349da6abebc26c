"""Softmax policies over a finite set of actions, or over several sets at once."""

import math

import gymnasium
import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from kerasrl_pg.checks import check_whole
from kerasrl_pg.heads.box import count_choices, is_integer_box
from kerasrl_pg.heads.head import Head, dtype_of, event

tfd = tfp.distributions

# Logit of a choice that does not exist: exp gives exactly 0 and, unlike -inf, 0 log 0 stays 0.
ABSENT = -1e9

# Of an integer Box. Ours: a byte's choices an entry, of more most would never be tried; and as many in all as the
# library's own networks are built for, `envs.spaces.check_buildable`.
MOST_CHOICES, MOST_TOGETHER = 2**8, 2**16


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


def without(logits, allowed):
    """Logits of what is allowed, the greatest of them 0 and the others no less than `ABSENT`, which all else has.

    Args:
        logits: [..., n]. Gradients flow into those that are allowed, and are 0 elsewhere.
        allowed: Bool, broadcast to [..., n].

    Returns:
        [..., n].

    >>> without(tf.constant([1.0, 2.0, 3.0]), [True, True, False]).numpy()
    array([-1.e+00,  0.e+00, -1.e+09], dtype=float32)
    """
    # Else all that is allowed could lie below `ABSENT`; and differences of float32's largest numbers are infinite.
    largest = tf.reduce_max(tf.where(allowed, logits, -math.inf), axis=-1, keepdims=True)
    return tf.where(allowed, tf.maximum(logits - tf.stop_gradient(largest), ABSENT), ABSENT)


def read_choices(mask, size, name="action_mask"):
    """Which of `size` choices are allowed: an array [..., size] of 0 and 1, as bool.

    >>> read_choices([1, 0], 2)
    array([ True, False])
    """
    try:
        array = np.asarray(mask)
    except ValueError:  # Rows of several lengths.
        array = np.asarray(None)
    if array.dtype.kind not in "biuf" or array.shape[-1:] != (size,):
        shape = f"shape {array.shape} of {array.dtype}" if array.dtype.kind in "biuf" else repr(mask)[:200]
        raise ValueError(
            f"`{name}` must be an array of 0 and 1 with {size} entries, one for each choice, or a batch of such. "
            f"Received: {shape}. Repair the environment's mask."
        )
    allowed = array.astype(bool)
    if array.dtype != bool and not (array == allowed).all():
        wrong = array[array != allowed].flat[0]
        raise ValueError(
            f"`{name}` must hold 1 for what is allowed and 0 for what is not. Received: {wrong}. "
            "Repair the environment's mask."
        )
    return allowed


@keras.saving.register_keras_serializable("kerasrl_pg")
class Categorical(Head):
    """A softmax over `num_actions` actions (chapter, section 4.5.2).

    The raw action is the index 0 ... num_actions - 1, int32; the environment gets index + `start`
    in the space's dtype, int64 where none is said. A mask is one array of `num_actions`.

    Args:
        num_actions: Number of actions, at least 1.
        start: The environment's smallest action. 0, as in gymnasium.
        kernel_initializer: None for the small orthogonal of `Head`.
        **kwargs: `env_dtype` of `Head`, `name` and the rest of `keras.layers.Layer`.

    Raises:
        ValueError: If `num_actions` is not a positive integer.

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
    >>> masks = head.read_mask([1, 0, 0, 1])
    >>> head.mask(policy, masks).probs_parameter().numpy()[0]
    array([0.5, 0. , 0. , 0.5], dtype=float32)
    """

    action_dtype = "int32"
    noise_kind = "uniform"

    def __init__(self, num_actions, start=0, kernel_initializer=None, **kwargs):
        check_whole("num_actions", num_actions)
        num_actions = int(num_actions)
        super().__init__((), num_actions, (num_actions,), kernel_initializer, **kwargs)
        self.num_actions = num_actions
        self.start = int(start)
        self.mask_shape = (num_actions,)

    @classmethod
    def from_space(cls, space, **kwargs):
        if is_integer_box(space) and space.shape == ():
            (count,) = _few_choices(cls, space).flat
            return cls(count, start=space.low, env_dtype=dtype_of(space), **kwargs)
        if not isinstance(space, gymnasium.spaces.Discrete):
            raise cls._refuse("a gymnasium.spaces.Discrete, or a Box of one integer and shape ()", space)
        return cls(int(space.n), start=int(space.start), env_dtype=dtype_of(space), **kwargs)

    def distribution(self, parameters):
        return tfd.Categorical(logits=parameters)

    def mask(self, distribution, masks):
        return tfd.Categorical(logits=without(distribution.logits, masks))

    def all_masked(self, masks):
        return ~_any(masks)

    def _read_mask(self, mask):
        return read_choices(mask, self.num_actions)

    def sample(self, distribution, noise):
        return gumbel_max(distribution.logits, noise)

    def to_env(self, actions):
        return tf.cast(tf.cast(actions, tf.int64) + self.start, self.env_dtype or "int64")

    def from_env(self, actions):
        return tf.cast(tf.cast(actions, tf.int64) - self.start, self.action_dtype)

    def get_config(self):
        return {**super().get_config(), "num_actions": self.num_actions, "start": self.start}


def _any(masks):
    """Whether any of the last axis is allowed, of an array or a tensor."""
    return masks.any(-1) if isinstance(masks, np.ndarray) else tf.reduce_any(masks, axis=-1)


def _few_choices(cls, space):
    """The numbers of choices of an integer Box that a softmax may be over."""
    counts = count_choices(space)
    if space.shape and 0 in space.shape:
        raise cls._refuse("a Box with at least one entry", space)
    most = max(counts.flat)
    if most > MOST_CHOICES or counts.size * most > MOST_TOGETHER:
        raise cls._refuse(
            f"a Box of integers with at most {MOST_CHOICES} choices an entry and {MOST_TOGETHER:,} in all, as each is "
            f"learnt by itself; this one has {most:,} an entry, {counts.size * most:,} in all",
            space,
            "put a gymnasium.wrappers.TransformAction around the environment, which offers a Box of floats and rounds "
            "its actions, or a MultiDiscrete and joins its digits",
        )
    return counts


@keras.saving.register_keras_serializable("kerasrl_pg")
class MultiCategorical(Head):
    """Several independent softmaxes, one for each entry of `nvec`.

    All are computed as one rectangle [*nvec.shape, max(nvec)], which is faster than a list of
    them; the places that an entry does not have get probability 0 and gradient 0.

    The raw action is int32 of shape nvec.shape; the environment gets it plus `start` in the space's
    dtype, int64 where none is said.

    A mask is one array of sum(nvec), those of the entries one behind the other, as Stable-Baselines3-Contrib's
    MaskablePPO has it; `read_mask` takes tuples of arrays nested as `nvec`, gymnasium's own convention, as well.

    Args:
        nvec: Numbers of choices, an array of integers of any shape, each at least 1.
        start: The environment's smallest choices, broadcast to `nvec`; None for 0.
        kernel_initializer: None for the small orthogonal of `Head`.
        **kwargs: `env_dtype` of `Head`, `name` and the rest of `keras.layers.Layer`.

    Raises:
        ValueError: If `nvec` is empty or holds anything but positive integers.

    >>> import tensorflow as tf
    >>> from kerasrl_pg.heads import MultiCategorical
    >>> head = MultiCategorical([2, 3])
    >>> policy = head(tf.zeros([1, 8]))
    >>> round(float(policy.entropy()[0]), 4)  # log 2 + log 3
    1.7918
    >>> policy.mode().numpy()
    array([[0, 0]], dtype=int32)
    >>> masks = head.read_mask((np.int8([0, 1]), np.int8([1, 0, 1])))
    >>> masks
    array([False,  True,  True, False,  True])
    >>> round(float(head.mask(policy, masks).entropy()[0]), 4)  # log 1 + log 2
    0.6931
    """

    action_dtype = "int32"
    noise_kind = "uniform"

    def __init__(self, nvec, start=None, kernel_initializer=None, **kwargs):
        choices = np.asarray(nvec)
        if choices.ndim < 1 or choices.size < 1 or (choices < 1).any() or (choices % 1).any():
            raise ValueError(f"`nvec` must be a list (or array) of whole numbers of at least 1. Received: nvec={nvec}.")
        choices = choices.astype(int)
        rectangle = (*choices.shape, int(choices.max()))
        super().__init__(choices.shape, int(np.prod(rectangle)), rectangle, kernel_initializer, **kwargs)
        self.nvec = choices
        self.start = np.broadcast_to(0 if start is None else start, choices.shape).astype(int)
        self._present = np.arange(rectangle[-1]) < choices[..., None]
        self.mask_shape = (int(choices.sum()),)
        # Where in a mask each place of the rectangle stands; anywhere for places that do not exist.
        self._places = np.zeros(rectangle, "int32")
        self._places[self._present] = np.arange(self.mask_shape[0])

    @classmethod
    def from_space(cls, space, **kwargs):
        if is_integer_box(space) and space.shape != ():
            return cls(_few_choices(cls, space), start=space.low, env_dtype=dtype_of(space), **kwargs)
        if not isinstance(space, gymnasium.spaces.MultiDiscrete):
            raise cls._refuse("a gymnasium.spaces.MultiDiscrete, or a Box of few integers", space)
        return cls(space.nvec, start=space.start, env_dtype=dtype_of(space), **kwargs)

    def distribution(self, parameters):
        logits = event(parameters, self.noise_shape)
        if not self._present.all():
            logits = without(logits, self._present)
        return self._independent(logits)

    def _independent(self, logits):
        return tfd.Independent(tfd.Categorical(logits=logits), self.nvec.ndim)

    def sample(self, distribution, noise):
        return gumbel_max(distribution.distribution.logits, noise)

    def mask(self, distribution, masks):
        return self._independent(without(distribution.distribution.logits, self._rectangle(masks)))

    def all_masked(self, masks):
        lost = ~_any(self._rectangle(masks))
        axes = tuple(range(-self.nvec.ndim, 0))
        return lost.any(axes) if isinstance(lost, np.ndarray) else tf.reduce_any(lost, axis=axes)

    def _rectangle(self, masks):
        """Masks [..., sum(nvec)] as the rectangle [..., *nvec.shape, max(nvec)]."""
        if isinstance(masks, np.ndarray):
            return masks[..., self._places] & self._present
        return tf.gather(masks, self._places, axis=-1) & self._present

    def _read_mask(self, mask):
        if not isinstance(mask, tuple):
            return read_choices(mask, self.mask_shape[0])
        parts = []
        for index, size in np.ndenumerate(self.nvec):
            part = mask
            for place, count in zip(index, self.nvec.shape, strict=True):
                if not isinstance(part, tuple) or len(part) != count:
                    raise ValueError(
                        f"`action_mask` must be tuples of arrays nested as nvec, of shape {self.nvec.shape}, or one "
                        f"array of all {self.mask_shape[0]} choices. Received: {mask!r}. Repair the environment's mask."
                    )
                part = part[place]
            parts.append(read_choices(part, size, "action_mask" + "".join(f"[{place}]" for place in index)))
        shapes = {part.shape[:-1] for part in parts}
        if len(shapes) > 1:
            raise ValueError(
                "`action_mask` must be of one batch shape for all entries. "
                f"Received: {sorted(shapes)}. Repair the environment's mask."
            )
        return np.concatenate(parts, axis=-1)

    def _joined(self, masks, num_envs):
        return tf.concat(tf.nest.flatten(masks), -1)

    def to_env(self, actions):
        return tf.cast(tf.cast(actions, tf.int64) + self.start, self.env_dtype or "int64")

    def from_env(self, actions):
        return tf.cast(tf.cast(actions, tf.int64) - self.start, self.action_dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "nvec": self.nvec.tolist(),
            "start": self.start.tolist(),
        }
