"""Evolution strategies: the gradient of a smoothed objective, from returns alone."""

import keras
import tensorflow as tf

from kerasrl_pg import ops
from kerasrl_pg.agents.search import Search
from kerasrl_pg.checks import check_number
from kerasrl_pg.settings import Setting
from kerasrl_pg.training import optimizers


@keras.saving.register_keras_serializable("kerasrl_pg")
class EvolutionStrategies(Search):
    """Evolution strategies (unit 4; Salimans et al. 2017).

    Each iteration, in the paper's words (algorithm 1, with the improvements of its section 2):

    1. sample ε_1 ... ε_P, the second half of them minus the first (antithetic);
    2. compute returns F_i = F(θ + σ ε_i);
    3. θ moves along 1/(P σ) Σ_i u_i ε_i, u_i the centred ranks of the F_i, by a Keras optimizer.

    What the weights' regularizers say is taken off the objective. The policy is θ, the mean of the population.

    Args:
        policy, networks, action_masks, seed, name, anneal_learning_rate: See `Search` and `Agent`.
        population_size: P, even. 32: ours, because it is a step of 16 % of 100,000 steps of CartPole at most.
        episodes: Episodes of each environment that a member plays in. 1, as in the paper.
        horizon, gamma: As of `HillClimbing`.
        deterministic: Whether members act by the mode of their policy. True, as in unit 4.
        noise: σ > 0, in the unit of weights; a number or a schedule. 0.1: ours, because a small population has to tell
            its members apart; the authors' MuJoCo runs, of populations of thousands, have 0.02.

    Logs: `mean_return` and `best_return` of the population, `gradient_norm` (of the estimate), and `noise` where it
    follows a schedule.

    Raises:
        ValueError: If a setting is out of range or contradicts another.
        TypeError: If an argument belongs to methods with gradients.

    Source: Salimans et al. 2017 (arXiv 1703.03864), algorithm 1 and sections 2.1 and 2.2.

    >>> import kerasrl_pg as pg
    >>> agent = EvolutionStrategies(population_size=8, seed=0)
    >>> agent.compile(keras.optimizers.Adam(0.03))  # Or not at all.
    >>> history = agent.fit(pg.envs.CartPole(num_envs=8), epochs=1, steps_per_epoch=5, verbose=0)
    >>> int(agent.iterations)
    5
    """

    noise = Setting(check_number, 0.0, exclusive=True, schedule=True)

    def __init__(self, policy=None, *, population_size=32, noise=0.1, **kwargs):
        super().__init__(policy, population_size=population_size, **kwargs)
        self.noise = noise

    def check_settings(self):
        super().check_settings()
        if self.population_size % 2:
            raise ValueError(
                "`population_size` must be even, since every member has a mirror image. "
                f"Received: population_size={self.population_size}."
            )

    def default_optimizer(self):
        """Adam with 0.01, as in the authors' runs on MuJoCo (evolution-strategies-starter, `humanoid.json`)."""
        return keras.optimizers.Adam(0.01)

    def iteration(self, play):
        scale = self.scheduled(self.noise)
        noise = ops.antithetic(self.draw(self.population_size // 2))
        returns = play(self.theta() + scale * noise)
        estimate = ops.smoothed_gradient(noise, ops.centred_ranks(returns), scale)
        self.ascend(estimate)
        return {"gradient_norm": tf.norm(estimate)}

    def ascend(self, estimate):
        """One step of the optimizer along an estimate [D] of the gradient, less that of the regularizers."""
        variables = self.actor_critic.policy_variables
        with tf.GradientTape() as tape:
            loss = self.regularization(variables) - tf.tensordot(estimate, self.theta(), 1)
        optimizers.descend(tape, loss, list(self.moves().values()))
