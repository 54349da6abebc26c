"""Asking a policy that TensorFlow Serving, or the development server, serves."""

import numpy as np

from kerasrl_pg.checks import check_number, check_whole
from kerasrl_pg.envs.spaces import leaf_name, place
from kerasrl_pg.serving.requests import MODEL
from kerasrl_pg.serving.transports import Grpc, Rest


class Client:
    """A served policy: observation in, action out.

    What it knows of the policy, the names, shapes and dtypes of its tensors, the server tells it at the first request.

    Args:
        address: "host:8500" to speak gRPC, with the messages of `tensorflow-serving-api`, not encrypted;
            "http://host:8501", or https, to speak REST.
        model: Its name at the server; "default", as TensorFlow Serving calls a model that nobody named.
        version: A whole number; None for the version that the server prefers, which is the latest.
        timeout: Seconds that an answer may take, above 0. 10: ours, a thousand times what small policies need.

    Raises:
        ValueError: If an argument is none of these.
        ImportError: If gRPC is wanted and `tensorflow-serving-api` is not installed.

    The calls raise ConnectionError where nobody answers, TimeoutError where it takes too long, LookupError where the
    server does not have the model, its version or the endpoint, ValueError where it refuses what it is asked, and
    RuntimeError where it fails. A client may be used by several threads.

    >>> Client("http://localhost:8501", timeout=1.0)
    Client('http://localhost:8501', model='default')
    """

    def __init__(self, address, model=MODEL, version=None, timeout=10.0):
        check_number("timeout", timeout, 0.0, exclusive=True)
        check_whole("version", version, at_least=0, optional=True)
        if not isinstance(model, str) or not model:
            raise ValueError(f"`model` must be a name. Received: model={model!r}.")
        if not isinstance(address, str) or not address:
            raise ValueError(f"`address` must be 'host:8500' or 'http://host:8501'. Received: address={address!r}.")
        self.address, self.model, self.version, self.timeout = address, model, version, timeout
        transport = Rest if address.startswith(("http://", "https://")) else Grpc
        self._transport = transport(address, model, version, timeout)
        self._signatures = None
        self._beginnings = {}

    @property
    def signatures(self):
        """What the endpoints take and give: `{endpoint: {"inputs": {name: (dtype, shape)}, "outputs": ...}}`, in shapes
        None for any size."""
        if self._signatures is None:
            self._signatures = self._transport.signatures()
        return self._signatures

    def predict(self, inputs, signature="serving_default"):
        """Asks one endpoint.

        Args:
            inputs: Arrays, or what NumPy makes arrays of, by the name of the input, with their batch dimension.
            signature: Name of the endpoint.

        Returns:
            Arrays by the name of the output.
        """
        takes = self._endpoint(signature)
        if set(takes["inputs"]) != set(inputs):
            raise ValueError(
                f"`inputs` of {signature!r} must be {', '.join(takes['inputs'])}. Received: {', '.join(inputs)}."
            )
        arrays = {name: _array(name, inputs[name], *wanted) for name, wanted in takes["inputs"].items()}
        return self._transport.predict(arrays, signature, takes["outputs"])

    def act(self, observation, deterministic=True, seed=None, action_mask=None, state=None):
        """The action(s) the environment accepts, for one observation or a batch, as `agent.act` gives them.

        Args:
            observation: One observation of the environment's space, or a batch of them; dictionaries and tuples nested
                as the space is, or flat, by the names of the inputs. Texts only as the numbers that
                `ObservationSpec` makes of them.
            deterministic: The policy's mode, from the endpoint `serving_default`, else a draw, from `sample`.
            seed: Of the draw, a whole number, or two of them; None draws one.
            action_mask: What is allowed, of the policies that take it; for one or for a batch. Of several choices, such
                as a `MultiDiscrete`, their masks one behind the other, or as a tuple.
            state: Of a policy with memory: what the last call gave; None where episodes begin.

        Returns:
            One action, or a batch, as NumPy; where actions are several tensors a flat dictionary of them. Of a policy
            with memory, `(action, state)`.
        """
        endpoint = "serving_default" if deterministic else "sample"
        wanted = self._endpoint(endpoint)["inputs"]
        given, batched = self._observations(observation, wanted)
        rows = len(next(iter(given.values())))
        if self.takes_masks:
            given["action_mask"] = _mask(action_mask, rows, batched, wanted["action_mask"][1])
        elif action_mask is not None:
            raise ValueError("`action_mask` must be None for a policy that takes none. Received: one.")
        if self.memory_size:
            given["state"] = self.initial_state(rows) if state is None else np.asarray(state, np.float32)
            if not batched and given["state"].ndim == 1:
                given["state"] = given["state"][None]
        elif state is not None:
            raise ValueError("`state` must be None for a policy without memory. Received: one.")
        if not deterministic:
            given["seed"] = _seed(seed)
        outputs = self.predict(given, endpoint)
        outputs.pop("log_prob", None)
        after = outputs.pop("state") if self.memory_size else None
        if not batched:
            outputs = {name: array[0] for name, array in outputs.items()}
            after = None if after is None else after[0]
        action = outputs["action"] if set(outputs) == {"action"} else outputs
        return (action, after) if self.memory_size else action

    def initial_state(self, rows):
        """What a policy with memory remembers before the first step of so many episodes, float32 [rows, size]."""
        if rows not in self._beginnings:
            outputs = self.predict({"batch_size": np.int32(rows)}, "initial_state")
            self._beginnings[rows] = outputs["state"]
        return self._beginnings[rows].copy()

    @property
    def takes_masks(self):
        """Whether the policy wants an action mask beside its observations."""
        # What an observation holds of masks is a number, as all that it holds.
        inputs = self._endpoint("serving_default")["inputs"]
        return "action_mask" in inputs and inputs["action_mask"][0].kind == "b"

    @property
    def memory_size(self):
        """Numbers that the policy remembers of one environment; 0 without memory."""
        begins = self.signatures.get("initial_state", {"outputs": {}})["outputs"]
        return begins["state"][1][1] if "state" in begins else 0

    def close(self):
        """Closes the connection."""
        self._transport.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __repr__(self):
        version = "" if self.version is None else f", version={self.version}"
        return f"{type(self).__name__}({self.address!r}, model={self.model!r}{version})"

    def _endpoint(self, name):
        if name not in self.signatures:
            raise LookupError(
                f"The endpoint must be one of {', '.join(self.signatures)}. Received: {name!r}. Is the model a policy "
                "that `agent.export` exported?"
            )
        return self.signatures[name]

    def _observations(self, observation, wanted):
        """Arrays [B, ...] by name, and whether they were a batch."""
        beside = {"seed", *(["action_mask"] if self.takes_masks else []), *(["state"] if self.memory_size else [])}
        names = [name for name in wanted if name not in beside]
        plain = names == ["observation"] and not isinstance(observation, dict)
        flat = {"observation": observation} if plain else flattened(observation)
        if set(flat) != set(names):
            raise ValueError(
                f"`observation` must have the parts {', '.join(names)}. Received: {', '.join(map(str, flat))}."
            )
        flat = {name: _numbers(name, part) for name, part in flat.items()}
        first, (_, shape) = flat[names[0]], wanted[names[0]]
        if first.shape not in (shape[1:], (*first.shape[:1], *shape[1:])):
            raise ValueError(
                f"`observation` must have shape {shape[1:]}, or a batch of it. Received: {names[0]} of shape "
                f"{first.shape}."
            )
        batched = first.ndim == len(shape)
        return {name: part[() if batched else None] for name, part in flat.items()}, batched


