"""Running normalisation of observations and scaling of rewards, as layers whose statistics travel with the weights."""

import contextlib
import contextvars

import keras
import tensorflow as tf

from kerasrl_pg import ops
from kerasrl_pg.checks import check_number

_given = contextvars.ContextVar("given", default=None)  # Where layers note their inputs, while somebody asks.
_noted = contextvars.ContextVar("noted", default=None)  # Where statistics note what they learn, while somebody asks.


class _Statistics(keras.layers.Layer):
    """Base of what keeps running moments, as weights in float64: float32 loses small variances beside large means, a
    long count, and a mean's slow drift. Files with float32 ones load."""

    def __init__(self, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})  # What it computes; heads need it, and so does LiteRT.

    def build(self, input_shape):
        shape, kind = tuple(input_shape[1:]), {"dtype": "float64", "trainable": False, "autocast": False}
        self.mean = self.add_weight(name="mean", shape=shape, initializer="zeros", **kind)
        self.variance = self.add_weight(name="variance", shape=shape, initializer="ones", **kind)
        self.count = self.add_weight(name="count", shape=(), initializer="zeros", **kind)

    def merge(self, values, valid):
        """Merges values [B, ...] or [T, N], less those rows that are not `valid`, into the statistics."""
        self.merge_moments(*ops.masked_moments(tf.cast(values, tf.float64), valid))

    def merge_moments(self, mean, variance, count):
        """Merges moments, as `ops.masked_moments` gives them, into the statistics."""
        if _noted.get() is not None:
            _noted.get().append((self, mean, variance, count))
        batch = mean, variance, count
        variables = self.mean, self.variance, self.count
        for variable, value in zip(variables, ops.merge_moments(*(v.value for v in variables), *batch), strict=True):
            variable.assign(value)


@keras.saving.register_keras_serializable("kerasrl_pg")
class RunningNormalization(_Statistics):
    """Normalises its inputs by their running mean and variance, then clips them.

    It may stand anywhere before the trainable layers: an agent computes what its network gives the layer for the
    observations of a rollout, and merges that into the statistics. These are non-trainable weights, in float64, so
    evaluating, saving, cloning and serving a network cannot forget them. Calling the layer never changes them: an
    agent calls `update` between iterations only, so that the log-probabilities of a rollout stay those of the policy
    that collected it.

    Args:
        key: None, or the name of the observation's leaf that this layer is meant for, which must exist. The layer
            learns what it is given, with or without.
        clip: Normalised values are clipped to [-clip, clip]; positive, or None for no clipping. 10, as in Engstrom et
            al. 2020 ("Implementation matters in deep policy gradients", arXiv 2005.12729), appendix A.1.

    Call arguments:
        inputs: float [B, ...].

    Returns:
        float32 [B, ...], (x - mean) / sqrt(variance + 1e-8), clipped.

    Raises:
        ValueError: If `clip` is not positive, or a dimension of the inputs but the first is unknown.

    >>> layer = RunningNormalization()
    >>> layer.build((None, 1))
    >>> layer.update(tf.constant([[1.0], [3.0]]))
    >>> layer(tf.constant([[3.0]])).numpy().round(3).tolist()
    [[1.0]]
    """

    def __init__(self, key=None, clip=10.0, **kwargs):
        super().__init__(**kwargs)
        check_number("clip", clip, 0.0, exclusive=True, optional=True)
        self.key = key
        self.clip = clip

    def build(self, input_shape):
        if not isinstance(input_shape, (tuple, list)) or None in input_shape[1:]:
            raise ValueError(
                "`RunningNormalization` must be given one tensor, of known shape but for the batch. "
                f"Received: input shape {input_shape}. Give each part of the observation a layer of its own."
            )
        super().build(input_shape)

    def call(self, inputs):
        inputs = tf.cast(inputs, tf.float32)
        if _given.get() is not None:
            _given.get().append((self, inputs))
        mean, variance = (tf.cast(statistic.value, tf.float32) for statistic in (self.mean, self.variance))
        # What is beyond float32 only as a square must not divide to nothing.
        return ops.normalize(inputs, mean, tf.minimum(variance, tf.float32.max), self.clip)

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs.shape, "float32")

    def update(self, inputs, valid=None):
        """Merges a batch of the layer's inputs [B, ...] into the statistics; `valid` [B] leaves rows out."""
        self.merge(inputs, tf.ones(tf.shape(inputs)[:1], tf.bool) if valid is None else valid)

    def get_config(self):
        return {**super().get_config(), "key": self.key, "clip": self.clip}


@contextlib.contextmanager
def noted_moments():
    """While it lasts, all that statistics learn is noted in the list it gives: (layer, mean, variance, count)."""
    noted = []
    token = _noted.set(noted)
    try:
        yield noted
    finally:
        _noted.reset(token)


def statistics(model):
    """All layers of a Keras model that keep running moments, nested ones included."""
    return [layer for layer in model._flatten_layers() if isinstance(layer, _Statistics)]


def normalizers(model):
    """All `RunningNormalization` layers of a Keras model, nested ones included."""
    return [layer for layer in model._flatten_layers() if isinstance(layer, RunningNormalization)]


def normalizer_inputs(model, observations):
    """What the normalisers of a Keras model are given when it is called.

    In a compiled function only what leads to them is computed, since the model's outputs are not used.

    Args:
        model: Keras model.
        observations: Its input [B, ...].

    Returns:
        Pairs (layer, input [B, ...]), one for each call of a layer.
    """
    pairs = []
    token = _given.set(pairs)
    try:
        model(observations)
    finally:
        _given.reset(token)
    return pairs


@keras.saving.register_keras_serializable("kerasrl_pg")
class RewardScaling(_Statistics):
    """Divides rewards by the standard deviation of the running discounted return; the mean is not subtracted.

    G_t = r_t + γ G_{t-1}, started anew with each episode; r_t / std(G), then clipped. The statistics are weights of
    the agent. The carried G of each environment belongs to the environments' state, not to the weights: the agent
    holds it. Where G has not varied, as where every episode is one step of one reward, rewards stay as they are.

    Args:
        gamma: γ in [0, 1], the agent's own.
        clip: Scaled rewards are clipped to [-clip, clip]; positive, or None.

    Source: Engstrom et al. 2020 (arXiv 2005.12729), appendix A.1, "reward scaling".
    """

    def __init__(self, gamma, clip=None, **kwargs):
        super().__init__(**kwargs)
        self.gamma = gamma
        self.clip = clip
        self.build((None,))
        self.built = True

    def call(self, rewards):
        """Scaled rewards [T, N], by the statistics as they stand."""
        mean, variance = self.mean.value, self.variance.value
        # Below float32's rounding of G there is no variance, only noise; 2⁻²⁰ of G is some steps' rounding: ours.
        variance = tf.where(variance > tf.square(mean * 2.0**-20), variance, tf.zeros_like(variance))
        return ops.scale_rewards(rewards, variance, self.clip)

    def update(self, rewards, ends, valid, carry):
        """Merges a rollout's discounted returns into the statistics; returns the next carry [N]."""
        accumulated, carry = ops.discounted_accumulator(rewards, ends, self.gamma, carry)
        self.merge(accumulated, valid)
        return carry

    def get_config(self):
        return {**super().get_config(), "gamma": self.gamma, "clip": self.clip}
