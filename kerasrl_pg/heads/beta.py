"""The Beta policy: a distribution that lives on a bounded interval by nature."""

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from kerasrl_pg.heads.box import finite_bounds, is_box, rescale
from kerasrl_pg.heads.head import Head, event
from kerasrl_pg.ops import random

tfd = tfp.distributions

# Candidates for one gamma variate. One is accepted with probability 0.9516 at shape 1, 0.977 at
# a fresh head's 1.69 and more above, so all four are refused with probability 5.5e-6 at most.
PROPOSALS = 4

# Raw actions stay this far off 0 and 1, where the density may be 0 and its logarithm infinite.
# Ours: a few rounding steps of a float32 near 1.
MARGIN = 1e-6


def gamma(shape, normals, uniforms):
    """Gamma(shape, 1) variates, by the method of Marsaglia and Tsang with a fixed number of tries.

    A candidate is d (1 + c z)³ with d = shape - 1/3, c = 1 / √(9 d). The first accepted one counts.
    If none is (see `PROPOSALS`), the result is d, near the median: the only departure from an
    exact draw.

    Args:
        shape: [...], at least 1.
        normals: a list of z's [...], one a candidate.
        uniforms: as long a list of [...] in (0, 1).

    Returns:
        [...], positive. Do not differentiate: the choice among the candidates has no gradient.

    Source: Marsaglia, Tsang 2000, "A Simple Method for Generating Gamma Variables".
    """
    d = shape - 1.0 / 3.0
    ratio = tf.ones_like(d)
    for z, u in reversed(list(zip(normals, uniforms, strict=True))):
        v = tf.maximum(1.0 + z * tf.math.rsqrt(9.0 * d), 0.0) ** 3
        log_v = tf.math.log(tf.maximum(v, 1e-30))
        accepted = tf.math.log(u) < 0.5 * z * z + d * (1.0 - v + log_v)
        ratio = tf.where(accepted & (v > 0.0), v, ratio)
    return d * ratio


class InnerBeta(tfd.Beta):
    """A Beta distribution with α, β >= 1, whose samples and mode keep off the ends of (0, 1)."""

    def _sample_n(self, n, seed=None):
        return inside(super()._sample_n(n, seed))

    def _mode(self):
        rise, fall = self.concentration1 - 1.0, self.concentration0 - 1.0
        total = rise + fall
        flat = total <= 0.0  # α = β = 1 is uniform: every point is a mode, the middle is ours
        return inside(tf.where(flat, 0.5, rise / tf.where(flat, 1.0, total)))


def inside(x):
    """`x` kept `MARGIN` away from 0 and 1."""
    return tf.clip_by_value(x, MARGIN, 1.0 - MARGIN)


@keras.saving.register_keras_serializable("kerasrl_pg")
class Beta(Head):
    """Independent Beta variables, stretched to [low, high].

    The raw action is x in (0, 1); the environment gets low + x (high - low). Log-probabilities and
    entropy are those of x. α and β are 1 + softplus of the Dense's outputs, so that there is always
    one peak.

    Args:
        low, high: finite bounds, arrays of the action's shape (or broadcast to `shape`).
        shape: of one action; None for that of `low` and `high`.
        kernel_initializer: None for the small orthogonal of `Head`.
        **kwargs: `name` and the rest of `keras.layers.Layer`.

    Raises:
        ValueError: if a bound is infinite, or `low` is not below `high`.

    Source: Chou, Maturana, Scherer 2017, "Improving Stochastic Policy Gradients in Continuous
    Control with Deep Reinforcement Learning using the Beta Distribution".

    >>> import tensorflow as tf
    >>> from kerasrl_pg.heads import Beta
    >>> head = Beta(low=[-2.0], high=[2.0])
    >>> policy = head(tf.zeros([1, 8]))
    >>> policy.mode().numpy(), head.to_env([[0.75]]).numpy()
    (array([[0.5]], dtype=float32), array([[1.]], dtype=float32))
    """

    noise_kind = "normal and uniform"

    def __init__(self, low, high, shape=None, kernel_initializer=None, **kwargs):
        low, high = finite_bounds(low, high, shape)
        super().__init__(
            low.shape,
            2 * low.size,
            (4 * PROPOSALS, low.size),
            kernel_initializer,
            **kwargs,
        )
        self.low, self.high, self.shape = low, high, low.shape

    @classmethod
    def from_space(cls, space, **kwargs):
        if not is_box(space):
            raise cls._refuse("a gymnasium.spaces.Box of floats", space)
        return cls(space.low, space.high, **kwargs)

    def distribution(self, parameters):
        alpha, beta = tf.split(1.0 + tf.nn.softplus(parameters), 2, axis=-1)
        return tfd.Independent(InnerBeta(event(alpha, self.shape), event(beta, self.shape)), len(self.shape))

    def noise(self, seed, shape):
        """Float32 [*shape, 4 PROPOSALS, d]: the normals of both gammas, then their uniforms."""
        uniform = random.uniform(seed, (*shape, *self.noise_shape))
        first, second = tf.split(uniform, 2, axis=-2)
        return tf.concat([tf.math.ndtri(first), second], axis=-2)

    def sample(self, distribution, noise):
        """x = g₁ / (g₁ + g₀) of two gamma variates of shapes α and β; see `gamma`."""
        beta, k = distribution.distribution, PROPOSALS
        tries = [event(z, self.shape) for z in tf.unstack(noise, 4 * k, axis=-2)]
        one = gamma(beta.concentration1, tries[:k], tries[2 * k : 3 * k])
        zero = gamma(beta.concentration0, tries[k : 2 * k], tries[3 * k :])
        return tf.stop_gradient(inside(one / (one + zero)))

    def to_env(self, actions):
        return rescale(actions, self.low, self.high)

    def get_config(self):
        return {
            **super().get_config(),
            "low": self.low.tolist(),
            "high": self.high.tolist(),
            "shape": self.shape,
        }