def flattened(observation):
    """The leaves of a nested observation by the names that served models give them.

    >>> flattened({"robot": {"arm": 1}, "pair": (2, 3)})
    {'robot_arm': 1, 'pair_item0': 2, 'pair_item1': 3}
    """
    found = {}

    def collect(part, path):
        if isinstance(part, (dict, tuple)):
            for key, inner in part.items() if isinstance(part, dict) else enumerate(part):
                collect(inner, (*path, key))
            return
        name = leaf_name(path) if path else "observation"
        if name in found:
            raise ValueError(f"`observation` must have one part of each name. Received: two at {place(path)}, {name}.")
        found[name] = part

    collect(observation, ())
    return found


def _numbers(name, value):
    """An array."""
    try:
        return np.asarray(value)
    except ValueError:
        raise ValueError(f"`{name}` must be rows of one length. Received: rows of several.") from None


def _array(name, value, dtype, shape):
    """An array of an input's dtype and shape."""
    array = _numbers(name, value)
    fits = array.ndim == len(shape) and all(want in (None, size) for want, size in zip(shape, array.shape, strict=True))
    if not fits or array.dtype.kind not in "biuf":
        raise ValueError(
            f"`{name}` must be numbers of shape {_sizes(shape)}. Received: {array.dtype} of shape {array.shape}."
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"`{name}` must be finite. Received: {array[~np.isfinite(array)][0]}.")
    with np.errstate(all="ignore"):
        cast = array.astype(dtype)
    if cast.dtype.kind == "f":
        if not np.isfinite(cast).all():
            raise ValueError(f"`{name}` must be within {cast.dtype}. Received: {array[~np.isfinite(cast)][0]}.")
    elif not np.array_equal(cast, array):
        wrong = array[cast != array] if array.ndim else array
        raise ValueError(f"`{name}` must be whole numbers within {cast.dtype}. Received: {wrong.flat[0]}.")
    return cast


def _sizes(shape):
    return "[" + ", ".join("B" if size is None else str(size) for size in shape) + "]"


def _mask(mask, rows, batched, shape):
    """bool [B, choices]."""
    if mask is None:
        raise ValueError("`action_mask` must be given to this policy. Received: None. Give ones where all is allowed.")
    if isinstance(mask, (tuple, list)) and mask and all(np.ndim(part) == 1 + batched for part in mask):
        mask = np.concatenate([np.asarray(part) for part in mask], -1)  # One for each of several choices.
    array, size = _numbers("action_mask", mask), int(np.prod(shape[1:]))
    fits = [(rows, *shape[1:]), (rows, size)] if batched else [tuple(shape[1:]), (size,)]
    if array.shape not in fits or not np.isin(array, (0, 1)).all():
        raise ValueError(
            f"`action_mask` must be {size} zeros and ones for each of {rows} observations. Received: shape "
            f"{array.shape}."
        )
    array = array.reshape(rows, *shape[1:]).astype(bool)
    nothing = ~array.reshape(rows, -1).any(-1)
    if nothing.any():
        raise ValueError(f"`action_mask` must allow something. Received: none for observation {int(nothing.argmax())}.")
    return array


def _seed(seed):
    """int32[2]."""
    if seed is None:
        return np.random.default_rng().integers(0, 2**31 - 1, 2, np.int32)
    pair = (seed, 0) if np.ndim(seed) == 0 else tuple(seed)
    if len(pair) != 2:
        raise ValueError(f"`seed` must be a whole number, or two of them. Received: seed={seed!r}.")
    for each in pair:
        check_whole("seed", each, at_least=-(2**31), at_most=2**31 - 1)
    return np.array(pair, np.int32)
