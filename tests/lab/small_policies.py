"""Policies and critics of the laboratory's tests, over the states of small processes."""

import keras
import numpy as np

import kerasrl_pg as pg


def tabular(states, actions, seed=0):
    """A softmax over a preference for each state and action (chapter 4.5)."""
    return _policy(states, actions, [], seed)


def linear(states, actions, seed=0):
    """A softmax over linear functions of three fixed features of the state (chapter 4.5.1)."""
    features = keras.layers.Dense(3, use_bias=False, kernel_initializer=drawn(seed + 1), trainable=False)
    return _policy(states, actions, [features], seed)


def neural(states, actions, seed=0):
    """A softmax over a small network's scores (chapter 4.5.2)."""
    return _policy(states, actions, [keras.layers.Dense(4, "tanh", kernel_initializer=drawn(seed + 1))], seed)


POLICIES = {"tabular": tabular, "linear": linear, "neural": neural}


def critic(values):
    """A critic that gives exactly these values [S]."""
    inputs = keras.Input((), dtype="int32")
    head = pg.heads.NormalValue()
    model = keras.Model(inputs, head(keras.ops.one_hot(inputs, len(values))))
    head.dense.kernel.assign(np.reshape(values, (-1, 1)))
    return model


def drawn(seed):
    return keras.initializers.RandomNormal(stddev=1.0, seed=seed)


def _policy(states, actions, layers, seed):
    inputs = keras.Input((), dtype="int32")
    x = keras.ops.one_hot(inputs, states)
    for layer in layers:
        x = layer(x)
    return keras.Model(inputs, pg.heads.Categorical(actions, kernel_initializer=drawn(seed))(x))
