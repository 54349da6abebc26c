"""Critic heads: layers that turn features into a distribution over returns, whose mean is V(s)."""

import math

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from kerasrl_pg.checks import check_number, check_whole
from kerasrl_pg.heads.head import DistributionLayer

tfd = tfp.distributions


class ValueHead(DistributionLayer):
    """Base of the critic heads: `critic(obs)` is a distribution, its `mean()` [...] the value.

    Args:
        num_parameters: P, outputs of the Dense.
        kernel_initializer: None for `Orthogonal(1.0)`, the critic's gain in Engstrom et al. 2020
            ("Implementation Matters in Deep RL", PPO's code-level optimisations) and in CleanRL.
        **kwargs: `name` and the rest of `keras.layers.Layer`.
    """

    def __init__(self, num_parameters, kernel_initializer=None, **kwargs):
        if kernel_initializer is None:
            kernel_initializer = keras.initializers.Orthogonal(gain=1.0)
        super().__init__(num_parameters, kernel_initializer, **kwargs)

    def compute_output_spec(self, features):
        return keras.KerasTensor(features.shape[:-1], "float32")

    def loss(self, distribution, returns):
        """What the critic minimises, elementwise: the negative log-likelihood of the returns.

        Args:
            distribution: Of this head, batch shape [...].
            returns: [...], no gradient flows into them.

        Returns:
            float32 [...].

        Raises:
            ValueError: If the shapes differ; [B, 1] against [B] would broadcast to [B, B].
        """
        return -distribution.log_prob(_targets(distribution, returns))


def _targets(distribution, returns):
    returns = tf.stop_gradient(tf.cast(returns, tf.float32))
    if not returns.shape.is_compatible_with(distribution.batch_shape):
        raise ValueError(
            "`returns` must have the shape of the critic's values. "
            f"Received: returns.shape={returns.shape}, values.shape={distribution.batch_shape}."
        )
    return returns


@keras.saving.register_keras_serializable("kerasrl_pg")
class NormalValue(ValueHead):
    """A normal distribution of unit variance around V(s): the ordinary squared-error critic.

    Args:
        kernel_initializer: None for `Orthogonal(1.0)`.
        **kwargs: `name` and the rest of `keras.layers.Layer`.

    >>> import tensorflow as tf
    >>> from kerasrl_pg.heads import NormalValue
    >>> head = NormalValue()
    >>> value = head(tf.zeros([2, 8]))
    >>> value.mean().numpy()
    array([0., 0.], dtype=float32)
    >>> head.loss(value, [1.0, -2.0]).numpy()
    array([0.5, 2. ], dtype=float32)
    """

    def __init__(self, kernel_initializer=None, **kwargs):
        super().__init__(1, kernel_initializer, **kwargs)

    def distribution(self, parameters):
        return tfd.Normal(parameters[..., 0], 1.0)

    def loss(self, distribution, returns):
        """½ (return - V)², [...]: the negative log-likelihood less its constant ½ log 2π."""
        return 0.5 * tf.square(_targets(distribution, returns) - distribution.mean())


class Histogram(tfd.AutoCompositeTensorDistribution):
    """Probabilities of equal bins of [low, high], with a `log_prob` for continuous returns.

    `log_prob(returns)` is minus the cross-entropy from the return's histogram (`hl_gauss`) to this
    one, in nats: a score to train by, not a density. `mean()` is Σ p_i centre_i.

    Args:
        logits: [..., num_bins].
        low, high, sigma: Floats, the range and the width of the target's Gaussian.
    """

    def __init__(self, logits, low, high, sigma, name="Histogram"):
        parameters = dict(locals())
        self.logits = tf.convert_to_tensor(logits)
        self.low, self.high, self.sigma = low, high, sigma
        super().__init__(
            dtype=self.logits.dtype,
            reparameterization_type=tfd.NOT_REPARAMETERIZED,
            validate_args=False,
            allow_nan_stats=True,
            parameters=parameters,
            name=name,
        )

    @classmethod
    def _parameter_properties(cls, dtype, num_classes=None):
        static = tfp.util.ParameterProperties(event_ndims=None)
        return {
            "logits": tfp.util.ParameterProperties(event_ndims=1),
            "low": static,
            "high": static,
            "sigma": static,
        }

    def _event_shape(self):
        return tf.TensorShape([])

    def _event_shape_tensor(self):
        return tf.constant([], tf.int32)

    @property
    def edges(self):
        """The num_bins + 1 ends of the bins."""
        return bin_edges(self.low, self.high, self.logits.shape[-1])

    def _mean(self):
        centres = (self.edges[1:] + self.edges[:-1]) / 2
        return tf.reduce_sum(tf.nn.softmax(self.logits) * centres, axis=-1)

    def _log_prob(self, returns):
        targets = hl_gauss(returns, self.edges, self.sigma)
        return tf.reduce_sum(targets * tf.nn.log_softmax(self.logits), axis=-1)


