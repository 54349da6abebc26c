"""Policies and critics as Keras models, made from an environment's spaces."""

import contextlib
import inspect
import random

import gymnasium as gym
import keras
import numpy as np

from kerasrl_pg import heads
from kerasrl_pg.checks import check_flag, knows_its_arguments
from kerasrl_pg.envs.spaces import ObservationSpec, check_buildable, is_image
from kerasrl_pg.models.normalization import RunningNormalization


@keras.saving.register_keras_serializable("kerasrl_pg")
class Networks:
    """What networks an agent builds for itself when it first sees an environment.

    Each observation leaf is encoded by its kind: images are put channels-last, divided by 255 and passed through
        convolutions;
    `Discrete` and `MultiDiscrete` become one-hot vectors; the rest is flattened. The encodings are concatenated and
    pass through `hidden_units` dense layers to the head. No two networks share a layer: where you give a layer, each of
    them gets its own, made from its config.

    Args:
        hidden_units: Widths of the dense layers. (64, 64), as in Schulman et al. 2017 (arXiv 1707.06347), section 6.1.
        activation: Any Keras activation of the dense and convolution layers, or a layer, such as
            `keras.layers.PReLU()`. "tanh", as there; Engstrom et al. 2020 count it among PPO's code-level
            optimisations.
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

    Raises:
        ValueError: If a width is below 1, the clip is not positive, a flag is neither True nor False, or Keras does
            not know the activation.
        TypeError: If `head` is no head, `activation` is a class, or a layer cannot be made anew from its config.

    >>> import gymnasium as gym
    >>> networks = Networks(hidden_units=(8,))
    >>> policy, critic = networks.build(gym.spaces.Box(-1, 1, (3,)), gym.spaces.Discrete(2), seed=0)
    >>> policy(np.zeros((5, 3), "float32")).logits.shape
    TensorShape([5, 2])
    """

    @knows_its_arguments
    def __init__(
        self,
        hidden_units=(64, 64),
        activation="tanh",
        orthogonal=True,
        normalize_observations=False,
        observation_clip=10.0,
        head=None,
        critic_head=None,
        shared=False,
    ):
        hidden_units = tuple(hidden_units)
        if any(not isinstance(units, (int, np.integer)) or units < 1 for units in hidden_units):
            raise ValueError(
                f"`hidden_units` must be whole numbers of at least 1. Received: hidden_units={hidden_units}."
            )
        if observation_clip is not None and not observation_clip > 0:
            raise ValueError(
                f"`observation_clip` must be positive or None. Received: observation_clip={observation_clip}."
            )
        is_head_class = isinstance(head, type) and issubclass(head, heads.Head)
        if head is not None and not is_head_class and not isinstance(head, heads.Head):
            raise TypeError(
                f"`head` must be a Head class or a Head layer of kerasrl_pg.heads. Received: head={head!r}."
            )
        if critic_head is not None and not isinstance(critic_head, heads.ValueHead):
            raise TypeError(f"`critic_head` must be a ValueHead layer. Received: critic_head={critic_head!r}.")
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
        check_flag("orthogonal", orthogonal)
        check_flag("normalize_observations", normalize_observations)
        check_flag("shared", shared)
        for name, layer in {"activation": activation, "head": head, "critic_head": critic_head}.items():
            if isinstance(layer, keras.Layer):
                _anew(layer, name)
        self.hidden_units = hidden_units
        self.activation = activation
        self.orthogonal = orthogonal
        self.normalize_observations = normalize_observations
        self.observation_clip = observation_clip
        self.head = head
        self.critic_head = critic_head
        self.shared = shared

    def build(self, observation_space, action_space, seed):
        """Builds the networks for two gymnasium spaces.

        Args:
            observation_space, action_space: Of one environment.
            seed: Of the initial weights.

        Returns:
            `(policy, critic)`; with `shared`, `(model, None)`, whose outputs are named "policy" and "value".

        Raises:
            ValueError: If a space has no encoding or no head.
        """
        spec = ObservationSpec(observation_space)
        check_buildable(spec, action_space if self.head is None else None)
        with _drawing_from(seed):
            return self._build(spec, action_space, np.random.default_rng(seed))

    def _build(self, spec, action_space, seeds):
        head = self._policy_head(action_space, seeds)
        value_head = self._critic_head(seeds)
        inputs, features = self._trunk(spec, seeds)
        if self.shared:
            return keras.Model(
                inputs, {"policy": head(features), "value": value_head(features)}, name="policy_and_critic"
            ), None
        policy = keras.Model(inputs, head(features), name="policy")
        inputs, features = self._trunk(spec, seeds)
        return policy, keras.Model(inputs, value_head(features), name="critic")

    def _policy_head(self, space, seeds):
        if isinstance(self.head, heads.Head):
            return _anew(self.head, "head")
        initializer = self._initializer(0.01, seeds)
        if self.head is None:
            return heads.default_head(space, kernel_initializer=initializer)
        return self.head.from_space(space, kernel_initializer=initializer)

    def _critic_head(self, seeds):
        if self.critic_head is not None:
            return _anew(self.critic_head, "critic_head")
        return heads.NormalValue(kernel_initializer=self._initializer(1.0, seeds))

    def _initializer(self, gain, seeds):
        seed = int(seeds.integers(2**31))
        if self.orthogonal:
            return keras.initializers.Orthogonal(gain, seed=seed)
        return keras.initializers.GlorotUniform(seed=seed)

    def _trunk(self, spec, seeds):
        leaves = {"observation": spec.specs} if spec.single else spec.specs
        inputs, encodings = {}, []
        for name, leaf in leaves.items():
            inputs[name] = keras.Input(tuple(leaf.shape), dtype=leaf.dtype.name, name=name)
            encodings.append(self._encode(spec, name, inputs[name], seeds))
        features = encodings[0] if len(encodings) == 1 else keras.layers.Concatenate()(encodings)
        for units in self.hidden_units:
            dense = keras.layers.Dense(units, kernel_initializer=self._initializer(np.sqrt(2.0), seeds))
            features = _activated(dense, self.activation, features)
        return (inputs["observation"] if spec.single else inputs), features

    def _encode(self, spec, name, x, seeds):
        space = spec.leaves[name]
        if isinstance(space, gym.spaces.Discrete):
            return keras.ops.one_hot(x - int(space.start), int(space.n))
        if isinstance(space, gym.spaces.MultiDiscrete):
            nvec, start = space.nvec.reshape(-1), space.start.reshape(-1)
            x = keras.ops.reshape(x, (-1, nvec.size))
            parts = [keras.ops.one_hot(x[:, i] - int(start[i]), int(n)) for i, n in enumerate(nvec)]
            return keras.ops.concatenate(parts, axis=-1)
        if is_image(space):
            return cnn(x, lambda gain: self._initializer(gain, seeds), self.activation)
        if isinstance(space, gym.spaces.Box) and self.normalize_observations:
            x = RunningNormalization(None if spec.single else name, self.observation_clip)(x)
        return x if len(x.shape) == 2 else keras.layers.Flatten()(x)

    def get_config(self):
        head = self.head
        if isinstance(head, type):
            head = {"head_class": keras.saving.get_registered_name(head)}
        elif head is not None:
            head = keras.saving.serialize_keras_object(head)
        critic_head = self.critic_head and keras.saving.serialize_keras_object(self.critic_head)
        return {
            "hidden_units": list(self.hidden_units),
            "activation": keras.saving.serialize_keras_object(self.activation)
            if callable(self.activation)
            else self.activation,
            "orthogonal": self.orthogonal,
            "normalize_observations": self.normalize_observations,
            "observation_clip": self.observation_clip,
            "head": head,
            "critic_head": critic_head,
            "shared": self.shared,
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        head = config["head"]
        if isinstance(head, dict):
            if "head_class" in head:
                config["head"] = keras.saving.get_registered_object(head["head_class"])
            else:
                config["head"] = keras.saving.deserialize_keras_object(head)
        for name in ("critic_head", "activation"):
            if isinstance(config[name], dict):
                config[name] = keras.saving.deserialize_keras_object(config[name])
        return cls(**config)


def cnn(images, initializer, activation="relu"):
    """Convolutional features of images [B, H, W, C], [B, C, H, W] or [B, H, W], uint8.

    Images of 36 pixels and more pass through the three convolutions of Mnih et al. 2015 ("Human-level control through
    deep reinforcement learning"), smaller ones through the one convolution of Young and Tian 2019 ("MinAtar", arXiv
    1903.03176).

    Args:
        images: A Keras tensor. The channel axis is the smaller of the first and the last.
        initializer: Function from a gain to a kernel initialiser.
        activation: Any Keras activation, or a layer, of which every convolution gets its own.

    Returns:
        float features [B, 512], or [B, 128] for small images.
    """
    x = images
    if len(x.shape) == 3:
        x = keras.ops.expand_dims(x, -1)
    elif x.shape[1] < x.shape[3]:
        x = keras.ops.transpose(x, (0, 2, 3, 1))
    x = keras.ops.cast(x, "float32") / 255.0
    gain = np.sqrt(2.0)
    if min(x.shape[1:3]) >= 36:
        layers, features = ((32, 8, 4), (64, 4, 2), (64, 3, 1)), 512
    else:
        layers, features = ((16, 3, 1),), 128
    for filters, size, stride in layers:
        x = _activated(keras.layers.Conv2D(filters, size, stride, kernel_initializer=initializer(gain)), activation, x)
    x = keras.layers.Flatten()(x)
    return _activated(keras.layers.Dense(features, kernel_initializer=initializer(gain)), activation, x)


def _activated(layer, activation, x):
    if isinstance(activation, keras.Layer):
        return _anew(activation, "activation")(layer(x))
    layer.activation = keras.activations.get(activation)
    return layer(x)


def _anew(layer, argument):
    """A layer of the same settings, with weights of its own."""
    kind = type(layer)
    remedy = "Write its get_config, or give the agent your own `policy` and `critic`."
    try:
        config = layer.get_config()
        if argument == "activation":
            config.pop("name", None)  # A model has several.
        again = kind.from_config(dict(config))
    except Exception as error:  # Whatever a user's own class raises.
        raise TypeError(
            f"`{argument}` must be a layer that its config makes anew, since each agent gets its own. "
            f"Received: {argument}={layer!r}, whose config fails with {type(error).__name__}: "
            f"{(str(error).strip().splitlines() or [''])[-1]}. {remedy}"  # Keras quotes the whole config before it.
        ) from error
    if kind.from_config.__func__ is keras.Layer.from_config.__func__:
        parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]
        names = [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        lost = [name for name in names if name not in config]
        if lost:
            raise TypeError(
                f"`{argument}` must be a layer whose `get_config` returns every argument of its constructor, since "
                f"each agent gets its own. Received: {argument}={layer!r}, without {', '.join(lost)}. {remedy}"
            )
    return again


@contextlib.contextmanager
def _drawing_from(seed):
    """Keras initializers without a seed draw one from Python's `random`; in here they draw it from `seed`."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)
