"""A mixture of Gaussians: a policy with several peaks."""

import math

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from kerasrl_pg.heads.box import as_config, bounds, event_shape, is_box
from kerasrl_pg.heads.categorical import gumbel_max
from kerasrl_pg.heads.gaussian import bounded_log_std, check_log_std
from kerasrl_pg.heads.head import Head, event
from kerasrl_pg.ops import random

tfd = tfp.distributions


class NormalMixture(tfd.MixtureSameFamily):
    """K weighted components over actions of d dimensions, each Independent(Normal).

    `mode`, `entropy` and the KL divergence of mixtures have no closed form. Here they are
    deterministic and differentiable:

    - `mode()`: the component mean of highest density. The true mode is near it, except for broad
      components that overlap.
    - `entropy()`: -Σ_k w_k times the average of log p over the 2d sigma points μ_k ± √d σ_ki e_i.
      Exact for one component and for components far apart.
      Source: Goldberger, Gordon, Greenspan 2003, "An Efficient Image Similarity Measure Based on
      Approximations of KL-Divergence between Two Gaussian Mixtures", the unscented estimate.
    - `kl_divergence`: KL(w ‖ v) + Σ_k w_k KL(p_k ‖ q_k), component k against component k. By the
      chain rule this is the divergence of the pairs (component, action), so never below the
      divergence of the actions, and never negative; 0, with gradient 0, at p = q.
      A trust region in it holds for the actions too.
      Source: Hershey, Olsen 2007, "Approximating the Kullback Leibler Divergence Between Gaussian
      Mixture Models", section 6 (the matched bound, with the matching k -> k).
    """

    def _mode(self):
        means = self._means()
        rank = self.event_shape.rank
        log_probs = self.log_prob(tf.stack(tf.unstack(means, axis=-1 - rank)))  # [K, ...]
        best = tf.one_hot(tf.argmax(log_probs), means.shape[-1 - rank])  # [..., K]
        best = tf.reshape(best, tf.concat([tf.shape(best), [1] * rank], axis=0))
        return tf.reduce_sum(best * means, axis=-1 - rank)

    def _means(self):
        return self.components_distribution.distribution.loc

    def _entropy(self):
        normal = self.components_distribution.distribution
        rank, size = self.event_shape.rank, self.event_shape.num_elements()
        directions = math.sqrt(size) * np.eye(size, dtype="float32")
        weights = self.mixture_distribution.probs_parameter()
        entropy = 0.0
        for direction in (*directions, *-directions):
            step = direction.reshape(self.event_shape.as_list())
            points = tf.stack(tf.unstack(normal.loc + step * normal.scale, axis=-1 - rank))
            log_probs = tf.stack(tf.unstack(self.log_prob(points)), axis=-1)  # [..., K]
            entropy -= tf.reduce_sum(weights * log_probs, axis=-1) / (2 * size)
        return entropy


@tfd.RegisterKL(NormalMixture, NormalMixture)
def _kl(p, q, name=None):
    weights = p.mixture_distribution.probs_parameter()
    components = p.components_distribution.kl_divergence(q.components_distribution)
    return p.mixture_distribution.kl_divergence(q.mixture_distribution) + tf.reduce_sum(
        weights * components, axis=-1
    )


