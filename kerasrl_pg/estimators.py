"""Advantage estimators: how a rollout's rewards and values become credit for its actions.

One family, open to every agent (`PPO(estimator=NStep(5))`). The equations are in `ops.returns`; an estimator is a
choice among them with its parameters, which Keras can save.
"""

import copy
import numbers

import keras
import tensorflow as tf

from kerasrl_pg import ops
from kerasrl_pg.checks import check_number, knows_its_arguments
from kerasrl_pg.schedules import is_schedule
from kerasrl_pg.settings import deserialized, serialize


class Estimator:
    """Base class. A new estimator overrides `estimate`, and `get_config` if it has parameters.

    Call arguments:
        rewards: float [T, N].
        values: float [T, N], V(s_t), or another baseline, or zeros.
        next_values: float [T, N], V(s_{t+1}) of the true next observation, or zeros.
        terminated, truncated: bool [T, N].
        valid: bool [T, N], False for rows that are no transition.
        gamma: γ in [0, 1].

    Returns:
        advantages: float32 [T, N]; 0 in invalid rows.
        returns: float32 [T, N], what the critic regresses on; `values` in invalid rows.
        Both in the unit of the rewards. No gradient flows through either.

    Raises:
        ValueError: If the shapes differ.
    """

    def __call__(self, rewards, values, next_values, terminated, truncated, valid, gamma):
        ops.check_same_shape(
            rewards=rewards,
            values=values,
            next_values=next_values,
            terminated=terminated,
            truncated=truncated,
            valid=valid,
        )
        ends = ops.episode_ends(terminated, truncated, valid)
        values = tf.stop_gradient(tf.cast(values, tf.float32))
        advantages, returns = self.estimate(rewards, values, next_values, terminated, ends, gamma)
        advantages = tf.where(valid, advantages, 0.0)
        returns = tf.where(valid, returns, values)
        return tf.stop_gradient(advantages), tf.stop_gradient(returns)

    def estimate(self, rewards, values, next_values, terminated, ends, gamma):
        """Advantages and returns, [T, N] each, with the episodes cut at `ends`."""
        raise NotImplementedError(
            f"`{type(self).__name__}` must override `estimate(rewards, values, next_values, "
            "terminated, ends, gamma)` and return (advantages, returns)."
        )

    def present(self, scheduled):
        """The estimator with its coefficients' present values; itself where none follows a schedule.

        Args:
            scheduled: Function from a coefficient to its value, `Agent.scheduled`.
        """
        return self

    def coefficients(self):
        """Its coefficients by name, numbers or schedules."""
        return {}

    def get_config(self):
        return {}

    @classmethod
    def from_config(cls, config):
        return cls(**config)

    def __eq__(self, other):
        return type(self) is type(other) and self.get_config() == other.get_config()

    def __hash__(self):
        return hash((type(self), repr(self.get_config())))

    def __repr__(self):
        arguments = ", ".join(f"{key}={value!r}" for key, value in self.get_config().items())
        return f"{type(self).__name__}({arguments})"


@keras.saving.register_keras_serializable("kerasrl_pg")
class WholeReturn(Estimator):
    """Every action is credited with its whole episode's return (the lecture notes' 3.1-3.2).

    The advantage is R^γ(τ) - V(s_t); the critic still regresses on the reward-to-go.

    >>> WholeReturn()
    WholeReturn()
    """

    def estimate(self, rewards, values, next_values, terminated, ends, gamma):
        whole = ops.whole_returns(rewards, next_values, terminated, ends, gamma)
        to_go = ops.rewards_to_go(rewards, next_values, terminated, ends, gamma)
        return whole - values, to_go


@keras.saving.register_keras_serializable("kerasrl_pg")
class RewardToGo(Estimator):
    """An action is credited with what came after it (the lecture notes' 3.2, chapter eq. 4.3).

    The advantage is R_t - V(s_t), and the critic regresses on R_t, the Monte Carlo return.

    >>> no = tf.zeros((2, 1), tf.bool)
    >>> advantages, returns = RewardToGo()(
    ...     tf.ones((2, 1)), tf.ones((2, 1)), tf.zeros((2, 1)), no, no, ~no, gamma=0.5
    ... )
    >>> advantages[:, 0].numpy(), returns[:, 0].numpy()
    (array([0.5, 0. ], dtype=float32), array([1.5, 1. ], dtype=float32))
    """

    def estimate(self, rewards, values, next_values, terminated, ends, gamma):
        returns = ops.rewards_to_go(rewards, next_values, terminated, ends, gamma)
        return returns - values, returns


