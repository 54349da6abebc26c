"""Baselines b(s_t) that REINFORCE subtracts from its returns (lecture notes 3.3; chapter 4.4)."""

import keras
import tensorflow as tf

from kerasrl_pg import ops


class Baseline:
    """Base class: what is subtracted from the returns of a rollout.

    Call arguments:
        returns: float [T, N], the return that each step is credited with.
        ends: bool [T, N], episode ends.
        valid: bool [T, N].

    Returns:
        b [T, N], in the unit of the returns.
    """

    needs_critic = False
    least_episodes = 1  # In a rollout. An average over others needs one more, or nothing is subtracted.

    def __call__(self, returns, ends, valid):
        raise NotImplementedError(f"{type(self).__name__} must implement __call__(returns, ends, valid).")

    def get_config(self):
        return {}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


@keras.saving.register_keras_serializable("kerasrl_pg")
class AverageReturn(Baseline):
    """The mean return of the other episodes' steps (lecture notes 3.3: "baseline is average return").

    Of the others, because a mean that contains the return it judges takes a part of the gradient away.

    >>> ends = tf.constant([[False, False], [True, True]])
    >>> AverageReturn()(tf.constant([[3.0, 6.0], [1.0, 2.0]]), ends, tf.ones_like(ends)).numpy()
    array([[4., 2.],
           [4., 2.]], dtype=float32)
    """

    least_episodes = 2

    def __call__(self, returns, ends, valid):
        return ops.average_baseline(returns, ends, valid)


@keras.saving.register_keras_serializable("kerasrl_pg")
class TimeDependent(Baseline):
    """b_t, the mean return of the other episodes at their step t (chapter 4.4); 0 where none is that long.

    >>> ends = tf.constant([[True, True]])
    >>> TimeDependent()(tf.constant([[3.0, 1.0]]), ends, tf.constant([[True, True]])).numpy().tolist()
    [[1.0, 3.0]]
    """

    least_episodes = 2

    def __call__(self, returns, ends, valid):
        return ops.time_dependent_baseline(returns, ends, valid)


@keras.saving.register_keras_serializable("kerasrl_pg")
class ValueFunction(Baseline):
    """V_ψ(s_t), the agent's critic, fitted to the Monte Carlo returns (lecture notes 3.3: min_ψ E ‖R(τ_{t:T}) -
    V_ψ(s_t)‖²).

    Args:
        update_epochs: Gradient steps of the regression on each rollout, at least 1. 10: ours, because one step after
            each rollout leaves the critic behind the policy.

    Raises:
        ValueError: If `update_epochs` is below 1.
    """

    needs_critic = True

    def __init__(self, update_epochs=10):
        if not isinstance(update_epochs, int) or update_epochs < 1:
            raise ValueError(
                f"`update_epochs` must be a whole number of at least 1. Received: update_epochs={update_epochs!r}."
            )
        self.update_epochs = update_epochs

    def __call__(self, returns, ends, valid):
        # The estimator has subtracted the critic's values already, and bootstrapped with them where episodes were
        # truncated.
        return tf.zeros_like(returns)

    def get_config(self):
        return {"update_epochs": self.update_epochs}
