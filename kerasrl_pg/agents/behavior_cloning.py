"""The policy that is likeliest to have played what is stored."""

import keras

from kerasrl_pg import estimators, ops
from kerasrl_pg.agents.stored import FromStored
from kerasrl_pg.checks import check_number, refuse_given
from kerasrl_pg.settings import Setting

REWARDED = ("horizon", "estimator", "gamma", "reward_scaling", "reward_clip")


@keras.saving.register_keras_serializable("kerasrl_pg")
class BehaviorCloning(FromStored):
    """Maximum likelihood on stored actions: what the data's own policy is, or a warm start from it (Pomerleau 1991).

    Each iteration:

    1. take m stored trajectories;
    2. ascend the mean of log π(a_t|s_t) + c_H H over their steps.

    Args:
        policy, critic, networks, anneal_learning_rate, seed, name: See `Agent`. A critic there is not, and rewards do
            not matter: what is for them is refused.
        episodes: m. 64, ours.
        entropy_coef: c_H >= 0, against a policy that is certain of what it saw once. 0, maximum likelihood.

    Logs: `loss`, `log_likelihood` (mean log π(a_t|s_t), nats), `entropy` (nats).

    Raises:
        ValueError: If a setting is out of range; see also `data.Trajectories`.
        TypeError: If `horizon`, `estimator`, `gamma`, `reward_scaling` or `reward_clip` is given.

    >>> import os, tempfile
    >>> os.environ["MINARI_DATASETS_PATH"] = tempfile.mkdtemp()
    >>> import kerasrl_pg as pg
    >>> dataset = pg.data.record(pg.A2C(seed=0), "CartPole-v1", "cartpole/random-v0", episodes=20)
    >>> agent = BehaviorCloning(episodes=10, seed=1)
    >>> agent.compile(keras.optimizers.Adam(1e-2))
    >>> history = agent.fit(dataset, epochs=2, verbose=0)
    >>> history.history["env_steps"][-1] == 2 * dataset.total_steps
    True
    """

    needs_critic = False

    entropy_coef = Setting(check_number, 0.0, schedule=True)

    def __init__(self, policy=None, critic=None, *, episodes=64, entropy_coef=0.0, **kwargs):
        reason = "which learns from whole stored episodes what was done in them, whatever came of it"
        refuse_given(type(self), kwargs, REWARDED, reason)
        super().__init__(policy, critic, horizon=None, estimator=estimators.RewardToGo(), **kwargs)
        self.episodes = episodes
        self.entropy_coef = entropy_coef

    def loss(self, samples):
        """Minus the class's step 2."""
        distribution = self.actor_critic.distribution(samples.inputs)
        log_likelihood = ops.masked_mean(distribution.log_prob(samples.actions), samples.valid)
        entropy = ops.masked_mean(distribution.entropy(), samples.valid)
        loss = -log_likelihood - self.scheduled(self.entropy_coef) * entropy
        return loss, {"log_likelihood": log_likelihood, "entropy": entropy}

    def train_step(self, rollout):
        """One step up the likelihood."""
        return self.descend(self.loss, self.samples(rollout))
