"""What an environment's spaces mean to a network: names, shapes and dtypes, and their plain-JSON form."""

import keyword
import re

import gymnasium as gym
import numpy as np
import tensorflow as tf


class ObservationSpec:
    """How observations of a space are handed to networks, stored and served.

    A space with one leaf gives one tensor. `Dict` and `Tuple` spaces, nested to any depth, give one flat dictionary
    whose names join the path by `_` (the places of a `Tuple` are called `item0`, `item1`, ...), because Keras inputs
    and served signatures are flat dictionaries of names. Letters that such a name cannot have become `_`.

    | leaf space | tensor per observation |
    | --- | --- |
    | `Box` of uint8 with 2 to 4 dimensions | kept uint8 |
    | any other `Box` | float32 |
    | `Discrete`, `MultiDiscrete` | int32 |
    | `MultiBinary` | float32 of 0 and 1 |
    | `Text`, and others of type str | int32 [max_length]: numbers of the `characters` from 1; 0 after the end |

    What networks make of each is `kind_of`'s to say.

    Args:
        space: A gymnasium observation space.

    Raises:
        ValueError: If a leaf is of another kind (`Graph`, `Sequence`, ...), holds nothing, or has choices beyond
            int32; if a `Dict` has keys that are neither texts nor whole numbers; or two leaves get the same name. The
            sentence names the leaf's place, as `observation_space['robot'][1]`.

    Attributes:
        choices: `(smallest, largest)` by name, of the leaves that have choices, as numbers or arrays.

    Example:

    >>> import gymnasium as gym
    >>> spec = ObservationSpec(gym.spaces.Dict(goal=gym.spaces.Discrete(3), robot=gym.spaces.Box(-1, 1, (2,))))
    >>> [(name, tuple(leaf.shape), leaf.dtype.name) for name, leaf in spec.specs.items()]
    [('goal', (), 'int32'), ('robot', (2,), 'float32')]
    """

    def __init__(self, space):
        self.space = space
        self.leaves = {}
        self._leaves = {}
        self._collect(space, ())
        self.single = not isinstance(space, (gym.spaces.Dict, gym.spaces.Tuple))
        specs = {name: tf.TensorSpec(leaf.shape, leaf.tf_dtype, name=name) for name, leaf in self._leaves.items()}
        self.specs = specs["observation"] if self.single else specs
        self.choices = {
            name: (leaf.low, leaf.high)
            for name, leaf in self._leaves.items()
            if leaf.low is not None and leaf.dtype != np.uint8
        }

    def _collect(self, space, path):
        parts = _parts(space, "observation_space", path)
        if parts is not None:
            for key, part in parts:
                self._collect(part, (*path, key))
            return
        name = leaf_name(path) if path else "observation"
        if name in self.leaves:
            raise ValueError(
                f"Two parts of the observation space get the same name '{name}'. Received: space={self.space}, "
                f"with observation_space{place(self._leaves[name].path)} and observation_space{place(path)}. "
                "Rename one key of the Dict space."
            )
        self._leaves[name] = _Leaf(space, path)
        self.leaves[name] = space

    def flatten(self, observations):
        """The observation(s) of the environment as this spec's tensor or flat dictionary of arrays.

        Args:
            observations: What `reset` and `step` return, one observation or a batch, nested as the space.

        Returns:
            An array, or a flat dictionary of arrays; dtypes may still be the environment's.
        """
        if self.single:
            return self._leaves["observation"].array(observations)
        return {name: leaf.array(leaf.part(observations)) for name, leaf in self._leaves.items()}

    def read(self, observations, count, where, rows=False):
        """A batch of observations, judged by their kind, as this spec's arrays.

        Args:
            observations: Nested as the space, each leaf [count, ...]; with `rows` a list of single observations.
            count: How many there must be.
            where: Function from the number of an observation to the words that say where it comes from.
            rows: Whether they come one by one.

        Returns:
            An array, or a flat dictionary of arrays, of this spec's shapes and dtypes.

        Raises:
            ValueError: If they are nested otherwise, of another shape, no numbers, no whole numbers where the space
                has choices, outside of these, or beyond float32; the sentence names the leaf and says `where`.
        """
        if self.single:
            return self._leaves["observation"].read(observations, count, where)
        return {
            name: leaf.read(leaf.parts(observations, where, rows), count, where) for name, leaf in self._leaves.items()
        }

    def check_finite(self, arrays, where):
        """Refuses NaN and infinity in what `read` gave.

        Args:
            arrays: The arrays.
            where: As for `read`.

        Raises:
            ValueError: Naming the first leaf that holds one.
        """
        for name, leaf in self._leaves.items():
            array = arrays if self.single else arrays[name]
            # A sum is finite where all terms are, and far cheaper than testing each.
            if leaf.dtype == np.float32 and not np.isfinite(array.sum(dtype=np.float64)):
                bad = ~np.isfinite(array.reshape(len(array), -1)).all(1)
                if bad.any():
                    row = int(bad.argmax())
                    raise ValueError(
                        f"`observation{place(leaf.path)}` must be finite. Received: {array[row]} {where(row)}. "
                        "Repair the observation, or bound it with a wrapper of the environment."
                    )

    def empty(self, *batch):
        """Zeroed storage for observations with the leading sizes `batch`."""
        return self.map(lambda spec: np.zeros((*batch, *spec.shape), spec.dtype.as_numpy_dtype))

    def nested(self, arrays):
        """What `flatten` took these arrays from, as far as they tell: nested as the space, in its own dtypes.

        Args:
            arrays: Of this spec, with any leading sizes; texts with one.
        """
        if self.single:
            return self._leaves["observation"].original(arrays)

        def build(space, path):
            parts = _parts(space, "observation_space", path)
            if parts is None:
                name = next(name for name, leaf in self._leaves.items() if leaf.path == path)
                return self._leaves[name].original(arrays[name])
            built = {key: build(part, (*path, key)) for key, part in parts}
            return tuple(built.values()) if isinstance(space, gym.spaces.Tuple) else built

        return build(self.space, ())

    def place(self, name):
        """Where a leaf stands in the observation space, as Python writes it."""
        return f"observation_space{place(self._leaves[name].path)}"

    def map(self, function, *structures):
        """`function(leaf_spec, *leaves)` over this spec's leaves, in its own structure."""
        if self.single:
            return function(self.specs, *structures)
        return {
            name: function(spec, *(structure[name] for structure in structures)) for name, spec in self.specs.items()
        }

    def zeros(self, batch_size):
        """So many observations of zeros."""
        return self.map(lambda leaf: tf.zeros((batch_size, *leaf.shape), leaf.dtype))

    def batch_size(self, observations, where):
        """How many observations these are; None for one without a batch dimension.

        Args:
            observations: One observation or a batch, nested as the space.
            where: As for `read`.

        Raises:
            ValueError: If the first leaf's shape is neither one observation's nor a batch's.
        """
        leaf = next(iter(self._leaves.values()))
        array = np.asarray(leaf.parts(observations, where, rows=False))
        shape = leaf.shape if leaf.characters is None else ()
        if array.shape == shape:
            return None
        if array.shape[1:] == shape and array.ndim == len(shape) + 1:
            return len(array)
        raise ValueError(
            f"`observation{place(leaf.path)}` must have shape {shape}, or a batch of it. Received: shape {array.shape}."
        )


