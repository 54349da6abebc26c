"""Choosing actions quickly: one small program that turns N observations into N actions."""

import re
import warnings

import numpy as np
import tensorflow as tf
from absl import logging

from kerasrl_pg.compilation_cache import first_call
from kerasrl_pg.quiet import held_back


class Actor:
    """A policy as one call from NumPy observations to NumPy actions, for a fixed number of environments.

    Keras layers called one by one take milliseconds in Python; what acts here is a LiteRT program with the policy's
    weights as inputs, some microseconds a call. Where the policy does not convert, or has convolutions (which LiteRT
    runs slowly), a compiled TensorFlow function serves instead. Both are checked against the policy itself when made.

    Args:
        policy: A Keras model whose call gives a distribution.
        head: Its `Head`.
        spec: The `ObservationSpec`.
        num_envs: N.
        deterministic: Whether to take the mode instead of sampling.

    Attributes:
        kind: "litert" or "function".
    """

    def __init__(self, policy, head, spec, num_envs, deterministic=False):
        self._policy = policy
        self._head = head
        self._spec = spec
        self._num_envs = num_envs
        self._deterministic = deterministic
        self._weights = list(policy.trainable_variables) + list(policy.non_trainable_variables)
        self._handles = [(variable.value.handle, variable.value.dtype) for variable in self._weights]
        self._split = len(policy.trainable_variables)
        self.kind = "function"
        self._interpreter = None
        if not has_convolutions(policy):
            self._interpreter = self._convert()
        if self._interpreter is not None:
            self.kind = "litert"
        else:
            self._function = self._compile()

    def sync(self):
        """Takes over the policy's present weights."""
        if self._interpreter is not None:
            for index, (handle, dtype) in zip(self._weight_indices, self._handles, strict=True):
                # A third of the time of `variable.numpy()`, which counts where rollouts are short.
                value = tf.raw_ops.ReadVariableOp(resource=handle, dtype=dtype)
                self._interpreter.set_tensor(index, value.numpy())

    def __call__(self, observations, noise=None):
        """Acts on N observations.

        Args:
            observations: [N, ...] array or flat dictionary of arrays, of the spec's dtypes.
            noise: [N, ...] array for the head; unused where deterministic.

        Returns:
            `(actions, log_probs, env_actions)`: raw actions [N, ...], float32 [N], and what the environment accepts.
        """
        arrays = tf.nest.flatten(observations) if noise is None else [*tf.nest.flatten(observations), noise]
        if self._interpreter is None:
            outputs = self._function(*[tf.constant(array) for array in arrays])
            return tuple(output.numpy() for output in outputs)
        interpreter = self._interpreter
        for index, array in zip(self._input_indices, arrays, strict=True):
            interpreter.set_tensor(index, array)
        interpreter.invoke()
        return tuple(interpreter.get_tensor(index) for index in self._output_indices)

    def _act(self, distribution, noise):
        head = self._head
        actions = distribution.mode() if self._deterministic else head.sample(distribution, noise)
        log_probs = tf.cast(distribution.log_prob(actions), tf.float32)
        # An output must be its own tensor: LiteRT merges outputs that are one and the same.
        return tf.identity(actions), tf.identity(log_probs), tf.identity(head.to_env(actions))

    def _input_specs(self):
        n = self._num_envs
        specs = [tf.TensorSpec((n, *spec.shape), spec.dtype) for spec in tf.nest.flatten(self._spec.specs)]
        if not self._deterministic:
            specs.append(tf.TensorSpec((n, *self._head.noise_shape), tf.float32))
        return specs

    def _unpack(self, arrays):
        noise = None if self._deterministic else arrays[-1]
        leaves = arrays if self._deterministic else arrays[:-1]
        return tf.nest.pack_sequence_as(self._spec.specs, leaves), noise

    def _compile(self):
        def act(*arrays):
            observations, noise = self._unpack(arrays)
            return self._act(self._policy(observations), noise)

        specs = self._input_specs()
        if not has_convolutions(self._policy):
            function = tf.function(act, jit_compile=True, autograph=False).get_concrete_function(*specs)
            try:
                return first_call(function, *[tf.zeros(spec.shape, spec.dtype) for spec in specs])[0]
            except tf.errors.OpError:  # Some layer is beyond XLA too.
                pass
        return tf.function(act, autograph=False).get_concrete_function(*specs)

    def _convert(self):
        """The LiteRT interpreter, or None where conversion fails or its answers differ from TensorFlow's."""

        def act(*arguments):
            weights, arrays = arguments[: len(self._weights)], arguments[len(self._weights) :]
            observations, noise = self._unpack(arrays)
            distribution, _ = self._policy.stateless_call(weights[: self._split], weights[self._split :], observations)
            return self._act(distribution, noise)

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
        rng = np.random.default_rng(0)
        arrays = []
        for spec in self._input_specs():
            # Zeros and ones are legal indices of every discrete space; noise lies in (0, 1).
            draw = rng.uniform(0.05, 0.95, spec.shape) if spec.dtype.is_floating else np.zeros(spec.shape)
            arrays.append(draw.astype(spec.dtype.as_numpy_dtype))
        expected = function(*[variable.value for variable in self._weights], *[tf.constant(a) for a in arrays])
        self.sync()
        observations, noise = self._unpack(arrays)
        try:
            received = self(observations, noise)
        except (ValueError, RuntimeError):
            return False
        return all(
            e.shape == r.shape and np.allclose(e, r, rtol=1e-3, atol=1e-4)
            for e, r in zip(expected, received, strict=True)
        )


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
