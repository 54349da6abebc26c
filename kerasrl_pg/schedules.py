"""Schedules: step sizes that fall with the updates, and coefficients that follow the share of a fit's budget."""

import keras
import tensorflow as tf

KerasSchedule = keras.optimizers.schedules.LearningRateSchedule


@keras.saving.register_keras_serializable("kerasrl_pg")
class InverseSquareRoot(KerasSchedule):
    """η_t = η₀ / √t, t = 1, 2, ... counted in updates (chapter 4.2).

    With an unbiased gradient of finite variance, and J bounded and smooth, ‖∇J‖² falls towards 0 under it, where under
    a constant step it stays at what the gradient's variance makes of it.

    Args:
        initial: η₀ > 0, the first update's.

    Raises:
        ValueError: If η₀ is not positive.

    Source: the chapter, section 4.2, η_t in O(1/√t).

    >>> schedule = InverseSquareRoot(0.5)
    >>> [float(schedule(step)) for step in (0, 3, 99)]
    [0.5, 0.25, 0.05000000074505806]
    """

    def __init__(self, initial):
        if isinstance(initial, bool) or not isinstance(initial, (int, float)) or not 0.0 < initial < float("inf"):
            raise ValueError(f"`initial` must be a number in (0.0, inf). Received: initial={initial!r}.")
        self.initial = float(initial)

    def __call__(self, step):
        return self.initial / keras.ops.sqrt(keras.ops.cast(step, "float32") + 1.0)

    def get_config(self):
        return {"initial": self.initial}


@keras.saving.register_keras_serializable("kerasrl_pg")
class OverBudget:
    """A schedule over the share of a fit's budget that is spent, for any coefficient of an agent.

    The budget is `total_steps` of `fit`, or its epochs' iterations; the share, 0 before the first update and below 1 in
    the last, takes the place of a Keras schedule's step. It begins anew with every fit, and goes on where it was when a
    fit is resumed. Stable-Baselines3's `progress_remaining` is 1 - share. Outside a fit the share is that of the last
    one; 0 for an agent that has not been fitted since it was made or loaded.

    Args:
        schedule: A Keras schedule, whose steps are shares: `CosineDecay(0.2, decay_steps=1.0)` reaches its end with the
            budget, `PiecewiseConstantDecay([0.5], [0.2, 0.1])` changes half-way.

    Raises:
        TypeError: If `schedule` is no Keras schedule.

    >>> half_way = OverBudget(keras.optimizers.schedules.PiecewiseConstantDecay([0.5], [0.2, 0.1]))
    >>> [round(float(half_way(share)), 2) for share in (0.0, 0.4, 0.6)]
    [0.2, 0.2, 0.1]
    """

    def __init__(self, schedule):
        if not isinstance(schedule, KerasSchedule):
            raise TypeError(
                "`schedule` must be a Keras schedule, such as keras.optimizers.schedules.CosineDecay(0.2, 1.0). "
                f"Received: schedule={schedule!r}."
            )
        self.schedule = schedule

    def __call__(self, share):
        return tf.cast(self.schedule(tf.cast(share, tf.float32)), tf.float32)

    def __repr__(self):
        return f"OverBudget({type(self.schedule).__name__}({self.schedule.get_config()}))"

    def get_config(self):
        return {"schedule": keras.saving.serialize_keras_object(self.schedule)}

    @classmethod
    def from_config(cls, config):
        schedule = config["schedule"]
        return cls(keras.saving.deserialize_keras_object(schedule) if isinstance(schedule, dict) else schedule)


def linear(initial, final=0.0):
    """What goes in a straight line from `initial` to `final` over a fit's budget.

    Args:
        initial, final: Numbers, in the coefficient's unit.

    Returns:
        An `OverBudget`.

    >>> [round(float(linear(0.2)(share)), 2) for share in (0.0, 0.5, 1.0)]
    [0.2, 0.1, 0.0]
    """
    return OverBudget(keras.optimizers.schedules.PolynomialDecay(float(initial), 1.0, float(final)))


def is_schedule(value):
    """Whether a coefficient is a schedule, of the iteration or over the budget."""
    return isinstance(value, (KerasSchedule, OverBudget))


class Clock:
    """What an agent's schedules are read by.

    Args:
        iterations: int64 variable, iterations of the agent's life.
        progress: int64[2] variable, iterations and environment steps of the present fit.

    Attributes:
        budget: int64[2] variable, `Budget.annealing()` of the last fit; 0 before the first.
    """

    def __init__(self, iterations, progress):
        self._iterations, self._progress = iterations, progress
        self.budget = tf.Variable([0, 0], dtype=tf.int64, trainable=False)

    def share(self):
        """The share of the fit's budget that is spent, float32 in [0, 1]."""
        spent = tf.cast(tf.gather(self._progress.value, self.budget[1]), tf.float64)
        share = tf.math.divide_no_nan(spent, tf.cast(self.budget[0], tf.float64))
        return tf.cast(tf.minimum(share, 1.0), tf.float32)

    def value(self, coefficient):
        """A coefficient's present value: itself, or what its schedule gives."""
        if isinstance(coefficient, OverBudget):
            return coefficient(self.share())
        return coefficient(self._iterations.value) if isinstance(coefficient, KerasSchedule) else coefficient

    def following(self, coefficients, optimizer):
        """A function that gives the present values of what follows a schedule, a dictionary of scalars.

        Args:
            coefficients: Dictionary of numbers, schedules, or anything else.
            optimizer: Keras optimizer, whose `learning_rate` is among them where it is a schedule's; or None.
        """
        schedules = {name: value for name, value in coefficients.items() if is_schedule(value)}
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)

        def present():
            values = {name: self.value(schedule) for name, schedule in schedules.items()}
            if isinstance(getattr(optimizer, "_learning_rate", None), KerasSchedule):
                values["learning_rate"] = optimizer.learning_rate
            return values

        return present
