"""Small worlds whose solutions are known, as compiled environments."""

import dataclasses
import functools

import gymnasium as gym
import numpy as np
import tensorflow as tf

from kerasrl_pg.checks import check_whole
from kerasrl_pg.envs.compiled import CompiledEnv, Transition


@dataclasses.dataclass(frozen=True)
class Corridor(CompiledEnv):
    """A walk along a corridor from its left end to its right one; each step costs 1.

    Action 1 goes right, 0 left; at the left end it stays. The observation is the place, 0 ... length - 1.

    With n = length - 1, the best return is -n, discounted -(1 - γⁿ) / (1 - γ). The time limit apart, choosing both
    actions alike takes n (n + 1) steps on average, as a first-step analysis shows.

    Args:
        num_envs: N.
        max_episode_steps: 200: ours, more than six times what 6 places cost a policy that has not learnt.
        length: Number of places, at least 2.

    Raises:
        ValueError: If `length` is below 2.

    >>> corridor = Corridor(length=4)
    >>> corridor.step(tf.constant([0, 1, 2]), tf.constant([0, 0, 1]), tf.zeros((3, 0))).state.numpy()
    array([0, 0, 3], dtype=int32)
    """

    max_episode_steps: int | None = 200
    length: int = 6

    action_space = gym.spaces.Discrete(2)

    def __post_init__(self):
        super().__post_init__()
        check_whole("length", self.length, at_least=2)

    @property
    def observation_space(self):
        return gym.spaces.Discrete(self.length)

    def reset(self, noise):
        return tf.zeros(noise.shape[0], tf.int32)

    def observe(self, state):
        return state

    def step(self, state, actions, noise):
        place = tf.clip_by_value(state + tf.where(actions == 1, 1, -1), 0, self.length - 1)
        return Transition(place, tf.fill(place.shape, -1.0), place == self.length - 1)

    def state_of(self, env):
        """From this package's own gymnasium environment."""
        return np.int32(env.place)


