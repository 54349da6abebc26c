"""Settings of an agent: written once, checked whenever they are set, saved, and what programs are traced with."""

import copy
import inspect

import keras
import numpy as np

from kerasrl_pg.checks import arguments, misspelt


class Setting:
    """An attribute that is checked whenever it is set, and belongs to its object's `get_config`.

    What is set after the object was made (when it has `_constructed`) must also suit the other settings, as the
    object's `check_settings()` says; otherwise the former value stays.

    Args:
        check: Function of a name and a value, and of the rest here, that refuses wrong values.
        *bounds, **how: Its further arguments.
        fixed: Whether the setting means nothing after construction, and is refused then.
        traced: Whether compiled programs hold it; False for what only variables and Python hear of.

    >>> from kerasrl_pg.checks import check_number
    >>> class Method:
    ...     gamma = Setting(check_number, 0.0, 1.0)
    >>> method = Method()
    >>> method.gamma = 7.0
    Traceback (most recent call last):
    ...
    ValueError: `gamma` must be a number in [0.0, 1.0]. Received: gamma=7.0.
    """

    def __init__(self, check, *bounds, fixed=False, traced=True, **how):
        self._check, self._bounds, self._how, self._fixed, self.traced = check, bounds, how, fixed, traced

    def __set_name__(self, owner, name):
        self.name = name

    def __get__(self, holder, owner=None):
        if holder is None:
            return self
        if self.name not in vars(holder):
            raise AttributeError(f"`{self.name}` is not set yet.")
        return vars(holder)[self.name]

    def __set__(self, holder, value):
        self._check(self.name, value, *self._bounds, **self._how)
        values = vars(holder)
        if not values.get("_constructed"):
            values[self.name] = value
            return
        old = values[self.name]
        if self._fixed:
            raise ValueError(
                f"`{self.name}` must be given when {type(holder).__name__} is made, and does nothing later. "
                f"Received: {self.name}={value!r}, after {old!r}."
            )
        values[self.name] = value
        try:
            holder.check_settings()
        except Exception:
            values[self.name] = old
            raise


def settings(kind):
    """The names of a class's `Setting`s, its bases' included."""
    return [name for c in reversed(kind.__mro__) for name, value in vars(c).items() if isinstance(value, Setting)]


def serialize(value):
    """A setting as plain JSON: a number as it is, a schedule or an estimator as its configuration."""
    if hasattr(value, "get_config"):
        return keras.saving.serialize_keras_object(value)
    return value.item() if isinstance(value, np.generic) else value


def is_constant(kind, name):
    """Whether a name is public data of a class, or of its bases below `keras.Model`, and no property of any kind."""
    if name.startswith("_"):
        return False
    for c in kind.__mro__[: kind.__mro__.index(keras.Model)]:
        if name in vars(c):
            return not callable(vars(c)[name]) and not hasattr(vars(c)[name], "__get__")
    return False


class ConfiguredType(type(keras.Model)):
    """Class of the classes of `Configured`: notes with what an object is made, and checks its settings together."""

    def __call__(cls, *args, **kwargs):
        made = super().__call__(*args, **kwargs)
        signature = inspect.signature(cls.__init__)
        given = dict(list(signature.bind(made, *args, **kwargs).arguments.items())[1:])
        for parameter in signature.parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                given.update(given.pop(parameter.name, {}))
        vars(made)["_given"] = given
        vars(made)["_subclasses_own"] = {*vars(made)} - vars(made).get("_librarys_own", set())
        made.check_settings()
        made._constructed = True
        return made


class Configured(keras.Model, metaclass=ConfiguredType):
    """A Keras model with `Setting`s, whose config is what it was made with.

    A subclass may fix an argument of its base, or keep one of its own without a `Setting` or a `get_config`: what an
    object was made with is noted, and it is made anew with the same.
    """

    root = None  # The class up to which constructors are asked for their arguments.

    def check_settings(self):
        """Refuses settings that contradict each other; called when all are set, and for each that is changed."""

    def settings_changed(self, name):
        """Called when an attribute that a subclass gave itself in its constructor is set after it."""

    def __setattr__(self, name, value):
        values = vars(self)
        if not values.get("_constructed"):
            super().__setattr__(name, value)
            return
        if not hasattr(self, name):
            meant = misspelt(name, arguments(self.root, type(self)))
            if meant is not None:
                raise AttributeError(
                    f"`{type(self).__name__}` has no setting `{name}`. Did you mean `{meant}`? "
                    f"Received: {name}={value!r}."
                )
        elif name not in values and is_constant(type(self), name):
            raise AttributeError(
                f"`{name}` is said by the class {type(self).__name__}, and cannot be set afterwards. "
                f"Received: {name}={value!r}. Say it in a subclass, or set it in its constructor."
            )
        super().__setattr__(name, value)
        if name in values["_subclasses_own"]:
            self.settings_changed(name)

    def settings_values(self):
        """All `Setting`s as plain JSON."""
        return {name: serialize(getattr(self, name)) for name in settings(type(self))}

    def traced_values(self):
        """Those of them that programs are traced with."""
        return {name: value for name, value in self.settings_values().items() if getattr(type(self), name).traced}

    def settings_config(self, known):
        """All settings, and whatever else it was made with but the `known`, as plain JSON; `arguments` names all that
        was given."""
        own = settings(type(self))
        others = {name: value for name, value in self._given.items() if name not in (*own, *known)}
        config = {name: serialize(getattr(self, name, value)) for name, value in others.items()}
        return {**config, **self.settings_values(), "arguments": sorted({*self._given} - {"name"})}

    @classmethod
    def from_settings(cls, config, known):
        """An object of `settings_config`'s dictionary and more.

        Args:
            config: Deserialised values by name.
            known: Names, beside the settings, of what every constructor up to `root` takes.
        """
        config = dict(config)
        own, given = settings(cls), config.pop("arguments", None)
        if given is None:  # A file of before, which holds every argument.
            return cls(**config)
        made = cls(**{n: value for n, value in config.items() if n in given or n not in (*own, *known)})
        vars(made)["_constructed"] = False  # All of them first, and then their check.
        for name in own:
            if name in config and serialize(getattr(made, name)) != serialize(config[name]):
                setattr(made, name, config[name])
        if "name" in config:
            made.name = config["name"]
        made.check_settings()
        made._constructed = True
        return made


def deserialized(config):
    """A config with the objects that its dictionaries describe."""
    return {
        name: keras.saving.deserialize_keras_object(value)
        if isinstance(value, dict) and "class_name" in value
        else value
        for name, value in copy.deepcopy(config).items()  # Keras empties the dictionaries it reads.
    }
