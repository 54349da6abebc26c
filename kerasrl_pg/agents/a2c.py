"""Advantage actor-critic."""

import keras

from kerasrl_pg import estimators, ops
from kerasrl_pg.agents.agent import Agent
from kerasrl_pg.checks import check_flag, check_number, check_standardizable, check_whole
from kerasrl_pg.settings import Setting


@keras.saving.register_keras_serializable("kerasrl_pg")
class A2C(Agent):
    """Advantage actor-critic (lecture notes 3.4.1; Mnih et al. 2016, arXiv 1602.01783, algorithm S3, run in step).

    Each iteration:

    1. run π for T steps in N environments;
    2. estimate advantages A_t with the critic;
    3. one step up the gradient of mean[ log π(a_t|s_t) A_t ] + c_H H(π) - c_V (V(s_t) - R_t)²/2.

    The notes print the entropy with weight 1 (3.5); the weight c_H is Mnih et al.'s β.

    Args:
        policy, critic, networks, gamma, reward_scaling, reward_clip, anneal_learning_rate, seed, name: See `Agent`.
        horizon: T. 5, Mnih et al. 2016, section 5.1.
        estimator: None for GAE(λ = 1), which with T = 5 is the forward view of up to five steps there. The notes'
            one-step advantage is `estimators.TD0()`.
        value_coef: c_V >= 0. 0.5 of half the squared error (OpenAI Baselines' 0.5 of the whole is 1.0 here).
        entropy_coef: c_H >= 0. 0.01, Mnih et al. 2016, section 5.1.
        normalize_advantages: Whether advantages are standardised over the rollout. False: not in the paper.

    `value_coef` and `entropy_coef` may be schedules, of the iteration or over the budget (`kerasrl_pg.schedules`).

    Logs: `loss`, `policy_loss`, `critic_loss` (half squared error, or cross-entropy), `entropy` (nats),
        `explained_variance`.

    Raises:
        ValueError: If a setting is out of range, or `normalize_advantages` has one row a rollout to standardise.

    >>> agent = A2C(seed=0)
    >>> agent.compile()
    >>> history = agent.fit("CartPole-v1", total_steps=40, num_envs=4, epochs=1, verbose=0)
    >>> int(agent.iterations.numpy())
    2
    """

    loss_is_mean = True

    horizon = Setting(check_whole)
    value_coef = Setting(check_number, 0.0, schedule=True)
    entropy_coef = Setting(check_number, 0.0, schedule=True)
    normalize_advantages = Setting(check_flag)

    def __init__(
        self,
        policy=None,
        critic=None,
        *,
        horizon=5,
        estimator=None,
        value_coef=0.5,
        entropy_coef=0.01,
        normalize_advantages=False,
        **kwargs,
    ):
        super().__init__(policy, critic, horizon=horizon, estimator=estimator or estimators.GAE(1.0), **kwargs)
        self.value_coef = value_coef
        self.entropy_coef = entropy_coef
        self.normalize_advantages = normalize_advantages

    def default_optimizer(self):
        """RMSprop of OpenAI Baselines' A2C: 7e-4, decay 0.99, ε 1e-5 inside the root, joint gradient norm 0.5."""
        return keras.optimizers.RMSprop(7e-4, rho=0.99, epsilon=1e-5, global_clipnorm=0.5)

    def check_rollout(self, horizon, num_envs):
        check_standardizable(horizon * num_envs, "normalize_advantages", self.normalize_advantages)

    def loss(self, samples):
        """The class's step 3, of `Samples`."""
        distribution, value_distribution = self.forward(samples.inputs)
        objective = ops.score_function_objective(distribution.log_prob(samples.actions), samples.advantages)
        policy_loss = -ops.masked_mean(objective, samples.valid)
        critic_loss = ops.masked_mean(self.critic_head.loss(value_distribution, samples.returns), samples.valid)
        entropy = ops.masked_mean(distribution.entropy(), samples.valid)
        loss = self.joint_loss(policy_loss, critic_loss, entropy)
        return loss, {"policy_loss": policy_loss, "critic_loss": critic_loss, "entropy": entropy}

    def train_step(self, rollout):
        """Estimates advantages, then takes the class's step 3."""
        samples = self.samples(rollout)
        return {**self.descend(self.loss, samples), **self.explained(samples)}
