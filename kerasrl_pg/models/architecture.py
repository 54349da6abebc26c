"""What an agent builds for itself: the base of `Networks` and of the policy classes."""

import contextlib
import random

import gymnasium as gym
import keras
import numpy as np

from kerasrl_pg import heads


class Architecture:
    """How policy and critic are made from an environment's spaces; an agent's `networks=`.

    One of your own implements `build` and `get_config`, and is registered with Keras, so that files can name it.
    """

    head = None  # A `Head` layer that the policy ends in, where it is known before the spaces are.

    def build(self, observation_space, action_space, seed):
        """Builds the networks for two gymnasium spaces.

        Args:
            observation_space, action_space: Of one environment.
            seed: Of the initial weights.

        Returns:
            `(policy, critic)`, two Keras models; or one model with outputs "policy" and "value", and None.

        Raises:
            ValueError: If the spaces are not those that it is for.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement build(observation_space, action_space, seed).")

    def get_config(self):
        """Its arguments as plain JSON."""
        raise NotImplementedError(f"{type(self).__name__} must implement get_config().")

    @classmethod
    def from_config(cls, config):
        """One from `get_config`'s dictionary."""
        return cls(**config)


@contextlib.contextmanager
def drawing_from(seed):
    """Keras initializers without a seed draw one from Python's `random`; in here they draw it from `seed`."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)


def leaf_inputs(spec):
    """A Keras input for each leaf of the observation, by name."""
    leaves = {"observation": spec.specs} if spec.single else spec.specs
    return {name: keras.Input(tuple(leaf.shape), dtype=leaf.dtype.name, name=name) for name, leaf in leaves.items()}


def check_critic(critic):
    """Refuses what has no critic of its own; argument of the policy classes."""
    if critic is None:
        return
    if not isinstance(critic, Architecture):
        raise TypeError(
            "`critic` must be None, or what builds one: Networks(), or a policy class whose critic is taken. "
            f"Received: critic={critic!r}."
        )
    if getattr(critic, "shared", False):
        raise ValueError(
            "`critic` must be a model of its own. Received: Networks(shared=True), whose critic shares its layers with "
            "a policy. Take shared=False."
        )


def check_omit(omit):
    """Refuses what are no names of leaves; argument of the policy classes."""
    if omit is not None and (isinstance(omit, str) or not all(isinstance(name, str) for name in omit)):
        raise TypeError(f"`omit` must be None or a list of names of the observation's leaves. Received: omit={omit!r}.")


def seen_leaves(spec, omit):
    """The leaves of the observation, space by name, but for those left out: `action_mask` where `omit` is None.

    Raises:
        ValueError: If a name is no leaf's, or none is left.
    """
    names = ", ".join(map(repr, spec.leaves))
    for name in omit or ():
        if name not in spec.leaves:
            raise ValueError(f"`omit` must name leaves of the observation, which has {names}. Received: {name!r}.")
    left_out = ("action_mask",) if omit is None else omit
    seen = {name: space for name, space in spec.leaves.items() if spec.single or name not in left_out}
    if not seen:
        raise ValueError(f"`omit` must leave a leaf to see, of {names}. Received: omit={omit!r}.")
    return seen


def initial_values(initializer):
    """What a user gives as initial values: a Keras initializer, or a float array; argument of the policy classes.

    Raises:
        ValueError: If Keras does not know it, or the array holds anything but finite numbers.
    """
    if isinstance(initializer, (list, tuple, np.ndarray)):
        array = np.asarray(initializer)
        if array.dtype.kind not in "biuf" or not np.isfinite(array).all():
            raise ValueError(f"`initializer` must hold finite numbers. Received: initializer={initializer!r}.")
        return array.astype("float32")
    try:
        found = keras.initializers.get(initializer)
    except ValueError as error:
        raise ValueError(
            "`initializer` must be an array, or an initializer that Keras knows. "
            f"Received: initializer={initializer!r}."
        ) from error
    if not isinstance(found, keras.initializers.Initializer):
        raise ValueError(
            "`initializer` must be an array, or a Keras initializer, which a file can name. "
            f"Received: initializer={initializer!r}."
        )
    return found


def initializer_for(values, shape, what):
    """The initializer of a weight, of what `initial_values` gave.

    Args:
        values: An array or a Keras initializer, of which one without a seed is made anew and draws another.
        shape: Of the initial values as a user sees them; the weight has as many numbers in the same order.
        what: The axes of that shape, for the sentence.

    Raises:
        ValueError: If an array has another shape.
    """
    if not isinstance(values, np.ndarray):
        return type(values).from_config(values.get_config())
    if values.shape != tuple(shape):
        raise ValueError(
            f"`initializer` must be an array of shape {tuple(shape)}, {what}. Received: an array of {values.shape}."
        )
    return Values(values)


def head_for(space, values, rows, what, use_bias=False):
    """The head that an action space calls for, with initial values of its kernel [rows, A].

    Args:
        space: The action space.
        values: What `initial_values` gave.
        rows: Its features, states say.
        what: Their name, for the sentence.
        use_bias: Of the head.

    Raises:
        ValueError: If an array has another shape, or actions are not Discrete and their parameters are the head's.
    """
    discrete = isinstance(space, gym.spaces.Discrete)
    if isinstance(values, np.ndarray) and not discrete:
        raise ValueError(
            "`initializer` must be a Keras initializer where actions are not Discrete. "
            f"Received: an array of {values.shape}, for the action space {space}."
        )
    initializer = initializer_for(values, (rows, int(space.n)) if discrete else (), f"{what} and actions")
    return heads.default_head(space, kernel_initializer=initializer, use_bias=use_bias)


@keras.saving.register_keras_serializable("kerasrl_pg")
class Values(keras.initializers.Initializer):
    """The numbers of an array, in the weight's shape.

    Args:
        values: Array or nested lists of numbers.
    """

    def __init__(self, values):
        self.values = np.asarray(values, "float32")

    def __call__(self, shape, dtype=None):
        return keras.ops.cast(self.values.reshape(shape), dtype or "float32")

    def get_config(self):
        return {"values": self.values.tolist()}


def values_to_config(values):
    """What `initial_values` gave, as plain JSON."""
    return values.tolist() if isinstance(values, np.ndarray) else keras.saving.serialize_keras_object(values)


def deserialized(config, *names):
    """The config with objects in place of the dictionaries that describe them under these names."""
    read = {name: config[name] for name in names if isinstance(config.get(name), dict)}
    return {**config, **{name: keras.saving.deserialize_keras_object(value) for name, value in read.items()}}
