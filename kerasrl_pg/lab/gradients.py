"""Exact gradients of a policy in a small process, and what an agent's own estimate of one is in the mean."""

import numpy as np

from kerasrl_pg import estimators
from kerasrl_pg.agents.reinforce import REINFORCE
from kerasrl_pg.lab.policy import table_of


def objective(mdp, policy, theta=None):
    """J(θ), exact.

    Args:
        mdp: An `MDP`.
        policy: A built agent, a Keras model that ends in a head, or a `PolicyTable`.
        theta: float64 [P], or None for the policy's weights as they stand.

    Returns:
        A number, in the unit of returns.
    """
    return mdp.evaluate(table_of(policy, mdp).probabilities(theta)).objective


def policy_gradient(mdp, policy, discounted=True, theta=None):
    """∇J(θ) = Σ_t γ^t Σ_s P(s_t = s) Σ_a ∇π(a|s) Q_t(s, a), exact.

    Args:
        mdp, policy, theta: Of `objective`.
        discounted: Whether with γ^t. Without it this is the gradient of no objective (Nota and Thomas 2020, arXiv
            1906.07073), and what nearly every implementation estimates.

    Returns:
        float64 [P], in the order of the policy's trainable variables.

    Source: see `MDP.credit`.

    >>> import kerasrl_pg as pg
    >>> env = pg.envs.TabularMDP(max_episode_steps=5)
    >>> agent = pg.REINFORCE(networks=pg.Networks(()), seed=0)
    >>> agent.bind(env.observation_space, env.action_space)
    >>> mdp = pg.lab.MDP.of(env, gamma=0.9)
    >>> gradient, nudge = policy_gradient(mdp, agent), 1e-6 * np.eye(18)[0]
    >>> theta = pg.lab.PolicyTable(agent, mdp.observations).theta
    >>> rise = objective(mdp, agent, theta + nudge) - objective(mdp, agent, theta - nudge)
    >>> bool(abs(rise / 2e-6 - gradient[0]) < 1e-8)
    True
    """
    table = table_of(policy, mdp)
    return table.slope(mdp.credit(table.probabilities(theta), discounted), theta)


def fisher(mdp, policy, visits=None, theta=None):
    """F(θ) = E[∇log π ∇log π^T], exact, float64 [P, P].

    Args:
        mdp, policy, theta: Of `objective`.
        visits: [S], how much each state counts; None for the discounted state distribution, which sums to 1.

    Source: lecture notes 3.6.2; Kakade 2001, equation 3.
    """
    table = table_of(policy, mdp)
    probabilities, scores = table.probabilities(theta), table.scores(theta)
    if visits is None:
        visits = mdp.visits(probabilities)
        visits = visits / visits.sum()
    return np.einsum("s,sa,sap,saq->pq", visits, probabilities, scores, scores, optimize=True)


def natural_gradient(mdp, policy, discounted=True, damping=0.0, theta=None):
    """(F + cI)⁻¹ ∇J, exact, float64 [P]; by the pseudo-inverse where that is singular, as with a softmax over logits.

    Args:
        mdp, policy, discounted, theta: Of `policy_gradient`; F's states are weighed as the gradient's.
        damping: c >= 0.
    """
    table = table_of(policy, mdp)
    visits = mdp.visits(table.probabilities(theta), discounted)
    matrix = fisher(mdp, table, visits / visits.sum(), theta)
    return solve(matrix, policy_gradient(mdp, table, discounted, theta), damping)


def solve(matrix, gradient, damping=0.0):
    """(F + cI)⁻¹ g; without damping, where F is below 1e-10 of its largest eigenvalue, 0."""
    if damping:
        return np.linalg.solve(matrix + damping * np.eye(len(gradient)), gradient)
    return np.linalg.pinv(matrix, rcond=1e-10, hermitian=True) @ gradient


