"""From each part of an observation to the features that dense layers take."""

import gymnasium as gym
import keras
import numpy as np

from kerasrl_pg.envs.spaces import as_text, bounds_of, kind_of
from kerasrl_pg.models.anew import anew

KINDS = ("image", "categories", "numbers", "text", "omit")
# Ours, because a one-hot vector of more costs a rollout of 2,048 rows over 8 MiB at each layer, and most entries of the
# weights behind it see no gradient.
MOST_ONE_HOT = 1024
LARGE = 36  # Sides from which the three convolutions of Mnih et al. 2015 leave something.
COLUMNS = 16  # Of an embedding of more choices. Ours: two of the million states that it may stand for stay apart.
CELL_ONE_HOT = (
    32  # Of the cells of a grid, where there is a vector for each. Ours: as many as a 3 x 3 filter has weights.
)
CELL_COLUMNS = 8  # Of the embedding of a grid's cell, or of a character. Ours: MiniGrid has 11 kinds of objects.

_OF_TEXTS = (keras.layers.TextVectorization, keras.layers.StringLookup)


def check_encoders(encoders):
    """Refuses what no leaf could be encoded by; see `Networks`.

    Args:
        encoders: None, an encoder, or a dictionary of encoders by name.

    Raises:
        TypeError: If it is neither a kind, a layer, nor a function with a name; or a layer of texts, as
            `keras.layers.TextVectorization`.
        ValueError: If it is a text that is no kind, or all leaves are left out.
    """
    if encoders is None:
        return
    if isinstance(encoders, dict) and not encoders:
        raise ValueError("`encoders` must name a leaf at least. Received: encoders={}. Pass None.")
    for name, encoder in encoders.items() if isinstance(encoders, dict) else [(None, encoders)]:
        argument = "encoders" if name is None else f"encoders[{name!r}]"
        if not isinstance(name, str | None):
            raise TypeError(f"`encoders` must have names of leaves for keys. Received: the key {name!r}.")
        if isinstance(encoder, str):
            if encoder not in KINDS:
                kinds = ", ".join(map(repr, KINDS))
                raise ValueError(
                    f"`{argument}` must be one of {kinds}, or a Keras layer or a function of the leaf's tensor. "
                    f"Received: {argument}={encoder!r}."
                )
            if encoder == "omit" and name is None:
                raise ValueError(
                    f"`{argument}` must leave something to see. Received: {argument}='omit'. Name the leaf to leave "
                    "out, as in encoders={'mission': 'omit'}."
                )
        elif isinstance(encoder, type) or not callable(encoder):
            remedy = ", a class. Pass an instance of it." if isinstance(encoder, type) else "."
            raise TypeError(
                f"`{argument}` must be a kind, a Keras layer, or a function of the leaf's tensor. "
                f"Received: {argument}={encoder!r}{remedy}"
            )
        elif isinstance(encoder, keras.Layer) and any(isinstance(x, _OF_TEXTS) for x in encoder._flatten_layers()):
            raise TypeError(
                f"`{argument}` must take numbers, since networks see a text as numbers of its characters, and XLA and "
                f"LiteRT know no texts. Received: {argument}={encoder!r}. Vectorise the text in a "
                "gymnasium.ObservationWrapper, whose space is then a MultiDiscrete of the vocabulary's size."
            )
        elif getattr(encoder, "__name__", None) == "<lambda>":
            raise TypeError(
                f"`{argument}` must be a function that a file can name. Received: a lambda. Write it with `def`, under "
                "keras.saving.register_keras_serializable()."
            )


def encoders_of(spec, encoders):
    """How each leaf is encoded: what the user said, else its kind.

    Args:
        spec: An `ObservationSpec`.
        encoders: As for `check_encoders`.

    Returns:
        A dictionary by name.

    Raises:
        ValueError: If a name is no leaf's, one encoder stands for several leaves, a kind does not fit a leaf, or no
            leaf is left. The sentence names the leaf's place.
    """
    names = ", ".join(map(repr, spec.leaves))
    if encoders is not None and not isinstance(encoders, dict):
        if len(spec.leaves) > 1:
            raise ValueError(
                f"`encoders` must say by name which leaf it encodes, since the observation has {names}. "
                f"Received: encoders={encoders!r}. Pass a dictionary."
            )
        encoders = dict.fromkeys(spec.leaves, encoders)
    for name in encoders or {}:
        if name not in spec.leaves:
            raise ValueError(
                f"`encoders` must name leaves of the observation, which has {names}. Received: the name {name!r}."
            )
    chosen = {name: (encoders or {}).get(name, kind_of(space)) for name, space in spec.leaves.items()}
    for name, encoder in chosen.items():
        if isinstance(encoder, str):
            _check_fits(encoder, spec.leaves[name], spec.place(name), name)
    if set(chosen.values()) == {"omit"}:
        raise ValueError(f"`encoders` must leave a leaf to see. Received: 'omit' for all of {names}.")
    return chosen


