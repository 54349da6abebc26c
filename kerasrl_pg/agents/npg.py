"""The natural policy gradient: steps of given length in the space of policies."""

import math

import keras
import tensorflow as tf

from kerasrl_pg import ops
from kerasrl_pg.agents.conservative import Conservative
from kerasrl_pg.agents.divergence import check_kl_estimator, check_policy_kl, divergence
from kerasrl_pg.checks import check_number, check_whole
from kerasrl_pg.models.actor_critic import regularized
from kerasrl_pg.models.memory import unrolled
from kerasrl_pg.rollouts.records import take
from kerasrl_pg.settings import Setting

# Most parameters whose Fisher matrix is written out and inverted. Ours: XLA decomposes 200² in 0.1 s, 500² in 5 s.
MAX_EXPLICIT = 500


@keras.saving.register_keras_serializable("kerasrl_pg")
class NPG(Conservative):
    """Natural policy gradient (lecture notes 3.6.2; Kakade 2001, "A natural policy gradient").

    Each iteration:

    1. run π_θ for T steps in N environments, and estimate advantages with the critic;
    2. solve F d = ∇J(θ), F the Fisher matrix, mean over the visited states and exact over actions;
    3. θ ← θ + β* d, β* = √(2 δ / ∇J^T F⁻¹ ∇J): in second order KL(π_old || π) = δ;
    4. regress the critic on the returns.

    What the notes print for β* and for the constraint differs, and `ops.natural_step_size` says how. F is
    the Hessian of the KL divergence at π_old, `ops.fisher_vector_product`, so a head needs a KL divergence. That of
    `GaussianMixture` is an upper bound, whose Hessian is the Fisher matrix of the pair (component, action): it is never
    below the actions' own, and the step only shorter.

    Args:
        policy, critic, networks, gamma, reward_scaling, reward_clip, anneal_learning_rate, seed, name: See `Agent`.
        max_kl: δ > 0, nats, or a schedule. 0.01, Schulman et al. 2015 (arXiv 1502.05477),
            appendix E, OpenAI Baselines and Spinning Up.
        cg_iterations: Products with F that the conjugate gradient method may take, at least 1; None for the exact
            inverse of F written out (its pseudo-inverse where it is singular), for policies of at most 500 parameters.
            10, OpenAI Baselines' trpo_mpi and Spinning Up.
        damping: c >= 0 in (F + cI) d = ∇J, or a schedule. 0.1, OpenAI Baselines' trpo_mpi for MuJoCo and Spinning Up.
            β* counts it as part of F, so the step is shorter than δ allows; and it measures parameters, so that only at
            0 the step does not see the parametrisation.
        fisher_fraction: Part of the rows, in (0, 1], drawn anew each iteration, that F is taken from; 1.0: all. OpenAI
            Baselines' trpo_mpi takes every fifth.
        kl_estimator: None for the closed form of the head's KL divergence; "sampled" for the estimator
            (r - 1) - log r on the rollout's actions, whose Hessian is the mean of ∇log π ∇log π^T, for heads that have
            no closed form.
        horizon, estimator, baseline, episodes, entropy_coef, normalize_advantages, update_epochs, minibatch_size: See
            `Conservative`; the last two are the critic's.

    `entropy_coef` may be a schedule, too, of the iteration or over the budget (`kerasrl_pg.schedules`). At δ = 0 no
    step is taken; nor where a schedule's damping is 0 and a constant would be refused.

    Logs, after the step: `loss` (minus what the step ascends), `policy_loss` (minus the mean of π/π_old A), `entropy`
    (nats), `kl` (mean KL(π_old || π) by `kl_estimator`, nats), `rejected` (1 where no step was taken, the gradient
    being 0 or something not finite), with conjugate gradient `cg_residual` (‖∇J - (F + cI) d‖ / ‖∇J‖), `critic_loss`
    (mean over the regression's minibatches), `explained_variance` (of the critic before the update); without a critic
    `episodes` (whole trajectories) instead of these two.

    Raises:
        ValueError: If a setting is out of range or contradicts another, the head has no KL divergence and no
            `kl_estimator` is chosen, or `minibatch_size` does not divide T x N (when `fit` knows N).

    >>> agent = NPG(horizon=16, minibatch_size=32, seed=0)
    >>> agent.compile()
    >>> history = agent.fit("CartPole-v1", total_steps=64, num_envs=4, epochs=1, verbose=0)
    >>> history.history["kl"][0] < 0.012
    True
    """

    differentiates_twice = True

    max_kl = Setting(check_number, 0.0, exclusive=True, schedule=True)
    cg_iterations = Setting(check_whole, optional=True)
    damping = Setting(check_number, 0.0, schedule=True)
    fisher_fraction = Setting(check_number, 0.0, 1.0, exclusive=True)
    kl_estimator = Setting(check_kl_estimator)

    def __init__(
        self,
        policy=None,
        critic=None,
        *,
        max_kl=0.01,
        cg_iterations=10,
        damping=0.1,
        fisher_fraction=1.0,
        kl_estimator=None,
        **kwargs,
    ):
        super().__init__(policy, critic, **kwargs)
        self.max_kl = max_kl
        self.cg_iterations = cg_iterations
        self.damping = damping
        self.fisher_fraction = fisher_fraction
        self.kl_estimator = kl_estimator

    def check_settings(self):
        super().check_settings()
        self._check_damping()
        check_policy_kl(self)
        if self.head is None:
            return
        size = sum(math.prod(v.shape) for v in self.policy.trainable_variables)
        if self.cg_iterations is None and size > MAX_EXPLICIT:
            raise ValueError(
                f"`cg_iterations` must be a whole number for a policy of more than {MAX_EXPLICIT} parameters, whose "
                f"Fisher matrix is too large to invert. Received: cg_iterations=None, {size} parameters. "
                "Take the default of 10."
            )

    def policy_step(self, samples):
        """The class's steps 2 and 3."""
        before, gradient = self.gradient(samples)
        direction, logs = self.natural_direction(gradient, samples)
        if self.needs_damping:
            direction = tf.where(self.scheduled(self.damping) > 0.0, direction, 0.0)
        size = ops.natural_step_size(gradient, direction, self.scheduled(self.max_kl))
        outcome, taken = self.take(size * direction, before, samples)
        return self.logs(outcome, **taken, **logs)

    @property
    def needs_damping(self):
        """Whether the gradient may point where F is 0, and the step be endless, without damping."""
        sampled_beside_bonus = self.kl_estimator == "sampled" and self.entropy_coef != 0.0
        weights = [] if self.policy is None else self.policy.trainable_variables
        return self.fisher_fraction < 1.0 or sampled_beside_bonus or bool(regularized(weights))

    def _check_damping(self):
        if self.needs_damping and self.damping == 0.0:
            raise ValueError(
                "`damping` must be positive where F is taken from a part of the rows, is sampled beside an entropy "
                "bonus, or the policy's weights have regularizers, since the gradient may point where F is 0 and the "
                f"step is endless. Received: damping={self.damping}, fisher_fraction={self.fisher_fraction}, "
                f"kl_estimator={self.kl_estimator!r}, entropy_coef={self.entropy_coef}, policy={self.policy!r}."
            )

    def natural_direction(self, gradient, samples):
        """`((F + cI)⁻¹ ∇J [P], logs)`."""
        product, damping = self.fisher_vector_product(samples), self.scheduled(self.damping)
        if self.cg_iterations is None:
            fisher = ops.explicit_fisher(product, gradient.shape[0])
            return ops.solve_fisher(fisher, gradient, damping), {}
        direction, residual = ops.conjugate_gradient(
            lambda vector: product(vector) + damping * vector, gradient, self.cg_iterations
        )
        return direction, {"cg_residual": residual}

    def fisher_vector_product(self, samples):
        """The function v [P] ↦ Fv at the policy as it stands."""
        data = samples.inputs, samples.actions, samples.valid
        if self.fisher_fraction < 1.0:
            length = samples.inputs.length
            size = samples.valid.shape[0] // length
            rows = ops.random.permutations(self.next_seed(), 1, size)[0, : math.ceil(self.fisher_fraction * size)]
            data = take(data, rows, length)
        inputs, actions, valid = data

        def mean_kl(old, new):
            return ops.masked_mean(self.divergence(old, new, actions), valid)

        def policy():
            with unrolled(self.compiled_with_xla):
                return self.actor_critic.distribution(inputs)

        return ops.fisher_vector_product(policy, mean_kl, self.policy_values())

    def divergence(self, old, new, actions):
        """KL(old || new) [B], nats, by `kl_estimator`."""
        return divergence(old, new, actions, self.kl_estimator)
