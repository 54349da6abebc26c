"""Choosing actions quickly: one small program that turns N observations into N actions."""

import math
import re
import warnings

import numpy as np
import tensorflow as tf
from absl import logging

from kerasrl_pg.compilation_cache import first_call
from kerasrl_pg.models.memory import memories, recall
from kerasrl_pg.quiet import held_back
from kerasrl_pg.rollouts.collect import not_finite

# What a converted program is tried on: the size of the observations, and None for the weights as they are, else by how
# much each layer multiplies. Ours: enough to pass the 88 from which float32's exp is infinite, in any layer.
TRIALS = ((1, None), (1e2, None), (1e4, None), (1e8, None), (10, 1e2), (10, 1e2), (10, 1e3), (10, 1e3))


class Actor:
    """A policy as one call from NumPy observations to NumPy actions, for a fixed number of environments.

    Keras layers called one by one take milliseconds in Python; what acts here is a LiteRT program with the policy's
    weights as inputs, some microseconds a call. Where the policy does not convert, or has convolutions (which LiteRT
    runs slowly), a compiled TensorFlow function serves instead. The LiteRT program is checked against TensorFlow when
    it is made, with large observations and weights too; and should it later give what is not finite and TensorFlow
    does not, the function takes its place.

    Args:
        policy: A Keras model whose call gives a distribution.
        head: Its `Head`.
        spec: The `ObservationSpec`.
        num_envs: N.
        deterministic: Whether to take the mode instead of sampling.
        masked: Whether it is called with action masks.
        critic: A critic whose memory is to be kept, too; it shares no `Memory` with the policy.

    Attributes:
        kind: "litert" or "function".
        memory_size: Numbers that are remembered of one environment, 0 where nothing is.
        memory: float32 [N, memory_size], what is remembered now; set it to go on from elsewhere. `()` where nothing is.
    """

    def __init__(self, policy, head, spec, num_envs, deterministic=False, masked=False, critic=None):
        self._policy = policy
        self._models = [policy] if critic is None or not memories(critic) else [policy, critic]
        self._memories = memories(*self._models)
        self.memory_size = sum(layer.size for layer in self._memories)
        self.memory = np.zeros((num_envs, self.memory_size), np.float32) if self.memory_size else ()
        self._head = head
        self._spec = spec
        self._num_envs = num_envs
        self._deterministic = deterministic
        self.masked = masked
        self._structure = head.action_spec if tf.nest.is_nested(head.action_spec) else None
        self._weights = [v for m in self._models for v in (*m.trainable_variables, *m.non_trainable_variables)]
        self._handles = [(variable.value.handle, variable.value.dtype) for variable in self._weights]
        self.kind = "function"
        self._interpreter = None
        if not self._convolves:
            self._interpreter = self._convert()
        self._function = None
        if self._interpreter is not None:
            self.kind = "litert"
        else:
            self._function = self._compile()
        self._zeros = np.zeros(num_envs, np.float32)
        self._steps, self._place = 0, "rollout"

    def sync(self, place="rollout"):
        """Takes over the policy's present weights, and counts the steps of a "rollout" or "evaluation" from 0."""
        self._steps, self._place = 0, place
        if self._interpreter is not None:
            for index, (handle, dtype) in zip(self._weight_indices, self._handles, strict=True):
                # A third of the time of `variable.numpy()`, which counts where rollouts are short.
                value = tf.raw_ops.ReadVariableOp(resource=handle, dtype=dtype)
                self._interpreter.set_tensor(index, value.numpy())

    @property
    def _convolves(self):
        return any(has_convolutions(model) for model in self._models)

    def __call__(self, observations, noise=None, masks=None, starts=None):
        """Acts on N observations.

        Args:
            observations: [N, ...] array or flat dictionary of arrays, of the spec's dtypes.
            noise: [N, ...] array for the head; unused where deterministic.
            masks: bool [N, *head.mask_shape], where it is `masked`.
            starts: bool [N], where an episode starts, before which nothing is remembered; where anything is.

        Returns:
            `(actions, log_probs, env_actions)`: raw actions [N, ...], float32 [N], and what the environment accepts;
            the first and the last nested as the head's actions are.

        Raises:
            ValueError: If an observation or the policy's answer to it is not finite.
        """
        arrays = [observations] if self._spec.single else tf.nest.flatten(observations)
        if noise is not None:
            arrays.append(noise)
        if masks is not None:
            arrays.append(masks)
        if self.memory_size:
            arrays += [starts, self.memory]
        outputs = self._run(arrays)
        if outputs[0].dot(self._zeros) != 0.0:  # So does NaN or infinity answer, and nothing tells it faster.
            outputs = self._reconsider(arrays, outputs)
        self._steps += 1
        if self.memory_size:
            *outputs, self.memory = outputs
        if self._structure is None:
            return outputs[1], outputs[0], outputs[2]
        half = (1 + len(outputs)) // 2
        actions, env_actions = (
            tf.nest.pack_sequence_as(self._structure, part) for part in (outputs[1:half], outputs[half:])
        )
        return actions, outputs[0], env_actions

    def _reconsider(self, arrays, outputs):
        """TensorFlow's answer, where the program's was not finite; an error that says why, if that is none either."""
        row = self._senseless(outputs)
        if row is not None and self._interpreter is not None:
            if self._function is None:
                self._function = self._compile()
            interpreter, self._interpreter = self._interpreter, None
            outputs = self._run(arrays)
            row = self._senseless(outputs)
            if row is None:
                self.kind = "function"
            else:
                self._interpreter = interpreter
        if row is None:
            return outputs
        for spec, array in zip(tf.nest.flatten(self._spec.specs), arrays, strict=False):
            if spec.dtype.is_floating and not np.isfinite(array[row]).all():
                name = "observations" if self._spec.single else f"observations['{spec.name}']"
                raise not_finite(name, self._steps, row, array[row], self._place)
        raise not_finite("log_probs", self._steps, row, outputs[0][row], self._place)

    def _senseless(self, outputs):
        """The first row whose action must not be sent, or None."""
        log_probs, *rest = outputs[:-1] if self.memory_size else outputs
        # A mode may have an infinite density; what has none at all is not a number.
        bad = np.isnan(log_probs) if self._deterministic else ~np.isfinite(log_probs)
        for env_actions in rest[len(rest) // 2 :]:
            bad |= ~np.isfinite(env_actions.reshape(self._num_envs, -1)).all(-1)
        return int(bad.argmax()) if bad.any() else None

    def _run(self, arrays):
        if self._interpreter is None:
            outputs = self._function(*[tf.constant(array) for array in arrays])
            return tuple(output.numpy() for output in outputs)
        interpreter = self._interpreter
        for index, array in zip(self._input_indices, arrays, strict=True):
            interpreter.set_tensor(index, array)
        interpreter.invoke()
        return tuple(interpreter.get_tensor(index) for index in self._output_indices)

    def _act(self, models, arrays):
        """`(log_probs, *actions, *env_actions[, memory])`, leaf by leaf, of models as functions of observations."""
        head = self._head
        observations, noise, masks, starts, memory = self._unpack(arrays)
        kept = ()
        if self.memory_size:
            call = lambda: [model(observations) for model in models]  # noqa: E731
            (distribution, *_), *kept = recall(call, self._memories, memory, starts)
        else:
            distribution = models[0](observations)
        if self.masked:
            distribution = head.mask(distribution, masks)
        actions = distribution.mode() if self._deterministic else head.sample(distribution, noise)
        log_probs = tf.cast(distribution.log_prob(actions), tf.float32)
        # An output must be its own tensor: LiteRT merges outputs that are one and the same.
        outputs = tf.nest.flatten((log_probs, actions, head.to_env(actions), kept))
        return tuple(tf.identity(output) for output in outputs)

    def _input_specs(self):
        n = self._num_envs
        specs = [tf.TensorSpec((n, *spec.shape), spec.dtype) for spec in tf.nest.flatten(self._spec.specs)]
        if not self._deterministic:
            specs.append(tf.TensorSpec((n, *self._head.noise_shape), tf.float32))
        if self.masked:
            specs.append(tf.TensorSpec((n, *self._head.mask_shape), tf.bool))
        if self.memory_size:
            specs += [tf.TensorSpec((n,), tf.bool), tf.TensorSpec((n, self.memory_size), tf.float32)]
        return specs

    def _unpack(self, arrays):
        leaves = list(arrays)
        memory, starts = (leaves.pop(), leaves.pop()) if self.memory_size else (None, None)
        masks = leaves.pop() if self.masked else None
        noise = None if self._deterministic else leaves.pop()
        return tf.nest.pack_sequence_as(self._spec.specs, leaves), noise, masks, starts, memory

    def _compile(self):
        def act(*arrays):
            return self._act(self._models, arrays)

        specs = self._input_specs()
        if not self._convolves:
            function = tf.function(act, jit_compile=True, autograph=False).get_concrete_function(*specs)
            try:
                return first_call(function, *[tf.zeros(spec.shape, spec.dtype) for spec in specs])[0]
            except tf.errors.OpError:  # Some layer is beyond XLA too.
                pass
        return tf.function(act, autograph=False).get_concrete_function(*specs)

    def _convert(self):
        """The LiteRT interpreter, or None where conversion fails or its answers differ from TensorFlow's."""

        def act(*arguments):
            weights, arrays = iter(arguments[: len(self._weights)]), arguments[len(self._weights) :]
            models = []
            for model in self._models:
                groups = model.trainable_variables, model.non_trainable_variables
                values = [[next(weights) for _ in group] for group in groups]
                models.append(lambda x, model=model, values=values: model.stateless_call(*values, x)[0])
            return self._act(models, arrays)

        inputs = self._input_specs()
        weights = [tf.TensorSpec(variable.shape, variable.dtype) for variable in self._weights]
        names = [f"argument_{i}" for i in range(len(weights) + len(inputs))]
        specs = [tf.TensorSpec(s.shape, s.dtype, name=name) for name, s in zip(names, weights + inputs, strict=True)]
        verbosity = logging.get_verbosity()
        logging.set_verbosity(logging.ERROR)  # The converter warns of the only way to keep the weights as inputs.
        try:
            function = tf.function(act, autograph=False).get_concrete_function(*specs)
            converter = tf.lite.TFLiteConverter.from_concrete_functions([function])
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
            converter.exclude_conversion_metadata = True  # It takes a fifth of the conversion's time.
            interpreter = _interpreter(converter.convert())
        except Exception:  # The converter raises many kinds; each means the same here: use the function.
            return None
        finally:
            logging.set_verbosity(verbosity)
        by_name = {detail["name"].split(":")[0]: detail["index"] for detail in interpreter.get_input_details()}
        by_name = {name.removeprefix("serving_default_"): index for name, index in by_name.items()}
        if not set(names) <= set(by_name):
            return None
        self._weight_indices = [by_name[name] for name in names[: len(weights)]]
        self._input_indices = [by_name[name] for name in names[len(weights) :]]
        # LiteRT lists outputs in an order of its own; the number at the end of a name is their place in the function.
        outputs = interpreter.get_output_details()
        outputs.sort(key=lambda detail: int((re.findall(r"\d+", detail["name"]) or ["0"])[-1]))
        self._output_indices = [detail["index"] for detail in outputs]
        self._interpreter = interpreter
        return interpreter if self._agrees(function) else None

    def _agrees(self, function):
        """Whether the program answers as TensorFlow does, to mild observations and weights and to large ones."""
        rng = np.random.default_rng(0)
        weights = [variable.value.numpy() for variable in self._weights]
        noise = self._head.noise(tf.constant([0, 0]), (len(TRIALS), self._num_envs)).numpy()
        for (size, gain), draws in zip(TRIALS, noise, strict=True):
            given = [w if gain is None else _enlarged(v, w, gain) for v, w in zip(self._weights, weights, strict=True)]
            arrays = self._draw(rng, size) + ([] if self._deterministic else [draws])
            if self.masked:
                masks = rng.random((self._num_envs, *self._head.mask_shape)) < 0.7
                arrays.append(masks | self._head.all_masked(masks)[:, None])
            if self.memory_size:
                arrays.append(rng.random(self._num_envs) < 0.3)
                arrays.append(rng.normal(size=(self._num_envs, self.memory_size)).astype(np.float32))
            for index, weight in zip(self._weight_indices, given, strict=True):
                self._interpreter.set_tensor(index, weight)
            try:
                received = self._run(arrays)
            except (ValueError, RuntimeError):
                return False
            given += arrays
            expected = [output.numpy() for output in function(*map(tf.constant, given))]
            # Nobody trains on the log-probability of a mode, which takes more digits than the mode itself.
            compared = range(int(self._deterministic), len(expected))
            if not _alike(compared, expected, received):
                # What a change in the last digits of the inputs changes as well, rounding may.
                nudged = [function(*[tf.constant(_nudged(rng, a)) for a in given]) for _ in range(3)]
                if not _alike(compared, expected, received, nudged):
                    return False
        self.sync()
        return True

    def _draw(self, rng, size):
        """Observations of about `size`."""
        arrays = []
        for spec in tf.nest.flatten(self._spec.specs):
            shape, dtype = (self._num_envs, *spec.shape), spec.dtype.as_numpy_dtype
            if spec.dtype.is_floating:
                draw = rng.uniform(0.05, 0.95, shape) if size == 1 else size * rng.normal(size=shape)
            elif spec.dtype == tf.uint8:
                draw = rng.integers(0, 256, shape)
            else:
                draw = np.zeros(shape)  # A legal index of every discrete space, or encoded as no choice at all.
            arrays.append(draw.astype(dtype))
        return arrays


def _enlarged(variable, value, gain):
    """A trained weight's value such that its layer multiplies by about `gain`."""
    if not variable.trainable or not np.issubdtype(value.dtype, np.floating) or not value.any():
        return value
    norm = np.sqrt(np.mean(np.square(value, dtype=np.float64)) * math.prod(value.shape[:-1]))
    value = (value * (gain / norm)).astype(value.dtype)
    return value if variable.constraint is None else variable.constraint(tf.constant(value)).numpy()


def _nudged(rng, array):
    if not np.issubdtype(array.dtype, np.floating):
        return array
    return (array * (1.0 + 1e-6 * rng.choice([-1.0, 1.0], array.shape))).astype(array.dtype)


def _alike(compared, expected, received, nudged=()):
    """Whether two answers `(log_probs, *actions, *env_actions)` are the same, but for what `nudged` ones differ by."""
    sensible = np.isfinite(expected[0])  # Where the policy itself gives no probability, its action is no answer either.
    if not np.array_equal(sensible, np.isfinite(received[0])):
        return any(not np.array_equal(sensible, np.isfinite(other[0])) for other in nudged)
    for index in compared:
        e, r = expected[index], received[index]
        if e.shape != r.shape or e.dtype != r.dtype:
            return False
        e, r, *others = (np.float64(x)[sensible] for x in (e, r, *(other[index] for other in nudged)))
        spread = max((np.abs(other - e).max(initial=0.0) for other in others), default=0.0)
        if not (np.abs(r - e) <= 1e-4 + 1e-3 * np.abs(e) + 10.0 * spread).all():
            return False
    return True


def has_convolutions(model):
    """Whether a Keras model has convolution layers.

    >>> import keras
    >>> has_convolutions(keras.Sequential([keras.layers.Dense(2)]))
    False
    """
    from keras.src.layers.convolutional.base_conv import BaseConv

    return any(isinstance(layer, BaseConv) for layer in model._flatten_layers())


def _interpreter(content):
    """An allocated interpreter: TensorFlow's own, or the separate package that is to succeed it."""
    with held_back(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if hasattr(tf.lite, "Interpreter"):
            interpreter = tf.lite.Interpreter(model_content=content, num_threads=1)
        else:
            from ai_edge_litert.interpreter import Interpreter

            interpreter = Interpreter(model_content=content, num_threads=1)
        interpreter.allocate_tensors()
    return interpreter
