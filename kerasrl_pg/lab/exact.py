"""Finite Markov decision processes solved exactly, in float64: what every estimate is to be compared with."""

import dataclasses
import itertools
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import tensorflow as tf

from kerasrl_pg.checks import check_number, check_whole
from kerasrl_pg.envs.compiled import CompiledEnv

OWN = "the environment's own"


class Evaluation(NamedTuple):
    """A policy's exact values; S states, A actions, and with a time limit H a leading axis of steps t = 0 ... H - 1.

    Args:
        objective: J = E[Σ_t γ^t r_t] over first states.
        values: float64 [S] or [H, S], V.
        action_values: float64 [S, A] or [H, S, A], Q.
        visits: float64 [S] = Σ_t γ^t P(s_t = s), or [H, S] = P(s_t = s) for each step.
    """

    objective: float
    values: np.ndarray
    action_values: np.ndarray
    visits: np.ndarray

    @property
    def advantages(self):
        """A = Q - V, of the shape of `action_values`."""
        return self.action_values - self.values[..., None]


@dataclasses.dataclass(frozen=True, eq=False)
class MDP:
    """A finite Markov decision process whose solution is computed and not learned.

    Args:
        transitions: [S, A, S], p(s' | s, a).
        rewards: [S, A] or [S, A, S], r(s, a) or r(s, a, s').
        initial: [S], the probabilities of first states.
        gamma: Discount γ in [0, 1].
        terminal: None, or bool [S], states that end the episode when they are reached, or bool [S, A, S], transitions
            that do.
        horizon: H, the time limit, at least 1: a return has H rewards; None where there is none.
        observations: What a policy sees in each state, an array [S, ...]; None for the state's number. States that look
            alike are aliased.

    Attributes:
        expected_rewards: float64 [S, A].
        continuing: float64 [S, A, S], p(s' | s, a) where the episode goes on.

    Raises:
        ValueError: If shapes differ, probabilities do not sum to 1, or a reward or an observation is not finite.

    >>> coin = MDP([[[1.0], [1.0]]], [[0.0, 2.0]], [1.0], gamma=0.5)
    >>> coin.evaluate([[0.5, 0.5]]).objective, coin.optimal_policy().tolist()
    (2.0, [1])
    """

    transitions: Any
    rewards: Any
    initial: Any
    gamma: float
    terminal: Any = None
    horizon: int | None = None
    observations: Any = None

    def __post_init__(self):
        check_number("gamma", self.gamma, 0.0, 1.0)
        check_whole("horizon", self.horizon, optional=True)
        transitions, rewards, initial = (
            np.asarray(x, np.float64) for x in (self.transitions, self.rewards, self.initial)
        )
        states, actions = transitions.shape[:2] if transitions.ndim == 3 else (0, 0)
        _check_probabilities("transitions", transitions, (states, actions, states))
        _check_probabilities("initial", initial, (states,))
        if rewards.shape not in ((states, actions), transitions.shape):
            raise ValueError(
                f"`rewards` must be [S, A] or [S, A, S], here {(states, actions)} or {transitions.shape}. "
                f"Received: shape {rewards.shape}."
            )
        expected = rewards if rewards.ndim == 2 else np.sum(transitions * rewards, -1)
        _check_finite("rewards", rewards)
        ends = np.asarray(np.zeros(states) if self.terminal is None else self.terminal, bool)
        if ends.shape not in ((states,), transitions.shape):
            raise ValueError(f"`terminal` must be [S] or [S, A, S], here S = {states}. Received: shape {ends.shape}.")
        observations = np.arange(states, dtype=np.int32) if self.observations is None else np.asarray(self.observations)
        if observations.shape[:1] != (states,):
            raise ValueError(
                f"`observations` must be an array with one row for each of {states} states. Received: shape "
                f"{observations.shape}."
            )
        _check_finite("observations", observations)
        values = {"transitions": transitions, "rewards": rewards, "initial": initial, "terminal": ends}
        values.update(observations=observations, continuing=transitions * ~ends, expected_rewards=expected)
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @classmethod
    def of(cls, env, gamma, horizon=OWN):
        """The process behind an environment.

        Args:
            env: An `MDPEnv`; a `CompiledEnv` that says `transitions`, `rewards` and `initial`, and if need be
                `terminal` and `observations`, as `TabularMDP` and `Vacuum`; another one without chance whose state is
                its `Discrete` observation, as `Corridor`; or one of gymnasium's toy texts, or its id
                ("FrozenLake-v1", "CliffWalking-v1"), whose `unwrapped.P` says all.
            gamma: Discount γ in [0, 1], which belongs to the question and not to the environment.
            horizon: H; left out, the environment's own time limit. None for none.

        Raises:
            ValueError: If the environment does not say what it is, or masks actions, which nothing here does.

        >>> from kerasrl_pg.envs import Corridor
        >>> MDP.of(Corridor(length=4), gamma=1.0, horizon=None).optimal_values()[0]
        -3.0
        """
        if isinstance(env, str):
            env = gym.make(env)
        check_no_masks(env)
        limit = env.max_episode_steps if isinstance(env, CompiledEnv) else getattr(env.spec, "max_episode_steps", None)
        horizon = limit if horizon is OWN else horizon
        if hasattr(env, "mdp"):
            return env.mdp.replace(gamma=gamma, horizon=horizon)
        if hasattr(env, "transitions"):
            more = {name: getattr(env, name, None) for name in ("terminal", "observations")}
            return cls(env.transitions, env.rewards, env.initial, gamma, horizon=horizon, **more)
        if isinstance(env, CompiledEnv):
            return cls(**_deterministic(env), gamma=gamma, horizon=horizon)
        if not hasattr(env.unwrapped, "P"):
            raise ValueError(
                "`env` must say its transitions: a TabularMDP, a CompiledEnv whose state is its observation, or "
                f"gymnasium's toy text with `unwrapped.P`. Received: {env!r}. Make an MDP of arrays."
            )
        return cls(**_toy_text(env.unwrapped), gamma=gamma, horizon=horizon)

    def replace(self, **changes):
        """The same process with other fields, as `dataclasses.replace`."""
        return dataclasses.replace(self, **changes)

    @property
    def shape(self):
        """`(S, A)`."""
        return self.expected_rewards.shape

    # What a policy is worth

    def evaluate(self, policy):
        """A policy's exact values.

        Args:
            policy: Probabilities [S, A], or with a time limit [H, S, A].

        Returns:
            An `Evaluation`.

        Raises:
            ValueError: If they are no probabilities, or without discount and time limit the episode may never end.
        """
        policy = np.asarray(policy, np.float64)
        by_step = policy.ndim == 3 and self.horizon is not None
        _check_probabilities("policy", policy, (self.horizon, *self.shape) if by_step else self.shape)
        if self.horizon is None:
            return _stationary(self, policy)
        policy = np.broadcast_to(policy, (self.horizon, *self.shape))
        action_values, visits, following = [], [self.initial], np.zeros(self.shape[0])
        for pi in policy[::-1]:
            action_values.append(self.backup(following))
            following = np.sum(pi * action_values[-1], -1)
        for pi in policy[:-1]:
            visits.append(visits[-1] @ self.chain(pi))
        action_values = np.stack(action_values[::-1])
        values = np.sum(policy * action_values, -1)
        return Evaluation(float(self.initial @ values[0]), values, action_values, np.stack(visits))

    def _resolvent(self, policy, gamma):
        """I - γ P_π, refused where it is singular."""
        chain = self.chain(policy)
        if gamma == 1.0 and np.abs(np.linalg.eigvals(chain)).max() > 1.0 - 1e-12:
            raise ValueError(
                "`horizon` must be given where without discount an episode may never end. Received: horizon=None, "
                "gamma=1.0 (or the gradient without γ^t). Give a time limit, or gamma below 1."
            )
        return np.eye(self.shape[0]) - gamma * chain

    def visits(self, policy, discounted=True):
        """Σ_t w_t P(s_t = s), float64 [S], w_t = γ^t where `discounted`, else 1; divided by its sum the discounted
        state distribution.

        Raises:
            ValueError: If it is infinite.
        """
        gamma = self.gamma if discounted else 1.0
        if self.horizon is None:
            return np.linalg.solve(self._resolvent(policy, gamma).T, self.initial)
        return gamma ** np.arange(self.horizon) @ self.evaluate(policy).visits

    def chain(self, policy):
        """P_π, float64 [S, S]: to which states probabilities [S, A] lead, but where the episode ends."""
        return np.einsum("sa,sat->st", policy, self.continuing)

    def backup(self, values):
        """r(s, a) + γ Σ p(s' | s, a) V(s') where the episode goes on, float64 [S, A], of V [S]."""
        return self.expected_rewards + self.gamma * self.continuing @ values

    def credit(self, policy, discounted=True):
        """∂J/∂π by the policy gradient theorem: Σ_t w_t P(s_t = s) Q_t(s, a), float64 [S, A].

        Args:
            policy: Probabilities [S, A].
            discounted: w_t = γ^t, of the gradient of J; else 1, as nearly everyone has it (`ops.gradient_discount`).

        Source: Sutton et al. 2000, "Policy gradient methods for reinforcement learning with function approximation",
        theorem 1; chapter 4.3, there λ^t for γ^t.

        >>> MDP([[[1.0], [1.0]]], [[0.0, 2.0]], [1.0], gamma=0.5).credit([[0.5, 0.5]]).round(9).tolist()
        [[2.0, 6.0]]
        """
        found = self.evaluate(policy)
        if self.horizon is None:
            return self.visits(policy, discounted)[:, None] * found.action_values
        weights = (self.gamma if discounted else 1.0) ** np.arange(self.horizon)
        return np.einsum("t,ts,tsa->sa", weights, found.visits, found.action_values)

    def expected_advantages(self, policy, values, gae_lambda, steps):
        """E[A_t | s_t = s, a_t = a] of GAE(γ, λ) with a critic, whatever that is, and 1 ... `steps` rewards to come.

        λ = 0 is TD(0); λ = 1 is what is left of the reward-to-go, or with n steps the n-step advantage. Whatever cuts
        the sum off, the critic's value stands for what would have come.

        Args:
            policy: Probabilities [S, A].
            values: [S], the critic's.
            gae_lambda: λ in [0, 1].
            steps: How many.

        Returns:
            float64 [steps, S, A]; the n-th has n + 1 rewards to come.

        Source: Schulman et al. 2016 (arXiv 1506.02438), equation 16.
        """
        deltas = self.backup(values) - np.asarray(values)[:, None]
        found = [deltas]
        for _ in range(steps - 1):
            later = np.sum(policy * found[-1], -1)
            found.append(deltas + self.gamma * gae_lambda * self.continuing @ later)
        return np.stack(found)

    # What is best

    def value_iteration(self):
        """Endlessly, Q after 1, 2, ... backups from V = 0: float64 [S, A]; with k of them the best of k steps.

        >>> import itertools
        >>> coin = MDP([[[1.0], [1.0]]], [[0.0, 2.0]], [1.0], gamma=0.5)
        >>> [float(q.max()) for q in itertools.islice(coin.value_iteration(), 3)]
        [2.0, 3.0, 3.5]
        """
        values = np.zeros(self.shape[0])
        while True:
            action_values = self.backup(values)
            yield action_values
            values = action_values.max(-1)

    def optimal_values(self, tolerance=1e-12, most=1_000_000):
        """`(J*, Q*)`: by backward induction with a time limit, Q* then [H, S, A]; else by value iteration, until no
        value changes by more than `tolerance` of the largest.

        Raises:
            ValueError: If the values do not settle within `most` iterations.
        """
        iterates, before = self.value_iteration(), np.zeros(self.shape[0])
        if self.horizon is not None:
            stack = np.stack([next(iterates) for _ in range(self.horizon)][::-1])
            return float(self.initial @ stack[0].max(-1)), stack
        for _ in range(most):
            action_values = next(iterates)
            values = action_values.max(-1)
            if np.abs(values - before).max() <= tolerance * max(1.0, np.abs(values).max()):
                return float(self.initial @ values), action_values
            before = values
        raise ValueError(
            f"`gamma` must be below 1, or rewards such that values settle in {most} iterations. Received: "
            f"gamma={self.gamma}. Give a time limit."
        )

    def optimal_policy(self):
        """The best deterministic policy: actions, int [S], or with a time limit [H, S]; of equals the first."""
        action_values = self.optimal_values()[1]
        slack = 1e-9 * np.maximum(1.0, np.abs(action_values).max())  # What rounding makes of equals.
        return np.argmax(action_values >= action_values.max(-1, keepdims=True) - slack, -1)

    def memoryless_actions(self, most=10_000):
        """The best deterministic policy that sees the present observation only: of all there are, one by one.

        Args:
            most: How many to try at most, at least 1. 10,000: ours, some seconds.

        Returns:
            `(objective, actions)`: J, and int [S], equal in states that look alike; 0 where none is asked for.

        Raises:
            ValueError: If there are more of them.

        >>> left, goal, right = np.eye(3)  # As for `memoryless_policy`: from one of the two sides it never arrives.
        >>> transitions = [[left, goal], [goal, goal], [goal, right]]
        >>> rewards = [[0, 1], [0, 0], [1, 0]]
        >>> ends = [False, True, False]
        >>> MDP(transitions, rewards, [0.5, 0, 0.5], 0.9, ends, observations=[0, 1, 0]).memoryless_actions()[0]
        0.5
        """
        check_whole("most", most)
        acting = self.initial > 0.0
        for _ in acting:  # Whatever is reached, is so within S steps.
            acting |= acting @ self.continuing.sum(1) > 0.0
        asked, seen = np.unique(self._alike[acting], return_inverse=True)
        count = self.shape[1] ** len(asked)
        if count > most:
            raise ValueError(f"`most` must be at least {count}, the number of these policies. Received: most={most}.")

        def tried():
            for choices in itertools.product(range(self.shape[1]), repeat=len(asked)):
                actions = np.zeros(self.shape[0], int)
                actions[acting] = np.array(choices)[seen]
                yield self.evaluate(np.eye(self.shape[1])[actions]).objective, actions

        return max(tried(), key=lambda each: each[0])

    @property
    def _alike(self):
        """A number for each state, int [S], equal for those that look alike."""
        return np.unique(self.observations.reshape(self.shape[0], -1), axis=0, return_inverse=True)[1].reshape(-1)

    def memoryless_policy(self, starts=10, seed=0):
        """The best stochastic policy found that sees the present observation only.

        Exact gradient ascent (L-BFGS) on the logits θ[o, a] of each distinct observation o, from several random starts,
        the first of them uniform. J has local optima there, and the best of them is no proof.

        Args:
            starts: How many, at least 1. 10: ours.
            seed: Of the starts.

        Returns:
            `(objective, probabilities)`: J, and float64 [S, A], equal in states that look alike.

        Raises:
            ImportError: If SciPy is missing.

        Source: Singh, Jaakkola and Jordan 1994, "Learning without state-estimation in partially observable Markovian
        decision processes": memoryless stochastic policies may be arbitrarily better than deterministic ones.

        >>> left, goal, right = np.eye(3)  # The goal is in the middle, and its two sides look alike.
        >>> transitions = [[left, goal], [goal, goal], [goal, right]]
        >>> rewards = [[0, 1], [0, 0], [1, 0]]
        >>> ends = [False, True, False]
        >>> aliased = MDP(transitions, rewards, [0.5, 0, 0.5], 0.9, ends, observations=[0, 1, 0])
        >>> objective, policy = aliased.memoryless_policy(starts=3)
        >>> round(objective, 4), policy[0].round(3).tolist()
        (0.9091, [0.5, 0.5])
        """
        optimize = _optimize()
        check_whole("starts", starts)
        alike = self._alike
        size = alike.max() + 1, self.shape[1]

        def probabilities(theta):
            return tf.nn.softmax(theta.reshape(size)).numpy()[alike]

        def minus(theta):
            policy = probabilities(theta)
            credit = self.credit(policy)
            scores = policy * (credit - np.sum(policy * credit, -1, keepdims=True))
            slope = np.zeros(size)
            np.add.at(slope, alike, scores)
            return -self.evaluate(policy).objective, -slope.reshape(-1)

        rng = np.random.default_rng(seed)
        firsts = [np.zeros(np.prod(size)), *rng.normal(size=(starts - 1, np.prod(size)))]
        found = [optimize.minimize(minus, first, jac=True, method="L-BFGS-B") for first in firsts]
        best = min(found, key=lambda result: result.fun)
        return float(-best.fun), probabilities(best.x)


