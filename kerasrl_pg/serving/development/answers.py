"""What the development server answers, whatever protocol it is asked by."""

import math
import threading

import numpy as np
import tensorflow as tf

MOST_NUMBERS = 2**26  # Of one tensor: 256 MiB of float32. Ours, against requests that are a mistake.
MOST_ROWS = 10**6  # Of `initial_state`, likewise.


class Refused(Exception):
    """A request that gets no answer.

    Args:
        code: Name of a gRPC status code.
        sentence: Why.
    """

    def __init__(self, code, sentence):
        super().__init__(sentence)
        self.code = code


class Answers:
    """Answers requests to one model.

    Args:
        name: Of the model.
        versions: Its `Versions`.

    Attributes:
        count: Requests for predictions that were answered.
    """

    def __init__(self, name, versions):
        self.name, self.versions = name, versions
        self.count, self._lock = 0, threading.Lock()

    def predict(self, name, number, signature, inputs, wanted=()):
        """`(number, signature, outputs)`: the version that answers, the endpoint, and arrays by name.

        Args:
            name, number: Of the model, and its version or None.
            signature: The endpoint; empty for `serving_default`.
            inputs: Function from the endpoint's specs to arrays by name.
            wanted: Names of the outputs to give; all where it is empty.

        Raises:
            Refused: If there is no answer, or it would be none of the policy's.
        """
        with self.using(name, number) as version:
            signature = signature or "serving_default"
            if signature not in version.functions:
                raise Refused(
                    "INVALID_ARGUMENT",
                    f"Serving signature name: {signature!r} not found in signature def. There are "
                    f"{', '.join(version.functions)}.",
                )
            function = version.functions[signature]
            specs = function.structured_input_signature[1]
            arrays = inputs(specs)
            _check(arrays, specs)
            unknown = [key for key in wanted if key not in function.structured_outputs]
            if unknown:
                raise Refused("INVALID_ARGUMENT", f"output tensor alias not found in signature: {unknown[0]}.")
            outputs = _computed(function, arrays)
            number = version.number
        with self._lock:
            self.count += 1
        return number, signature, {key: outputs[key] for key in wanted or outputs}

    def using(self, name, number=None):
        """A context manager that gives the version to ask, which stays loaded inside.

        Raises:
            Refused: If there is none.
        """
        self._check_name(name, number)
        return _Loaded(self.versions.using(number), name, number)

    def statuses(self, name, number=None):
        """`(number, state, error)` of the versions known so far, or of one.

        Raises:
            Refused: If there is none.
        """
        self._check_name(name, number)
        found = [status for status in self.versions.statuses() if number in (None, status[0])]
        if number is not None and not found:
            raise Refused("NOT_FOUND", f"Could not find version {number} of model {name}.")
        return found

    def _check_name(self, name, number):
        if name != self.name:
            raise Refused("NOT_FOUND", f"{_servable(name, number)}. The model here is {self.name!r}.")


class _Loaded:
    """`Versions.using`, which refuses where nothing is loaded."""

    def __init__(self, manager, name, number):
        self._manager, self._what = manager, _servable(name, number)

    def __enter__(self):
        version = self._manager.__enter__()
        if version is None:
            self._manager.__exit__(None, None, None)
            raise Refused("NOT_FOUND", f"{self._what}. No such version is loaded.")
        return version

    def __exit__(self, *error):
        return self._manager.__exit__(*error)


def _servable(name, number):
    which = f"Latest({name})" if number is None else f"Specific({name}, {number})"
    return f"Servable not found for request: {which}"


def check_size(name, shape):
    """Refuses a tensor that is too large to be meant, before there is one.

    Raises:
        Refused: If it is.
    """
    if any(size < 0 for size in shape) or math.prod(shape) > MOST_NUMBERS:
        raise Refused(
            "INVALID_ARGUMENT", f"`{name}` must hold at most {MOST_NUMBERS} numbers. Received: shape {shape}."
        )


def _check(arrays, specs):
    """Refuses what does not fit the specs, or is not finite."""
    missing, unknown = sorted(set(specs) - set(arrays)), sorted(set(arrays) - set(specs))
    if missing or unknown:
        raise Refused(
            "INVALID_ARGUMENT",
            f"input size does not match signature: the inputs must be {', '.join(sorted(specs))}. Received: "
            f"{', '.join(sorted(arrays)) or 'none'}.",
        )
    rows = {}
    for name, spec in specs.items():
        array, dtype = arrays[name], np.dtype(spec.dtype.as_numpy_dtype)
        if array.dtype != dtype or not spec.shape.is_compatible_with(array.shape):
            raise Refused(
                "INVALID_ARGUMENT",
                f"`{name}` must be {dtype} of shape {list(spec.shape)}. Received: {array.dtype} of shape "
                f"{list(array.shape)}.",
            )
        if dtype.kind == "f" and not np.isfinite(array).all():
            raise Refused("INVALID_ARGUMENT", f"`{name}` must be finite. Received: NaN or infinity.")
        if dtype.kind == "b" and array.ndim > 1 and not array.reshape(len(array), -1).any(-1).all():
            raise Refused("INVALID_ARGUMENT", f"`{name}` must allow something. Received: a row that allows nothing.")
        if spec.shape.rank and spec.shape[0] is None:
            rows[name] = len(array)
        if name == "batch_size" and not 0 < array <= MOST_ROWS:
            raise Refused("INVALID_ARGUMENT", f"`batch_size` must be 1 to {MOST_ROWS}. Received: {array}.")
    if len(set(rows.values())) > 1:  # TensorFlow would repeat a single row for all others.
        raise Refused("INVALID_ARGUMENT", f"All inputs must have as many rows. Received: {rows}.")


def _computed(function, arrays):
    try:
        outputs = function(**{name: tf.constant(array) for name, array in arrays.items()})
        outputs = {name: tensor.numpy() for name, tensor in outputs.items()}
    except tf.errors.InvalidArgumentError as error:
        raise Refused("INVALID_ARGUMENT", str(error)[:500]) from error
    except tf.errors.OpError as error:
        raise Refused("INTERNAL", str(error)[:500]) from error
    for name, array in outputs.items():
        if array.dtype.kind == "f" and np.isnan(array).any():
            row = int(np.isnan(array).reshape(len(array), -1).any(-1).argmax())
            raise Refused(
                "INVALID_ARGUMENT", f"The inputs must be such that {name!r} is a number. Received: others in row {row}."
            )
    return outputs
