"""Policies and critics as Keras models, made from an environment's spaces."""

import keras
import numpy as np

from kerasrl_pg import heads
from kerasrl_pg.checks import check_flag, check_number, knows_its_arguments
from kerasrl_pg.envs.spaces import ObservationSpec, check_buildable
from kerasrl_pg.models.anew import anew
from kerasrl_pg.models.architecture import Architecture, drawing_from, leaf_inputs
from kerasrl_pg.models.encoders import Encoding, activated, check_encoders, encoders_of
from kerasrl_pg.models.memory import memory_layer
from kerasrl_pg.models.normalization import RunningNormalization


@keras.saving.register_keras_serializable("kerasrl_pg")
class Networks(Architecture):
    """What networks an agent builds for itself when it first sees an environment.

    Each leaf of the observation is encoded by its kind (`envs.spaces.kind_of`), unless `encoders` says otherwise:

    | kind | features |
    | --- | --- |
    | "image" | put between 0 and 1 by its bounds, then the convolutions and the hidden layer of Mnih et al. 2015 or, |
    | | below 36 pixels, of Young and Tian 2019; see `models.cnn`. Below 36 pixels, those with bounds 0 and 255 are |
    | | divided by their root mean square first |
    | "categories" | a one-hot vector, or an embedding where there are more than 1,024 choices; of a grid, one for |
    | | each cell and channel, then convolutions as for images |
    | "text" | a one-hot vector for each character, or an embedding where that makes more than 1,024 numbers |
    | "numbers" | as they are, flattened |
    | "omit" | none: the leaf is left out |

    The features stand side by side and pass through the dense layers `hidden_units` to the head. No two networks share
    a layer: where you give a layer, each of them gets its own, made from its config.

    A space cannot say that its bytes are no pixels: MiniGrid's has bounds 0 and 255, and holds numbers up to 10 of
    objects, colours and states. Over 255 they are too small to tell apart (PPO did not learn DoorKey-5x5 in 98,000
    steps), so that small images are put to one scale (learned in 33,000), whatever part of their range they use.
    What they are is `encoders={"image": "categories"}`, which is steadier, and slower to compute.

    Args:
        hidden_units: Widths of the dense layers. None for (64, 64), as in Schulman et al. 2017 (arXiv 1707.06347),
            section 6.1, and for none where the observation is one image or grid, which has passed a hidden layer.
        activation: Any Keras activation of the dense and convolution layers, or a layer, such as
            `keras.layers.PReLU()`. None for ReLU in and behind convolutions, as in both their sources, and "tanh" in
            the dense layers, as in Schulman et al.; Engstrom et al. 2020 count it among PPO's code-level optimisations.
        encoders: None, or what to do with leaves otherwise than by their kinds: a dictionary by the leaf's name in
            `ObservationSpec(space).specs`, or its only value where the observation is one leaf. An encoder is one of
            the kinds above, a Keras layer, or a named function of the leaf's symbolic tensor; these take a `Box` as
            float32, choices and characters as int32, and give floats [B, ...]. A layer starts from its config, without
            the weights it may have. Text that you would vectorise by words, as with `keras.layers.TextVectorization`,
            is a `MultiDiscrete` made in a `gymnasium.ObservationWrapper`.
        orthogonal: Orthogonal initial weights with gain √2 in the hidden layers, 0.01 in the policy's head and 1 in the
            critic's (Engstrom et al. 2020, A.1; gains of OpenAI Baselines); False for Keras's Glorot initialisation.
        normalize_observations: Puts a `RunningNormalization` in front of every float `Box` leaf. False, because the
            running statistics slow the start on small well-scaled problems; MuJoCo wants it.
        observation_clip: The normaliser's clip; positive or None.
        head: The policy's head: a `Head` class, built for the action space, or a `Head` layer of your own settings,
            whose `get_config` returns every argument of its constructor; None for the head that the action space calls
            for. Initializers without a seed of their own, in any of its layers, draw from the agent's.
        critic_head: A `ValueHead` layer, as `head`; None for `heads.NormalValue()`.
        shared: One trunk under both heads, as one functional model with two outputs.
        memory: None, or what remembers earlier steps of the episode, one for each network, or one where they are
            `shared`: `models.GRU(units)`, `models.LSTM(units)`, a Keras cell or recurrent layer of your own, all of
            which stand between the hidden layers and the head (Mnih et al. 2016, section 5.1), or
            `models.History(k)`, the last k observations side by side in front of the hidden layers.

    Raises:
        ValueError: If a width is below 1, the clip is not positive, a flag is neither True nor False, Keras does not
            know the activation, or an encoder is no kind.
        TypeError: If `head` is no head, `memory` does not remember, `activation` or an encoder is a class, an encoder
            is a lambda, which no file could name, or a layer cannot be made anew from its config.

    >>> import gymnasium as gym
    >>> networks = Networks(hidden_units=(8,))
    >>> policy, critic = networks.build(gym.spaces.Box(-1, 1, (3,)), gym.spaces.Discrete(2), seed=0)
    >>> policy(np.zeros((5, 3), "float32")).logits.shape
    TensorShape([5, 2])
    >>> grid = gym.spaces.Dict(image=gym.spaces.Box(0, 255, (7, 7, 3), "uint8"), mission=gym.spaces.Text(9))
    >>> networks = Networks(encoders={"image": "categories", "mission": "omit"})
    >>> policy, critic = networks.build(grid, gym.spaces.Discrete(2), seed=0)
    """

    @knows_its_arguments
    def __init__(
        self,
        hidden_units=None,
        activation=None,
        orthogonal=True,
        normalize_observations=False,
        observation_clip=10.0,
        head=None,
        critic_head=None,
        shared=False,
        encoders=None,
        memory=None,
    ):
        memory = memory_layer(memory)
        hidden_units = checked_widths(hidden_units)
        check_number("observation_clip", observation_clip, 0.0, exclusive=True, optional=True)
        check_heads(head, critic_head)
        check_activation(activation)
        check_flag("orthogonal", orthogonal)
        check_flag("normalize_observations", normalize_observations)
        check_flag("shared", shared)
        check_encoders(encoders)
        layers = {"activation": activation, "head": head, "critic_head": critic_head, "encoders": encoders}
        layers["memory"] = memory
        if isinstance(encoders, dict):
            layers.update({f"encoders[{name!r}]": encoder for name, encoder in encoders.items()})
        for name, layer in layers.items():
            if isinstance(layer, keras.Layer):
                anew(layer, name)
        self.hidden_units = hidden_units
        self.activation = activation
        self.orthogonal = orthogonal
        self.normalize_observations = normalize_observations
        self.observation_clip = observation_clip
        self.head = head
        self.critic_head = critic_head
        self.shared = shared
        self.encoders = dict(encoders) if isinstance(encoders, dict) else encoders
        self.memory = memory

    def build(self, observation_space, action_space, seed):
        """`(policy, critic)` for two gymnasium spaces; with `shared`, one model with both outputs, and None.

        Args:
            observation_space, action_space: Of one environment.
            seed: Of the initial weights.

        Raises:
            ValueError: If a space has no encoding or no head, or `encoders` do not fit the observation.
        """
        spec = ObservationSpec(observation_space)
        encoders = encoders_of(spec, self.encoders)
        check_buildable(spec, action_space if self.head is None else None, encoders)
        with drawing_from(seed):
            return self._build(spec, encoders, action_space, np.random.default_rng(seed))

    def _build(self, spec, encoders, action_space, seeds):
        head = self._policy_head(action_space, seeds)
        value_head = self._critic_head(seeds)
        inputs, features = self._trunk(spec, encoders, seeds)
        if self.shared:
            return keras.Model(
                inputs, {"policy": head(features), "value": value_head(features)}, name="policy_and_critic"
            ), None
        policy = keras.Model(inputs, head(features), name="policy")
        inputs, features = self._trunk(spec, encoders, seeds)
        return policy, keras.Model(inputs, value_head(features), name="critic")

    def _policy_head(self, space, seeds):
        if isinstance(self.head, heads.Head):
            return anew(self.head, "head")
        initializer = self._initializer(0.01, seeds)
        if self.head is None:
            return heads.default_head(space, kernel_initializer=initializer)
        return self.head.from_space(space, kernel_initializer=initializer)

    def _critic_head(self, seeds):
        if self.critic_head is not None:
            return anew(self.critic_head, "critic_head")
        return heads.NormalValue(kernel_initializer=self._initializer(1.0, seeds))

    def _initializer(self, gain, seeds):
        seed = int(seeds.integers(2**31))
        if self.orthogonal:
            return keras.initializers.Orthogonal(gain, seed=seed)
        return keras.initializers.GlorotUniform(seed=seed)

    def _trunk(self, spec, encoders, seeds):
        """Inputs, and features behind the hidden layers."""
        inputs, features, passed_hidden = self._encoded(spec, encoders, seeds)
        hidden_units = self.hidden_units
        if hidden_units is None:
            hidden_units = () if passed_hidden else (64, 64)
        memory = self.memory and anew(self.memory, "memory")
        if memory is not None and not memory.hidden:
            features, memory = memory(features), None
        features = self._hidden(features, hidden_units, seeds)
        return inputs, features if memory is None else memory(features)

    def _encoded(self, spec, encoders, seeds):
        """Inputs, the leaves' features side by side, and whether these have passed a hidden layer, being of one."""
        encode = Encoding(lambda gain: self._initializer(gain, seeds), seeds, self.activation)
        inputs, encodings = leaf_inputs(spec), []
        for name, x in inputs.items():
            if encoders[name] != "omit":
                normalization = None
                if self.normalize_observations:
                    normalization = RunningNormalization(None if spec.single else name, self.observation_clip)
                encodings.append(encode(name, spec.leaves[name], x, encoders[name], normalization))
        features = encodings[0] if len(encodings) == 1 else keras.layers.Concatenate()(encodings)
        hidden = len(encodings) == 1 and encode.hidden
        return (inputs["observation"] if spec.single else inputs), features, hidden

    def _hidden(self, features, hidden_units, seeds):
        for units in hidden_units:
            dense = keras.layers.Dense(units, kernel_initializer=self._initializer(np.sqrt(2.0), seeds))
            features = activated(dense, "tanh" if self.activation is None else self.activation, features)
        return features

    def get_config(self):
        head = self.head
        if isinstance(head, type):
            head = {"head_class": keras.saving.get_registered_name(head)}
        elif head is not None:
            head = keras.saving.serialize_keras_object(head)
        critic_head = self.critic_head and keras.saving.serialize_keras_object(self.critic_head)
        return {
            "hidden_units": self.hidden_units and list(self.hidden_units),
            "activation": keras.saving.serialize_keras_object(self.activation)
            if callable(self.activation)
            else self.activation,
            "orthogonal": self.orthogonal,
            "normalize_observations": self.normalize_observations,
            "observation_clip": self.observation_clip,
            "head": head,
            "critic_head": critic_head,
            "shared": self.shared,
            "memory": self.memory and keras.saving.serialize_keras_object(self.memory),
            "encoders": {name: _to_config(encoder) for name, encoder in self.encoders.items()}
            if isinstance(self.encoders, dict)
            else _to_config(self.encoders),
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        head = config.get("head")  # Policy classes know theirs.
        if isinstance(head, dict):
            if "head_class" in head:
                config["head"] = keras.saving.get_registered_object(head["head_class"])
            else:
                config["head"] = keras.saving.deserialize_keras_object(head)
        for name in ("critic_head", "activation", "memory"):
            if isinstance(config.get(name), dict):
                config[name] = keras.saving.deserialize_keras_object(config[name])
        encoders = config.get("encoders")  # Not in files of earlier versions.
        if isinstance(encoders, dict):
            read = keras.saving.deserialize_keras_object
            if "class_name" in encoders:
                config["encoders"] = read(encoders)
            else:
                config["encoders"] = {k: read(v) if isinstance(v, dict) else v for k, v in encoders.items()}
        return cls(**config)


def checked_widths(hidden_units):
    """The widths of layers as a tuple, or None for those that the observation calls for."""
    if hidden_units is None:
        return None
    widths = tuple(hidden_units) if np.iterable(hidden_units) else (None,)
    if any(not isinstance(units, (int, np.integer)) or units < 1 for units in widths):
        raise ValueError(
            "`hidden_units` must be a list of widths, whole numbers of at least 1, such as (64, 64), or None. "
            f"Received: hidden_units={hidden_units!r}."
        )
    return widths


def check_heads(head, critic_head):
    """Refuses what is no head of a policy, or of a critic; arguments of `Networks`."""
    is_head_class = isinstance(head, type) and issubclass(head, heads.Head)
    if head is not None and not is_head_class and not isinstance(head, heads.Head):
        raise TypeError(f"`head` must be a Head class or a Head layer of kerasrl_pg.heads. Received: head={head!r}.")
    if critic_head is not None and not isinstance(critic_head, heads.ValueHead):
        raise TypeError(f"`critic_head` must be a ValueHead layer. Received: critic_head={critic_head!r}.")


def check_activation(activation):
    """Refuses what Keras does not know as an activation; argument of `Networks`."""
    if isinstance(activation, type):
        raise TypeError(
            "`activation` must be an activation's name, a function, or a layer. "
            f"Received: activation={activation!r}, a class. Pass an instance of it."
        )
    try:
        keras.activations.get(activation)
    except ValueError as error:
        raise ValueError(
            f"`activation` must be an activation that Keras knows. Received: activation={activation!r}."
        ) from error


def _to_config(encoder):
    return encoder if isinstance(encoder, str | None) else keras.saving.serialize_keras_object(encoder)
