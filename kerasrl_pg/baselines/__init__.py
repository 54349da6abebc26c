"""Baselines b(s_t) that are subtracted from returns (lecture notes 3.3; chapter 4.4): by REINFORCE, and by the
conservative steps where they do without a critic."""

import keras
import tensorflow as tf

from kerasrl_pg import ops
from kerasrl_pg.checks import check_flag, check_whole


class Baseline:
    """Base class: what is subtracted from the returns of a rollout.

    One of your own implements `__call__`, or `of` where it looks at more of the rollout than its ends, and is
    registered with Keras, so that files can name it. What it gives for a step must not depend on that step's action nor
    on what followed from it, or the gradient is biased: leave an episode out of the average that it is judged by.

    Call arguments:
        returns: float [T, N], the return that each step is credited with.
        ends: bool [T, N], episode ends.
        valid: bool [T, N].

    Returns:
        b [T, N], in the unit of the returns. No gradient is taken through it.
    """

    needs_critic = False
    least_episodes = 1  # In a rollout. An average over others needs one more, or nothing is subtracted.

    def __call__(self, returns, ends, valid):
        raise NotImplementedError(f"{type(self).__name__} must implement __call__(returns, ends, valid).")

    def of(self, returns, rollout, networks):
        """b [T, N] of a rollout.

        Args:
            returns: float [T, N], as of the call.
            rollout: The `Rollout`, whose `inputs.observations` are [T, N, ...].
            networks: The agent's `ActorCritic`, policy and critic as they were when the rollout was played.
        """
        return self(returns, rollout.ends, rollout.valid)

    def check(self, networks):
        """Refuses, by a ValueError, networks that it is not for."""

    def get_config(self):
        return {}

    @classmethod
    def from_config(cls, config):
        return cls(**config)

    def __repr__(self):
        arguments = ", ".join(f"{key}={value!r}" for key, value in self.get_config().items())
        return f"{type(self).__name__}({arguments})"


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
class WeightedAverage(Baseline):
    """The average return of the other episodes' steps, weighed by ‖∇_θ log π(a_t|s_t)‖² (lecture notes 3.3).

        b = E[ ‖∇ log π‖² R ] / E[ ‖∇ log π‖² ]

    The constant that makes the variances of the terms ∇ log π(a_t|s_t) (R_t - b) least in sum. The norms are those of
    the policy's own gradient for each step, so that a rollout costs about one gradient more; see
    `ops.squared_score_norms`.

    Args:
        by_step: One b for each time step of an episode, over the others at that step, as `TimeDependent`; 0 where none
            is that long. False: one for all, as in the notes.

    Raises:
        ValueError: If `by_step` is no flag; of an agent, if its policy remembers, since then a step's gradient is that
            of all steps before it.

    >>> ends = tf.constant([[True, True, True]])
    >>> WeightedAverage()(tf.constant([[3.0, 1.0, 5.0]]), ends, ends, tf.constant([[1.0, 1.0, 3.0]])).numpy()
    array([[4. , 4.5, 2. ]], dtype=float32)
    """

    least_episodes = 2

    def __init__(self, by_step=False):
        check_flag("by_step", by_step)
        self.by_step = by_step

    def __call__(self, returns, ends, valid, squared_scores):
        """As every baseline's, and ‖∇ log π(a_t|s_t)‖² [T, N]."""
        average = ops.time_dependent_baseline if self.by_step else ops.average_baseline
        return average(returns, ends, valid, squared_scores)

    def of(self, returns, rollout, networks):
        def log_prob(row):
            inputs, actions = row
            return networks.distribution(inputs).log_prob(actions)

        rows = ops.flatten_time((rollout.inputs, rollout.actions))
        variables = [variable.value for variable in networks.policy_variables]
        norms = ops.squared_score_norms(log_prob, rows, variables)
        return self(returns, rollout.ends, rollout.valid, tf.reshape(norms, returns.shape))

    def check(self, networks):
        if networks.memories:
            raise ValueError(
                "`baseline` must be no WeightedAverage with a policy that remembers, since the gradient of each step "
                "would be that of all steps before it. Received: a policy with memory. Take AverageReturn() or "
                "ValueFunction()."
            )

    def get_config(self):
        return {"by_step": self.by_step}


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
        check_whole("update_epochs", update_epochs)
        self.update_epochs = update_epochs

    def __call__(self, returns, ends, valid):
        # The estimator has subtracted the critic's values already, and bootstrapped with them where episodes were
        # truncated.
        return tf.zeros_like(returns)

    def get_config(self):
        return {"update_epochs": self.update_epochs}
