"""The processes and policies that the pictures are of."""

import keras
import numpy as np

from kerasrl_pg import heads
from kerasrl_pg.envs.worlds import TabularMDP
from kerasrl_pg.lab.env import MDPEnv
from kerasrl_pg.lab.exact import MDP


def garnet(horizon=10, gamma=0.9, lift=1.0, seed=2):
    """A random process of five states and three actions, whose rewards are around `lift`."""
    table = TabularMDP(num_states=5, num_actions=3, branching=3, seed=seed)
    return MDP(table.transitions, table.rewards + lift, np.full(5, 0.2), gamma, horizon=horizon)


def rare_loss():
    """One choice: the usual action gives 1, the rare one nothing; an average baseline makes that one's score count."""
    return MDP(np.ones((1, 2, 1)), [[1.0, 0.0]], [1.0], 1.0, horizon=1)


def unequal():
    """One choice between returns of 10 and 5: the best constant baseline lies far from the mean where one is rare."""
    return MDP(np.ones((1, 2, 1)), [[10.0, 5.0]], [1.0], 1.0, horizon=1)


def two_states(horizon=30, gamma=0.9):
    """Two states, in which staying gives 1 and 2, leaving nothing (Kakade 2001, section 4, figure 2).

    Action 0 stays. Whoever begins in the first, and stays there often, learns little of the second.
    """
    stay, leave = np.eye(2), np.eye(2)[::-1]
    transitions = np.stack([stay, leave], 1)
    return MDP(transitions, [[1.0, 0.0], [2.0, 0.0]], [0.8, 0.2], gamma, horizon=horizon)


def between_two_walls(gamma=0.9):
    """A goal between two cells that look alike: the best policy without memory is a coin."""
    left, goal, right = np.eye(3)
    ends = [False, True, False]
    transitions = [[left, goal], [goal, goal], [goal, right]]
    return MDP(transitions, [[0, 1], [0, 0], [1, 0]], [0.5, 0, 0.5], gamma, ends, 10, observations=[0, 1, 0])


def near_and_far(places=8, gamma=0.95, start=1):
    """A corridor with a reward of 1 beside the start and one of 4 at its other end; both end the episode."""
    states, transitions, rewards = np.arange(places), np.zeros((places, 2, places)), np.zeros((places, 2, places))
    for action, move in enumerate((-1, 1)):
        transitions[states, action, np.clip(states + move, 0, places - 1)] = 1.0
    rewards[:, :, 0], rewards[:, :, -1] = 1.0, 4.0
    ends = (states == 0) | (states == places - 1)
    return MDP(transitions, rewards, np.eye(places)[start], gamma, ends, horizon=30)


def tabular(mdp, theta=None):
    """A softmax over θ[o, a], [O, A] (chapter 4.5); zeros where θ is None."""
    seen, actions = int(mdp.observations.max()) + 1, mdp.shape[1]
    head = heads.Categorical(actions, kernel_initializer="zeros")
    model = _over(seen, head)
    head.dense.bias.assign(np.zeros(actions))
    if theta is not None:
        head.dense.kernel.assign(theta)
    return model


def critic(mdp, values=None):
    """A critic with a value for each state; zeros where `values` is None."""
    head = heads.NormalValue()
    model = _over(int(mdp.observations.max()) + 1, head)
    head.dense.kernel.assign(np.zeros(head.dense.kernel.shape) if values is None else np.reshape(values, (-1, 1)))
    return model


def two_parameters(theta=(0.0, 0.0)):
    """A policy of two states and two actions, π(0|s) = σ(θ_s), whose parameters are θ, [2], and no more."""
    inputs = keras.Input((), dtype="int32")
    layer = keras.layers.Dense(1, use_bias=False)
    head = heads.Categorical(2)
    model = keras.Model(inputs, head(layer(keras.ops.one_hot(inputs, 2))))
    head.dense.kernel.assign([[1.0, 0.0]])
    head.dense.trainable = False
    layer.kernel.assign(np.reshape(theta, (2, 1)))
    return model


def env(mdp, num_envs=1):
    """The process played by so many."""
    return MDPEnv(num_envs=num_envs, mdp=mdp)


def _over(states, head):
    inputs = keras.Input((), dtype="int32")
    return keras.Model(inputs, head(keras.ops.one_hot(inputs, states)))
