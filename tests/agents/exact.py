"""A small decision process whose trajectories have unequal lengths and can all be listed, and its exact gradient."""

import itertools
import math

import gymnasium as gym
import keras
import numpy as np
import tensorflow as tf

import kerasrl_pg as pg
from kerasrl_pg.rollouts import Inputs, Rollout

GAMMA, LONGEST = 0.6, 3
LOGITS = np.array([[0.2, -0.3], [0.5, 0.1], [-0.4, 0.3]], np.float32)
REWARDS = np.array([[2.0, 1.0], [-1.0, 3.0], [8.0, -4.0]], np.float32)  # By state and action.


class Stairs(gym.Env):
    """In state t, action 0 ends the episode and action 1 goes on to t + 1; after three steps it ends anyway."""

    observation_space = gym.spaces.Discrete(LONGEST + 1)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = 0
        return 0, {}

    def step(self, action):
        reward = float(REWARDS[self.state, action])
        self.state += 1
        return self.state, reward, action == 0 or self.state == LONGEST, False, {}


TRAJECTORIES = [(0,), (1, 0), (1, 1, 0), (1, 1, 1)]  # Actions; the state is their place.


def tabular():
    """A softmax policy with one logit for each state and action (chapter 4.5)."""
    inputs = keras.Input((), dtype="int32")
    head = pg.heads.Categorical(2)
    policy = keras.Model(inputs, head(keras.ops.one_hot(inputs, LONGEST + 1)))
    head.dense.bias.constraint = lambda bias: 0.0 * bias  # One logit for each state and action, no more.
    head.dense.kernel.assign(np.concatenate([LOGITS, np.zeros((1, 2), np.float32)]))
    return policy


def probabilities():
    """Of each trajectory."""
    p = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
    return [math.prod(p[t, a] for t, a in enumerate(actions)) for actions in TRAJECTORIES]


def exact_gradient(weighed):
    """Σ_τ p(τ) Σ_t w_t ∇log π(a_t|s_t) R_t, [states, actions], with w_t = γ^t where `weighed`, else 1."""
    p = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
    gradient = np.zeros_like(LOGITS)
    for actions, probability in zip(TRAJECTORIES, probabilities(), strict=True):
        for t, action in enumerate(actions):
            to_go = sum(GAMMA ** (k - t) * REWARDS[k, actions[k]] for k in range(t, len(actions)))
            score = np.eye(2)[action] - p[t]
            gradient[t] += probability * (GAMMA**t if weighed else 1.0) * score * to_go
    return gradient


def rollout(columns):
    """A `Rollout` of these environments, each a list of trajectories that it plays one after the other."""
    horizon = max(sum(len(TRAJECTORIES[i]) for i in column) for column in columns)
    shape = horizon, len(columns)
    states, actions = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    rewards, ended, valid = np.zeros(shape, np.float32), np.zeros(shape, bool), np.zeros(shape, bool)
    for n, column in enumerate(columns):
        row = 0
        for index in column:
            for t, action in enumerate(TRAJECTORIES[index]):
                states[row, n], actions[row, n], rewards[row, n] = t, action, REWARDS[t, action]
                valid[row, n], ended[row, n] = True, t == len(TRAJECTORIES[index]) - 1
                row += 1
    zeros = np.zeros(shape, np.float32)
    fields = Inputs(states), actions, zeros, rewards, ended, np.zeros(shape, bool), Inputs(states + 1), valid
    return tf.nest.map_structure(tf.constant, Rollout(*fields))


def padded(rollout, horizon):
    """The same with rows that are no transitions until `horizon`, so that all have one shape."""
    return tf.nest.map_structure(lambda x: tf.pad(x, [[0, horizon - x.shape[0]], [0, 0]]), rollout)


def mean_update(agent, episodes, num_envs, unit=lambda rollout: 1.0):
    """The expectation of what one update adds to the logits, [states, actions], over all that can happen.

    Every multiset of trajectories once, with its multinomial probability: an update does not depend on their order.
    `unit` gives the number that each update is multiplied by.
    """
    kernel, start = agent.head.dense.kernel, agent.head.dense.kernel.numpy()
    step = tf.function(agent.train_step, autograph=False)
    count, mean = episodes * num_envs, 0.0
    for chosen in itertools.combinations_with_replacement(range(len(TRAJECTORIES)), count):
        columns = [chosen[n * episodes : (n + 1) * episodes] for n in range(num_envs)]
        repeats = [chosen.count(i) for i in range(len(TRAJECTORIES))]
        ways = math.factorial(count) / math.prod(map(math.factorial, repeats))
        probability = ways * math.prod(p**k for p, k in zip(probabilities(), repeats, strict=True))
        data = padded(rollout(columns), LONGEST * episodes)
        step(data)
        mean += probability * unit(data) * (kernel.numpy() - start)
        kernel.assign(start)
    return mean[:LONGEST]


def slope(estimate, exact):
    """How many times `exact` the estimate is, by least squares, and how far off it is beside that."""
    factor = float(np.sum(estimate * exact) / np.sum(exact**2))
    return factor, float(np.abs(estimate - factor * exact).max() / np.abs(exact).max())
