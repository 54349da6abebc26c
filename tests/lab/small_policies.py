"""Policies and critics of the laboratory's tests, over the states of small processes."""

import gymnasium as gym
import keras
import numpy as np

import kerasrl_pg as pg


def tabular(states, actions, seed=0):
    """A preference for each state and action (chapter 4.5)."""
    return _policy(pg.models.Tabular(drawn(seed)), states, actions, seed)


def linear(states, actions, seed=0):
    """Linear in three fixed features of state and action (chapter 4.5.1)."""
    return _policy(pg.models.Linear(Features(actions, seed + 1), drawn(seed)), states, actions, seed)


def neural(states, actions, seed=0):
    """A small network's scores of states and described actions (chapter 4.5.2)."""
    described = np.random.default_rng(seed).normal(size=(actions, 2))
    policy = _policy(pg.models.Scored(described, hidden_units=(4,)), states, actions, seed)
    for variable in policy.trainable_variables:  # As large as the other policies' weights.
        variable.assign(drawn(seed + len(variable.shape))(variable.shape))
    return policy


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


def _policy(networks, states, actions, seed):
    return networks.build(gym.spaces.Discrete(states), gym.spaces.Discrete(actions), seed)[0]


@keras.saving.register_keras_serializable("small_policies")
class Features(keras.layers.Layer):
    """φ(s, a) [B, A, 3], drawn once for each of at most eight states."""

    def __init__(self, actions, seed, **kwargs):
        super().__init__(**kwargs)
        self.actions, self.seed = actions, seed
        self.table = np.random.default_rng(seed).normal(size=(8, actions, 3)).astype("float32")

    def call(self, states):
        return keras.ops.take(self.table, states, axis=0)

    def get_config(self):
        return {**super().get_config(), "actions": self.actions, "seed": self.seed}