class _Leaf:
    """One leaf of an observation space: where it is, and what may stand there.

    Args:
        space: The leaf.
        path: Keys and places that lead to it.

    Attributes:
        dtype, tf_dtype: Of the array it becomes.
        kinds: NumPy's letters for the dtypes that an environment may give.
        low, high: The smallest and the largest choice; None where there are no choices.
        characters: The number of each character of a text; None elsewhere.
    """

    def __init__(self, space, path):
        name = f"observation_space{place(path)}"
        self.space, self.path = space, path
        self.tf_dtype = _leaf_dtype(space, name)
        self.dtype = np.dtype(self.tf_dtype.as_numpy_dtype)
        self.characters = None
        text = as_text(space)
        self.shape = tuple(space.shape) if text is None else (text.max_length,)
        _check_holds_something(space, name)
        self.kinds, self.low, self.high = "biuf", None, None
        if text is not None:
            self.characters = {letter: number for number, letter in enumerate(text.characters, start=1)}
            self.kinds, self.low, self.high = "U", 0, len(self.characters)
        if isinstance(space, gym.spaces.Discrete):
            self.kinds, self.low, self.high = "biu", int(space.start), int(space.start) + int(space.n) - 1
        elif isinstance(space, gym.spaces.MultiDiscrete):
            # Of the dtype below, since a small one overflows where start + nvec does.
            start = space.start.astype(np.int64)
            self.kinds, self.low, self.high = "biu", start, start + space.nvec.astype(np.int64) - 1
        elif isinstance(space, gym.spaces.MultiBinary):
            self.low, self.high = 0, 1
        elif self.dtype == np.uint8:
            self.kinds, self.low, self.high = "biu", 0, 255
        ends = np.iinfo(np.int32)
        if self.low is not None and (np.min(self.low) < ends.min or np.max(self.high) > ends.max):
            raise ValueError(
                f"`{name}` must have choices within int32, {ends.min} to {ends.max}. Received: {space}. "
                "Split them over several, as digits in a MultiDiscrete, with a gymnasium.ObservationWrapper."
            )

    def part(self, observation):
        """This leaf of a nested observation."""
        for key in self.path:
            observation = observation[key]
        return observation

    def parts(self, observations, where, rows):
        """This leaf of a nested batch, or of each observation in a list."""
        parts = []
        try:
            if not rows:
                return self.part(observations)
            for each in observations:
                parts.append(self.part(each))
            return parts
        except (KeyError, IndexError, TypeError):
            received = observations[len(parts)] if rows else observations
            raise ValueError(
                f"`observation` must be nested as the observation_space, and hold observation{place(self.path)}. "
                f"Received: {shown(received)} {where(len(parts) if rows else None)}. "
                "Repair the observation, or the observation_space."
            ) from None

    def array(self, part):
        """This leaf's part of an observation or a batch, as an array."""
        if self.characters is None:
            return np.asarray(part)
        texts = np.asarray(part)
        return self.read(texts.reshape(-1), texts.size, lambda row: "").reshape(*texts.shape, *self.shape)

    def original(self, array):
        """What `array` took it from, in the space's dtype."""
        if self.characters is None:
            return array.astype(self.space.dtype)
        letters = ["", *self.characters]
        return np.array(["".join(letters[number] for number in row) for row in array])

    def _read_texts(self, values, count, where):
        """int32 [count, max_length], of texts."""
        values = values.tolist() if isinstance(values, np.ndarray) else values
        if isinstance(values, str) or len(values) != count:
            raise ValueError(
                f"`observation{place(self.path)}` must be {count} texts. Received: {shown(values)} {where(None)}. "
                "Repair the observation, or the observation_space."
            )
        array = np.zeros((count, *self.shape), np.int32)
        for row, text in enumerate(values):
            try:
                numbers = [self.characters[letter] for letter in text] if isinstance(text, str) else None
            except KeyError:
                numbers = None
            if numbers is None or len(numbers) > self.shape[0]:
                letters = "".join(self.characters)
                raise ValueError(
                    f"`observation{place(self.path)}` must be a text of at most {self.shape[0]} of the characters "
                    f"{letters!r}. Received: {shown(text)} {where(row)}. Declare more in a gymnasium.spaces.Text, with "
                    "an ObservationWrapper, or leave it out, as by gymnasium.wrappers.FilterObservation."
                )
            array[row, : len(numbers)] = numbers
        return array

    def read(self, values, count, where):
        """An array [count, ...] of this leaf's dtype; see `ObservationSpec.read`."""
        if self.characters is not None:
            return self._read_texts(values, count, where)
        try:
            array = np.asarray(values)
        except (ValueError, TypeError):  # Rows of several shapes, or what is no array at all.
            raise self._misfit(values, where) from None
        if array.shape != (count, *self.shape) or array.dtype.kind not in self.kinds:
            raise self._misfit(values if len(array.shape) and len(array) == count else [array], where)
        if self.low is None:
            if array.dtype == self.dtype:
                return array
            try:
                with np.errstate(over="raise"):
                    return array.astype(self.dtype)
            except FloatingPointError:
                raise self._beyond(array, np.abs(array) > np.finfo(np.float32).max, where) from None
        if array.dtype == np.uint8 and self.dtype == np.uint8:
            return array
        if self.shape or array.dtype.kind == "f":
            fits = (array >= self.low) & (array <= self.high)
            if array.dtype.kind == "f":
                fits &= array == np.floor(array)
            if not fits.all():
                raise self._beyond(array, ~fits, where)
        else:  # Faster than an array's own minimum.
            choices = array.tolist()
            if min(choices) < self.low or max(choices) > self.high:
                raise self._beyond(array, (array < self.low) | (array > self.high), where)
        return array.astype(self.dtype)

    def _misfit(self, values, where):
        """The error of values of another shape or kind."""
        row, received = 0, ""
        for row, value in enumerate(values):  # noqa: B007
            try:
                one = np.asarray(value)
            except (ValueError, TypeError):
                received = shown(value)
                break
            if one.shape != self.shape:
                received = f"shape {one.shape}"
                break
            if one.dtype.kind not in self.kinds:
                received = f"{shown(value)} of {one.dtype}"
                break
        numbers = "numbers" if "f" in self.kinds else "whole numbers"
        return ValueError(
            f"`observation{place(self.path)}` must be {numbers} of shape {self.shape}, as its space {self.space} says. "
            f"Received: {received} {where(row)}. Repair the observation, or the observation_space."
        )

    def _beyond(self, array, bad, where):
        """The error of values that no choice, or no float32, is."""
        row = int(bad.reshape(len(bad), -1).any(1).argmax())
        value = array[row][bad[row]].flat[0] if self.shape else array[row]
        if self.low is None:
            wanted = "within float32 (3.4e38), in which networks compute"
        else:
            wanted = f"one of the choices of its space {self.space}"
        return ValueError(
            f"`observation{place(self.path)}` must be {wanted}. Received: {value} {where(row)}. "
            "Repair the observation, or the observation_space."
        )