def _check_fits(kind, space, where, name):
    is_box = isinstance(space, gym.spaces.Box)
    if kind == "image":
        fits, wanted = is_box and len(space.shape) in (2, 3, 4), "a Box of 2 to 4 dimensions"
        if fits:
            fits, wanted = np.isfinite(space.low).all() and np.isfinite(space.high).all(), "a Box of finite bounds"
    elif kind == "categories":
        choices = isinstance(space, (gym.spaces.Discrete, gym.spaces.MultiDiscrete, gym.spaces.MultiBinary))
        whole = is_box and space.dtype.kind in "biu" and bounds_of(space) is not None
        fits, wanted = (
            choices or whole,
            "Discrete, MultiDiscrete, MultiBinary, or a Box of whole numbers with one low and one high",
        )
    elif kind == "text":
        fits, wanted = as_text(space) is not None, "a Text"
    else:
        fits, wanted = kind == "omit" or as_text(space) is None, "a space of numbers"
    if not fits:
        raise ValueError(
            f"`encoders[{name!r}]` must fit its leaf: '{kind}' is for {wanted}. Received: {space} as {where}. "
            f"Its own kind is '{kind_of(space)}'."
        )


class Encoding:
    """Encodes the leaves of an observation, for one network.

    Args:
        initializer: Function from a gain to a kernel initialiser.
        seeds: NumPy generator, of the embeddings.
        activation: Of the convolutional trunk; None for its source's, ReLU.

    Attributes:
        hidden: Whether something has passed through a trunk with a hidden layer of its own.
    """

    def __init__(self, initializer, seeds, activation):
        self._initializer, self._seeds = initializer, seeds
        self._activation = "relu" if activation is None else activation
        self.hidden = False

    def __call__(self, name, space, x, encoder, normalization):
        """Features [B, F] of a leaf.

        Args:
            name: The leaf's.
            space: The leaf.
            x: Its tensor [B, ...].
            encoder: A kind, a layer or a function.
            normalization: None, or a layer to put before numbers.
        """
        if not isinstance(encoder, str):
            return self._own(f"encoders[{name!r}]", space, x, encoder)
        if encoder == "image":
            return self._convolve(x, space)
        if encoder == "categories":
            return self._categories(space, x)
        if encoder == "text":
            return self._text(as_text(space), x)
        x = keras.ops.cast(x, "float32")
        if normalization is not None and isinstance(space, gym.spaces.Box):
            x = normalization(x)
        return _flat(x)

    def _convolve(self, x, space):
        self.hidden = True
        bounds = bounds_of(space)
        x = between_0_and_1(x, *(bounds or (space.low, space.high)))
        if bounds == (0, 255) and min(x.shape[1:3]) < LARGE:
            # Small grids are seldom pixels. A departure from the source, ours, because MiniGrid's numbers up to 10
            # would become too small to tell apart; what is 0 stays 0.
            x = x * keras.ops.rsqrt(keras.ops.mean(keras.ops.square(x), axis=(1, 2, 3), keepdims=True) + 1e-6)
        return convolutions(x, self._initializer, self._activation)

    def _embedding(self, count, columns):
        # A row has the length of a one-hot vector, 1.
        seed = int(self._seeds.integers(2**31))
        initializer = keras.initializers.RandomNormal(stddev=columns**-0.5, seed=seed)
        return keras.layers.Embedding(count, columns, embeddings_initializer=initializer)

    def _choices(self, x, count):
        """[B, ...] whole numbers from 0, as [B, ..., F]."""
        return keras.ops.one_hot(x, count) if count <= MOST_ONE_HOT else self._embedding(count, COLUMNS)(x)

    def _categories(self, space, x):
        if isinstance(space, gym.spaces.Discrete):
            return self._choices(x - int(space.start), int(space.n))
        if isinstance(space, gym.spaces.MultiDiscrete):
            nvec, start = space.nvec.reshape(-1), space.start.reshape(-1)
            x = keras.ops.reshape(x, (-1, nvec.size))
            parts = [self._choices(x[:, i] - int(start[i]), int(n)) for i, n in enumerate(nvec)]
            return keras.ops.concatenate(parts, axis=-1)
        low, high = (0, 1) if isinstance(space, gym.spaces.MultiBinary) else bounds_of(space)
        count = high - low + 1
        x = keras.ops.cast(x, "int32") - low
        grid = len(space.shape) in (2, 3, 4)
        if grid:
            x = channels_last(x)
            grid = min(x.shape[1:3]) >= 3
        if not grid:
            x = keras.ops.reshape(x, (-1, int(np.prod(space.shape, dtype=int))))
        if count <= CELL_ONE_HOT:
            x = keras.ops.one_hot(x, count)
        else:  # What a number means is another matter in each channel.
            x = x + keras.ops.convert_to_tensor(count * np.arange(x.shape[-1], dtype=np.int32))
            x = self._embedding(count * x.shape[-1], CELL_COLUMNS)(x)
        if not grid:
            return _flat(x)
        x = keras.ops.reshape(x, (-1, *x.shape[1:3], x.shape[3] * x.shape[4]))
        self.hidden = True
        return convolutions(x, self._initializer, self._activation)

    def _text(self, space, x):
        count = len(space.characters) + 1  # And 0, after the end.
        if count * space.max_length <= MOST_ONE_HOT:
            return _flat(keras.ops.one_hot(x, count))
        return _flat(self._embedding(count, CELL_COLUMNS)(x))

    def _own(self, argument, space, x, encoder):
        if isinstance(encoder, keras.Layer):
            encoder = anew(encoder, argument)
        if isinstance(space, (gym.spaces.Box, gym.spaces.MultiBinary)):
            x = keras.ops.cast(x, "float32")
        try:
            y = encoder(x)
        except Exception as error:  # Whatever a user's own code raises.
            raise ValueError(
                f"`{argument}` must take its leaf's tensor, {tuple(x.shape)} of {x.dtype}, of {space}. Received: "
                f"{encoder!r}, which fails with {type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
            ) from error
        if not isinstance(y, keras.KerasTensor) or not len(y.shape) or not str(y.dtype).startswith(("float", "bfloat")):
            raise ValueError(
                f"`{argument}` must give one tensor of floats [B, ...]. Received: {y!r} of {encoder!r}. "
                "Whole numbers want an Embedding after them."
            )
        y = _flat(y)
        if y.shape[-1] is None:
            raise ValueError(
                f"`{argument}` must give a tensor whose size is known but for the batch. Received: {y.shape} of "
                f"{encoder!r}."
            )
        return y


