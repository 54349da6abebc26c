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
    | `Box` of uint8 with 2 or 3 dimensions | an image, kept uint8 |
    | any other `Box` | float32 |
    | `Discrete`, `MultiDiscrete` | int32 |
    | `MultiBinary` | float32 of 0 and 1 |

    Args:
        space: A gymnasium observation space.

    Raises:
        ValueError: If a leaf is of another kind (`Text`, `Graph`, `Sequence`, ...), or two leaves get the same name.

    Example:

    >>> import gymnasium as gym
    >>> spec = ObservationSpec(gym.spaces.Dict(goal=gym.spaces.Discrete(3), robot=gym.spaces.Box(-1, 1, (2,))))
    >>> [(name, tuple(leaf.shape), leaf.dtype.name) for name, leaf in spec.specs.items()]
    [('goal', (), 'int32'), ('robot', (2,), 'float32')]
    """

    def __init__(self, space):
        self.space = space
        self.leaves = {}
        self._paths = {}
        self._collect(space, ())
        self.single = not isinstance(space, (gym.spaces.Dict, gym.spaces.Tuple))
        specs = {name: tf.TensorSpec(leaf.shape, _leaf_dtype(leaf), name=name) for name, leaf in self.leaves.items()}
        self.specs = specs["observation"] if self.single else specs

    def _collect(self, space, path):
        if isinstance(space, gym.spaces.Dict):
            for key, leaf in space.spaces.items():
                self._collect(leaf, (*path, key))
        elif isinstance(space, gym.spaces.Tuple):
            for index, leaf in enumerate(space.spaces):
                self._collect(leaf, (*path, index))
        else:
            name = _leaf_name(path) if path else "observation"
            if name in self.leaves:
                raise ValueError(
                    f"Two parts of the observation space get the same name '{name}'. "
                    f"Received: space={self.space}. Rename one key of the Dict space."
                )
            _leaf_dtype(space)
            self.leaves[name] = space
            self._paths[name] = path

    def flatten(self, observations):
        """The observation(s) of the environment as this spec's tensor or flat dictionary of arrays.

        Args:
            observations: What `reset` and `step` return, one observation or a batch, nested as the space.

        Returns:
            An array, or a flat dictionary of arrays; dtypes may still be the environment's.
        """
        if self.single:
            return np.asarray(observations)
        flat = {}
        for name, path in self._paths.items():
            part = observations
            for key in path:
                part = part[key]
            flat[name] = np.asarray(part)
        return flat

    def empty(self, *batch):
        """Zeroed storage for observations with the leading sizes `batch`."""
        return self.map(lambda spec: np.zeros((*batch, *spec.shape), spec.dtype.as_numpy_dtype))

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

    def is_batch(self, observations):
        """Whether flattened `observations` have a leading batch dimension.

        Raises:
            ValueError: If their shape is neither one observation's nor a batch's.
        """
        leaves = {"observation": observations} if self.single else observations
        name, array = next(iter(leaves.items()))
        shape = tuple(self.leaves[name].shape or ())
        if array.shape == shape:
            return False
        if array.shape[1:] == shape and array.ndim == len(shape) + 1:
            return True
        raise ValueError(f"`{name}` must have shape {shape}, or a batch of it. Received: {name}.shape={array.shape}.")


def _leaf_name(path):
    """A name that Keras, TensorFlow's signatures and Python's keyword arguments all accept."""
    name = "_".join(f"item{key}" if isinstance(key, int) else str(key) for key in path)
    name = re.sub(r"\W", "_", name, flags=re.ASCII)
    if not name[:1].isalpha():
        name = f"item{name}"
    # The endpoint `sample` has an input `seed` of its own.
    return f"{name}_" if keyword.iskeyword(name) or name in ("seed", "self") else name


def _leaf_dtype(space):
    if isinstance(space, gym.spaces.Box):
        return tf.uint8 if is_image(space) else tf.float32
    if isinstance(space, (gym.spaces.Discrete, gym.spaces.MultiDiscrete)):
        return tf.int32
    if isinstance(space, gym.spaces.MultiBinary):
        return tf.float32
    raise ValueError(
        "An observation space must be Box, Discrete, MultiDiscrete, MultiBinary, or a Dict or Tuple of these. "
        f"Received: {space}. Convert it with a gymnasium.ObservationWrapper."
    )


def is_image(space):
    """Whether a `Box` holds an image: uint8 of two or three dimensions.

    >>> is_image(gym.spaces.Box(0, 255, (84, 84, 4), "uint8"))
    True
    """
    return isinstance(space, gym.spaces.Box) and space.dtype == np.uint8 and len(space.shape) in (2, 3)


def space_to_config(space):
    """A space as plain JSON, so that an agent file says what it was trained on without pickle.

    >>> space_to_config(gym.spaces.Discrete(3))
    {'kind': 'Discrete', 'n': 3, 'start': 0, 'dtype': 'int64'}
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
        return {"kind": "Discrete", "n": int(space.n), "start": int(space.start), "dtype": space.dtype.name}
    if isinstance(space, gym.spaces.MultiDiscrete):
        return {
            "kind": "MultiDiscrete",
            "nvec": space.nvec.tolist(),
            "start": space.start.tolist(),
            "dtype": space.dtype.name,
        }
    if isinstance(space, gym.spaces.MultiBinary):
        return {"kind": "MultiBinary", "shape": list(space.shape)}
    if isinstance(space, gym.spaces.Dict):
        return {"kind": "Dict", "spaces": [[k, space_to_config(s)] for k, s in space.spaces.items()]}
    if isinstance(space, gym.spaces.Tuple):
        return {"kind": "Tuple", "spaces": [space_to_config(s) for s in space.spaces]}
    raise ValueError(
        "A space must be Box, Discrete, MultiDiscrete, MultiBinary, Dict or Tuple. "
        f"Received: {space} of kind {kind}. Convert it with a gymnasium wrapper."
    )


