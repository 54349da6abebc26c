"""What remembers: sequences against single steps and naive copies."""

import gymnasium as gym
import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasrl_pg as pg
from kerasrl_pg.models import GRU, LSTM, History, Recurrent, memories, recall
from kerasrl_pg.models.memory import unrolled

S, L, F = 3, 7, 2


@keras.saving.register_keras_serializable("tests")
class Counting(keras.Layer):
    """A cell of a user's own, whose state begins at 1 and grows by its input."""

    state_size = output_size = F

    def get_initial_state(self, batch_size=None):
        return tf.ones((batch_size, F))

    def call(self, inputs, states):
        states = states[0] if isinstance(states, (list, tuple)) else states
        return 10.0 * states, [states + inputs]


MEMORIES = {
    "gru": lambda: GRU(4),
    "lstm": lambda: LSTM(3),
    "history": lambda: History(3),
    "layer": lambda: Recurrent(keras.layers.SimpleRNN(4)),
    "stack": lambda: Recurrent(keras.layers.StackedRNNCells([keras.layers.GRUCell(2), keras.layers.LSTMCell(3)])),
    "own": lambda: Recurrent(Counting()),
}


def sequences(seed=0, chance=0.3):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(S, L, F)).astype("float32"), rng.random((S, L)) < chance


def along(model, features, starts, memory, jit=False):
    """Outputs [S, L, ...] and the memory after."""

    @tf.autograph.experimental.do_not_convert
    def run():
        length = features.shape[1]
        rows, flags = features.reshape(-1, F), starts.reshape(-1)
        outputs, after = recall(lambda: model(rows), memories(model), memory, flags, length)
        return tf.reshape(outputs, [len(features), length, -1]), after

    outputs, after = (tf.function(run, jit_compile=True) if jit else run)()
    return outputs.numpy(), after.numpy()


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("name", MEMORIES)
def test_a_sequence_is_its_steps(name, jit):
    model = keras.Sequential([keras.Input((F,)), MEMORIES[name]()])
    size = sum(layer.size for layer in memories(model))
    features, starts = sequences()
    memory = first = np.random.default_rng(1).normal(size=(S, size)).astype("float32")
    expected = []
    for t in range(L):
        output, memory = along(model, features[:, t : t + 1], starts[:, t : t + 1], memory)
        expected.append(output)
    outputs, after = along(model, features, starts, first, jit)
    np.testing.assert_allclose(outputs, np.concatenate(expected, 1), atol=1e-6)
    np.testing.assert_allclose(after, memory, atol=1e-6)
    with unrolled():
        np.testing.assert_allclose(along(model, features, starts, first)[0], outputs, atol=1e-6)


@pytest.mark.parametrize("name", MEMORIES)
def test_nothing_before_a_start_is_remembered(name):
    model = keras.Sequential([keras.Input((F,)), MEMORIES[name]()])
    size = sum(layer.size for layer in memories(model))
    features, _ = sequences()
    starts = np.zeros((S, L), bool)
    starts[:, 3] = True
    memory = np.ones((S, size), "float32")
    outputs, after = along(model, features, starts, memory)
    other = features.copy()
    other[:, :3] += 5.0
    changed, same = along(model, other, starts, memory - 3.0)
    np.testing.assert_array_equal(changed[:, 3:], outputs[:, 3:])
    np.testing.assert_array_equal(same, after)
    # And what comes after it is.
    other[:, 3] += 5.0
    assert (np.abs(along(model, other, starts, memory)[0] - outputs)[:, 4] > 1e-3).any(-1).all()
    # A model called by itself begins an episode with every row.
    fresh = along(model, features[:, :1], np.ones((S, 1), bool), memory)[0][:, 0]
    np.testing.assert_allclose(model(features[:, 0]), fresh, atol=1e-6)


def test_a_history_is_the_last_steps():
    features, starts = sequences(2)
    memory = np.arange(S * 2 * F, dtype="float32").reshape(S, 2 * F)
    outputs, after = along(keras.Sequential([keras.Input((F,)), History(3)]), features, starts, memory)
    for s in range(S):
        line = [*memory[s].reshape(2, F)]
        for t in range(L):
            line = [np.zeros(F)] * 2 if starts[s, t] else line
            line = [*line, features[s, t]]
            np.testing.assert_array_equal(outputs[s, t], np.concatenate(line))
            line = line[1:]
        np.testing.assert_array_equal(after[s], np.concatenate(line))


def test_a_cell_s_own_first_state_counts():
    model = keras.Sequential([keras.Input((F,)), Recurrent(Counting())])
    features, starts = np.ones((1, 3, F), "float32"), np.array([[False, False, True]])
    outputs, after = along(model, features, starts, np.full((1, F), 5.0, "float32"))
    assert outputs[0, :, 0].tolist() == [50.0, 60.0, 10.0] and after.tolist() == [[2.0] * F]


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("name", MEMORIES)
def test_networks_build_save_and_load_it(name, shared, tmp_path):
    networks = pg.Networks((F,), memory=MEMORIES[name](), shared=shared)
    networks = pg.Networks.from_config(networks.get_config())
    agent = pg.A2C(networks=networks, seed=0)
    agent.bind(gym.spaces.Box(-1, 1, (F,)), gym.spaces.Discrete(2))
    agent.compile()
    layers = agent.actor_critic.memories
    assert len(layers) == 2 - shared and agent.actor_critic.policy_memory_size == layers[0].size
    agent.save(tmp_path / "agent.keras")
    again = keras.models.load_model(tmp_path / "agent.keras")
    x, state = np.ones((2, F), "float32"), np.full((2, layers[0].size), 0.3, "float32")
    np.testing.assert_array_equal(agent.act(x, state=state)[1], again.act(x, state=state)[1])


def test_a_cell_or_layer_of_keras_is_taken_and_made_anew():
    cell = keras.layers.GRUCell(4)
    for given in (cell, keras.layers.RNN(cell), Recurrent(cell)):
        policy, critic = pg.Networks((4,), memory=given).build(
            gym.spaces.Box(-1, 1, (F,)), gym.spaces.Discrete(2), seed=0
        )
        cells = [memories(model)[0].cell for model in (policy, critic)]
        assert cells[0] is not cells[1] and cell not in cells and not cell.built


def test_what_cannot_remember_is_refused():
    with pytest.raises(TypeError, match="`memory` must be a layer that remembers.*Received: memory=<Dense"):
        pg.Networks(memory=keras.layers.Dense(4))
    with pytest.raises(TypeError, match="`memory` must be a layer that remembers"):
        pg.Networks(memory=64)
    with pytest.raises(ValueError, match="`cell` must run forwards"):
        pg.Networks(memory=keras.layers.GRU(4, go_backwards=True))
    with pytest.raises(ValueError, match="`steps` must be a whole number of at least 2"):
        History(1)
    with pytest.raises(ValueError, match=r"must be given vectors \[B, F\]. Received: input shape \(None, 5, 2\)"):
        keras.Sequential([keras.Input((5, 2)), GRU(4)])
    inputs, layer = keras.Input((F,)), GRU(F)
    twice = keras.Model(inputs, layer(layer(inputs)))
    with pytest.raises(ValueError, match="must be called once in a model"):
        along(twice, *sequences(), np.zeros((S, F), "float32"))


@pytest.mark.parametrize("kind", [pg.models.GRU, pg.models.LSTM])
@pytest.mark.parametrize("units", ["a", 0, 2.5])
def test_units_are_checked(kind, units):
    with pytest.raises(ValueError, match=f"`units` must be a whole number of at least 1. Received: units={units!r}"):
        kind(units)
