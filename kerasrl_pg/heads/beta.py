"""The Beta policy: a distribution that lives on a bounded interval by nature."""

import math

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from kerasrl_pg.heads.box import clip, finite_bounds, is_box, rescale, unit_interval
from kerasrl_pg.heads.head import Head, dtype_of, event
from kerasrl_pg.ops import random

tfd = tfp.distributions

# Candidates for one gamma variate. One is accepted with probability 0.9516 at shape 1, 0.977 at
# a fresh head's 1.69 and more above, so all four are refused with probability 5.5e-6 at most.
PROPOSALS = 4

# Raw actions stay this far off 0 and 1, where the density may be 0 and its logarithm infinite.
# Ours: a few rounding steps of a float32 near 1.
MARGIN = 1e-6

# α = β = 1 is uniform: every point is a mode, the middle is ours. So it is where α - 1 and β - 1, which float32 knows
# to 1e-7, add up to less than this: what they say of the mode is rounding then.
FLAT = 1e-3

# α and β end here, so that (α + β)³ is finite in float32. Ours: the standard deviation is 4e-7 then, at the limit of
# what a float32 near 1 can tell.
LARGEST = 1e12


def gamma(shape, normals, uniforms):
    """Gamma(shape, 1) variates, by the method of Marsaglia and Tsang with a fixed number of tries.

    A candidate is d (1 + c z)³ with d = shape - 1/3, c = 1 / √(9 d). The first accepted one counts.
    If none is (see `PROPOSALS`), the result is d, near the median: the only departure from an
    exact draw.

    Args:
        shape: [...], at least 1.
        normals: A list of z's [...], one a candidate.
        uniforms: As long a list of [...] in (0, 1).

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


def softplus(x):
    """log(1 + exp x), which LiteRT computes as infinite from 88.7 on when it is asked for a softplus.

    Written without max(x, 0), whose derivative at 0 would not be ½.
    """
    return 0.5 * x + 0.5 * tf.abs(x) + tf.math.log1p(tf.exp(-tf.abs(x)))


# Of a polynomial f with log Γ(z) = (z - ½) log z - z + ½ log 2π + f(1/z)/z for z >= 1, 1/12 - 1/(360 z²) + ...
# by Stirling's series. Fitted by us; the remainder's error is 5e-10, its derivative's 7e-8.
STIRLING = (
    0.08333333396,
    -1.024882931e-07,
    -0.002775019721,
    -2.822307763e-05,
    0.0009337166975,
    -0.000356377702,
    -0.0002194036953,
    0.0002359615258,
    -6.241918714e-05,
)


def polynomial(coefficients, x):
    """Σ_k coefficients[k] xᵏ in the dtype of x, by Horner's rule."""
    total = coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        total = coefficient + x * total
    return total


def stirling(z):
    """log Γ(z) less Stirling's formula, for z >= 1."""
    return polynomial(STIRLING, 1.0 / z) / z


def digamma_less_log(z):
    """ψ(z) - log z, for z >= 1."""
    slopes = [(k + 1) * coefficient for k, coefficient in enumerate(STIRLING)]
    return -(0.5 + polynomial(slopes, 1.0 / z) / z) / z


# 2 atanh w = 2w + 2w³ times this polynomial of w², to 2e-11 for |w| < 0.1.
ATANH = (1 / 3, 1 / 5, 1 / 7, 1 / 9)


def log_remainder(a, b, difference):
    """log(a/b) - 2 (a - b)/(a + b) of positive a and b, whose `difference` is a - b.

    By a series where they are near: the logarithm is 2 atanh((a - b)/(a + b)).
    """
    w = difference / (a + b)
    near = tf.abs(w) < 0.1
    small = tf.where(near, w, 0.0)
    return tf.where(near, 2.0 * small**3 * polynomial(ATANH, small**2), tf.math.log(a / b) - 2.0 * w)


