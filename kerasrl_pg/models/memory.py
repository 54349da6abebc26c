"""Layers that remember what came before in an episode, so that a policy is π(a_t | s_1:t) (lecture notes, remark 3.3).

A model with such layers is an ordinary Keras model of observations [B, ...]. What its rows are to each other is said
beside it, by `recall`: sequences of consecutive steps, what was remembered before each, and where episodes start.
"""

import contextlib
import contextvars
import random

import keras
import numpy as np
import tensorflow as tf

from kerasrl_pg import ops
from kerasrl_pg.checks import check_choice, check_number, check_whole
from kerasrl_pg.models.anew import anew

_unrolled = contextvars.ContextVar("unrolled", default=False)
_recalled = contextvars.ContextVar("recalled", default=None)  # Who is asked what to remember, while a model is called.


class Memory(keras.layers.Layer):
    """Base of the layers that remember. A subclass sets `size` when it is built, and implements `remember`.

    Called by itself, outside of `recall`, each row is the first of an episode.

    Attributes:
        size: Numbers that one environment's memory takes.
        hidden: Whether `Networks` puts it behind the hidden layers rather than before them.

    Call arguments:
        features: [B, F].

    Returns:
        [B, units].
    """

    hidden = True

    def build(self, input_shape):
        if len(input_shape) != 2 or input_shape[-1] is None:
            raise ValueError(
                f"`{type(self).__name__}` must be given vectors [B, F]. Received: input shape {tuple(input_shape)}. "
                "Put a Flatten layer before it."
            )

    def call(self, features):
        recalled = _recalled.get()
        if recalled is None:
            starts = tf.ones((tf.shape(features)[0], 1), tf.bool)
            return self.remember(features[:, None], starts, self.beginning(tf.shape(features)[0]))[0][:, 0]
        memory, starts = recalled.before(self)
        length = recalled.length
        sequences = tf.reshape(features, [-1, length, features.shape[-1]])
        outputs, memory = self.remember(sequences, starts, memory)
        recalled.note(self, memory)
        return tf.reshape(outputs, [-1, outputs.shape[-1]])

    def beginning(self, count):
        """The memory float32 [count, size] at the first step of an episode."""
        return tf.zeros((count, self.size))

    def remember(self, features, starts, memory):
        """Runs along S sequences of L steps.

        Args:
            features: [S, L, F].
            starts: bool [S, L], where an episode starts, before whose first step nothing is remembered.
            memory: float32 [S, size], before the first step.

        Returns:
            `(outputs, memory)`: [S, L, units], and float32 [S, size] after the last step.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement remember(features, starts, memory).")


@keras.saving.register_keras_serializable("kerasrl_pg")
class Recurrent(Memory):
    """A Keras cell along the steps of an episode; see `GRU` and `LSTM`.

    Args:
        cell: A Keras cell, such as `keras.layers.GRUCell(64)` or your own, or a recurrent layer, whose cell is taken.

    Raises:
        TypeError: If it is neither.
        ValueError: If the layer runs backwards, since what is to come is not known when acting.

    >>> layer = Recurrent(keras.layers.SimpleRNNCell(3))
    >>> layer(tf.zeros((5, 2))).shape, layer.size
    (TensorShape([5, 3]), 3)
    """

    def __init__(self, cell, **kwargs):
        super().__init__(**kwargs)
        if isinstance(cell, keras.layers.RNN):
            if cell.go_backwards:
                raise ValueError("`cell` must run forwards. Received: a layer with go_backwards=True.")
            cell = cell.cell
        if not isinstance(cell, keras.Layer) or not hasattr(cell, "state_size"):
            raise TypeError(
                "`cell` must be a Keras cell, such as keras.layers.GRUCell(64), or a recurrent layer of one. "
                f"Received: cell={cell!r}."
            )
        self._rnn = keras.layers.RNN(
            _Restarting(cell), return_sequences=True, return_state=True, dtype=self.dtype_policy
        )

    @property
    def cell(self):
        """The Keras cell."""
        return self._rnn.cell.cell

    def build(self, input_shape):
        super().build(input_shape)
        self._rnn.build((None, None, input_shape[-1] + 1))
        self.size = sum(int(np.prod(state.shape[1:])) for state in tf.nest.flatten(self._states(1)))

    def _states(self, count):
        """The cell's states [count, ...] at an episode's first step, nested as it wants them."""
        return self._rnn.cell.get_initial_state(count)

    def beginning(self, count):
        return _joined(self._states(count), count)

    def remember(self, features, starts, memory):
        template = self._states(1)
        states = [
            tf.cast(tf.reshape(part, [-1, *leaf.shape[1:]]), leaf.dtype)
            for part, leaf in zip(
                tf.split(memory, [int(np.prod(leaf.shape[1:])) for leaf in tf.nest.flatten(template)], -1),
                tf.nest.flatten(template),
                strict=True,
            )
        ]
        states = tf.nest.pack_sequence_as(template, states)
        inputs = tf.concat([features, tf.cast(starts, features.dtype)[..., None]], -1)
        if features.shape[1] == 1 or _unrolled.get():  # A loop around one step would cost more than the step.
            outputs, states = _along(self._rnn.cell, inputs, states)
        elif _step_of(self.cell) is not None and features.dtype == tf.float32:
            outputs, states = _quickly_along(self.cell, features, starts, states)
        else:
            outputs, *states = self._rnn(inputs, initial_state=states)
        return outputs, _joined(states, tf.shape(features)[0])

    def compute_output_spec(self, features):
        units = getattr(self.cell, "output_size", None) or tf.nest.flatten(self.cell.state_size)[0]
        if not self.built:
            self.build(features.shape)
        return keras.KerasTensor((features.shape[0], units), self.compute_dtype)

    def get_config(self):
        return {**super().get_config(), "cell": keras.saving.serialize_keras_object(self.cell)}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "cell": keras.saving.deserialize_keras_object(config["cell"])})


@contextlib.contextmanager
def unrolled(wanted=True):
    """While it lasts, recurrent layers are written out step by step, if `wanted`.

    XLA can differentiate a loop once. The second time it finds what it has to know beforehand, as axes of sums, in
    lists that the loop fills, and would compile the program anew in every call.
    """
    token = _unrolled.set(wanted)
    try:
        yield
    finally:
        _unrolled.reset(token)


def _along(cell, inputs, states):
    """A cell's outputs [S, L, units] and last states for inputs [S, L, F]."""
    outputs = []
    for step in tf.unstack(inputs, axis=1):
        output, states = cell(step, states)
        outputs.append(output)
    return tf.stack(outputs, 1), states