@keras.saving.register_keras_serializable("kerasrl_pg")
class GaussianMixture(Head):
    """A mixture density network: weights, means and log σ of all components are outputs.

    The raw action is the sample itself, unbounded; the environment gets it clipped to
    [low, high]. What `mode`, `entropy` and `kl_divergence` mean is said in `NormalMixture`.

    Args:
        shape: of one action: a tuple, or an integer d for (d,).
        num_components: K. 3, ours: the fewest that can hold two ways round an obstacle and a third.
        low, high: bounds for `to_env`, broadcast to `shape`; None or infinite for none.
        initial_log_std: log σ of every component at initialisation. 0, as in `Gaussian`.
        initial_spread: the means start evenly spaced from -initial_spread to initial_spread, the
            same in every dimension. 1, ours, because equal components get equal gradients and
            would stay equal.
        kernel_initializer: None for the small orthogonal of `Head`.
        **kwargs: `name` and the rest of `keras.layers.Layer`.

    Raises:
        ValueError: if `num_components` is below 1, or as `Gaussian`.

    Source: Bishop 1994, "Mixture Density Networks".

    >>> import tensorflow as tf
    >>> from kerasrl_pg.heads import GaussianMixture
    >>> head = GaussianMixture(1, num_components=3, initial_spread=4.0)
    >>> policy = head(tf.zeros([1, 8]))
    >>> policy.components_distribution.mean().numpy()[0, :, 0]
    array([-4.,  0.,  4.], dtype=float32)
    >>> policy.kl_divergence(policy).numpy()
    array([0.], dtype=float32)
    """

    noise_kind = "uniform and normal"

    def __init__(
        self,
        shape,
        num_components=3,
        low=None,
        high=None,
        initial_log_std=0.0,
        initial_spread=1.0,
        kernel_initializer=None,
        **kwargs,
    ):
        if int(num_components) != num_components or num_components < 1:
            raise ValueError(
                "num_components must be a whole number of at least 1. "
                f"Received: num_components={num_components}."
            )
        check_log_std(initial_log_std)
        shape, num_components = event_shape(shape), int(num_components)
        size = math.prod(shape)
        super().__init__(
            shape,
            num_components * (1 + 2 * size),
            (num_components + size,),
            kernel_initializer,
            **kwargs,
        )
        self.shape = shape
        self.num_components = num_components
        self.low, self.high = bounds(low, high, shape)
        self.initial_log_std = float(initial_log_std)
        self.initial_spread = float(initial_spread)

    @classmethod
    def from_space(cls, space, **kwargs):
        if not is_box(space):
            raise cls._refuse("a gymnasium.spaces.Box of floats", space)
        return cls(space.shape, low=space.low, high=space.high, **kwargs)

    def distribution(self, parameters):
        k, shape = self.num_components, self.shape
        normals = k * math.prod(shape)
        logits, loc, x = tf.split(parameters, [k, normals, normals], axis=-1)
        spread = np.linspace(-self.initial_spread, self.initial_spread, k) if k > 1 else np.zeros(1)
        spread = spread.astype("float32").reshape(k, *[1] * len(shape))
        scale = tf.exp(bounded_log_std(event(x, (k, *shape)), self.initial_log_std))
        return NormalMixture(
            tfd.Categorical(logits=logits),
            tfd.Independent(tfd.Normal(event(loc, (k, *shape)) + spread, scale), len(shape)),
        )

    def noise(self, seed, shape):
        """Float32 [*shape, K uniforms to choose the component, then d normals]."""
        uniform = random.uniform(seed, (*shape, *self.noise_shape))
        choice, rest = uniform[..., : self.num_components], uniform[..., self.num_components :]
        return tf.concat([choice, tf.math.ndtri(rest)], axis=-1)

    def sample(self, distribution, noise):
        k, rank = self.num_components, len(self.shape)
        chosen = tf.one_hot(gumbel_max(distribution.mixture_distribution.logits, noise[..., :k]), k)
        chosen = chosen[(..., *[tf.newaxis] * rank)]
        normal = distribution.components_distribution.distribution
        loc = tf.reduce_sum(chosen * normal.loc, axis=-1 - rank)
        scale = tf.reduce_sum(chosen * normal.scale, axis=-1 - rank)
        return loc + scale * event(noise[..., k:], self.shape)

    def to_env(self, actions):
        return tf.clip_by_value(tf.cast(actions, tf.float32), self.low, self.high)

    def get_config(self):
        return {
            **super().get_config(),
            "shape": self.shape,
            "num_components": self.num_components,
            "low": as_config(self.low),
            "high": as_config(self.high),
            "initial_log_std": self.initial_log_std,
            "initial_spread": self.initial_spread,
        }
