"""Objects as plain data that people read and write, and back: `GAE(0.9)` is `{"GAE": {"gae_lambda": 0.9}}`.

A name means a class of this library, one of Keras's optimizers, schedules, layers and so on, or one that was registered
with Keras; nothing else is ever looked up, imported or executed.
"""

import dataclasses
import functools
import inspect

import keras
import numpy as np

from kerasrl_pg.checks import arguments, misspelt, refuse_unknown

CLASS = "class"  # {"class": "Gaussian"} is the class itself.
KERAS = (
    "optimizers",
    "optimizers.schedules",
    "layers",
    "initializers",
    "regularizers",
    "constraints",
)


@functools.cache
def classes():
    """Class by name, or what makes one: this library's by their own names, Keras's, too, or else by their paths."""
    import kerasrl_pg as pg

    named = {"GRU": pg.models.GRU, "LSTM": pg.models.LSTM, "linear": pg.schedules.linear}
    for room in (pg, pg.heads, pg.models, pg.estimators, pg.baselines, pg.schedules, pg.envs, pg.presets):
        for name, value in vars(room).items():
            if isinstance(value, type) and value.__module__.startswith("kerasrl_pg"):
                named.setdefault(name, value)
    for room in KERAS:
        module = functools.reduce(getattr, room.split("."), keras)
        for name, value in vars(module).items():
            if isinstance(value, type) and name != "Lambda":
                named[name if name not in named else f"keras.{room}.{name}"] = value
    return named


def class_of(name, where):
    """The class that a name means.

    Args:
        name: A key of `classes()`, or `package>Name` of `keras.saving.register_keras_serializable`.
        where: What to call the place in an error.

    Raises:
        ValueError: If there is none.

    >>> class_of("GAE", "estimator").__name__
    'GAE'
    >>> class_of("GEA", "estimator")
    Traceback (most recent call last):
    ...
    ValueError: `estimator` must name a class of kerasrl_pg or Keras, or one registered with Keras. Received: 'GEA'.
    """
    found = classes().get(name) or keras.saving.get_registered_object(name)
    if found is not None:
        return found
    meant = misspelt(name, classes())
    raise ValueError(
        f"`{where}` must name a class of kerasrl_pg or Keras, or one registered with Keras. Received: {name!r}."
        + (f" Did you mean {meant!r}?" if meant else "")
    )


def name_of(kind):
    """The name by which `class_of` finds a class.

    Raises:
        TypeError: If there is none.

    >>> name_of(keras.optimizers.Adam)
    'Adam'
    """
    for name, value in classes().items():
        if value is kind:
            return name
    registered = keras.saving.get_registered_name(kind)
    if keras.saving.get_registered_object(registered) is kind:
        return registered
    raise TypeError(
        f"A file of settings must name classes that can be found again. Received: {kind.__name__}, which is not "
        "registered. Decorate it with `keras.saving.register_keras_serializable()`."
    )