def _flat(x):
    if len(x.shape) == 2:
        return x
    return keras.ops.expand_dims(x, -1) if len(x.shape) == 1 else keras.layers.Flatten()(x)


def channels_last(x):
    """Pictures [B, H, W], [B, H, W, C], [B, C, H, W], or stacks of them [B, K, ...], as [B, H, W, channels].

    The channel axis is the smaller of the first and the last; a stack's pictures become channels side by side.
    """
    if len(x.shape) == 3:
        return keras.ops.expand_dims(x, -1)
    first, last = x.shape[-3], x.shape[-1]
    if len(x.shape) == 4:
        return keras.ops.transpose(x, (0, 2, 3, 1)) if first < last else x
    # [B, K, C, H, W] or [B, K, H, W, C].
    x = keras.ops.transpose(x, (0, 3, 4, 1, 2) if first < last else (0, 2, 3, 1, 4))
    return keras.ops.reshape(x, (-1, *x.shape[1:3], x.shape[3] * x.shape[4]))


def cnn(images, initializer, activation="relu", low=0, high=255):
    """Convolutional features of images [B, H, W, C], [B, C, H, W] or [B, H, W], or stacks of images [B, K, ...].

    They are put between 0 and 1 by their bounds. Images of 36 pixels and more then pass through the three convolutions
    and the hidden layer of 512 of Mnih et al. 2015 ("Human-level control through deep reinforcement learning"), smaller
    ones through the one convolution and the hidden layer of 128 of Young and Tian 2019 ("MinAtar", arXiv 1903.03176).

    Args:
        images: A Keras tensor. The channel axis is the smaller of the first and the last; a stack's images become
            channels side by side.
        initializer: Function from a gain to a kernel initialiser.
        activation: Any Keras activation, or a layer, of which every convolution gets its own. "relu", as in both.
        low, high: Bounds of the values, as numbers or arrays of the image's shape.

    Returns:
        Float features [B, 512], or [B, 128] for small images.

    >>> inputs = keras.Input((84, 84, 4), dtype="uint8")
    >>> cnn(inputs, lambda gain: keras.initializers.Orthogonal(gain)).shape
    (None, 512)
    """
    return convolutions(between_0_and_1(images, low, high), initializer, activation)


def between_0_and_1(images, low, high):
    """Images between their bounds, as float32 [B, H, W, channels] between 0 and 1."""
    x = keras.ops.cast(images, "float32")
    low, high = np.asarray(low, np.float32), np.asarray(high, np.float32)
    if np.any(low):
        x = x - low
    return channels_last(x / np.maximum(high - low, np.finfo(np.float32).tiny))


def convolutions(x, initializer, activation="relu"):
    """The features that `cnn` describes, of tensors [B, H, W, C] as they are."""
    gain = np.sqrt(2.0)
    if min(x.shape[1:3]) >= LARGE:
        layers, features = ((32, 8, 4), (64, 4, 2), (64, 3, 1)), 512
    else:
        layers, features = ((16, 3, 1),), 128
    for filters, size, stride in layers:
        layer = keras.layers.Conv2D(filters, size, stride, kernel_initializer=initializer(gain))
        x = activated(layer, activation, x)
    x = keras.layers.Flatten()(x)
    return activated(keras.layers.Dense(features, kernel_initializer=initializer(gain)), activation, x)


def activated(layer, activation, x):
    """`activation` of `layer(x)`; a layer is made anew, so that each place has its own."""
    if isinstance(activation, keras.Layer):
        return anew(activation, "activation")(layer(x))
    layer.activation = keras.activations.get(activation)
    return layer(x)
