"""A policy of the library over all states of a small process, as a function of its parameters in float64."""

import contextlib

import keras
import numpy as np
import tensorflow as tf

from kerasrl_pg.agents import Agent
from kerasrl_pg.heads import heads_of


@contextlib.contextmanager
def in_float64(model):
    """Inside, the layers of a Keras model compute in float64, whatever they do outside; weights stay as they are."""
    layers = list({id(layer): layer for layer in model._flatten_layers()}.values())
    before = [layer.dtype_policy for layer in layers]
    try:
        for layer in layers:
            layer.dtype_policy = keras.DTypePolicy("float64")
        yield
    finally:
        for layer, policy in zip(layers, before, strict=True):
            layer.dtype_policy = policy


def parameters(variables):
    """The numbers in variables, one after the other: float64 [P]."""
    return np.concatenate([np.asarray(v, np.float64).reshape(-1) for v in variables] or [np.zeros(0)])


def split(variables, theta):
    """Numbers [P] as arrays of the variables' shapes."""
    sizes = np.cumsum([int(np.prod(v.shape)) for v in variables])[:-1]
    return [part.reshape(v.shape) for part, v in zip(np.split(theta, sizes), variables, strict=True)]


def assign(variables, theta):
    """Sets variables to numbers [P], rounded to their precision."""
    for variable, value in zip(variables, split(variables, np.asarray(theta, np.float64)), strict=True):
        variable.assign(value)


class PolicyTable:
    """π_θ(a|s) for every state s and action a, and its slopes, by autodiff of the policy's own computation.

    That computation runs in float64 with float64 parameters, though weights are kept in float32: θ may be moved by less
    than float32 can tell, and probabilities and slopes are exact to some 1e-15, but where a layer itself casts.

    Args:
        policy: A built agent without memory, or a Keras model that ends in a head over `Discrete` actions.
        observations: [S, ...], what it sees in each state, as `MDP.observations`.

    Attributes:
        theta: float64 [P], the weights as they stand, in the order of the policy's trainable variables.

    Raises:
        ValueError: If the policy is not built, remembers, has actions masked, or its actions cannot be listed.

    >>> import gymnasium as gym
    >>> import kerasrl_pg as pg
    >>> agent = pg.REINFORCE(networks=pg.Networks(()), horizon=10, seed=0)
    >>> agent.bind(gym.spaces.Discrete(4), gym.spaces.Discrete(2))
    >>> table = PolicyTable(agent, np.arange(4))
    >>> table.probabilities().shape, table.scores().shape, table.probabilities().dtype
    ((4, 2), (4, 2, 10), dtype('float64'))
    """

    def __init__(self, policy, observations):
        self._model = policy.policy if isinstance(policy, Agent) else policy
        if isinstance(policy, Agent):
            check_stateless(policy)
        heads = heads_of(self._model)
        if len(heads) != 1 or not hasattr(heads[0], "num_actions"):
            raise ValueError(
                f"`policy` must end in one head over `Discrete` actions, as `heads.Categorical`. Received: {heads!r}."
            )
        self._actions = tf.range(heads[0].num_actions)
        self._observations = tf.convert_to_tensor(observations)
        self.variables = self._model.trainable_variables
        self._log_probs = tf.function(self._compute, autograph=False)
        self._pull, self._jacobian = (tf.function(f, autograph=False) for f in (self._pulled, self._slopes))

    @property
    def theta(self):
        return parameters(self.variables)

    def assign(self, theta):
        """Sets the policy's weights to θ, rounded to their precision."""
        assign(self.variables, theta)

    def _given(self, theta):
        theta = self.theta if theta is None else np.asarray(theta, np.float64)
        return [tf.constant(part, tf.float64) for part in split(self.variables, theta)]

    def _compute(self, values):
        """log π(a|s), float64 [S, A], with these values of the variables."""
        scope = keras.StatelessScope()
        for pair in zip(self.variables, values, strict=True):
            scope.add_update(pair)  # Which, unlike the constructor, does not round them.
        with in_float64(self._model), scope:
            log_probs = self._model(self._observations).log_prob(self._actions[:, None])
        return tf.transpose(log_probs)

    def _pulled(self, values, weights):
        with tf.GradientTape() as tape:
            tape.watch(values)
            total = tf.reduce_sum(weights * tf.exp(self._compute(values)))
        return tape.gradient(total, values, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    def _slopes(self, values):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(values)
            log_probs = self._compute(values)
        zero = tf.UnconnectedGradients.ZERO  # A loop, whose vectorised form takes a second to be traced.
        return tape.jacobian(log_probs, values, unconnected_gradients=zero, experimental_use_pfor=False)

    def probabilities(self, theta=None):
        """π_θ(a|s), float64 [S, A]; of the weights as they stand where θ is None."""
        return np.exp(self._log_probs(self._given(theta)).numpy())

    def slope(self, weights, theta=None):
        """Σ_sa w(s, a) ∇π(a|s), float64 [P], of weights [S, A]: with `MDP.credit` the policy gradient."""
        parts = self._pull(self._given(theta), tf.constant(weights, tf.float64))
        return np.concatenate([part.numpy().reshape(-1) for part in parts])

    def scores(self, theta=None):
        """∇log π(a|s), float64 [S, A, P]."""
        parts = self._jacobian(self._given(theta))
        return np.concatenate([part.numpy().reshape(*part.shape[:2], -1) for part in parts], -1)


def check_stateless(agent):
    """Refuses an agent whose actions depend on more than what it sees now."""
    if agent.actor_critic is None:
        what = ", which is not built. Call `bind` with the environment's spaces, or `fit`"
    elif agent.actor_critic.memories:
        what = ", which remembers"
    elif agent.action_masks is not None:
        what = f", whose actions are masked: action_masks={agent.action_masks!r}"
    else:
        return
    raise ValueError(f"`policy` must be a built agent without memory and masks. Received: {agent!r}{what}.")


def table_of(policy, mdp):
    """`PolicyTable` of an agent or a Keras model in an `MDP`; a table itself is handed through."""
    return policy if isinstance(policy, PolicyTable) else PolicyTable(policy, mdp.observations)