def place(path):
    """A path into a nested space or observation, as Python writes it.

    >>> place(("robot", 1))
    "['robot'][1]"
    """
    return "".join(f"[{key!r}]" for key in path)


def shown(value):
    """The beginning of a value's representation, on one line, for sentences."""
    return " ".join(repr(value).split())[:200]


def _parts(space, name, path):
    """The parts of a `Dict` or `Tuple` with their keys, or None for a leaf."""
    if isinstance(space, gym.spaces.Dict):
        parts = list(space.spaces.items())
    elif isinstance(space, gym.spaces.Tuple):
        parts = list(enumerate(space.spaces))
    else:
        return None
    if not parts:
        raise ValueError(f"`{name}{place(path)}` must hold something. Received: {space}. Leave it out.")
    for key, _ in parts:
        if not isinstance(key, (str, int)):
            raise ValueError(
                f"`{name}{place(path)}` must have texts or whole numbers for keys. "
                f"Received: the key {key!r} of {type(key)}. Rename it."
            )
    return parts


def check_buildable(spec, action_space=None, kinds=None):
    """Refuses spaces that the library's own networks cannot be built for, before Keras says so unreadably.

    Args:
        spec: An `ObservationSpec`.
        action_space: The action space, or None where the head is the user's own.
        kinds: How networks take each leaf, by name; None for `kind_of` each.

    Raises:
        ValueError: If a leaf does not fit its kind, actions are of no numbers, or there are more choices than
            networks can hold; the sentence names the leaf's place.
    """
    for key, leaf in spec._leaves.items():
        kind = kind_of(leaf.space) if kinds is None else kinds[key]
        space, name = leaf.space, f"observation_space{place(leaf.path)}"
        if kind == "image" and min(_sides(space)) < 3:
            raise ValueError(
                f"`{name}` must have sides of at least 3, since it is taken as an image and convolved by "
                f"3 x 3. Received: {space} of shape {space.shape}. Take it as numbers, "
                f"by networks=Networks(encoders={{{key!r}: 'numbers'}}), or pass networks of your own."
            )
        if kind == "categories":
            # Ours: an embedding of 16 columns with Adam's moments and a gradient holds 4 GiB then, in each network.
            _check_count(name, space, _choices(space), 2**24, "ObservationWrapper")
    if action_space is not None and action_space.shape is not None:
        _check_holds_something(action_space, "action_space")
        count = int(np.prod(action_space.shape, dtype=float))
        if not isinstance(action_space, gym.spaces.Box):
            count = _choices(action_space, together=True) or count
        # Ours: each step draws a number for each, so that 256 steps of 8 environments take 512 MiB.
        _check_count("action_space", action_space, count, 2**16, "ActionWrapper")