def _stationary(mdp, policy):
    values = np.linalg.solve(mdp._resolvent(policy, mdp.gamma), np.sum(policy * mdp.expected_rewards, -1))
    return Evaluation(float(mdp.initial @ values), values, mdp.backup(values), mdp.visits(policy))


def _optimize():
    try:
        from scipy import optimize
    except ImportError as error:
        raise ImportError("`memoryless_policy` needs SciPy: pip install kerasrl-pg[lab]") from error
    return optimize


def _check_probabilities(name, values, shape):
    if values.shape != tuple(shape) or values.size == 0:
        raise ValueError(f"`{name}` must be an array of shape {tuple(shape)}. Received: shape {values.shape}.")
    if not ((values >= 0.0).all() and np.abs(values.sum(-1) - 1.0).max() <= 1e-6):  # Of NaN neither is true.
        raise ValueError(
            f"`{name}` must be probabilities that sum to 1 along the last axis. Received: sums from "
            f"{values.sum(-1).min():g} to {values.sum(-1).max():g}, least {values.min():g}."
        )


def _check_finite(name, values):
    if values.dtype.kind not in "biuf" or not np.isfinite(values).all():
        raise ValueError(f"`{name}` must hold finite numbers. Received: {values!r}.")


def check_no_masks(env):
    """Refuses an environment that forbids actions: exact answers here are those of a policy that may do anything."""
    if not isinstance(env, CompiledEnv):  # What is asked of gymnasium's toy text has none.
        return
    if env.action_masks(env.reset(tf.zeros((env.num_envs, env.reset_noise)))) is not None:
        raise ValueError(
            "`env` must allow every action in every state for what is exact to be that of its policy. "
            f"Received: {env!r}, whose `action_masks` forbid some. Let forbidden actions do nothing instead."
        )


