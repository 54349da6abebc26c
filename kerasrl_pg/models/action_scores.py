"""Neural policies f(s, a): one network that scores the actions by what they are."""

import gymnasium as gym
import keras
import numpy as np

from kerasrl_pg import heads
from kerasrl_pg.checks import knows_its_arguments
from kerasrl_pg.models.anew import anew
from kerasrl_pg.models.architecture import check_critic, deserialized
from kerasrl_pg.models.encoders import activated
from kerasrl_pg.models.networks import Networks


@keras.saving.register_keras_serializable("kerasrl_pg")
class Scored(Networks):
    """The neural policy that scores state and action together: π(a|s) ∝ exp(f_θ(s, a)) (chapter, section 4.5.2).

    Observation and action are encoded side by side and pass through the dense layers `hidden_units` to one number, with
    the same weights for every action. Where actions are described by features of your own, no weight depends on how
    many there are, so that `other_policy.set_weights(policy.get_weights())` scores another set by what was learnt.
    Memory stands between the observation's encoding and the first layer that sees an action. The critic has layers of
    the same widths over observations alone.

    A pass over B rows takes B x A x width numbers a layer: 262 MB for 1,024 rows, 1,000 actions and 64 units.

    Args:
        action_features: Array [A, k] that describes the actions, in their order; None for one-hot vectors, by which no
            action tells of another.
        hidden_units: Widths of the dense layers, at least one: without any, what the state adds would be the same for
            all actions. (64, 64), as in Schulman et al. 2017 (arXiv 1707.06347), section 6.1.
        critic: None, or another policy class or `Networks`, whose critic is taken.
        activation, orthogonal, normalize_observations, observation_clip, critic_head, encoders, memory: See `Networks`.

    Raises:
        ValueError: If there is no hidden layer, or features are no table of finite numbers; of `build`, if actions are
            not Discrete, or are not as many as are described.
        TypeError: If `critic` builds none; and as `Networks`.

    Source: the chapter, section 4.5.2; actions by features as in Dulac-Arnold et al. 2015, "Deep reinforcement learning
    in large discrete action spaces" (arXiv 1512.07679), section 3.

    >>> import gymnasium as gym
    >>> observations, colours = gym.spaces.Box(-1, 1, (2,)), np.eye(3)[[0, 1, 2, 1]]
    >>> policy, _ = Scored(colours, hidden_units=(8,)).build(observations, gym.spaces.Discrete(4), seed=0)
    >>> fewer, _ = Scored(colours[2:], hidden_units=(8,)).build(observations, gym.spaces.Discrete(2), seed=1)
    >>> fewer.set_weights(policy.get_weights())
    >>> x = np.float32([[0.3, -0.7]])
    >>> bool(np.allclose(fewer(x).logits, policy(x).logits[:, 2:]))
    True
    """

    @knows_its_arguments
    def __init__(
        self,
        action_features=None,
        hidden_units=(64, 64),
        critic=None,
        activation=None,
        orthogonal=True,
        normalize_observations=False,
        observation_clip=10.0,
        critic_head=None,
        encoders=None,
        memory=None,
    ):
        super().__init__(
            hidden_units=hidden_units,
            activation=activation,
            orthogonal=orthogonal,
            normalize_observations=normalize_observations,
            observation_clip=observation_clip,
            critic_head=critic_head,
            encoders=encoders,
            memory=memory,
        )
        check_critic(critic)
        if not self.hidden_units:
            raise ValueError(
                "`hidden_units` must have at least one layer, since without any the state would add the same to every "
                f"action's score. Received: hidden_units={hidden_units!r}. Take Linear(features) for a linear policy."
            )
        self.action_features = None if action_features is None else read_features(action_features)
        self.critic = critic

    def build(self, observation_space, action_space, seed):
        if not isinstance(action_space, gym.spaces.Discrete):
            raise ValueError(
                f"`action_space` must be Discrete for actions to be scored one by one. Received: {action_space}. "
                "Take Networks()."
            )
        described = action_space.n if self.action_features is None else len(self.action_features)
        if described != action_space.n:
            raise ValueError(
                f"`action_features` must have a row for each of the {action_space.n} actions. "
                f"Received: {described} rows."
            )
        policy, critic = super().build(observation_space, action_space, seed)
        if self.critic is not None:
            critic = self.critic.build(observation_space, action_space, seed)[1]
        return policy, critic

    def _build(self, spec, encoders, action_space, seeds):
        initializer = self._initializer(0.01, seeds)
        head = heads.ScoredCategorical.from_space(action_space, kernel_initializer=initializer)
        value_head = self._critic_head(seeds)
        inputs, features, _ = self._encoded(spec, encoders, seeds)
        if self.memory is not None:
            features = anew(self.memory, "memory")(features)
        first, *others = self.hidden_units
        initializer = self._initializer(np.sqrt(2.0), seeds)
        pairs = PairDense(first, int(action_space.n), self.action_features, kernel_initializer=initializer)
        features = activated(pairs, "tanh" if self.activation is None else self.activation, features)
        policy = keras.Model(inputs, head(self._hidden(features, others, seeds)), name="policy")
        inputs, features = self._trunk(spec, encoders, seeds)
        return policy, keras.Model(inputs, value_head(features), name="critic")

    def get_config(self):
        config = super().get_config()
        features = self.action_features
        return {
            **{name: value for name, value in config.items() if name not in ("head", "shared")},
            "action_features": None if features is None else features.tolist(),
            "critic": self.critic and keras.saving.serialize_keras_object(self.critic),
        }

    @classmethod
    def from_config(cls, config):
        return super().from_config(deserialized(config, "critic"))