def _sides(image):
    """Height and width of a picture, the channels being the smaller of its first and last axis."""
    shape = image.shape[-3:]
    return shape[:2] if len(shape) == 2 or shape[0] >= shape[2] else shape[1:]


def _check_holds_something(space, name):
    text = as_text(space)
    shape = space.shape if text is None else (text.max_length, len(text.characters))
    if 0 in shape:
        what = "number" if text is None else "character"
        raise ValueError(f"`{name}` must hold at least one {what}. Received: {space} of shape {shape}. Leave it out.")


def _check_count(name, space, count, most, wrapper):
    if count > most:
        raise ValueError(
            f"`{name}` must have at most {most:,} choices, of each of which the networks hold weights. "
            f"Received: {space}. Split them over several, as digits in a MultiDiscrete, with a gymnasium.{wrapper}, or "
            "pass networks of your own."
        )


def _choices(space, together=False):
    """How many choices a leaf has; `together` counts those of a MultiDiscrete as heads do, as one rectangle."""
    if isinstance(space, gym.spaces.Discrete):
        return int(space.n)
    if isinstance(space, gym.spaces.MultiDiscrete):
        return int(space.nvec.size * space.nvec.max(initial=0) if together else space.nvec.sum(dtype=float))
    if isinstance(space, gym.spaces.Box) and space.dtype.kind in "biu" and bounds_of(space) is not None:
        low, high = bounds_of(space)
        return (high - low + 1) * (space.shape[0] if len(space.shape) == 1 else 1)
    return 0


