"""Hill climbing: try something nearby, and keep what is no worse."""

import keras
import tensorflow as tf

from kerasrl_pg import ops
from kerasrl_pg.agents.search import Search
from kerasrl_pg.checks import check_flag, check_number
from kerasrl_pg.settings import Setting
from kerasrl_pg.training.iteration import counter


@keras.saving.register_keras_serializable("kerasrl_pg")
class HillClimbing(Search):
    """Steepest ascent hill climbing with adaptive noise (unit 4).

    Each iteration:

    1. θ_i = θ + σ ε_i, ε_i standard normal, i = 1 ... P; with `reevaluate` the first is θ itself;
    2. play each, for its mean return J_i;
    3. the best of the others, if J_i > J(θ), becomes θ, and σ shrinks; else θ stays, and σ grows.

    The source takes equals for a success. Where all returns are equal the noise would then shrink, and find nothing.

    Where returns are noisy, what was once lucky would stand for ever; `reevaluate` lets θ play in every population, and
    J(θ) is the mean over all of them since it was found.

    Args:
        policy, networks, action_masks, seed, name: See `Search`.
        population_size: P, at least 1, or 2 with `reevaluate`. 16: ours, because it is a step of 4 % of 100,000
            steps of CartPole once its episodes are long.
        episodes: Episodes of each environment that a member plays in. 1: ours, because `reevaluate` adds more.
        horizon: See `Search`.
        deterministic: Whether members act by the mode of their policy. True, as in unit 4.
        gamma: γ in [0, 1]. 1: ours, because what is compared is then what `evaluate` gives.
        noise: σ > 0 to begin with, in the unit of weights. 0.1: ours, because networks begin with weights of about
            that size; the source, whose weights begin at 0.0001, has 0.01.
        shrink: Factor of σ after a success, in (0, 1]. 0.5, as in the source.
        grow: Factor of σ after a failure, at least 1. 2, as in the source.
        least_noise, most_noise: Bounds of σ. 0.001 and 2, as in the source.
        reevaluate: Whether θ plays in every population. True: ours, because CartPole's first states are drawn, and the
            luckiest of many episodes tells little.

    Logs: `mean_return` and `best_return` of the population, `noise` (σ after the iteration), `improved` (share of
    iterations in which θ moved), `present_return` (J(θ) afterwards).

    Raises:
        ValueError: If a setting is out of range or contradicts another.
        TypeError: If an argument belongs to methods with gradients.

    Source: unit 4 of the Hugging Face course names the method; "adaptive noise scaling" and "steepest ascent" are those
    of Udacity's Deep Reinforcement Learning, `hill-climbing`. Several episodes for each: Salimans et al. 2017.

    >>> import kerasrl_pg as pg
    >>> agent = HillClimbing(population_size=4, networks=pg.Networks(()), seed=0)
    >>> history = agent.fit(pg.envs.CartPole(num_envs=4), epochs=1, steps_per_epoch=5, verbose=0)
    >>> agent.evaluate("CartPole-v1", episodes=2)["episodes"]
    2
    """

    noise = Setting(check_number, 0.0, exclusive=True, fixed=True)
    shrink = Setting(check_number, 0.0, 1.0, exclusive=True)
    grow = Setting(check_number, 1.0)
    least_noise = Setting(check_number, 0.0, exclusive=True)
    most_noise = Setting(check_number, 0.0, exclusive=True)
    reevaluate = Setting(check_flag)

    def __init__(
        self,
        policy=None,
        *,
        population_size=16,
        noise=0.1,
        shrink=0.5,
        grow=2.0,
        least_noise=1e-3,
        most_noise=2.0,
        reevaluate=True,
        **kwargs,
    ):
        super().__init__(policy, population_size=population_size, **kwargs)
        self.noise = noise
        self.shrink = shrink
        self.grow = grow
        self.least_noise = least_noise
        self.most_noise = most_noise
        self.reevaluate = reevaluate
        self.noise_scale = counter(self.add_weight, "noise_scale", (), "float32")
        self.noise_scale.assign(noise)
        # J(θ), and the populations that it is the mean of.
        self.present = counter(self.add_weight, "present", (2,), "float32")

    def check_settings(self):
        super().check_settings()
        if not self.least_noise <= self.noise <= self.most_noise:
            raise ValueError(
                "`noise` must lie within `least_noise` and `most_noise`. Received: "
                f"noise={self.noise}, least_noise={self.least_noise}, most_noise={self.most_noise}."
            )
        check_company(self)

    def iteration(self, play):
        theta, scale = self.theta(), self.noise_scale.value
        members = neighbours(theta, scale, self.draw(self.population_size), self.reevaluate)
        returns = play(members)
        value, count, others = judged(self.present.value, returns, self.reevaluate)
        best = tf.argmax(others, output_type=tf.int32)
        improved = (others[best] > value) | (count == 0)
        place = best + int(self.reevaluate)
        self.move_to(tf.where(improved, members[place], theta))
        self.present.assign(tf.where(improved, tf.stack([others[best], 1.0]), tf.stack([value, count])))
        bounds = self.least_noise, self.most_noise
        self.noise_scale.assign(ops.adapted_noise(scale, improved, self.shrink, self.grow, *bounds))
        return {
            "noise": self.noise_scale.value,
            "improved": tf.cast(improved, tf.float32),
            "present_return": self.present.value[0],
        }


def check_company(agent):
    """Refuses a population of θ alone."""
    if agent.reevaluate and agent.population_size < 2:
        raise ValueError(
            "`population_size` must be at least 2 with `reevaluate`, since one member is the present weights. "
            f"Received: population_size={agent.population_size}. Take more, or reevaluate=False."
        )


def neighbours(theta, scale, noise, reevaluate):
    """The members [P, D] around θ [D], of noise [P, D]; the first is θ itself where it is to play again."""
    members = theta + scale * noise
    return tf.concat([theta[None], members[1:]], 0) if reevaluate else members


def judged(present, returns, reevaluate):
    """What is known of θ and of the others after a population.

    Args:
        present: float32 [2], J(θ) and the populations that it is the mean of, before.
        returns: float32 [P].
        reevaluate: Whether the first is θ's.

    Returns:
        `(value, count, others)`: both of these after it, and the others' returns.
    """
    value, count = tf.unstack(present)
    if not reevaluate:
        return value, count, returns
    return value + (returns[0] - value) / (count + 1.0), count + 1.0, returns[1:]
