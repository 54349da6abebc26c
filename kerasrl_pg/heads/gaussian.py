"""The Gaussian policy of continuous control, with independent dimensions."""

import math

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from kerasrl_pg.checks import check_number
from kerasrl_pg.heads.box import as_config, bounds, clip, event_shape, is_box
from kerasrl_pg.heads.head import Head, dtype_of, event
from kerasrl_pg.schedules import is_schedule
from kerasrl_pg.settings import deserialized, serialize

tfd = tfp.distributions

# Bounds of log σ: without them σ underflows to 0 and the log-probabilities become NaN.
# As CleanRL's SAC (sac_continuous_action.py, LOG_STD_MIN and LOG_STD_MAX); Spinning Up's SAC has
# the same upper and a looser lower bound, -20.
LOG_STD_MIN, LOG_STD_MAX = -5.0, 2.0


def check_log_std(initial_log_std):
    """Raises ValueError unless `initial_log_std` is inside the bounds of log σ."""
    is_number = isinstance(initial_log_std, (int, float, np.number))
    if not is_number or not LOG_STD_MIN < initial_log_std < LOG_STD_MAX:
        raise ValueError(
            f"`initial_log_std` must be inside ({LOG_STD_MIN}, {LOG_STD_MAX}), the bounds of log σ. "
            f"Received: initial_log_std={initial_log_std!r}."
        )


def bounded_log_std(x, initial):
    """Any real x to a log σ inside the bounds, smoothly.

    The gradient fades towards a bound instead of stopping at it (float32 loses it at |x| of 8).

    log σ = min + (max - min) (tanh(x + x0) + 1) / 2, with x0 such that x = 0 gives `initial`.

    Source: CleanRL, sac_continuous_action.py, which has x0 = 0.
    """
    half = (LOG_STD_MAX - LOG_STD_MIN) / 2
    middle = (LOG_STD_MAX + LOG_STD_MIN) / 2
    return middle + half * tf.tanh(x + math.atanh((initial - middle) / half))


class Normal(tfd.Normal):
    """TFP's normal distribution, with differences taken before they are divided by σ.

    TFP has x/σ - loc/σ, which is off by whole units where loc is 10⁷ σ: in XLA, whose products are not
    rounded before they are subtracted, even at x = loc.
    """

    def _log_prob(self, x):
        z = (x - self.loc) / self.scale
        return -0.5 * tf.square(z) - tf.math.log(self.scale) - 0.5 * math.log(2.0 * math.pi)


@tfd.RegisterKL(Normal, Normal)
def _kl(p, q, name=None):
    log_ratio = tf.math.log(p.scale) - tf.math.log(q.scale)
    distance = tf.square((p.loc - q.loc) / q.scale)
    return 0.5 * distance + 0.5 * tf.math.expm1(2.0 * log_ratio) - log_ratio


@keras.saving.register_keras_serializable("kerasrl_pg")
class LogStdBounds(keras.constraints.Constraint):
    """Puts a log σ weight back inside its bounds after each optimizer step.

    A projection, not a clip in the forward pass: a clipped weight has gradient 0 and stays where
    it is for ever. Code that assigns weights without an optimizer calls `head.log_std.constraint`.
    """

    def __call__(self, log_std):
        return tf.clip_by_value(log_std, LOG_STD_MIN, LOG_STD_MAX)