def bounds_of(space):
    """`(low, high)` where a `Box` has the same finite bounds everywhere, as Python numbers; else None.

    >>> bounds_of(gym.spaces.Box(0, 255, (84, 84), "uint8"))
    (0, 255)
    """
    if not space.low.size or not all(np.all(bound == bound.flat[0]) for bound in (space.low, space.high)):
        return None
    low, high = space.low.flat[0].item(), space.high.flat[0].item()
    if not np.isfinite([float(low), float(high)]).all():
        return None
    return (int(low), int(high)) if space.dtype.kind in "biu" else (low, high)


def leaf_name(path):
    """A name that Keras, TensorFlow's signatures and Python's keyword arguments all accept."""
    name = "_".join(f"item{key}" if isinstance(key, int) else str(key) for key in path)
    name = re.sub(r"\W", "_", name, flags=re.ASCII)
    if not name[:1].isalpha():
        name = f"item{name}"
    # The endpoint `sample` has an input `seed` of its own.
    return f"{name}_" if keyword.iskeyword(name) or name in ("seed", "self") else name


def _leaf_dtype(space, name):
    if isinstance(space, gym.spaces.Box):
        return tf.uint8 if space.dtype == np.uint8 and len(space.shape) in (2, 3, 4) else tf.float32
    if isinstance(space, (gym.spaces.Discrete, gym.spaces.MultiDiscrete)) or as_text(space) is not None:
        return tf.int32
    if isinstance(space, gym.spaces.MultiBinary):
        return tf.float32
    raise ValueError(
        "An observation space must be Box, Discrete, MultiDiscrete, MultiBinary, Text, or a Dict or Tuple of these. "
        f"Received: {space} as {name}. Convert it with a gymnasium.ObservationWrapper."
    )


# A space of type str that is no `Text` says neither how long its texts are nor of which characters. Ours, because
# MiniGrid's missions, the ones in use, have up to about a hundred.
_UNSAID = gym.spaces.Text(128, min_length=0, charset="".join(map(chr, range(32, 127))))


