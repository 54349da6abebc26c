"""Asynchronous advantage actor-critic."""

import os

import keras

from kerasrl_pg.agents.a2c import A2C
from kerasrl_pg.checks import check_whole
from kerasrl_pg.settings import Setting
from kerasrl_pg.training import optimizers


@keras.saving.register_keras_serializable("kerasrl_pg")
class A3C(A2C):
    """Asynchronous advantage actor-critic (lecture notes 3.5; Mnih et al. 2016, arXiv 1602.01783, algorithm S3).

    The master holds networks and optimizer. Each worker, again and again:

    1. fetches the master's weights;
    2. runs π for T steps in its own environments;
    3. computes the gradient of `A2C`'s loss on them, and sends it to the master,

    which steps along each gradient as it arrives, whatever the weights have become meanwhile: a gradient's *staleness*
    is how many steps the master has taken between its fetching and its arrival. Workers are Ray's processes
    (`fit(env, workers=4)`), on this machine or others; statistics of normalisation and reward scaling travel with
    weights and gradients. What is learned depends on who is faster, and so is not reproducible with two workers.

    Args:
        policy, critic, networks, gamma, reward_scaling, reward_clip, anneal_learning_rate, seed, name: See `Agent`.
        horizon, estimator, value_coef, entropy_coef, normalize_advantages: See `A2C`.
        max_staleness: None, or the most staleness, at least 0, of a gradient that is stepped along; staler ones are
            dropped and counted, and so are their environment steps.

    Logs: those of `A2C`, `staleness` (of the gradients stepped along, in steps), `dropped` (gradients, of the fit so
        far); and as of every fit with workers, `workers` (that play) and `replaced` (of the fit so far).

    Raises:
        ValueError: If a setting is out of range, or `normalize_advantages` has one row a rollout to standardise.

    >>> A3C(max_staleness=8, seed=0).horizon
    5
    """

    max_staleness = Setting(check_whole, at_least=0, optional=True, traced=False)
    asynchronous = True
    loss_is_mean = False  # Of a worker's rows, which devices do not share.

    def __init__(self, policy=None, critic=None, *, max_staleness=None, **kwargs):
        super().__init__(policy, critic, **kwargs)
        self.max_staleness = max_staleness

    def usual_workers(self):
        """One for each core of this machine: ours, since more only wait for each other where environments are fast."""
        return os.cpu_count()

    def default_optimizer(self):
        """The paper's shared RMSprop, decay 0.99 (section 4), without its clipping: 7e-4, within the range that its
        supplement draws from (1e-4 to 1e-2), and the constants of `A2C`."""
        return super().default_optimizer()

    def worker_step(self, rollout):
        """The class's step 3, at a worker: `(gradients, logs)`, the former by the names of `moves()`."""
        samples = self.samples(rollout)
        gradients, logs = self.gradients_of(samples)
        return gradients, {**logs, **self.explained(samples)}

    def master_step(self, gradients):
        """What the master does with the `gradients` of a `worker_step`."""
        for part, move in self.moves().items():
            optimizers.apply(move, gradients[part])

    def train_step(self, rollout):
        """A worker whose weights are the master's: both steps at once."""
        gradients, logs = self.worker_step(rollout)
        self.master_step(gradients)
        return logs
