"""The table: one number for each state and action."""

import math

import gymnasium as gym
import keras
import numpy as np

from kerasrl_pg import heads
from kerasrl_pg.checks import knows_its_arguments
from kerasrl_pg.envs.spaces import ObservationSpec, check_buildable
from kerasrl_pg.models.architecture import (
    Architecture,
    check_critic,
    check_omit,
    deserialized,
    drawing_from,
    head_for,
    initial_values,
    leaf_inputs,
    seen_leaves,
    values_to_config,
)

MOST_STATES = 2**14  # Ours: the one-hot vectors of a rollout of 2,048 rows take 128 MiB then.


@keras.saving.register_keras_serializable("kerasrl_pg")
class Tabular(Architecture):
    """The tabular policy: a preference θ[s, a] for each state and action, and a table V[s] (chapter, section 4.5).

        π(a|s) = exp(θ[s, a]) / Σ_a' exp(θ[s, a'])

    States are those of a `Discrete`, `MultiDiscrete` or `MultiBinary` observation, or of a `Dict` or `Tuple` of these,
    each combination one. θ is `agent.head.dense.kernel`, [S, A], and V `agent.critic_head.dense.kernel`, [S, 1], in the
    order of the states, the last part the fastest. Where actions are not `Discrete`, a row of θ holds the parameters of
    the head that the action space calls for.

    Args:
        initializer: Initial θ: an array [S, A], or any Keras initializer. "zeros", the uniform policy.
        critic: None for the table V[s], which starts at 0; or a policy class or `Networks`, whose critic is taken.
        omit: Names of the observation's leaves that are no part of the state; None for `action_mask`, where it is one.

    Raises:
        ValueError: If `initializer` is no array of finite numbers and no initializer; of `build`, if a leaf has no
            finite number of values, there are more than 16,384 states, or θ has another shape.
        TypeError: If `critic` builds none, or `omit` are no names.

    Source: the chapter, section 4.5; Sutton and Barto 2018, section 13.1.

    >>> import gymnasium as gym
    >>> import kerasrl_pg as pg
    >>> agent = pg.REINFORCE(networks=Tabular(initializer=[[0.0, 0.0], [0.0, 2.0], [0.0, -2.0]]), seed=0)
    >>> agent.bind(gym.spaces.Discrete(3), gym.spaces.Discrete(2))
    >>> agent(np.arange(3)).probs_parameter().numpy().round(3)
    array([[0.5  , 0.5  ],
           [0.119, 0.881],
           [0.881, 0.119]], dtype=float32)
    """

    @knows_its_arguments
    def __init__(self, initializer="zeros", critic=None, omit=None):
        check_critic(critic)
        check_omit(omit)
        self.initializer = initial_values(initializer)
        self.critic = critic
        self.omit = None if omit is None else tuple(omit)

    def build(self, observation_space, action_space, seed):
        spec = ObservationSpec(observation_space)
        check_buildable(spec, action_space)
        with drawing_from(seed):
            policy = self._model("policy", spec, lambda n: head_for(action_space, self.initializer, n, "states"))
        if self.critic is not None:
            return policy, self.critic.build(observation_space, action_space, seed)[1]
        return policy, self._model("critic", spec, lambda _: heads.NormalValue("zeros", use_bias=False))

    def _model(self, name, spec, head):
        inputs, leaves = leaf_inputs(spec), seen_leaves(spec, self.omit)
        state = OneHotState(*choices_of(leaves, spec))
        features = state([inputs[leaf] for leaf in leaves])
        head = head(features.shape[-1])
        return keras.Model(inputs["observation"] if spec.single else inputs, head(features), name=name)

    def get_config(self):
        return {
            "initializer": values_to_config(self.initializer),
            "critic": self.critic and keras.saving.serialize_keras_object(self.critic),
            "omit": self.omit and list(self.omit),
        }

    @classmethod
    def from_config(cls, config):
        return cls(**deserialized(config, "initializer", "critic"))


@keras.saving.register_keras_serializable("kerasrl_pg")
class OneHotState(keras.layers.Layer):
    """Choices side by side as one state, a one-hot vector over all combinations, the last choice the fastest.

    Args:
        starts, sizes: Smallest value and number of values of each choice, in the order of the inputs' entries.
        **kwargs: Of `keras.layers.Layer`.

    >>> OneHotState([0, 5], [2, 3])([np.int32([0, 1]), np.int32([7, 5])]).numpy().argmax(-1)
    array([2, 3])
    """

    def __init__(self, starts, sizes, **kwargs):
        super().__init__(**kwargs)
        self.starts, self.sizes = [int(start) for start in starts], [int(size) for size in sizes]
        self.strides = [math.prod(self.sizes[i + 1 :]) for i in range(len(self.sizes))]

    def call(self, parts):
        """Parts, a list of [B, ...], to [B, S]."""
        columns = [keras.ops.reshape(keras.ops.cast(part, "int32"), (-1, math.prod(part.shape[1:]))) for part in parts]
        entries = keras.ops.concatenate(columns, axis=-1) - np.asarray(self.starts, "int32")
        state = keras.ops.sum(entries * np.asarray(self.strides, "int32"), axis=-1)
        return keras.ops.one_hot(state, math.prod(self.sizes), dtype=self.compute_dtype)

    def compute_output_spec(self, parts):
        return keras.KerasTensor((parts[0].shape[0], math.prod(self.sizes)), self.compute_dtype)

    def get_config(self):
        return {**super().get_config(), "starts": self.starts, "sizes": self.sizes}


def choices_of(leaves, spec):
    """`(starts, sizes)` of all choices that make up a state, of leaves by name; refuses what has no finite number."""
    starts, sizes = [], []
    for name, space in leaves.items():
        if isinstance(space, gym.spaces.Discrete):
            start, size = [space.start], [space.n]
        elif isinstance(space, gym.spaces.MultiDiscrete):
            start, size = space.start.reshape(-1), space.nvec.reshape(-1)
        elif isinstance(space, gym.spaces.MultiBinary):
            start, size = [0] * math.prod(space.shape), [2] * math.prod(space.shape)
        else:
            raise ValueError(
                f"`{spec.place(name)}` must be Discrete, MultiDiscrete or MultiBinary for a table of states. "
                f"Received: {space}. Take Linear(features) or Networks(), or omit=[{name!r}] to leave it out."
            )
        starts += map(int, start)
        sizes += map(int, size)
    if math.prod(sizes) > MOST_STATES:
        raise ValueError(
            f"`observation_space` must have at most {MOST_STATES:,} states for a table. Received: "
            f"{math.prod(sizes):,} combinations, of {spec.space}. Take Linear(features) or Networks()."
        )
    return starts, sizes
