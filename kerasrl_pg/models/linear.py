"""Policies and critics that are linear in features."""

import gymnasium as gym
import keras

from kerasrl_pg import heads
from kerasrl_pg.checks import knows_its_arguments
from kerasrl_pg.envs.spaces import ObservationSpec, check_buildable, kind_of
from kerasrl_pg.models.anew import anew
from kerasrl_pg.models.architecture import (
    Architecture,
    check_critic,
    check_omit,
    deserialized,
    drawing_from,
    head_for,
    initial_values,
    initializer_for,
    leaf_inputs,
    seen_leaves,
    values_to_config,
)
from kerasrl_pg.models.encoders import MOST_ONE_HOT, Encoding


@keras.saving.register_keras_serializable("kerasrl_pg")
class Linear(Architecture):
    """The policy that is linear in features: π(a|s) ∝ exp(θᵀ φ(s, a)) (chapter, section 4.5.1).

    What `features` gives decides what it is:

    | `features(observation)` | policy | critic |
    | --- | --- | --- |
    | φ(s, a), [B, A, p] | one θ [p] for all actions, which are Discrete | linear in φ(s, ·), [B, A p], and a constant |
    | φ(s), [B, p] | a θ_a [p] for each action, or each parameter of the head | linear in φ(s) and a constant |
    | None | as φ(s), that being the observation and a constant | linear in these |

    θ is `agent.head.dense.kernel`, [p, 1] or [p, A]. There is no constant beside your own features; where φ(s) wants
    one, put a 1 among them. The score ∇log π is `ops.linear_softmax_score`.

    Args:
        features: None for the observation itself, numbers as they are and choices as one-hot vectors; a Keras layer, or
            a function registered by `keras.saving.register_keras_serializable`, of the observation: a tensor [B, ...],
            or a dictionary of tensors by leaf; a `Box` comes as float32, choices as int32. A layer is made anew from
            its config, and its weights are not trained, or the policy would not be linear.
        initializer: Initial θ: an array [p] or [p, A], or any Keras initializer. "zeros", the uniform policy.
        critic: None for the one in the table, which starts at 0; or another policy class or `Networks`, whose critic is
            taken.
        omit: Names of the observation's leaves that are left out; None for `action_mask`, where it is one.

    Raises:
        ValueError: If `initializer` is no array of finite numbers and no initializer, or the function is not
            registered; of `build`, if features have another shape, or are left out where the observation has images,
            texts, or more than 1,024 choices.
        TypeError: If `features` is neither a layer nor a function, `critic` builds none, or `omit` are no names.

    Source: the chapter, section 4.5.1; Sutton et al. 2000, "Policy gradient methods for reinforcement learning with
    function approximation", section 3.

    >>> import gymnasium as gym, numpy as np
    >>> import kerasrl_pg as pg
    >>> @keras.saving.register_keras_serializable()
    ... def towards(place):  # How near each of three actions comes to place 4.
    ...     after = keras.ops.expand_dims(place, -1) + np.int32([-1, 0, 1])
    ...     return keras.ops.expand_dims(-keras.ops.abs(keras.ops.cast(after - 4, "float32")), -1)
    >>> agent = pg.REINFORCE(networks=Linear(towards, initializer=[1.0]), seed=0)
    >>> agent.bind(gym.spaces.Discrete(9), gym.spaces.Discrete(3))
    >>> agent(np.int32([0, 8])).probs_parameter().numpy().round(2)
    array([[0.09, 0.24, 0.67],
           [0.67, 0.24, 0.09]], dtype=float32)
    """

    @knows_its_arguments
    def __init__(self, features=None, initializer="zeros", critic=None, omit=None):
        check_features(features)
        check_critic(critic)
        check_omit(omit)
        self.features = features
        self.initializer = initial_values(initializer)
        self.critic = critic
        self.omit = None if omit is None else tuple(omit)

    def build(self, observation_space, action_space, seed):
        spec = ObservationSpec(observation_space)
        check_buildable(spec, action_space)
        with drawing_from(seed):
            policy = self._model("policy", spec, lambda features: self._policy(features, action_space))
            if self.critic is None:
                return policy, self._model("critic", spec, value_of)
        return policy, self.critic.build(observation_space, action_space, seed)[1]

    def _model(self, name, spec, outputs):
        inputs, leaves = leaf_inputs(spec), seen_leaves(spec, self.omit)
        features = self._observation(inputs, leaves, spec) if self.features is None else self._own(inputs, leaves, spec)
        return keras.Model(inputs["observation"] if spec.single else inputs, outputs(features), name=name)

    def _observation(self, inputs, leaves, spec):
        encode, encodings = Encoding(None, None, None), []
        for name, space in leaves.items():
            kind, x = kind_of(space), inputs[name]
            grid = kind == "categories" and isinstance(space, gym.spaces.Box)
            if kind not in ("numbers", "categories") or grid or _most(space) > MOST_ONE_HOT:
                raise ValueError(
                    f"`features` must be given where the observation is no vector of numbers or of at most "
                    f"{MOST_ONE_HOT:,} choices. Received: features=None, {spec.place(name)} {space}."
                )
            encodings.append(encode(name, space, x, kind, None))
        return encodings[0] if len(encodings) == 1 else keras.layers.Concatenate()(encodings)

    def _own(self, inputs, leaves, spec):
        seen = {
            name: keras.ops.cast(inputs[name], "float32") if isinstance(space, gym.spaces.Box) else inputs[name]
            for name, space in leaves.items()
        }
        seen = seen["observation"] if spec.single else seen
        if isinstance(self.features, keras.Layer):
            layer = anew(self.features, "features")
            layer.trainable = False
        else:
            layer = FeatureMap(self.features)
        try:
            features = layer(seen)
        except Exception as error:  # Whatever a user's own code raises.
            told = str(error).split("Error encountered:")[-1].strip().splitlines() or [""]  # In Keras's, amid others.
            raise ValueError(
                f"`features` must take what networks see of {spec.space}, {_told(seen)}. "
                f"Received: {self.features!r}, which fails with {type(error).__name__}: {told[0]}"
            ) from error
        if not isinstance(features, keras.KerasTensor) or len(features.shape) not in (2, 3):
            raise ValueError(
                "`features` must give one tensor, [B, A, p] of observations and actions or [B, p] of observations. "
                f"Received: {features!r} of {self.features!r}."
            )
        if None in features.shape[1:] or not str(features.dtype).startswith(("float", "bfloat")):
            raise ValueError(
                "`features` must give floats of a size that is known but for the batch. "
                f"Received: {features.shape} of {features.dtype}, of {self.features!r}."
            )
        return features

    def _policy(self, features, space):
        if len(features.shape) == 3:
            count, size = features.shape[1:]
            if not isinstance(space, gym.spaces.Discrete) or int(space.n) != count:
                raise ValueError(
                    f"`features` must give a row for each action of a Discrete space, [B, A, p]. Received: {count} "
                    f"rows, [B, {count}, {size}], for {space}. Of the observation alone they are [B, p]."
                )
            initializer = initializer_for(self.initializer, (size,), "a number for each feature")
            return heads.ScoredCategorical.from_space(space, kernel_initializer=initializer)(features)
        rows, use_bias = features.shape[1], self.features is None
        return head_for(space, self.initializer, rows, "features", use_bias)(features)

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        return {
            "features": self.features and serialize(self.features),
            "initializer": values_to_config(self.initializer),
            "critic": self.critic and serialize(self.critic),
            "omit": self.omit and list(self.omit),
        }

    @classmethod
    def from_config(cls, config):
        return cls(**deserialized(config, "features", "initializer", "critic"))