@dataclasses.dataclass(frozen=True)
class TabularMDP(CompiledEnv):
    """A random Markov decision process, small enough to be solved exactly: a Garnet.

    From each state, each action leads to `branching` other states, drawn without replacement; their probabilities
    are the pieces of the unit interval between uniform cuts, and each transition's reward is standard normal. The
    first state is uniform, the observation is the state, and only the time limit ends an episode.

    Args:
        num_envs: N.
        max_episode_steps: 100: ours.
        num_states, num_actions: S and A, at least 1.
        branching: b, from 1 to S.
        seed: Whole number of at least 0; equal fields make equal processes.

    Attributes:
        transitions: float64 [S, A, S], p(s' | s, a).
        rewards: float64 [S, A, S], r(s, a, s'); 0 where s' cannot be reached.
        initial: float64 [S], the probabilities of first states.
        branches: Next states, their probabilities and rewards, each [S, A, b].

    Raises:
        ValueError: If a number is out of its range.

    Source: Archibald, McKinnon and Thomas 1995, "On the generation of Markov decision processes"; Bhatnagar et al.
    2009, "Natural actor-critic algorithms", section 7, there with noise upon the rewards (σ) and drift (τ), both 0
    here.

    >>> mdp = TabularMDP(num_states=3, num_actions=2, branching=2)
    >>> mdp.transitions.shape, mdp.transitions.sum(-1).round(6).tolist()
    ((3, 2, 3), [[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]])
    """

    max_episode_steps: int | None = 100
    num_states: int = 5
    num_actions: int = 3
    branching: int = 2
    seed: int = 0

    reset_noise = 1
    step_noise = 1

    def __post_init__(self):
        super().__post_init__()
        check_whole("num_states", self.num_states, 1)
        check_whole("num_actions", self.num_actions, 1)
        check_whole("branching", self.branching, 1, self.num_states)
        check_whole("seed", self.seed, 0)

    @property
    def observation_space(self):
        return gym.spaces.Discrete(self.num_states)

    @property
    def action_space(self):
        return gym.spaces.Discrete(self.num_actions)

    # Not fields, so that they do not enter equality; made when first asked for.
    @functools.cached_property
    def branches(self):
        rng = np.random.default_rng(self.seed)
        shape = self.num_states, self.num_actions
        order = rng.random((*shape, self.num_states)).argsort(-1)
        cuts = np.sort(rng.random((*shape, self.branching - 1)))
        probabilities = np.diff(cuts, prepend=0.0, append=1.0)
        return order[..., : self.branching], probabilities, rng.normal(size=probabilities.shape)

    @functools.cached_property
    def transitions(self):
        return self._dense(1)

    @functools.cached_property
    def rewards(self):
        return self._dense(2)

    @property
    def initial(self):
        return np.full(self.num_states, 1.0 / self.num_states)

    def _dense(self, which):
        dense = np.zeros((self.num_states, self.num_actions, self.num_states))
        np.put_along_axis(dense, self.branches[0], self.branches[which], -1)
        return dense

    def reset(self, noise):
        return whole_number(noise[:, 0], self.num_states)

    def observe(self, state):
        return state

    def step(self, state, actions, noise):
        next_states, probabilities, rewards = (x.reshape(-1, self.branching) for x in self.branches)
        row = state * self.num_actions + tf.cast(actions, tf.int32)
        # How many of the first b - 1 cumulative probabilities the noise exceeds is a branch whatever the rounding.
        cumulative = tf.gather(np.cumsum(probabilities, -1)[:, :-1].astype(np.float32), row)
        branch = tf.reduce_sum(tf.cast(noise > cumulative, tf.int32), -1)
        place = row * self.branching + branch
        following = tf.gather(next_states.reshape(-1).astype(np.int32), place)
        rewards = tf.gather(rewards.reshape(-1).astype(np.float32), place)
        return Transition(following, rewards, tf.zeros_like(following, tf.bool))

    def state_of(self, env):
        """From this package's own gymnasium environment."""
        return np.int32(env.state)