def _step_of(cell):
    """The step of a Keras cell as it is by itself, which `ops.recur` runs; None of any other."""
    steps = {keras.layers.LSTMCell: ops.lstm_step, keras.layers.GRUCell: ops.gru_step}
    usual = type(cell) in steps and (cell.activation, cell.recurrent_activation) == (
        keras.activations.tanh,
        keras.activations.sigmoid,
    )
    return steps[type(cell)] if usual and getattr(cell, "reset_after", True) else None


def _quickly_along(cell, features, starts, states):
    """What `_along` gives, of a cell with a `_step_of`, from [S, L, F] and bool [S, L]."""
    recurrent, bias = cell.recurrent_kernel.value, tf.zeros(cell.recurrent_kernel.shape[-1])
    inputs = tf.tensordot(tf.transpose(features, [1, 0, 2]), cell.kernel.value, 1)
    if cell.use_bias and isinstance(cell, keras.layers.GRUCell):
        inputs, bias = inputs + cell.bias.value[0], cell.bias.value[1]
    elif cell.use_bias:
        inputs += cell.bias.value
    after = ops.recur(_step_of(cell), inputs, recurrent, bias, tf.transpose(starts), tuple(states))
    return tf.transpose(after[0], [1, 0, 2]), [x[-1] for x in after]


def _joined(states, count):
    """States as one float32 [count, size]."""
    flat = [tf.reshape(x, [count, int(np.prod(x.shape[1:]))]) for x in tf.nest.flatten(states)]
    return tf.concat([tf.cast(x, tf.float32) for x in flat], -1)