class InnerBeta(tfd.Beta):
    """A Beta distribution with α, β >= 1, whose samples and mode keep off the ends of (0, 1).

    TFP's densities, entropies and divergences are small differences of log-gammas, as large as α. Here what cancels
    is taken out by Stirling's formula. With s = α + β and r the remainder `stirling`,

    log p(x) = (α - 1) log(s x/α) + (β - 1) log(s (1 - x)/β) + ½ log(s³/(2π α β)) + r(s) - r(α) - r(β).

    Source: Loader 2000, "Fast and Accurate Computation of Binomial Probabilities", who does so for integers.
    """

    def _totals(self):
        """α, β, α + β, and ½ log(s³/(2π α β)) + r(s) - r(α) - r(β)."""
        a, b = self.concentration1, self.concentration0
        s = a + b
        logs = 3.0 * tf.math.log(s) - tf.math.log(a) - tf.math.log(b) - math.log(2.0 * math.pi)
        return a, b, s, 0.5 * logs + stirling(s) - stirling(a) - stirling(b)

    def _log_prob(self, x):
        a, b, s, constant = self._totals()
        up, down = s * x, s * (1.0 - x)
        excess = tf.where(x < 0.5, up - a, b - down)  # s x - α, from the side that rounds less
        # The first order apart, since its two parts cancel near the mean.
        first = 2.0 * excess * ((a - 1.0) / (up + a) - (b - 1.0) / (down + b))
        rest = (a - 1.0) * log_remainder(up, a, excess) + (b - 1.0) * log_remainder(down, b, -excess)
        return first + rest + constant

    def _entropy(self):
        a, b, s, constant = self._totals()
        slopes = (a - 1.0) * digamma_less_log(a) + (b - 1.0) * digamma_less_log(b) - (s - 2.0) * digamma_less_log(s)
        return -constant - slopes

    def _sample_n(self, n, seed=None):
        return inside(super()._sample_n(n, seed))

    def _mode(self):
        rise, fall = self.concentration1 - 1.0, self.concentration0 - 1.0
        total = rise + fall
        flat = total <= FLAT
        return inside(tf.where(flat, 0.5, rise / tf.where(flat, 1.0, total)))


@tfd.RegisterKL(InnerBeta, InnerBeta)
def _kl(p, q, name=None):
    a, b = p.concentration1, p.concentration0
    to_a, to_b = q.concentration1, q.concentration0
    rise, fall, s, to_s = to_a - a, to_b - b, a + b, to_a + to_b
    total = 0.0
    for sign, old, new, step in ((1, a, to_a, rise), (1, b, to_b, fall), (-1, s, to_s, rise + fall)):
        # new log(new/old) - step, whose last part adds up to 0, and half a logarithm of Stirling's formula.
        main = (step - 1.0) * step / (new + old) + (new - 0.5) * log_remainder(new, old, step)
        total += sign * (main + stirling(new) - stirling(old) - step * digamma_less_log(old))
    return total


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
        low, high: Finite bounds, arrays of the action's shape (or broadcast to `shape`).
        shape: Of one action; None for that of `low` and `high`.
        kernel_initializer: None for the small orthogonal of `Head`.
        **kwargs: `env_dtype` of `Head`, `name` and the rest of `keras.layers.Layer`.

    Raises:
        ValueError: If a bound is infinite, or `low` is not below `high`.

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
        return cls(space.low, space.high, env_dtype=dtype_of(space), **kwargs)

    def distribution(self, parameters):
        alpha, beta = tf.split(tf.minimum(1.0 + softplus(parameters), LARGEST), 2, axis=-1)
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
        return clip(rescale(actions, self.low, self.high), self.low, self.high, self.env_dtype)

    def from_env(self, actions):
        return unit_interval(actions, self.low, self.high)

    def get_config(self):
        return {
            **super().get_config(),
            "low": self.low.tolist(),
            "high": self.high.tolist(),
            "shape": self.shape,
        }