@dataclasses.dataclass(frozen=True)
class Catch(CompiledEnv):
    """A ball falls down a board, and a paddle below should be where it lands.

    The actions are left, stay and right. The reward is 0 until the ball has reached the lowest row, then 1 or -1; so
    the best return is 1, and an episode has rows - 1 steps. The ball starts in a uniform column of the highest row,
    the paddle in the middle.

    Args:
        num_envs: N.
        max_episode_steps: None, since all episodes end.
        rows, columns: Of the board, at least 2 and 1. 10 and 5, as in bsuite.

    Raises:
        ValueError: If a number is out of its range.

    Source: Mnih et al. 2014, "Recurrent models of visual attention", section 4.2; Osband et al. 2020 ("bsuite", arXiv
    1908.03568), whose observations these are: ones at ball and paddle.

    >>> game = Catch(rows=3, columns=3)
    >>> game.observe(game.reset(tf.constant([[0.1]])))[0].numpy()
    array([[1., 0., 0.],
           [0., 0., 0.],
           [0., 1., 0.]], dtype=float32)
    """

    max_episode_steps: int | None = None
    rows: int = 10
    columns: int = 5

    action_space = gym.spaces.Discrete(3)
    reset_noise = 1

    def __post_init__(self):
        super().__post_init__()
        check_whole("rows", self.rows, 2)
        check_whole("columns", self.columns, 1)

    @property
    def observation_space(self):
        return gym.spaces.Box(0.0, 1.0, (self.rows, self.columns))

    def reset(self, noise):
        column = whole_number(noise[:, 0], self.columns)
        return tf.stack([tf.zeros_like(column), column, tf.fill(column.shape, self.columns // 2)], -1)

    def observe(self, state):
        row, column, paddle = tf.unstack(state, axis=-1)
        ball = tf.one_hot(row * self.columns + column, self.rows * self.columns)
        paddle = tf.one_hot((self.rows - 1) * self.columns + paddle, self.rows * self.columns)
        return tf.reshape(tf.maximum(ball, paddle), [-1, self.rows, self.columns])

    def step(self, state, actions, noise):
        row, column, paddle = tf.unstack(state, axis=-1)
        paddle = tf.clip_by_value(paddle + tf.cast(actions, tf.int32) - 1, 0, self.columns - 1)
        row += 1
        landed = row == self.rows - 1
        rewards = tf.where(landed, tf.where(column == paddle, 1.0, -1.0), 0.0)
        return Transition(tf.stack([row, column, paddle], -1), rewards, landed)


@dataclasses.dataclass(frozen=True)
class TMaze(CompiledEnv):
    """A corridor at whose beginning a sign says which way to turn at its end: a question of memory alone.

    Action 0 goes forward, 1 and 2 turn left and right. Forward in the corridor costs nothing; a turn there, and
    standing still at the junction, cost 1 / length. A turn at the junction ends the episode, with reward 1 where it is
    what the sign said, else 0. So the best return is 1, and 0.5 for a policy that sees the present only. The
    observation is the sign (-1 or 1 in the first place, else 0) and whether this is the junction.

    Args:
        num_envs: N.
        max_episode_steps: 200: ours, four times the way.
        length: Steps from the sign to the junction, at least 1.

    Raises:
        ValueError: If `length` is below 1.

    Source: Bakker 2002, "Reinforcement learning with long short-term memory", section 4.1; the rewards on the way after
    the passive T-maze of Ni et al. 2023 (arXiv 2307.03864), so that only the turn has to be found out.

    >>> maze = TMaze(length=2)
    >>> state = maze.reset(tf.constant([[0.2], [0.7]]))
    >>> maze.observe(state).numpy().tolist()
    [[-1.0, 0.0], [1.0, 0.0]]
    >>> junction = tf.constant([[2, -1], [2, 1]])
    >>> maze.step(junction, tf.constant([1, 1]), tf.zeros((2, 0))).rewards.numpy()
    array([1., 0.], dtype=float32)
    """

    max_episode_steps: int | None = 200
    length: int = 50

    observation_space = gym.spaces.Box(-1.0, 1.0, (2,))
    action_space = gym.spaces.Discrete(3)
    reset_noise = 1

    def __post_init__(self):
        super().__post_init__()
        check_whole("length", self.length)

    def reset(self, noise):
        sign = tf.where(noise[:, 0] < 0.5, -1, 1)
        return tf.stack([tf.zeros_like(sign), sign], -1)

    def observe(self, state):
        place, sign = tf.unstack(state, axis=-1)
        shown, junction = tf.where(place == 0, sign, 0), place == self.length
        return tf.stack([tf.cast(shown, tf.float32), tf.cast(junction, tf.float32)], -1)

    def step(self, state, actions, noise):
        place, sign = tf.unstack(state, axis=-1)
        forward, junction = actions == 0, place == self.length
        over = junction & ~forward
        right = tf.where(actions == 1, -1, 1) == sign
        rewards = tf.where(over, tf.where(right, 1.0, 0.0), tf.where(forward & ~junction, 0.0, -1.0 / self.length))
        place = tf.where(forward, tf.minimum(place + 1, self.length), place)
        return Transition(tf.stack([place, sign], -1), rewards, over)


def whole_number(noise, count):
    """Uniform whole numbers 0 ... count - 1.

    Args:
        noise: float32, uniform in (0, 1), of 24 bits; so no rounding reaches `count`.
        count: How many there are, far below 2²³ (they are equally likely to within count / 2²³).

    Returns:
        int32, of the noise's shape.

    >>> whole_number(tf.constant([0.1, 0.5, 1 - 2.0**-24]), 4).numpy()
    array([0, 2, 3], dtype=int32)
    """
    return tf.cast(noise * count, tf.int32)