def value_of(features):
    """The critic's value: linear in all features [B, ...] and a constant, and 0 at first."""
    if len(features.shape) == 3:
        features = keras.layers.Flatten()(features)
    return heads.NormalValue("zeros")(features)


def _told(seen):
    """Shapes and dtypes of an observation, for a sentence."""
    if isinstance(seen, dict):
        return ", ".join(f"{name!r}: {_told(part)}" for name, part in seen.items())
    return f"{tuple(seen.shape)} of {seen.dtype}"


def _most(space):
    """The most choices that one entry of a leaf has; 0 where it has none."""
    if isinstance(space, gym.spaces.Discrete):
        return int(space.n)
    return int(space.nvec.max()) if isinstance(space, gym.spaces.MultiDiscrete) else 0


@keras.saving.register_keras_serializable("kerasrl_pg")
class FeatureMap(keras.layers.Layer):
    """A registered function of observations as a layer, so that it may use Keras's operations or TensorFlow's.

    Args:
        function: The function.
        **kwargs: Of `keras.layers.Layer`.
    """

    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.function = function

    def call(self, observations):
        return self.function(observations)

    def get_config(self):
        return {**super().get_config(), "function": keras.saving.serialize_keras_object(self.function)}

    @classmethod
    def from_config(cls, config):
        return cls(**deserialized(config, "function"))


def check_features(features):
    """Refuses what is neither a layer nor a function that a file can name; argument of `Linear`."""
    if features is None:
        return
    if isinstance(features, type) or not callable(features):
        remedy = ", a class. Pass an instance of it." if isinstance(features, type) else "."
        raise TypeError(
            "`features` must be None, a Keras layer, or a registered function of the observation. "
            f"Received: features={features!r}{remedy}"
        )
    if isinstance(features, keras.Layer):
        anew(features, "features")
    elif keras.saving.get_registered_object(keras.saving.get_registered_name(features)) is not features:
        raise ValueError(
            "`features` must be a function that a file can name. "
            f"Received: features={features!r}, which is not registered. Write it with `def`, under "
            "@keras.saving.register_keras_serializable()."
        )