def describe(value, where="value"):
    """Plain data, of which `realize` makes an equal value.

    Args:
        value: None, a number, a string, a list, a dictionary by strings, a class, a `CompiledEnv`, or an object with
            `get_config`; nested.
        where: What to call it in an error.

    Returns:
        The same of None, booleans, numbers, strings, lists and dictionaries; arguments at their defaults are left out.

    Raises:
        TypeError: If it is something else, such as a function.

    >>> describe(keras.optimizers.Adam(3e-4, epsilon=1e-5))
    {'Adam': {'learning_rate': 0.0003, 'epsilon': 1e-05}}
    >>> import kerasrl_pg as pg
    >>> describe(pg.envs.CartPole(num_envs=32))
    {'CartPole': {'num_envs': 32}}
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, (float, np.generic)):
        return _shortest(value.item() if isinstance(value, np.generic) else value)
    if isinstance(value, (list, tuple)):
        return [describe(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, np.ndarray):
        return describe(value.tolist(), where)
    if isinstance(value, dict):
        return {str(name): describe(item, f"{where}.{name}") for name, item in value.items()}
    if isinstance(value, type):
        return {CLASS: name_of(value)}
    if dataclasses.is_dataclass(value) and type(value) in classes().values():  # A compiled environment.
        fields = {f.name: (getattr(value, f.name), f.default) for f in dataclasses.fields(value) if f.init}
        given = {name: describe(item, f"{where}.{name}") for name, (item, default) in fields.items() if item != default}
        return {name_of(type(value)): given}
    if isinstance(value, keras.Model) or not hasattr(value, "get_config"):
        raise TypeError(
            f"`{where}` must be a number, a string, or an object with a config, to be written down. Received: "
            f"{type(value).__name__}. Save the agent itself, `agent.save(...)`, which holds its models."
        )
    return {name_of(type(value)): _arguments(value, where)}


def realize(data, where="value"):
    """The value that plain data describes.

    Args:
        data: As `describe` gives it, or a person writes it: `{"GAE": {"gae_lambda": 0.9}}`, `{"GAE": None}` for an
            object of defaults, `{"class": "Gaussian"}` for a class.
        where: What to call it in an error.

    Returns:
        New objects, each time.

    Raises:
        ValueError: If a name means nothing, or a class refuses an argument.
        TypeError: If a class has no such argument; the nearest right name is said.

    >>> realize({"GAE": {"gae_lambda": 0.9}}).gae_lambda
    0.9
    >>> realize({"Adam": {"learning_rat": 0.1}}, "optimizer")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    TypeError: `Adam` has no argument `learning_rat`. Did you mean `learning_rate`? Its arguments are ...
    """
    if isinstance(data, (list, tuple)):
        return [realize(item, f"{where}[{i}]") for i, item in enumerate(data)]
    if not isinstance(data, dict):
        return data
    if set(data) == {CLASS}:
        return class_of(data[CLASS], where)
    if not is_object(data):
        return {name: realize(item, f"{where}.{name}") for name, item in data.items()}
    ((name, given),) = data.items()
    kind = class_of(name, where)
    given = {key: realize(item, f"{where}.{key}") for key, item in (given or {}).items()}
    refuse_unknown(name, known_arguments(kind), {key: item for key, item in given.items() if not _takes(kind, key)})
    try:
        return kind(**given)
    except (ValueError, TypeError) as error:
        raise type(error)(f"`{where}`: {error}") from error


def is_object(data):
    """Whether plain data is an object's: one name, of `classes()` or with a capital, and its arguments or None.

    >>> is_object({"GAE": None}), is_object({"image": "categories"}), is_object({"Adam": 3})
    (True, False, False)
    """
    if not isinstance(data, dict) or len(data) != 1:
        return False
    ((name, given),) = data.items()
    capital = name.rpartition(".")[2].rpartition(">")[2][:1].isupper()
    return (capital or name in classes()) and (given is None or isinstance(given, dict))


def known_arguments(kind):
    """Names of the arguments of a class's constructor, and of its bases' where it passes on what it does not know."""
    if not isinstance(kind, type):
        return list(inspect.signature(kind).parameters)
    return arguments(object, kind)


def _takes(kind, name):
    return name in known_arguments(kind)


def _arguments(value, where):
    """The config of an object, less what its constructor would take by itself."""
    parameters = inspect.signature(type(value)).parameters
    described = {}
    for name, item in value.get_config().items():
        if name in ("name", "dtype", "trainable") or not _takes(type(value), name):
            continue
        if isinstance(getattr(value, name, None), type):
            item = getattr(value, name)
        elif isinstance(item, dict) and "class_name" in item:
            item = keras.saving.deserialize_keras_object(item)
        item = describe(item, f"{where}.{name}")
        if name == "learning_rate" or not _same(item, parameters[name].default if name in parameters else None):
            described[name] = item
    return described


def _same(item, default):
    """Whether plain data is what a constructor takes by itself, which may be the name of a Keras object."""
    if isinstance(default, str) and is_object(item):
        ((name, given),) = item.items()
        return not given and name.lower() == default.replace("_", "").lower()
    default = list(default) if isinstance(default, tuple) else default
    return type(item) is type(default) and item == default


def _shortest(value):
    """A number as it was written: 0.001 of 0.0010000000474974513, which is what a float32 variable makes of it."""
    return float(str(np.float32(value))) if float(np.float32(value)) == value else value