class _Restarting(keras.layers.Layer):
    """A cell whose last input says, by 1, that an episode starts, before whose first step its state is the first one.

    Keras's masks skip steps, and do not reset.
    """

    def __init__(self, cell):
        super().__init__(dtype=cell.dtype_policy)
        self.cell = cell
        self.state_size = cell.state_size
        self.output_size = getattr(cell, "output_size", None) or tf.nest.flatten(cell.state_size)[0]

    def build(self, input_shape):
        if not self.cell.built:
            self.cell.build((input_shape[0], input_shape[-1] - 1))
            self.cell.built = True

    def get_initial_state(self, batch_size=None):
        make = getattr(self.cell, "get_initial_state", None)
        if make is not None:
            states = make(batch_size=batch_size)
        else:
            states = tf.nest.map_structure(
                lambda size: tf.zeros((batch_size, size), self.cell.compute_dtype), self.state_size
            )
        return list(states) if tf.nest.is_nested(states) else [states]

    def call(self, inputs, states):
        starts = inputs[:, -1] > 0
        first = self.get_initial_state(inputs.shape[0] or tf.shape(inputs)[0])

        def restart(new, old):
            return tf.where(tf.reshape(starts, [-1, *[1] * (old.shape.rank - 1)]), tf.cast(new, old.dtype), old)

        states = tf.nest.map_structure(restart, first, list(states))
        outputs, states = self.cell(inputs[:, :-1], states if len(states) > 1 else states[0])
        return outputs, list(states) if tf.nest.is_nested(states) else [states]


def GRU(units, span=None, **kwargs):
    """A gated recurrent unit (Cho et al. 2014, arXiv 1406.1078) as a network's memory.

    Args:
        units: Width of what is remembered and given, at least 1.
        span: None, or the longest time in steps over which something must be remembered, above 2: gates start so that
            units keep theirs for 1 to `span` steps (see `Chrono`).
        kwargs: Of `keras.layers.GRUCell`.

    Returns:
        A `Recurrent`.

    >>> import kerasrl_pg as pg
    >>> networks = pg.Networks(hidden_units=(32,), memory=pg.models.GRU(16))
    """
    check_whole("units", units)
    if span is not None:
        kwargs["bias_initializer"] = Chrono(span, gates=3)
    return Recurrent(keras.layers.GRUCell(units, **kwargs))


def LSTM(units, span=None, **kwargs):
    """A long short-term memory (Hochreiter and Schmidhuber 1997) as a network's memory.

    Args:
        units: Width of what is given, at least 1; twice as many numbers are remembered.
        span: As for `GRU`.
        kwargs: Of `keras.layers.LSTMCell`.

    Returns:
        A `Recurrent`.

    >>> LSTM(16).cell.units
    16
    """
    check_whole("units", units)
    if span is not None:
        kwargs |= {"bias_initializer": Chrono(span, gates=4), "unit_forget_bias": False}
    return Recurrent(keras.layers.LSTMCell(units, **kwargs))


@keras.saving.register_keras_serializable("kerasrl_pg")
class Chrono(keras.initializers.Initializer):
    """Biases of gates that keep what is remembered: log u, u uniform in [1, span - 1], for the gate that keeps, and its
    negative for an LSTM's input gate.

    A gate of bias b keeps the share 1 / (1 + e^-b) in a step, so that a unit forgets in about e^b steps. With biases of
    0 half is lost in each, and what was seen 50 steps ago has no gradient (2^-50).

    Args:
        span: Longest time, in steps, above 2.
        gates: 3 for a GRU, 4 for an LSTM.
        seed: Of the draw; None takes one from Python's `random`, as Keras does.

    Source: Tallec and Ollivier 2018, "Can recurrent neural networks warp time?" (arXiv 1804.11188), equation 16 and
    its analogue for the GRU's update gate.

    >>> np.round(Chrono(100, gates=4, seed=0)((8,), "float64"), 1).tolist()
    [-4.1, -3.3, 4.1, 3.3, 0.0, 0.0, 0.0, 0.0]
    """

    def __init__(self, span, gates, seed=None):
        check_number("span", span, 2.0, exclusive=True)
        check_choice("gates", gates, (3, 4))
        self.span, self.gates, self.seed = span, gates, seed

    def __call__(self, shape, dtype=None):
        units, bias = shape[-1] // self.gates, np.zeros(shape)
        seed = random.randrange(2**31) if self.seed is None else self.seed
        keep = np.log(np.random.default_rng(seed).uniform(1.0, self.span - 1.0, units))
        if self.gates == 3:  # Keras orders update, reset, candidate; a second row is the recurrent kernel's.
            bias.reshape(-1, shape[-1])[0, :units] = keep
        else:  # Input, forget, candidate, output.
            bias[:units], bias[units : 2 * units] = -keep, keep
        return tf.constant(bias, dtype or "float32")

    def get_config(self):
        return {"span": self.span, "gates": self.gates, "seed": self.seed}


