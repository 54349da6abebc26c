"""Layers made again from their settings, so that no two networks share one."""

import inspect

import keras


def anew(layer, argument):
    """A layer of the same settings, with weights of its own.

    Args:
        layer: A Keras layer.
        argument: What the caller passed it as, for the sentence.

    Returns:
        A layer.

    Raises:
        TypeError: If its config does not make it anew.

    >>> anew(keras.layers.Dense(3), "encoders").units
    3
    """
    kind = type(layer)
    remedy = "Write its get_config, or give the agent your own `policy` and `critic`."
    try:
        config = layer.get_config()
        if argument in ("activation", "memory") or argument.startswith("encoders"):
            config.pop("name", None)  # A model has several.
        if isinstance(layer, keras.Model):
            config["name"] = None  # Sequential wants one, and makes it.
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