def space_from_config(config):
    """The space that `space_to_config` described.

    >>> space_from_config({"kind": "Discrete", "n": 3, "start": 0})
    Discrete(3)
    """
    kind = config["kind"]
    whole = np.dtype(config.get("dtype", "int64"))  # Of the discrete ones, whose older files do not say it.
    if kind == "Box":
        shape, dtype = tuple(config["shape"]), np.dtype(config["dtype"])
        low, high = (np.broadcast_to(np.asarray(config[k], dtype), shape) for k in ("low", "high"))
        return gym.spaces.Box(low, high, shape, dtype)
    if kind == "Discrete":
        return gym.spaces.Discrete(config["n"], start=config["start"], dtype=whole)
    if kind == "MultiDiscrete":
        return gym.spaces.MultiDiscrete(config["nvec"], start=config["start"], dtype=whole)
    if kind == "MultiBinary":
        shape = config["shape"]
        return gym.spaces.MultiBinary(shape[0] if len(shape) == 1 else shape)
    if kind == "Dict":
        # A list keeps its order; gymnasium sorts the keys of a dictionary.
        return gym.spaces.Dict([(k, space_from_config(s)) for k, s in config["spaces"]])
    if kind == "Tuple":
        return gym.spaces.Tuple([space_from_config(s) for s in config["spaces"]])
    raise ValueError(f"`kind` must name a known space. Received: kind={kind!r}.")


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
    if _shape_of(expected, bounds) != _shape_of(received, bounds):
        raise ValueError(
            f"`{argument}` must have the spaces the agent was built for: expected {expected}. "
            f"Received: {received}. Build a new agent for this environment, or wrap the environment."
        )


def _shape_of(space, bounds=False):
    config = space_to_config(space)
    if "dtype" in config:
        config["dtype"] = _leaf_dtype(space).name
    if config["kind"] == "Box" and not bounds:
        del config["low"], config["high"]
    if "spaces" in config:
        subspaces = space.spaces.items() if config["kind"] == "Dict" else enumerate(space.spaces)
        config["spaces"] = [[str(key), _shape_of(leaf, bounds)] for key, leaf in subspaces]
    return config