def as_text(space):
    """The `gymnasium.spaces.Text` that a space of texts counts as; None for a space of something else.

    A space of type str of another class, as MiniGrid's `MissionSpace`, counts as up to 128 printable ASCII characters.

    >>> as_text(gym.spaces.Text(3, charset="ab"))
    Text(1, 3, charset=ab)
    >>> as_text(gym.spaces.Discrete(3)) is None
    True
    """
    if isinstance(space, gym.spaces.Text):
        return space
    return _UNSAID if space.dtype is not None and space.dtype.kind == "U" else None


def kind_of(space):
    """How the library's networks take a leaf of an observation space, unless `Networks(encoders=...)` says otherwise.

    | kind | leaf space |
    | --- | --- |
    | "image" | `Box` of uint8 with 2 to 4 dimensions (a picture, one with channels, a stack of those) |
    | "image" | `Box` of any dtype from 0 to 1 or 255, with 3 or 4 dimensions and sides of at least 3, or 2 of 36 |
    | "categories" | `Discrete`, `MultiDiscrete`; `Box` of uint8 with 2 to 4 dimensions, up to 2 to 63 |
    | "text" | `Text`, and others of type str |
    | "numbers" | the rest |

    Pixels go up to 255 or 1. A grid of bytes that stops short of 64 holds what stands in each cell: ours, because
    one-hot vectors lose nothing of it, even where it is a quantity.

    >>> kind_of(gym.spaces.Box(0, 1, (4, 84, 84))), kind_of(gym.spaces.Box(0, 10, (7, 7, 3), "uint8"))
    ('image', 'categories')
    """
    if isinstance(space, (gym.spaces.Discrete, gym.spaces.MultiDiscrete)):
        return "categories"
    if as_text(space) is not None:
        return "text"
    if not isinstance(space, gym.spaces.Box) or len(space.shape) not in (2, 3, 4):
        return "numbers"
    bounds = bounds_of(space)
    if space.dtype == np.uint8:
        if bounds is not None and 1 < bounds[1] < 64:
            return "categories"
        return "image" if len(space.shape) < 4 or min(_sides(space)) >= 3 else "numbers"
    if bounds is None or bounds[0] != 0 or bounds[1] not in (1, 255):
        return "numbers"
    return "image" if min(_sides(space)) >= (36 if len(space.shape) == 2 else 3) else "numbers"


def is_image(space):
    """Whether a space holds an image, by `kind_of`.

    >>> is_image(gym.spaces.Box(0, 255, (84, 84, 4), "uint8"))
    True
    """
    return kind_of(space) == "image"


def space_to_config(space, name="space"):
    """A space as plain JSON, so that an agent file says what it was trained on without pickle.

    Args:
        space: A gymnasium space.
        name: The caller's name for it, for error sentences.

    Returns:
        A dictionary.

    Raises:
        ValueError: If it, or a part of it, is of another kind; the sentence names the part's place.

    >>> space_to_config(gym.spaces.Discrete(3))
    {'kind': 'Discrete', 'n': 3, 'start': 0}
    """
    kind = type(space).__name__
    if isinstance(space, gym.spaces.Box):
        return {
            "kind": "Box",
            "low": _bound_to_config(space.low),
            "high": _bound_to_config(space.high),
            "shape": list(space.shape),
            "dtype": space.dtype.name,
        }
    if isinstance(space, gym.spaces.Discrete):
        return {"kind": "Discrete", "n": int(space.n), "start": int(space.start), **_own_dtype(space)}
    if isinstance(space, gym.spaces.MultiDiscrete):
        return {
            "kind": "MultiDiscrete",
            "nvec": space.nvec.tolist(),
            "start": space.start.tolist(),
            **_own_dtype(space),
        }
    if isinstance(space, gym.spaces.MultiBinary):
        return {"kind": "MultiBinary", "shape": list(space.shape)}
    text = as_text(space)
    if text is not None:
        lengths = {"min_length": int(text.min_length), "max_length": int(text.max_length)}
        return {"kind": "Text", **lengths, "characters": text.characters}
    if isinstance(space, gym.spaces.Dict):
        spaces = [[k, space_to_config(s, f"{name}[{k!r}]")] for k, s in space.spaces.items()]
        return {"kind": "Dict", "spaces": spaces}
    if isinstance(space, gym.spaces.Tuple):
        return {"kind": "Tuple", "spaces": [space_to_config(s, f"{name}[{i}]") for i, s in enumerate(space.spaces)]}
    raise ValueError(
        "A space must be Box, Discrete, MultiDiscrete, MultiBinary, Text, Dict or Tuple. "
        f"Received: {space} of kind {kind} as {name}. Convert it with a gymnasium wrapper."
    )