@keras.saving.register_keras_serializable("kerasrl_pg")
class History(Memory):
    """The last steps' features side by side, oldest first; 0 for those before the episode.

    No state is learned: gradients reach the layers before it through the steps of one sequence.

    Args:
        steps: k, how many observations a network sees, at least 2.

    Raises:
        ValueError: If `steps` is below 2.

    >>> layer = History(3)
    >>> layer(tf.constant([[1.0, 2.0]])).numpy()
    array([[0., 0., 0., 0., 1., 2.]], dtype=float32)
    """

    hidden = False

    def __init__(self, steps, **kwargs):
        super().__init__(**kwargs)
        check_whole("steps", steps, at_least=2)
        self.steps = int(steps)

    def build(self, input_shape):
        super().build(input_shape)
        self.size = (self.steps - 1) * input_shape[-1]

    def remember(self, features, starts, memory):
        length, width = features.shape[1], features.shape[2]
        earlier = tf.cast(tf.reshape(memory, [-1, self.steps - 1, width]), features.dtype)
        line, nothing = tf.concat([earlier, features], 1), tf.zeros((), features.dtype)
        begun = tf.pad(starts, [[0, 0], [self.steps - 1, 0]])
        windows, before = [], tf.zeros_like(starts)  # Where what is so many steps old is of an earlier episode.
        for place in reversed(range(self.steps)):
            windows.insert(0, tf.where(before[..., None], nothing, line[:, place : place + length]))
            before |= begun[:, place : place + length]
        outputs = tf.concat(windows, -1)
        return outputs, tf.cast(outputs[:, -1, width:], tf.float32)

    def compute_output_spec(self, features):
        if not self.built:
            self.build(features.shape)
        return keras.KerasTensor((features.shape[0], self.steps * features.shape[-1]), self.compute_dtype)

    def get_config(self):
        return {**super().get_config(), "steps": self.steps}


def memories(*models):
    """All `Memory` layers of Keras models, each once, in order."""
    found = {id(layer): layer for model in models for layer in model._flatten_layers() if isinstance(layer, Memory)}
    return list(found.values())


class _Recalled:
    def __init__(self, layers, memory, starts, length):
        self.length = length
        parts = tf.split(memory, [layer.size for layer in layers], -1)
        self._before = {id(layer): part for layer, part in zip(layers, parts, strict=True)}
        self._after = dict(self._before)
        self._starts = tf.reshape(starts, [-1, length])
        self._asked = set()

    def before(self, layer):
        if id(layer) in self._asked:
            raise ValueError(
                f"`{layer.name}` must be called once in a model, since it has one memory of each environment. "
                "Received: a second call. Make two layers."
            )
        self._asked.add(id(layer))
        return self._before[id(layer)], self._starts

    def note(self, layer, memory):
        self._after[id(layer)] = memory

    def after(self):
        return tf.concat(list(self._after.values()), -1)


def recall(call, layers, memory, starts, length=1):
    """Calls models on sequences of consecutive steps.

    Args:
        call: Function without arguments that calls Keras models on observations [S x L, ...]; row s L + l is step l of
            sequence s.
        layers: Their `Memory` layers, from `memories`.
        memory: float32 [S, M], before the first steps: the layers' side by side.
        starts: bool [S x L], where an episode starts.
        length: L.

    Returns:
        `(result, memory)`: what `call` returns, and the memory after the last steps, that of layers which were not
        called as it was.

    >>> model = keras.Sequential([keras.Input((1,)), History(2)])
    >>> steps = tf.constant([[1.0], [2.0], [3.0]])
    >>> outputs, memory = recall(lambda: model(steps), memories(model), [[0.5]], [False, False, True], length=3)
    >>> outputs.numpy().tolist(), memory.numpy().tolist()
    ([[0.5, 1.0], [1.0, 2.0], [0.0, 3.0]], [[3.0]])
    """
    recalled = _Recalled(layers, memory, starts, length)
    token = _recalled.set(recalled)
    try:
        result = call()
    finally:
        _recalled.reset(token)
    return result, recalled.after()


def memory_layer(memory):
    """What a user gives `Networks` as memory, as a `Memory` layer; None as it is.

    Raises:
        TypeError: If it is neither a `Memory`, nor a Keras cell or recurrent layer.
    """
    if memory is None or isinstance(memory, Memory):
        return memory
    if isinstance(memory, keras.layers.RNN) or (isinstance(memory, keras.Layer) and hasattr(memory, "state_size")):
        return Recurrent(anew(memory, "memory"))
    raise TypeError(
        "`memory` must be a layer that remembers, such as pg.models.GRU(64), LSTM(64) or History(4), or a Keras cell "
        f"or recurrent layer. Received: memory={memory!r}."
    )