def bin_edges(low, high, num_bins):
    """The num_bins + 1 edges of equal bins, float32."""
    return np.linspace(low, high, num_bins + 1).astype("float32")


def hl_gauss(returns, edges, sigma):
    """A return as a histogram: the masses that N(return, σ²), cut to the edges, has in the bins.

    Returns outside [edges[0], edges[-1]] count as the nearest end. With σ = ¾ bin the histogram's
    mean is the return to 5e-6 of a bin far from the ends, to 0.4 % of a bin 3 σ away from one, and
    0.7 bins too far inside at an end itself, where half of the Gaussian is cut off.

    Args:
        returns: [...].
        edges: [num_bins + 1], increasing.
        sigma: A positive float, in the unit of the returns.

    Returns:
        [..., num_bins], summing to 1.

    Source: Farebrother et al. 2024, "Stop Regressing: Training Value Functions via Classification
    for Scalable Deep RL", section 3.1, after Imani and White 2018.
    """
    returns = tf.clip_by_value(tf.cast(returns, tf.float32), edges[0], edges[-1])
    cdf = tf.math.erf((edges - returns[..., None]) / (math.sqrt(2.0) * sigma))
    return (cdf[..., 1:] - cdf[..., :-1]) / (cdf[..., -1:] - cdf[..., :1])


@keras.saving.register_keras_serializable("kerasrl_pg")
class HistogramValue(ValueHead):
    """A histogram over returns, trained by cross-entropy (HL-Gauss).

    The scale of the loss does not depend on the scale of the rewards. Its minimum is the entropy of
    the target histogram, 1.20 nats with the default sigma, not 0.

    Args:
        low, high: Range of the histogram, in the unit of the returns. Leave a margin of 3 bins: a
            return at an end is learned 0.7 bins too far inside (see `hl_gauss`).
        num_bins: Number of bins. 51, the number of atoms of C51 (Bellemare et al. 2017).
        sigma: Width of the target's Gaussian; None for 0.75 bins (Farebrother et al. 2024).
        kernel_initializer: None for `Orthogonal(1.0)`.
        **kwargs: `name` and the rest of `keras.layers.Layer`.

    Raises:
        ValueError: If `low` is not below `high`, `num_bins` is below 2, or `sigma` not positive.

    >>> import tensorflow as tf
    >>> from kerasrl_pg.heads import HistogramValue
    >>> head = HistogramValue(0.0, 10.0, num_bins=5)
    >>> value = head(tf.zeros([1, 8]))
    >>> round(float(value.mean()[0]), 4)
    5.0
    >>> round(float(head.loss(value, [3.0])[0]), 4)  # log 5
    1.6094
    """

    def __init__(self, low, high, num_bins=51, sigma=None, kernel_initializer=None, **kwargs):
        check_number("low", low, -math.inf)
        check_number("high", high, low, exclusive=True)
        check_whole("num_bins", num_bins, at_least=2)
        check_number("sigma", sigma, 0.0, exclusive=True, optional=True)
        super().__init__(int(num_bins), kernel_initializer, **kwargs)
        self.low, self.high, self.num_bins = float(low), float(high), int(num_bins)
        self.sigma = 0.75 * (self.high - self.low) / self.num_bins if sigma is None else sigma

    def distribution(self, parameters):
        return Histogram(parameters, self.low, self.high, self.sigma)

    def get_config(self):
        return {
            **super().get_config(),
            "low": self.low,
            "high": self.high,
            "num_bins": self.num_bins,
            "sigma": self.sigma,
        }