def space_from_config(config):
    """The space that `space_to_config` described.

    >>> space_from_config({"kind": "Discrete", "n": 3, "start": 0})
    Discrete(3)
    """
    kind = config["kind"]
    if kind == "Box":
        shape, dtype = tuple(config["shape"]), np.dtype(config["dtype"])
        low, high = (np.broadcast_to(np.asarray(config[k], dtype), shape) for k in ("low", "high"))
        return gym.spaces.Box(low, high, shape, dtype)
    if kind == "Discrete":
        return gym.spaces.Discrete(config["n"], start=config["start"], dtype=config.get("dtype", "int64"))
    if kind == "MultiDiscrete":
        nvec, start = np.asarray(config["nvec"]), np.asarray(config["start"])
        return gym.spaces.MultiDiscrete(nvec, start=start, dtype=config.get("dtype", "int64"))
    if kind == "MultiBinary":
        shape = config["shape"]
        return gym.spaces.MultiBinary(shape[0] if len(shape) == 1 else shape)
    if kind == "Text":
        return gym.spaces.Text(config["max_length"], min_length=config["min_length"], charset=config["characters"])
    if kind == "Dict":
        # A list keeps its order; gymnasium sorts the keys of a dictionary.
        return gym.spaces.Dict([(k, space_from_config(s)) for k, s in config["spaces"]])
    if kind == "Tuple":
        return gym.spaces.Tuple([space_from_config(s) for s in config["spaces"]])
    raise ValueError(f"`kind` must name a known space. Received: kind={kind!r}.")


def _own_dtype(space):
    """The dtype of choices where it is not gymnasium's usual int64."""
    return {} if space.dtype == np.int64 else {"dtype": space.dtype.name}


def _bound_to_config(bound):
    # Python numbers of the bound's own kind: float64 cannot hold the ends of int64.
    if bound.size and np.all(bound == bound.flat[0]):
        return bound.flat[0].item()
    return bound.tolist()


def check_same_space(argument, expected, received, bounds=False):
    """Refuses an environment whose space differs from the one an agent was built for.

    Args:
        argument: What the caller passed, for the sentence (`"env"`, `"validation_env"`).
        expected: The space the agent was built with.
        received: The environment's space.
        bounds: Whether the bounds of a `Box` must be the same too, as those of actions must: the head sends within
            them.

    Raises:
        ValueError: If kind, shape or number of choices differ, or one holds images where the other holds numbers.
    """
    name = "action_space" if bounds else "observation_space"
    difference = _difference(expected, received, bounds, name)
    if difference is not None:
        where, ours, theirs = difference
        raise ValueError(
            f"`{argument}` must have the spaces the agent was built for: expected {where} to be {ours}. "
            f"Received: {theirs}. Build a new agent for this environment, or wrap the environment."
        )


def _difference(expected, received, bounds, name):
    """Where two spaces first differ, and what stands there in each; None where they do not."""
    for kind in (gym.spaces.Dict, gym.spaces.Tuple):
        if isinstance(expected, kind) and isinstance(received, kind):
            # The parts of a Dict are read by their names, whatever their order.
            ours, theirs = (
                dict(space.spaces if kind is gym.spaces.Dict else enumerate(space.spaces))
                for space in (expected, received)
            )
            if set(ours) != set(theirs):
                return name, expected, received
            pairs = (_difference(ours[key], theirs[key], bounds, f"{name}[{key!r}]") for key in ours)
            return next(filter(None, pairs), None)
    if _shape_of(expected, bounds, name) != _shape_of(received, bounds, name):
        return name, expected, received
    return None


def _shape_of(space, bounds, name):
    config = space_to_config(space, name)
    if config["kind"] == "Box":
        config["dtype"] = _leaf_dtype(space, name).name
        if not bounds:
            del config["low"], config["high"]
    else:
        config.pop("dtype", None)
    return config