@keras.saving.register_keras_serializable("kerasrl_pg")
class TD0(Estimator):
    """One reward, then the value function (the lecture notes' 3.4.1).

    The advantage is δ_t, and the critic regresses on r_t + γ V(s_{t+1}).

    >>> TD0() == TD0(), TD0() == RewardToGo()
    (True, False)
    """

    def estimate(self, rewards, values, next_values, terminated, ends, gamma):
        advantages = ops.td_errors(rewards, values, next_values, terminated, gamma)
        return advantages, advantages + values


@keras.saving.register_keras_serializable("kerasrl_pg")
class NStep(Estimator):
    """n rewards, then the value function (the lecture notes' 3.4.2, A^{n-1} in their counting).

    Args:
        n: Int >= 1, the number of rewards; fewer are taken where the episode or the rollout ends.

    Raises:
        TypeError: If n is not an integer.
        ValueError: If n < 1.

    >>> NStep(5)
    NStep(n=5)
    """

    @knows_its_arguments
    def __init__(self, n):
        if isinstance(n, bool) or not isinstance(n, numbers.Integral):
            raise TypeError(f"`n` must be an int, the number of rewards before bootstrapping. Received: n={n!r}.")
        if n < 1:
            raise ValueError(
                f"`n` must be at least 1, the number of rewards before bootstrapping (1 is `TD0()`). Received: n={n}."
            )
        self.n = int(n)

    def estimate(self, rewards, values, next_values, terminated, ends, gamma):
        advantages = ops.n_step_advantages(rewards, values, next_values, terminated, ends, gamma, self.n)
        return advantages, advantages + values

    def get_config(self):
        return {"n": self.n}


@keras.saving.register_keras_serializable("kerasrl_pg")
class GAE(Estimator):
    """The λ-weighted average of all n-step advantages (Schulman et al. 2016, eq. 16).

    The critic regresses on A_t + V(s_t), the λ-return.

    Args:
        gae_lambda: λ in [0, 1]: 0 trusts the values (TD(0)), 1 the rewards (the reward-to-go). 0.95 is that of Schulman
            et al. 2017 (arXiv 1707.06347), table 3. Or a schedule, of the iteration or over the budget.

    Raises:
        ValueError: If λ is neither a number in [0, 1] nor a schedule of such.

    >>> GAE()
    GAE(gae_lambda=0.95)
    """

    @knows_its_arguments
    def __init__(self, gae_lambda=0.95):
        if is_schedule(gae_lambda):
            check_number("gae_lambda", gae_lambda, 0.0, 1.0, schedule=True)
        elif not (isinstance(gae_lambda, numbers.Real) and 0.0 <= gae_lambda <= 1.0):
            raise ValueError(
                "`gae_lambda` must be a number in [0, 1], 0 for TD(0) and 1 for the reward-to-go, or a schedule. "
                f"Received: gae_lambda={gae_lambda!r}."
            )
        self.gae_lambda = gae_lambda if is_schedule(gae_lambda) else float(gae_lambda)

    def present(self, scheduled):
        if not is_schedule(self.gae_lambda):
            return self
        present = copy.copy(self)
        present.gae_lambda = scheduled(self.gae_lambda)
        return present

    def coefficients(self):
        return {"gae_lambda": self.gae_lambda}

    def estimate(self, rewards, values, next_values, terminated, ends, gamma):
        advantages = ops.gae(rewards, values, next_values, terminated, ends, gamma, self.gae_lambda)
        return advantages, advantages + values

    def get_config(self):
        return {"gae_lambda": serialize(self.gae_lambda)}

    @classmethod
    def from_config(cls, config):
        return cls(**deserialized(config))