@keras.saving.register_keras_serializable("kerasrl_pg")
class Gaussian(Head):
    """Independent normal distributions over the entries of a continuous action.

    The raw action is the sample itself, unbounded; the environment gets it clipped to
    [low, high]. Mind that entropy and log-probability are those of the unclipped sample.

    Args:
        shape: Of one action: a tuple, or an integer d for (d,).
        low, high: Bounds for `to_env`, broadcast to `shape`; None or infinite for none.
        state_dependent_std: False for one trained log σ per dimension, the same in all states
            (Schulman et al. 2015, "Trust Region Policy Optimization", appendix D, and the PPO
            literature since); True for a log σ that is an output of the network.
        initial_log_std: Log σ at initialisation. 0: σ = 1, as CleanRL's PPO
            (ppo_continuous_action.py).
        std: None; or σ itself, exploration noise that is set and not trained: a number in [e⁻⁵, e²], or a schedule of
            such (`kerasrl_pg.schedules`), which each rollout of a fit is played with and which is logged as `std`.
        kernel_initializer: None for the small orthogonal of `Head`.
        **kwargs: `env_dtype` of `Head`, `name` and the rest of `keras.layers.Layer`.

    Raises:
        ValueError: If `initial_log_std` is outside (-5, 2), `low` is not below `high`, or σ is to be set and trained.

    >>> import tensorflow as tf
    >>> from kerasrl_pg.heads import Gaussian
    >>> head = Gaussian(2, low=-1.0, high=1.0)
    >>> policy = head(tf.zeros([1, 8]))
    >>> round(float(policy.log_prob([[0.0, 0.0]])[0]), 4)  # -log 2π
    -1.8379
    >>> head.to_env([[0.5, 3.0]]).numpy()
    array([[0.5, 1. ]], dtype=float32)
    """

    def __init__(
        self,
        shape,
        low=None,
        high=None,
        state_dependent_std=False,
        initial_log_std=0.0,
        kernel_initializer=None,
        std=None,
        **kwargs,
    ):
        check_log_std(initial_log_std)
        check_number("std", std, math.exp(LOG_STD_MIN), math.exp(LOG_STD_MAX), optional=True, schedule=True)
        if std is not None and (state_dependent_std or initial_log_std != 0.0):
            raise ValueError(
                "`std` must be None where σ is trained. "
                f"Received: std={std!r}, state_dependent_std={state_dependent_std}, initial_log_std={initial_log_std}."
            )
        shape = event_shape(shape)
        size = math.prod(shape)
        super().__init__(
            shape,
            2 * size if state_dependent_std else size,
            kernel_initializer=kernel_initializer,
            **kwargs,
        )
        self.num_parameters = 2 * size
        self.shape = shape
        self.low, self.high = bounds(low, high, shape)
        self.state_dependent_std = bool(state_dependent_std)
        self.initial_log_std = float(initial_log_std)
        self.std = std

    @classmethod
    def from_space(cls, space, **kwargs):
        if not is_box(space):
            raise cls._refuse("a gymnasium.spaces.Box of floats", space)
        return cls(space.shape, low=space.low, high=space.high, env_dtype=dtype_of(space), **kwargs)

    def build(self, input_shape):
        super().build(input_shape)
        if not self.state_dependent_std:
            set_one = None if self.std is None else math.log(self.std(0.0) if is_schedule(self.std) else self.std)
            self.log_std = self.add_weight(
                shape=(math.prod(self.shape),),
                initializer=keras.initializers.Constant(self.initial_log_std if set_one is None else set_one),
                constraint=LogStdBounds() if set_one is None else None,
                trainable=set_one is None,
                name="log_std",
            )

    def parameters(self, features):
        """Features [..., F] to [..., 2 d]: d means, then d log σ."""
        outputs = super().parameters(features)
        if self.state_dependent_std:
            loc, x = tf.split(outputs, 2, axis=-1)
            log_std = bounded_log_std(x, self.initial_log_std)
        else:
            loc, log_std = outputs, self.log_std + tf.zeros_like(outputs)
        return tf.concat([loc, log_std], axis=-1)

    def distribution(self, parameters):
        return tfd.Independent(self._normal(parameters), len(self.shape))

    def _normal(self, parameters, family=Normal):
        loc, log_std = tf.split(parameters, 2, axis=-1)
        return family(event(loc, self.shape), tf.exp(event(log_std, self.shape)))

    def sample(self, distribution, noise):
        normal = distribution.distribution
        return normal.loc + normal.scale * noise

    def to_env(self, actions):
        return clip(actions, self.low, self.high, self.env_dtype)

    def scheduled(self):
        return {"std": self} if is_schedule(self.std) else {}

    def set_std(self, std):
        """Sets a σ that is not trained, a scalar."""
        self.log_std.assign(tf.fill(self.log_std.shape, tf.math.log(tf.cast(std, self.log_std.dtype))))

    @classmethod
    def from_config(cls, config):
        return super().from_config(deserialized(config))

    def get_config(self):
        return {
            **super().get_config(),
            **({} if self.std is None else {"std": serialize(self.std)}),
            "shape": self.shape,
            "low": as_config(self.low),
            "high": as_config(self.high),
            "state_dependent_std": self.state_dependent_std,
            "initial_log_std": self.initial_log_std,
        }
