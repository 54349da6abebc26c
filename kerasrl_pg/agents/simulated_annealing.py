"""Simulated annealing: hill climbing that goes downhill, too, while it is hot."""

import keras
import tensorflow as tf

from kerasrl_pg import ops, schedules
from kerasrl_pg.agents.hill_climbing import check_company, judged, neighbours
from kerasrl_pg.agents.search import Search
from kerasrl_pg.checks import check_flag, check_number
from kerasrl_pg.settings import Setting
from kerasrl_pg.training.iteration import counter


@keras.saving.register_keras_serializable("kerasrl_pg")
class SimulatedAnnealing(Search):
    """Simulated annealing of the mean return (unit 4; Kirkpatrick et al. 1983).

    Each iteration, at temperature T:

    1. θ_i = θ + σ ε_i, ε_i standard normal, i = 1 ... P; with `reevaluate` the first is θ itself;
    2. play each, for its mean return J_i;
    3. the best of the others becomes θ with probability min(1, exp((J_i - J(θ)) / T)).

    The source has one neighbour at a time, `population_size=2` here; the best of several is ours, because they play
    side by side. The policy is θ, where the search stands now, which it ends at when it is cold.

    Args:
        policy, networks, action_masks, seed, name: See `Search`.
        population_size: P, at least 1, or 2 with `reevaluate`. 16, as `HillClimbing`.
        episodes, horizon, deterministic, gamma: As of `HillClimbing`.
        temperature: T >= 0, in the unit of returns; a number or a schedule. None for `schedules.linear(10.0)`, to 0
            over the budget: ours, because a loss of ten is what returns of tens to hundreds differ by from episode to
            episode.
        noise: σ > 0, in the unit of weights; a number or a schedule. 0.1, as `HillClimbing`.
        reevaluate: Whether θ plays in every population, so that J(θ) is the mean over all since it was found. True: as
            in `HillClimbing`.

    Logs: `mean_return` and `best_return` of the population, `temperature` and `noise` where they follow a schedule,
    `accepted` (share of iterations in which θ moved), `worse` (in which it moved downhill), `present_return` (J(θ)
    afterwards).

    Raises:
        ValueError: If a setting is out of range or contradicts another.
        TypeError: If an argument belongs to methods with gradients.

    Source: Kirkpatrick, Gelatt and Vecchi 1983, "Optimization by simulated annealing", Science 220.

    >>> import kerasrl_pg as pg
    >>> agent = SimulatedAnnealing(population_size=4, temperature=pg.schedules.linear(5.0), seed=0)
    >>> history = agent.fit(pg.envs.CartPole(num_envs=4), epochs=2, steps_per_epoch=5, verbose=0)
    >>> [round(value, 2) for value in history.history["temperature"]]
    [4.0, 1.5]
    """

    temperature = Setting(check_number, 0.0, schedule=True)
    noise = Setting(check_number, 0.0, exclusive=True, schedule=True)
    reevaluate = Setting(check_flag)

    def __init__(self, policy=None, *, population_size=16, temperature=None, noise=0.1, reevaluate=True, **kwargs):
        super().__init__(policy, population_size=population_size, **kwargs)
        self.temperature = schedules.linear(10.0) if temperature is None else temperature
        self.noise = noise
        self.reevaluate = reevaluate
        # J(θ), and the populations that it is the mean of.
        self.present = counter(self.add_weight, "present", (2,), "float32")

    def check_settings(self):
        super().check_settings()
        check_company(self)

    def iteration(self, play):
        theta = self.theta()
        members = neighbours(theta, self.scheduled(self.noise), self.draw(self.population_size), self.reevaluate)
        returns = play(members)
        value, count, others = judged(self.present.value, returns, self.reevaluate)
        best = tf.argmax(others, output_type=tf.int32)
        change = others[best] - value
        chance = ops.metropolis_probability(change, self.scheduled(self.temperature))
        accepted = (ops.random.uniform(self.next_seed(), ()) < chance) | (count == 0)
        self.move_to(tf.where(accepted, members[best + int(self.reevaluate)], theta))
        self.present.assign(tf.where(accepted, tf.stack([others[best], 1.0]), tf.stack([value, count])))
        return {
            "accepted": tf.cast(accepted, tf.float32),
            "worse": tf.cast(accepted & (change < 0.0) & (count > 0), tf.float32),
            "present_return": self.present.value[0],
        }