def _deterministic(env):
    """The fields of a compiled environment without chance."""
    spaces = env.observation_space, env.action_space
    if env.step_noise or env.reset_noise or not all(isinstance(space, gym.spaces.Discrete) for space in spaces):
        raise ValueError(
            "`env` must say its `transitions`, or have `Discrete` spaces and no chance in its steps and resets. "
            f"Received: {env!r}. Make an MDP of arrays."
        )
    states, actions = (int(space.n) for space in spaces)
    transitions, rewards = np.zeros((2, states, actions, states))
    terminal, every = np.zeros((states, actions, states), bool), tf.range(states)
    for action in range(actions):
        after = env.step(every, tf.fill([states], action), tf.zeros((states, 0)))
        place = np.arange(states), action, np.asarray(after.state)
        transitions[place], rewards[place], terminal[place] = 1.0, after.rewards, after.terminated
    initial = np.eye(states)[int(env.reset(tf.zeros((1, 0)))[0])]
    return {"transitions": transitions, "rewards": rewards, "initial": initial, "terminal": terminal}


def _toy_text(env):
    """The same of gymnasium's toy text."""
    states, actions = len(env.P), len(env.P[0])
    transitions, rewards = np.zeros((2, states, actions, states))
    ending = np.zeros((states, actions, states))
    for state, of_state in env.P.items():
        for action, branches in of_state.items():
            for probability, following, reward, terminated in branches:
                place = state, action, following
                transitions[place] += probability
                rewards[place] += probability * reward
                ending[place] += probability * terminated
    if np.abs(ending * (transitions - ending)).max() > 1e-12:
        raise ValueError("`env.unwrapped.P` must end an episode by where it leads. Received: both for one transition.")
    initial = np.asarray(env.initial_state_distrib, float)
    rewards = np.divide(rewards, transitions, out=rewards, where=transitions > 0.0)
    return {"transitions": transitions, "rewards": rewards, "initial": initial, "terminal": ending > 0.0}
