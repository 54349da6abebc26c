"""Trust region policy optimisation: the natural gradient's step, shortened until it keeps its promises."""

import keras
import tensorflow as tf

from kerasrl_pg import ops
from kerasrl_pg.agents.npg import NPG
from kerasrl_pg.checks import check_number, check_whole
from kerasrl_pg.settings import Setting


@keras.saving.register_keras_serializable("kerasrl_pg")
class TRPO(NPG):
    """Trust region policy optimisation (lecture notes 3.6.3; Schulman et al. 2015, arXiv 1502.05477).

    Each iteration:

    1. run π_old for T steps in N environments, and estimate advantages with the critic;
    2. solve F d = ∇J(θ), by conjugate gradient unless told otherwise, and set the step β* d: `NPG`'s;
    3. take the greatest of the fractions 1, ρ, ρ², ... of the step for which the mean KL(π_old || π) <= δ and the
       surrogate, the mean of π/π_old A, is greater than before; where none is, keep the weights;
    4. regress the critic on the returns.

    The notes print a ratio of π_θ to itself in the surrogate, where π_{θ+d}/π_θ is meant (Schulman et al. 2015,
    equation 14), and shorten the step where KL < δ, where KL > δ is meant (appendix C there). Without line search it is
    `NPG`, step for step.

    Args:
        policy, critic, networks, gamma, reward_scaling, reward_clip, anneal_learning_rate, seed, name: See `Agent`.
        backtracks: How many times at most the step is shortened, at least 0; None for no line search. 10, ours:
            Spinning Up and Stable-Baselines3-Contrib shorten it nine times, and call that ten fractions.
        backtrack_ratio: ρ in (0, 1), by which it is shortened each time. 0.8, as there; the notes halve.
        max_kl, cg_iterations, damping, fisher_fraction, kl_estimator: See `NPG`. The line search sees all rows,
            and the KL divergence that `kl_estimator` names; that of `GaussianMixture` is an upper bound.
        horizon, estimator, baseline, episodes, entropy_coef, normalize_advantages, update_epochs, minibatch_size: See
            `Conservative`; the last two are the critic's. With `entropy_coef`, surrogate + c_H entropy has to improve.

    `max_kl`, `damping` and `entropy_coef` may be schedules (`kerasrl_pg.schedules`); at δ = 0 no step is taken.

    Logs, after the step: `loss` (minus what the step ascends), `policy_loss` (minus the mean of π/π_old A), `entropy`
    (nats), `kl` (mean KL(π_old || π) by `kl_estimator`, nats), `rejected` (1 where no step was taken: no fraction was
    good, the gradient was 0, or something not finite), with line search `step_fraction` (the fraction taken, 0 where
    none was) and `backtracks` (how many were refused), with conjugate gradient `cg_residual`
    (‖∇J - (F + cI) d‖ / ‖∇J‖), `critic_loss` (mean over the regression's minibatches), `explained_variance` (of the
    critic before the update); without a critic `episodes` (whole trajectories) instead of these two.

    Raises:
        ValueError: If a setting is out of range or contradicts another, the head has no KL divergence and no
            `kl_estimator` is chosen, or `minibatch_size` does not divide T x N (when `fit` knows N).

    >>> agent = TRPO(horizon=16, minibatch_size=32, seed=0)
    >>> agent.compile()
    >>> history = agent.fit("CartPole-v1", total_steps=64, num_envs=4, epochs=1, verbose=0)
    >>> 0.0 < history.history["kl"][0] <= 0.01
    True
    """

    backtracks = Setting(check_whole, at_least=0, optional=True)
    backtrack_ratio = Setting(check_number, 0.0, 1.0, exclusive=True)

    def __init__(self, policy=None, critic=None, *, backtracks=10, backtrack_ratio=0.8, **kwargs):
        super().__init__(policy, critic, **kwargs)
        self.backtracks = backtracks
        self.backtrack_ratio = backtrack_ratio

    def check_settings(self):
        super().check_settings()
        if self.backtrack_ratio == 1.0:
            raise ValueError("`backtrack_ratio` must be below 1, or no step is shortened. Received: 1.0.")

    def take(self, step, before, samples):
        """The class's step 3; returns `(outcome, logs)`."""
        if self.backtracks is None:
            return super().take(step, before, samples)
        theta = [tf.identity(value) for value in self.policy_values()]
        usable = ops.all_finite(step) & tf.reduce_any(step != 0.0)
        step = tf.where(usable, step, 0.0)
        # Without it a step of nothing might be taken for an improvement, by rounding.
        max_kl = tf.where(usable, self.scheduled(self.max_kl), -float("inf"))

        def evaluate(fraction):
            self.move(theta, fraction * step)
            return self.judge(samples)

        fraction, shortened, outcome = ops.backtracking_line_search(
            evaluate, before, max_kl, self.backtrack_ratio, self.backtracks
        )
        self.restore_unless(fraction > 0.0, theta)
        return outcome, {
            "rejected": tf.cast(fraction == 0.0, tf.float32),
            "step_fraction": fraction,
            "backtracks": tf.cast(shortened, tf.float32),
        }
