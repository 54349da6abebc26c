"""The policy gradient with a step of given length in the space of parameters."""

import keras

from kerasrl_pg import ops
from kerasrl_pg.agents.conservative import Conservative
from kerasrl_pg.checks import check_number
from kerasrl_pg.settings import Setting


@keras.saving.register_keras_serializable("kerasrl_pg")
class ConstrainedGradient(Conservative):
    """Policy gradient under a constraint in parameter space (lecture notes 3.6.1).

    Each iteration:

    1. run π_θ for T steps in N environments, and estimate advantages with the critic;
    2. d = ∇J(θ), the mean of ∇log π(a_t|s_t) A_t;
    3. θ ← θ + β d, β = √(ε / ‖d‖²), the longest step with ‖βd‖² <= ε;
    4. regress the critic on the returns.

    The notes first print the constraint as ‖θ‖² <= ε; that on the step, as in the next line there, is meant. The length
    of a step says little about how far the policy moves, which depends on its parametrisation: see `NPG`. And it never
    shrinks: near an optimum the policy walks about it at distance √ε, unless ε falls.

    Args:
        policy, critic, networks, gamma, reward_scaling, reward_clip, anneal_learning_rate, seed, name: See `Agent`.
        max_squared_norm: ε > 0, or a schedule. 0.01, ours: with two layers of 64 units on
            CartPole-v1 the policy then moves by 0.003 nats an iteration at first, and by 0.03 after 100,000 steps.
        horizon, estimator, baseline, episodes, entropy_coef, normalize_advantages, update_epochs, minibatch_size: See
            `Conservative`; the last two are the critic's.

    `entropy_coef` may be a schedule, too, of the iteration or over the budget (`kerasrl_pg.schedules`).

    Logs, after the step: `loss` (minus what the step ascends), `policy_loss` (minus the mean of π/π_old A), `entropy`
    (nats), `kl` (KL(π_old, π) by the estimator (r - 1) - log r, nats), `rejected` (1 where no step was taken, the
    gradient being 0 or something not finite), `critic_loss` (mean over the regression's minibatches),
    `explained_variance` (of the critic before the update); without a critic `episodes` (whole trajectories) instead.

    Raises:
        ValueError: If a setting is out of range, or `minibatch_size` does not divide T x N (when `fit` knows N).

    >>> agent = ConstrainedGradient(horizon=16, minibatch_size=32, seed=0)
    >>> agent.compile()
    >>> history = agent.fit("CartPole-v1", total_steps=64, num_envs=4, epochs=1, verbose=0)
    >>> history.history["rejected"]
    [0.0]
    """

    max_squared_norm = Setting(check_number, 0.0, exclusive=True, schedule=True)

    def __init__(self, policy=None, critic=None, *, max_squared_norm=0.01, **kwargs):
        super().__init__(policy, critic, **kwargs)
        self.max_squared_norm = max_squared_norm

    def policy_step(self, samples):
        """The class's steps 2 and 3."""
        before, gradient = self.gradient(samples)
        size = ops.parameter_step_size(gradient, self.scheduled(self.max_squared_norm))
        outcome, logs = self.take(size * gradient, before, samples)
        return self.logs(outcome, **logs)
