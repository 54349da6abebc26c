"""The squashed Gaussian: a normal variable u whose tanh is the action, for bounded actions."""

import math

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from kerasrl_pg.heads.box import clip, finite_bounds, is_box, rescale, unit_interval
from kerasrl_pg.heads.gaussian import Gaussian, Normal
from kerasrl_pg.heads.head import dtype_of

tfd = tfp.distributions

# The logistic distribution of scale ½ as a mixture of four centred normals: weights and standard
# deviations. Fitted by us to the smallest maximal error of 2 E|u + L| over all u (7.2e-6).
LOGISTIC_WEIGHTS = (0.14642886, 0.50052862, 0.31588120, 0.03716131)
LOGISTIC_SCALES = (0.50927921, 0.75705887, 1.12069968, 1.64754279)


def log_tanh_slope(u):
    """log(1 - tanh² u), the log of da/du for a = tanh u, exact also where tanh u rounds to 1.

    Written 2 (log 2 - |u| - log(1 + exp(-2|u|))): Spinning Up's SAC and TFP's Tanh bijector have u and a
    softplus, which LiteRT computes as infinite from 88.7 on.
    Source: Haarnoja et al. 2018, "Soft Actor-Critic Algorithms and Applications", appendix C.
    """
    return 2.0 * (math.log(2.0) - tf.abs(u) - tf.math.log1p(tf.exp(-2.0 * tf.abs(u))))


def expected_log_tanh_slope(loc, scale):
    """E[log(1 - tanh² u)] for u ~ N(loc, scale²), in closed form up to 7.2e-6.

    With L a logistic variable of scale ½, log(2 cosh u) = E|u + L| (both sides have the second
    derivative sech² u and the same asymptotes). So the expectation is 2 log 2 - 2 E|u + L|, and
    since a logistic variable is a scale mixture of normals (Stefanski 1991, "A normal scale mixture
    representation of the logistic distribution"), it is a mixture of E|N(loc, scale² + s²)|, the
    mean of a folded normal. Gauss-Hermite quadrature needs over 128 nodes for 4e-3 at scale = e².

    Args:
        loc, scale: [...], any loc, any scale >= 0.

    Returns:
        [...]; gradients flow into both.
    """
    expected = 2.0 * math.log(2.0)
    for weight, logistic_scale in zip(LOGISTIC_WEIGHTS, LOGISTIC_SCALES, strict=True):
        std = tf.sqrt(tf.square(scale) + logistic_scale**2)
        z = loc / std
        folded = std * math.sqrt(2 / math.pi) * tf.exp(-0.5 * z * z)
        folded += loc * tf.math.erf(z * math.sqrt(0.5))
        expected -= 2.0 * weight * folded
    return expected


class TanhNormal(Normal):
    """The distribution of a = tanh u, u normal, addressed by its coordinate u.

    `sample`, `mode`, `mean`, `cdf` and the argument of `log_prob` are values of u, because u
    cannot be found again from a tanh that rounded to 1. Densities and entropy are those of a, with
    respect to da = (1 - tanh² u) du. The KL divergence is that of the normal distributions of u:
    a bijection does not change it.
    """

    def _log_prob(self, u):
        return super()._log_prob(u) - log_tanh_slope(u)

    def _entropy(self):
        return super()._entropy() + expected_log_tanh_slope(self.loc, self.scale)


@keras.saving.register_keras_serializable("kerasrl_pg")
class TanhGaussian(Gaussian):
    """Independent normal variables u, squashed by tanh and stretched to [low, high].

    The raw action is u, before the tanh; the environment gets low + (tanh u + 1)/2 (high - low).
    Log-probabilities and entropy are those of tanh u, an action in (-1, 1): the stretch adds only
    a constant. `mode()` is u = loc, whose tanh is the *median* action and what the literature
    calls the deterministic action (Haarnoja et al. 2018); the density of tanh u may peak elsewhere.

    Args:
        low, high: Finite bounds, arrays of the action's shape (or broadcast to `shape`).
        shape: Of one action; None for that of `low` and `high`.
        state_dependent_std, initial_log_std, kernel_initializer, **kwargs: As in `Gaussian`, `std` included.

    Raises:
        ValueError: If a bound is infinite, or `low` is not below `high`.

    >>> import tensorflow as tf
    >>> from kerasrl_pg.heads import TanhGaussian
    >>> head = TanhGaussian(low=[0.0], high=[10.0])
    >>> policy = head(tf.zeros([1, 8]))
    >>> head.to_env(policy.mode()).numpy()
    array([[5.]], dtype=float32)
    >>> round(float(policy.entropy()[0]), 3)  # near log 2, the entropy of the uniform on (-1, 1)
    0.67
    """

    def __init__(
        self,
        low,
        high,
        shape=None,
        state_dependent_std=False,
        initial_log_std=0.0,
        kernel_initializer=None,
        **kwargs,
    ):
        low, high = finite_bounds(low, high, shape)
        super().__init__(low.shape, low, high, state_dependent_std, initial_log_std, kernel_initializer, **kwargs)

    @classmethod
    def from_space(cls, space, **kwargs):
        if not is_box(space):
            raise cls._refuse("a gymnasium.spaces.Box of floats", space)
        return cls(space.low, space.high, env_dtype=dtype_of(space), **kwargs)

    def distribution(self, parameters):
        return tfd.Independent(self._normal(parameters, TanhNormal), len(self.shape))

    def to_env(self, actions):
        inside = rescale(0.5 * (tf.tanh(actions) + 1.0), self.low, self.high)
        return clip(inside, self.low, self.high, self.env_dtype)

    def from_env(self, actions):
        return tf.atanh(2.0 * unit_interval(actions, self.low, self.high) - 1.0)