@keras.saving.register_keras_serializable("kerasrl_pg")
class PairDense(keras.layers.Dense):
    """A dense layer on every pair of state and action, [features of the state, features of the action].

    What a pair gives is the sum of what its two parts give, so that pairs are put together behind the product with the
    kernel [d + k, units] and not before.

    Args:
        units: Width.
        num_actions: A.
        action_features: Array [A, k]; None for one-hot vectors.
        **kwargs: Of `keras.layers.Dense`.

    >>> layer = PairDense(4, num_actions=3, action_features=np.ones((3, 2)))
    >>> tuple(layer(np.ones((5, 6))).shape), tuple(layer.kernel.shape)
    ((5, 3, 4), (8, 4))
    """

    def __init__(self, units, num_actions, action_features=None, **kwargs):
        super().__init__(units, **kwargs)
        self.num_actions = num_actions
        self.action_features = None if action_features is None else read_features(action_features)

    def build(self, input_shape):
        described = self.num_actions if self.action_features is None else self.action_features.shape[1]
        super().build((None, input_shape[-1] + described))
        self.input_spec = keras.layers.InputSpec(ndim=2, axes={-1: input_shape[-1]})

    def call(self, states):
        """States [B, d] to [B, A, units]."""
        size = states.shape[-1]
        actions = self.kernel[size:]
        if self.action_features is not None:
            actions = keras.ops.matmul(keras.ops.cast(self.action_features, actions.dtype), actions)
        sums = keras.ops.expand_dims(keras.ops.matmul(states, self.kernel[:size]), 1) + actions
        return self.activation(sums if self.bias is None else sums + self.bias)

    def compute_output_shape(self, input_shape):
        return input_shape[0], self.num_actions, self.units

    def compute_output_spec(self, states):
        return keras.KerasTensor(self.compute_output_shape(states.shape), self.compute_dtype)

    def get_config(self):
        features = self.action_features
        return {
            **super().get_config(),
            "num_actions": self.num_actions,
            "action_features": None if features is None else features.tolist(),
        }


def read_features(action_features):
    """A table [A, k] of what describes the actions, as float32.

    Raises:
        ValueError: If it is none, or holds anything but finite numbers.
    """
    try:
        array = np.asarray(action_features)
    except ValueError:  # Rows of several lengths.
        array = np.asarray(None)
    if array.ndim != 2 or not array.size or array.dtype.kind not in "biuf" or not np.isfinite(array).all():
        told = f"shape {array.shape} of {array.dtype}" if array.dtype.kind in "biuf" else repr(action_features)[:200]
        raise ValueError(
            f"`action_features` must be a table [A, k] of finite numbers, a row for each action. Received: {told}."
        )
    return array.astype("float32")
