"""A policy and a critic as one noun: what is called, asked for values, and trained."""

import dataclasses

import gymnasium as gym
import keras
import numpy as np
import tensorflow as tf

from kerasrl_pg import ops
from kerasrl_pg.envs.spaces import ObservationSpec
from kerasrl_pg.heads import Head, ValueHead
from kerasrl_pg.models.memory import memories, recall
from kerasrl_pg.models.normalization import normalizer_inputs, normalizers
from kerasrl_pg.rollouts.records import Inputs


@dataclasses.dataclass(frozen=True, eq=False)
class ActorCritic:
    """A policy and a critic that fit an environment.

    Args:
        policy: Keras model, observations [B, ...] to a distribution over raw actions.
        critic: Keras model, observations [B, ...] to a distribution over returns, or None.
        shared: The one model behind both, with outputs "policy" and "value", or None.
        head: The policy's `Head`.
        critic_head: The critic's `ValueHead`, or None.
        spec: The `ObservationSpec` of the environment.
        observation_space, action_space: Of one environment.
        mask_key: The leaf of the observations that says which actions are allowed, or None.

    Attributes:
        memories: The `Memory` layers of both, the policy's first, each once.
    """

    policy: keras.Model
    critic: keras.Model | None
    shared: keras.Model | None
    head: Head
    critic_head: ValueHead | None
    spec: ObservationSpec
    observation_space: gym.Space
    action_space: gym.Space
    mask_key: str | None = None
    memories: tuple = ()

    def __post_init__(self):
        object.__setattr__(self, "memories", tuple(memories(*self.models)))  # The policy's first.

    @property
    def models(self):
        """Policy and critic, where there is one."""
        return [model for model in (self.policy, self.critic) if model is not None]

    @property
    def policy_variables(self):
        """Trainable variables of the policy."""
        return self.policy.trainable_variables

    @property
    def critic_variables(self):
        """Trainable variables of the critic; none without one."""
        return [] if self.critic is None else self.critic.trainable_variables

    @property
    def variables(self):
        """Trainable variables of policy and critic, each once."""
        return list({id(v): v for v in [*self.policy_variables, *self.critic_variables]}.values())

    @property
    def critic_alone(self):
        """Trainable variables of the critic, without those that are the policy's, too."""
        shared = {id(v) for v in self.policy_variables}
        return [v for v in self.critic_variables if id(v) not in shared]

    @property
    def memory_size(self):
        """Numbers that both remember of one environment; the policy's stand first."""
        return sum(layer.size for layer in self.memories)

    @property
    def policy_memory_size(self):
        """Numbers that the policy remembers of one environment."""
        return sum(layer.size for layer in memories(self.policy))

    def inputs(self, observations, masks=(), starts=(), memory=()):
        """`Inputs` [..., ...] of observations, tensors or arrays; masks are taken from them where they hold some."""
        if self.mask_key is None:
            return Inputs(observations, masks, starts, memory)
        masks = observations[self.mask_key] > 0
        reshape = np.reshape if isinstance(masks, np.ndarray) else tf.reshape
        leading = masks.shape[: len(masks.shape) - len(self.spec.specs[self.mask_key].shape)]
        leading = [-1 if size is None else size for size in leading]
        return Inputs(observations, reshape(masks, [*leading, *self.head.mask_shape]), starts, memory)

    def masked(self, distribution, inputs):
        """The policy's distribution over what `Inputs` allow."""
        return distribution if isinstance(inputs.masks, tuple) else self.head.mask(distribution, inputs.masks)

    def recalling(self, model, inputs):
        """What a model gives for `Inputs` [B, ...], and the memory after them; without one in them, each row begins an
        episode."""
        if isinstance(inputs.memory, tuple):
            return model(inputs.observations), ()
        layers = self.memories
        if inputs.memory.shape[-1] < self.memory_size:
            layers = memories(self.policy)
        starts = inputs.starts
        if isinstance(starts, tuple):
            starts = tf.zeros(tf.shape(inputs.memory)[:1] * inputs.length, tf.bool)
        return recall(lambda: model(inputs.observations), layers, inputs.memory, starts, inputs.length)

    def step(self, inputs):
        """`(distribution, memory)`: the policy's for `Inputs` [B, ...], and what is remembered after them: by both
        networks, or by the policy where the inputs' memory is the policy's alone."""
        if isinstance(inputs.memory, tuple) or inputs.memory.shape[-1] == self.policy_memory_size:
            distribution, memory = self.recalling(self.policy, inputs)
        elif self.shared is not None:
            outputs, memory = self.recalling(self.shared, inputs)
            distribution = outputs["policy"]
        else:
            (distribution, _), memory = self.recalling(lambda x: (self.policy(x), self.critic(x)), inputs)
        return self.masked(distribution, inputs), memory

    def distribution(self, inputs):
        """The policy's distribution for `Inputs` [B, ...]."""
        return self.masked(self.recalling(self.policy, inputs)[0], inputs)

    def value_distribution(self, inputs):
        """The critic's distribution over returns for `Inputs` [B, ...]; None without a critic."""
        return None if self.critic is None else self.recalling(self.critic, inputs)[0]

    def forward(self, inputs):
        """`(distribution, value_distribution)` for `Inputs` [B, ...], one pass where the networks share layers; the
        second is None without a critic."""
        if self.shared is not None:
            outputs, _ = self.recalling(self.shared, inputs)
            return self.masked(outputs["policy"], inputs), outputs["value"]
        return self.distribution(inputs), self.value_distribution(inputs)

    def values(self, inputs):
        """V(s) [T, N] of `Inputs` [T, N, ...]; 0 without a critic."""
        leading = tf.shape(tf.nest.flatten(inputs.observations)[0])[:2]
        if self.critic is None:
            return tf.zeros(leading)
        return tf.reshape(self.value_distribution(ops.flatten_time(inputs)).mean(), leading)

    def update_normalizers(self, inputs, valid):
        """Merges what `Inputs` [B, ...] give every `RunningNormalization` of both models into it, but for the rows
        that are not `valid` [B]."""
        # What stands in both would learn twice.
        models = [self.shared] if self.shared is not None and self.critic is not None else self.models
        models = [model for model in models if normalizers(model)]
        # All inputs first, because an update moves the input of a normaliser behind it.
        for layer, given in [pair for model in models for pair in normalizer_inputs(model, inputs.observations)]:
            layer.update(given, valid)


def regularized(variables):
    """Those of the Keras variables that have a regularizer."""
    return [v for v in variables if getattr(v, "regularizer", None) is not None]


def regularization(variables):
    """What the regularizers of Keras variables add to a loss; float32, of the loss's type and not the weights'."""
    return sum(tf.cast(v.regularizer(v), tf.float32) for v in regularized(variables))
