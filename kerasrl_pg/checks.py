"""Refusing wrong settings at construction, in sentences."""

import difflib
import inspect
import math

import keras
import numpy as np

Schedule = keras.optimizers.schedules.LearningRateSchedule


def check_number(name, value, low, high=float("inf"), exclusive=False, optional=False, schedule=False):
    """Refuses `value` unless it is a finite number in [low, high] ((low, high] where exclusive), a schedule, or None
    where optional.

    >>> check_number("gamma", 1.5, 0.0, 1.0)
    Traceback (most recent call last):
    ...
    ValueError: `gamma` must be a number in [0.0, 1.0]. Received: gamma=1.5.
    """
    if (optional and value is None) or (schedule and isinstance(value, Schedule)):
        return
    is_number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    finite = is_number and math.isfinite(value)
    if not finite or not (low < value if exclusive else low <= value) or not value <= high:
        interval = f"{'(' if exclusive else '['}{low}, {high}{')' if high == float('inf') else ']'}"
        none = ", or None" if optional else ""
        raise ValueError(f"`{name}` must be a number in {interval}{none}. Received: {name}={value!r}.")


def check_whole(name, value, at_least=1, at_most=float("inf"), optional=False):
    """Refuses `value` unless it is a whole number from `at_least` to `at_most`, or None where optional.

    >>> check_whole("horizon", 0)
    Traceback (most recent call last):
    ...
    ValueError: `horizon` must be a whole number of at least 1. Received: horizon=0.
    """
    if optional and value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not at_least <= value <= at_most:
        most = "" if at_most == float("inf") else f" and at most {at_most}"
        none = ", or None" if optional else ""
        raise ValueError(
            f"`{name}` must be a whole number of at least {at_least}{most}{none}. Received: {name}={value!r}."
        )


def check_flag(name, value):
    """Refuses `value` unless it is True or False.

    >>> check_flag("reward_scaling", "minibatch")
    Traceback (most recent call last):
    ...
    ValueError: `reward_scaling` must be True or False. Received: reward_scaling='minibatch'.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"`{name}` must be True or False. Received: {name}={value!r}.")


def arguments(root, kind):
    """Names of the arguments that the `__init__`s of the class `kind` up to `root` take together."""
    classes = [c for c in kind.__mro__[: kind.__mro__.index(root) + 1] if "__init__" in vars(c)]
    parameters = [p for c in classes for p in list(inspect.signature(c.__init__).parameters.values())[1:]]
    return list(dict.fromkeys(p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)))


def check_known(root, kind, unknown, hints=None):
    """Refuses keyword arguments that no `__init__` from the class `kind` up to `root` names, and says what was meant.

    `hints` are sentences by name, for what belongs elsewhere.

    >>> class Agent:
    ...     def __init__(self, horizon=1, **unknown):
    ...         check_known(Agent, type(self), unknown)
    >>> class Method(Agent):
    ...     def __init__(self, clip_ratio=0.2, **kwargs):
    ...         super().__init__(**kwargs)
    >>> Method(horizn=8)
    Traceback (most recent call last):
    ...
    TypeError: `Method` has no argument `horizn`. Did you mean `horizon`? Its arguments are clip_ratio, horizon.
    """
    if not unknown:
        return
    name, known = next(iter(unknown)), arguments(root, kind)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
    hint = (hints or {}).get(name) or (f"Did you mean `{close[0]}`?" if close else "")
    sentences = f"`{kind.__name__}` has no argument `{name}`.", hint, f"Its arguments are {', '.join(known)}."
    raise TypeError(" ".join(filter(None, sentences)))


def serialize_coefficient(coefficient):
    """A number as it is, a Keras schedule as its configuration."""
    if isinstance(coefficient, Schedule):
        return keras.saving.serialize_keras_object(coefficient)
    return coefficient