class Expectation:
    """What an agent's estimate of the gradient is in the mean, over everything that can happen in its rollout.

    The rollout is of T rows in which every environment begins an episode; where an episode ends another begins.

    Args:
        agent: A built agent.
        mdp: The `MDP` of the environment, its time limit the horizon, of the agent's γ.
        rows: T, of a rollout; of whole episodes those of one.

    Attributes:
        episodic: Whether rollouts are whole episodes. REINFORCE's estimate is for each of them; all others are the mean
            over rows, and where episodes differ in length this is what they tend to with their number.
        weights: float64 [T, H, S], how often the t-th row is the k-th step of an episode and in s, times what the
            agent weighs it by.

    Raises:
        ValueError: If the agent's rollout cuts off an episode that it should hold whole.
    """

    def __init__(self, agent, mdp, rows):
        self._agent, self._mdp = agent, mdp
        self._table = table_of(agent, mdp)
        self._policy = self._table.probabilities()
        self.episodic = agent.episodes_per_env is not None
        if self.episodic:
            limit = mdp.horizon or rows
            if agent.episodes_per_env > 1 and rows < agent.episodes_per_env * limit:
                raise ValueError(
                    f"`horizon` must hold {agent.episodes_per_env} episodes of {limit} steps. Received: {rows} rows. "
                    "Leave it out."
                )
            rows = min(limit, rows)
        self._limit = rows if mdp.horizon is None else min(mdp.horizon, rows)
        self._rows = rows
        self.weights = self._visits() * self._discounts()[None, :, None]

    def _visits(self):
        chain, visits = self._mdp.chain(self._policy), np.zeros((self._rows, self._limit, self._mdp.shape[0]))
        now = np.zeros(visits.shape[1:])
        now[0] = self._mdp.initial
        for row in range(self._rows):
            visits[row] = now
            following = np.roll(now @ chain, 1, 0)
            following[0] = 0.0  # The time limit.
            if not self.episodic:
                following[0] = (now.sum() - following.sum()) * self._mdp.initial
            now = following
        return visits

    def _discounts(self):
        whole = isinstance(self._agent.estimator, estimators.WholeReturn)
        weighed = whole or getattr(self._agent, "discounted_gradient", False)
        scale = 1.0 if isinstance(self._agent, REINFORCE) else 1.0 / self._visits().sum()
        return scale * (self._agent.gamma if weighed else 1.0) ** np.arange(self._limit)

    def _left(self):
        """How many rewards are still to come in each row and step of an episode, [T, H]."""
        rows, steps = np.arange(self._rows)[:, None], np.arange(self._limit)[None]
        return np.minimum(self._rows - rows, self._limit - steps)

    @property
    def visits(self):
        """float64 [S], how much each state counts in means over the rollout's rows."""
        visits = self._visits().sum((0, 1))
        return visits / visits.sum()

    def claimed(self):
        """The gradient that the agent sets out to estimate, float64 [P]: its weights, with exact action values.

        Without a critic those of the rewards up to the time limit, which end a return; with one those without limit,
        since a critic stands for what would come after it.
        """
        if self._agent.critic is None:
            return self.predicted()
        action_values = self._mdp.replace(horizon=None).evaluate(self._policy).action_values
        return self._table.slope(self.weights.sum((0, 1))[:, None] * action_values)

    def predicted(self, values=None):
        """The mean of its estimate, float64 [P], with its estimator and its critic as they stand.

        Args:
            values: [S], in place of the critic's.

        Raises:
            ValueError: If the estimator is not one of the library's.
        """
        if values is None:
            values = self.critic_values()
        left, gae_lambda = self._left(), 1.0
        estimator = self._agent.estimator
        if isinstance(estimator, estimators.GAE):
            gae_lambda = float(self._agent.scheduled(estimator.gae_lambda))
        elif isinstance(estimator, (estimators.NStep, estimators.TD0)):
            left = np.minimum(left, getattr(estimator, "n", 1))
        elif not isinstance(estimator, (estimators.RewardToGo, estimators.WholeReturn)):
            raise ValueError(f"`estimator` must be one of the library's. Received: {estimator!r}.")
        advantages = self._mdp.expected_advantages(self._policy, values, gae_lambda, left.max())
        weights = np.zeros((left.max(), self._mdp.shape[0]))
        np.add.at(weights, left - 1, self.weights)
        return self._table.slope(np.einsum("ns,nsa->sa", weights, advantages))

    def critic_values(self):
        """V(s) of the agent's critic, float64 [S]; 0 without one."""
        if self._agent.critic is None:
            return np.zeros(self._mdp.shape[0])
        return self._agent.critic(self._mdp.observations).mean().numpy().astype(np.float64)
