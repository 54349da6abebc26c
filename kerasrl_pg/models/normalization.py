"""Running normalisation of observations and scaling of rewards, as layers whose statistics travel with the weights."""

import keras
import tensorflow as tf

from kerasrl_pg import ops


@keras.saving.register_keras_serializable("kerasrl_pg")
class RunningNormalization(keras.layers.Layer):
    """Normalises observations by their running mean and variance, then clips them.

    The statistics are non-trainable weights, so evaluating, saving, cloning and serving a network cannot forget them.
    Calling the layer never changes them: an agent calls `update` between iterations only, so that the
        log-probabilities of a rollout
    stay those of the policy that collected it.

    Args:
        key: Which observation this layer normalises: the name of its leaf, or None where observations are one tensor.
        clip: Normalised values are clipped to [-clip, clip]; positive, or None for no clipping. 10, as in Engstrom et
            al. 2020 ("Implementation matters in deep policy gradients", arXiv 2005.12729), appendix A.1.

    Call arguments:
        inputs: float [B, ...].

    Returns:
        float32 [B, ...], (x - mean) / sqrt(variance + 1e-8), clipped.

    Raises:
        ValueError: If `clip` is not positive.

    >>> layer = RunningNormalization()
    >>> layer.build((None, 1))
    >>> layer.update(tf.constant([[1.0], [3.0]]))
    >>> layer(tf.constant([[3.0]])).numpy().round(3).tolist()
    [[1.0]]
    """

    def __init__(self, key=None, clip=10.0, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})  # Statistics of half precision would stand still.
        if clip is not None and not clip > 0:
            raise ValueError(f"`clip` must be positive, or None for no clipping. Received: clip={clip}.")
        self.key = key
        self.clip = clip

    def build(self, input_shape):
        shape = tuple(input_shape[1:])
        self.mean = self.add_weight(name="mean", shape=shape, initializer="zeros", trainable=False)
        self.variance = self.add_weight(name="variance", shape=shape, initializer="ones", trainable=False)
        self.count = self.add_weight(name="count", shape=(), initializer="zeros", trainable=False)

    def call(self, inputs):
        inputs = tf.cast(inputs, tf.float32)
        return ops.normalize(inputs, self.mean.value, self.variance.value, self.clip)

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs.shape, "float32")

    def update(self, observations, valid=None):
        """Merges a batch of observations [B, ...] into the statistics; `valid` [B] leaves rows out."""
        observations = tf.cast(observations, tf.float32)
        valid = tf.ones(tf.shape(observations)[:1], tf.bool) if valid is None else valid
        batch = ops.masked_moments(observations, valid)
        merged = ops.merge_moments(self.mean.value, self.variance.value, self.count.value, *batch)
        for variable, value in zip((self.mean, self.variance, self.count), merged, strict=True):
            variable.assign(value)

    def get_config(self):
        return {**super().get_config(), "key": self.key, "clip": self.clip}


def normalizers(model):
    """All `RunningNormalization` layers of a Keras model, nested ones included."""
    return [layer for layer in model._flatten_layers() if isinstance(layer, RunningNormalization)]


@keras.saving.register_keras_serializable("kerasrl_pg")
class RewardScaling(keras.layers.Layer):
    """Divides rewards by the standard deviation of the running discounted return; the mean is not subtracted.

    G_t = r_t + γ G_{t-1}, started anew with each episode; r_t / std(G), then clipped. The statistics are weights of
    the agent. The carried G of each environment belongs to the environments' state, not to the weights: the agent
    holds it.

    Args:
        gamma: γ in [0, 1], the agent's own.
        clip: Scaled rewards are clipped to [-clip, clip]; positive, or None.

    Source: Engstrom et al. 2020 (arXiv 2005.12729), appendix A.1, "reward scaling".
    """

    def __init__(self, gamma, clip=None, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})  # Statistics of half precision would stand still.
        self.gamma = gamma
        self.clip = clip
        self.mean = self.add_weight(name="mean", shape=(), initializer="zeros", trainable=False)
        self.variance = self.add_weight(name="variance", shape=(), initializer="ones", trainable=False)
        self.count = self.add_weight(name="count", shape=(), initializer="zeros", trainable=False)
        self.built = True

    def call(self, rewards):
        """Scaled rewards [T, N], by the statistics as they stand."""
        return ops.scale_rewards(rewards, self.variance.value, self.clip)

    def update(self, rewards, ends, valid, carry):
        """Merges a rollout's discounted returns into the statistics; returns the next carry [N]."""
        accumulated, carry = ops.discounted_accumulator(rewards, ends, self.gamma, carry)
        batch = ops.masked_moments(accumulated, valid)
        merged = ops.merge_moments(self.mean.value, self.variance.value, self.count.value, *batch)
        for variable, value in zip((self.mean, self.variance, self.count), merged, strict=True):
            variable.assign(value)
        return carry

    def get_config(self):
        return {**super().get_config(), "gamma": self.gamma, "clip": self.clip}
