"""Evolution strategies: the gradient of a smoothed objective, from returns alone."""

import functools

import keras
import tensorflow as tf

from kerasrl_pg import ops
from kerasrl_pg.agents.covariance import LARGEST, Adaptation, cma
from kerasrl_pg.agents.search import Search
from kerasrl_pg.checks import check_choice, check_number
from kerasrl_pg.models.actor_critic import regularized
from kerasrl_pg.settings import Setting
from kerasrl_pg.training import optimizers
from kerasrl_pg.training.iteration import counter


@keras.saving.register_keras_serializable("kerasrl_pg")
class EvolutionStrategies(Search):
    """Evolution strategies (unit 4; Salimans et al. 2017).

    Each iteration, in the paper's words (algorithm 1, with the improvements of its section 2):

    1. sample ε_1 ... ε_P, the second half of them minus the first (antithetic);
    2. compute returns F_i = F(θ + σ ε_i);
    3. θ moves along 1/(P σ) Σ_i u_i ε_i, u_i the centred ranks of the F_i, by a Keras optimizer.

    With a `covariance` it is CMA-ES (Hansen 2016), of the package `cma`: ε_i ~ N(0, C), independent, and the ranks of
    the F_i move θ, C and σ, without an optimizer.

    What the weights' regularizers say is taken off the objective. The policy is θ, the mean of the population.

    Args:
        policy, networks, action_masks, seed, name, anneal_learning_rate: See `Search` and `Agent`.
        population_size: P, even; with a `covariance` any number of at least 4. 32: ours, because it is a step of 16 %
            of 100,000 steps of CartPole at most.
        episodes: Episodes of each environment that a member plays in. 1, as in the paper.
        horizon, gamma: As of `HillClimbing`.
        deterministic: Whether members act by the mode of their policy. True, as in unit 4.
        noise: σ > 0, in the unit of weights; a number or a schedule. 0.1: ours, because a small population has to tell
            its members apart; the authors' MuJoCo runs, of populations of thousands, have 0.02. With a `covariance` a
            number, where σ begins, and not to be changed once the networks are made.
        covariance: None for C = I, "diagonal", or "full", for at most 1,000 weights, since C has their square. Both
            need `pip install kerasrl-pg[cma]`.

    Logs: `mean_return` and `best_return` of the population, `gradient_norm` (of the estimate; without `covariance`),
    and `noise` where it follows a schedule or, with a `covariance`, adapts (σ after the iteration).

    Raises:
        ValueError: If a setting is out of range or contradicts another.
        TypeError: If an argument belongs to methods with gradients.
        ImportError: If there is a `covariance`, and `cma` is missing.

    Source: Salimans et al. 2017 (arXiv 1703.03864), algorithm 1 and sections 2.1 and 2.2; Hansen 2016, "The CMA
    evolution strategy: a tutorial" (arXiv 1604.00772); of the diagonal, Ros and Hansen 2008.

    >>> import kerasrl_pg as pg
    >>> agent = EvolutionStrategies(population_size=8, seed=0)
    >>> agent.compile(keras.optimizers.Adam(0.03))  # Or not at all.
    >>> history = agent.fit(pg.envs.CartPole(num_envs=8), epochs=1, steps_per_epoch=5, verbose=0)
    >>> int(agent.iterations)
    5
    """

    noise = Setting(check_number, 0.0, exclusive=True, schedule=True)
    covariance = Setting(check_choice, (None, "diagonal", "full"), fixed=True)

    def __init__(self, policy=None, *, population_size=32, noise=0.1, covariance=None, **kwargs):
        super().__init__(policy, population_size=population_size, **kwargs)
        self.noise = noise
        self.covariance = covariance
        self.adaptation = None

    @property
    def in_python(self):
        return self.covariance is not None

    def check_settings(self):
        super().check_settings()
        if self.covariance is None:
            if self.population_size % 2:
                raise ValueError(
                    "`population_size` must be even, since every member has a mirror image. "
                    f"Received: population_size={self.population_size}."
                )
            return
        if self.population_size < 4:
            raise ValueError(
                "`population_size` must be at least 4 with a `covariance`, which learns from the better half. "
                f"Received: population_size={self.population_size}, covariance={self.covariance!r}."
            )
        check_number("noise", self.noise, 0.0, exclusive=True)  # No schedule: σ adapts itself.
        if self.adaptation is not None and self.noise != self.adaptation.began:
            raise ValueError(
                "`noise` must be set before the networks are made where there is a `covariance`, since σ has adapted "
                f"itself from it. Received: noise={self.noise}, after {self.adaptation.began}. Make another agent."
            )
        cma()
        if self.actor_critic is not None and self.covariance == "full" and self.size > LARGEST:
            raise ValueError(
                f"`covariance` must be 'diagonal' or None of a policy of more than {LARGEST} weights. Received: "
                f"covariance='full', of {self.size} weights. Or take a smaller policy, such as networks=Networks(())."
            )

    def build_state(self):
        if self.covariance is not None:
            add = functools.partial(counter, self.add_weight)
            self.adaptation = Adaptation(self.size, self.covariance == "full", self.noise, add)

    def default_optimizer(self):
        """Adam with 0.01, as in the authors' runs on MuJoCo (evolution-strategies-starter, `humanoid.json`); None with
        a `covariance`."""
        return keras.optimizers.Adam(0.01) if self.covariance is None else None

    def iteration(self, play):
        if self.covariance is not None:
            return self._adapt(play)
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

    def _adapt(self, play):
        """One iteration of CMA-ES, in Python."""
        strategy, asked = self.adaptation.ask(self.theta(), self.draw(self.population_size))
        members = tf.constant(asked, tf.float32)
        theta = self.adaptation.tell(strategy, asked, play(members) - self.penalties(members))
        self.move_to(tf.constant(theta, tf.float32))
        return {"noise": self.adaptation.noise.value}

    def penalties(self, members):
        """What the weights' regularizers say of each of the members [P, D]: float32 [P]."""
        variables = self.actor_critic.policy_variables
        if not regularized(variables):
            return 0.0

        def penalty(theta):
            parts = zip(variables, ops.split_parameters(theta, variables), strict=True)
            said = [v.regularizer(part) for v, part in parts if getattr(v, "regularizer", None) is not None]
            return sum(tf.cast(each, tf.float32) for each in said)

        return tf.map_fn(penalty, members)
