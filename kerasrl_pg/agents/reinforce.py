"""REINFORCE: the policy gradient from whole episodes."""

import keras
import tensorflow as tf

from kerasrl_pg import estimators, ops
from kerasrl_pg.agents.episodic import Episodic
from kerasrl_pg.agents.minibatches import for_each_minibatch
from kerasrl_pg.checks import check_flag, check_number
from kerasrl_pg.settings import Setting


@keras.saving.register_keras_serializable("kerasrl_pg")
class REINFORCE(Episodic):
    """REINFORCE (lecture notes 3.2 and 3.3; chapter 4.3 and 4.4; Williams 1992).

    Each iteration, in the notes' words:

    1. collect trajectories {τ^i} with π_θ: `episodes` whole ones in each of the N environments;
    2. ∇J(θ) = 1/m Σ_i Σ_t ∇ log π(a_t^i | s_t^i) (R_t^i - b(s_t^i)), m trajectories, those that `horizon` cuts off
       included;
    3. θ ← θ + α ∇J(θ).

    R is the whole return R^γ(τ^i) or the reward-to-go, by `estimator`. The notes print R^γ(τ_{1:t}), the rewards
    *before* the action; the whole return of 3.1, or the reward-to-go of the chapter's equation (4.3), is meant.

    Args:
        policy, critic, networks, gamma, reward_scaling, reward_clip, anneal_learning_rate, seed, name: See `Agent`. A
            critic is built and needed only for `baselines.ValueFunction`.
        horizon: Rows of a rollout, the most steps that an environment's episodes may take together; None for
            `episodes` times the environment's own time limit. An episode cut off by it counts as truncated, and as a
            trajectory.
        estimator: None for `estimators.RewardToGo()`; `WholeReturn()`, or any other where there is a critic. Without a
            critic a truncated episode's return ends with its last reward.
        baseline: None, or one of `kerasrl_pg.baselines`. An average of the rollout is that of the other episodes, since
            one that contains the return it judges takes a part of the gradient away; it needs two of them.
        episodes: Episodes of each environment in an iteration, at least 1. 1, as in the notes' first form.
        discounted_gradient: Weigh step t of an episode by γ^t. The gradient of J has this weight (the chapter, 4.3,
            prints λ^t where γ^t is meant); False, because nearly everyone drops it (Nota and Thomas 2020, arXiv
            1906.07073). `WholeReturn` has it already, in R^γ(τ) = Σ γ^t r_t, and refuses it.
        normalize_advantages: Whether advantages are divided by their standard deviation over the rollout, less the mean
            of the other episodes (as `baselines.AverageReturn`); needs two. False: not in the notes.
        entropy_coef: c_H >= 0, weight of the mean entropy per trajectory step (notes 3.5). 0.

    With `ValueFunction`, policy and critic are moved by turns, each by an optimizer of its own (see `compile`).

    Logs: `loss`, `policy_loss` (per trajectory), `entropy` (nats), `episodes` (whole trajectories), and with a critic
    `critic_loss` (mean over the regression's steps) and `explained_variance` (before them).

    Raises:
        ValueError: If a setting is out of range or contradicts another, the environment has no time limit and `horizon`
            is None, or an average over the other episodes is asked for where there are none.
        TypeError: If `baseline` is no baseline.

    >>> agent = REINFORCE(episodes=2, horizon=100, seed=0)
    >>> agent.compile(keras.optimizers.Adam(1e-2))
    >>> history = agent.fit("CartPole-v1", epochs=1, steps_per_epoch=1, verbose=0)
    >>> history.history["episodes"]
    [2.0]
    """

    discounted_gradient = Setting(check_flag)
    entropy_coef = Setting(check_number, 0.0, schedule=True)

    def __init__(
        self,
        policy=None,
        critic=None,
        *,
        horizon=None,
        estimator=None,
        baseline=None,
        episodes=1,
        discounted_gradient=False,
        normalize_advantages=False,
        entropy_coef=0.0,
        **kwargs,
    ):
        super().__init__(
            policy,
            critic,
            horizon=horizon,
            estimator=estimator or estimators.RewardToGo(),
            baseline=baseline,
            episodes=episodes,
            normalize_advantages=normalize_advantages,
            **kwargs,
        )
        self.discounted_gradient = discounted_gradient
        self.entropy_coef = entropy_coef

    @property
    def needs_critic(self):
        return self.baseline is not None and self.baseline.needs_critic

    @property
    def alternates(self):
        return self.needs_critic

    def check_settings(self):
        super().check_settings()
        if self.discounted_gradient and isinstance(self.estimator, estimators.WholeReturn):
            raise ValueError(
                "`discounted_gradient` must be False with WholeReturn(), since R^γ(τ) carries γ^t already and would be "
                "weighed by γ^2t. Received: discounted_gradient=True. Leave it out: the gradient is the discounted one."
            )

    def credit(self, rollout):
        """`(credit, returns, values)`, all [T, N]: R_t - b(s_t) of the class's step 2, weighed as the settings say."""
        credit, returns, values = self.estimate(rollout)
        return self.finished(self.less_baseline(credit, rollout), returns, rollout), returns, values

    def finished(self, credit, returns, rollout):
        """The credit [T, N], standardised and discounted as the settings say."""
        if self.normalize_advantages:
            credit = ops.standardize(credit, rollout.valid, self.mean_of_others(credit, rollout), returns=returns)
        if self.discounted_gradient:
            credit *= ops.gradient_discount(ops.steps_in_episode(rollout.ends), self.gamma)
        return credit

    def samples(self, rollout):
        """The rows of the rollout's trajectories, and how many these are."""
        trajectories = ops.count_trajectories(rollout.ends, rollout.valid)
        return super().samples(rollout)._replace(trajectories=trajectories)

    def loss(self, samples):
        """Minus the class's step 2, of `Samples` of whole rollouts."""
        distribution = self.actor_critic.distribution(samples.inputs)
        objective = ops.score_function_objective(distribution.log_prob(samples.actions), samples.advantages)
        total = tf.reduce_sum(tf.cast(samples.valid, tf.float32) * objective)
        policy_loss = -tf.math.divide_no_nan(total, samples.trajectories)
        entropy = ops.masked_mean(distribution.entropy(), samples.valid)
        loss = policy_loss - self.scheduled(self.entropy_coef) * entropy
        return loss, {"policy_loss": policy_loss, "entropy": entropy}

    def critic_loss(self, samples):
        """The regression of the critic on the returns."""
        values = self.actor_critic.value_distribution(samples.inputs)
        critic_loss = ops.masked_mean(self.critic_head.loss(values, samples.returns), samples.valid)
        return critic_loss, {"critic_loss": critic_loss}

    def loss_of(self, part):
        return self.critic_loss if part == "critic" else self.loss

    def train_step(self, rollout):
        """Credits each action, takes the class's steps 2 and 3, and fits the critic where there is one."""
        samples = self.samples(rollout)
        finished = (rollout.terminated | rollout.truncated) & rollout.valid
        logs = self.descend(self.loss, samples, "policy" if self.needs_critic else None)
        logs["episodes"] = tf.reduce_sum(tf.cast(finished, tf.float32))
        if self.needs_critic:
            steps = for_each_minibatch(
                lambda rows: self.descend(self.critic_loss, rows, "critic"),
                samples._replace(trajectories=()),
                None,
                self.baseline.update_epochs,
                samples.valid.shape[0],
            )
            logs["critic_loss"] = steps["critic_loss"]
            logs.update(self.explained(samples))
        return logs
