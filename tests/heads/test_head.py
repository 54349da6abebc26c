"""What all heads share beside their families: notes of parameters, and finding heads in a model."""

import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasrl_pg import heads


def features(count=3):
    return tf.constant(np.random.default_rng(0).normal(size=(count, 5)), tf.float32)


HEADS = {
    "categorical": lambda: heads.Categorical(4),
    "multi_categorical": lambda: heads.MultiCategorical([2, 3]),
    "gaussian": lambda: heads.Gaussian(2),
    "mixture": lambda: heads.GaussianMixture(1),
    "composite": lambda: heads.Composite({"a": heads.Beta([0], [1]), "b": (heads.Categorical(2), heads.Gaussian(1))}),
}


def two_outputs(head):
    inputs = keras.Input((5,))
    trunk = keras.layers.Dense(8, "tanh")(inputs)
    return keras.Model(inputs, {"policy": head(trunk), "value": heads.HistogramValue(0, 1)(trunk)})


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
def test_noted_parameters_rebuild_the_policy(name, mode):
    head = HEADS[name]()
    model = two_outputs(head)

    def call(x):
        with heads.noting() as notes:
            outputs = model(x)
        policy, rows = outputs["policy"], notes.parameters
        action = policy.mode()
        rebuilt = head.distribution(tf.gather(rows, [2, 0]))
        picked = tf.nest.map_structure(lambda x: tf.gather(x, [2, 0]), action)
        return rows, tf.gather(policy.log_prob(action), [2, 0]), rebuilt.log_prob(picked)

    function = {"eager": call, "graph": tf.function(call), "xla": tf.function(call, jit_compile=True)}[mode]
    rows, expected, rebuilt = function(features())
    assert rows.shape == (3, head.num_parameters)
    np.testing.assert_allclose(rebuilt, expected, rtol=1e-5, atol=1e-5)


def test_gradients_flow_through_what_is_noted():
    model = two_outputs(heads.Gaussian(2))
    with tf.GradientTape() as tape:
        with heads.noting() as notes:
            model(features())
        loss = tf.reduce_sum(notes.parameters)
    gradients = tape.gradient(loss, [v.value for v in heads.heads_of(model)[0].trainable_variables])
    assert all(np.abs(gradient).max() > 0 for gradient in gradients)


def test_sequential_subclassed_and_stateless_calls_are_noted():
    sequential = keras.Sequential([keras.Input((5,)), keras.layers.Dense(4), heads.Categorical(3)])
    for call in (
        lambda x: sequential(x),
        lambda x: heads.heads_of(sequential)[0](sequential.layers[0](x)),
        lambda x: sequential.stateless_call(sequential.trainable_variables, sequential.non_trainable_variables, x)[0],
    ):
        with heads.noting() as notes:
            policy = call(features())
        np.testing.assert_array_equal(notes.parameters, policy.logits)


def test_what_is_noted_is_what_was_called_inside():
    head = heads.Categorical(3)
    head(features())
    with heads.noting() as notes:
        head.parameters(features())  # No distribution was made.
        heads.NormalValue()(features())
    with pytest.raises(
        RuntimeError, match=r"exactly one Head must be called, once.*Received: 0 calls. Call the policy"
    ):
        _ = notes.parameters
    head(features())
    assert notes.all == []
    with heads.noting() as outer:
        head(features())
        with heads.noting() as inner:
            head(features(2))
        thread = threading.Thread(target=lambda: head(features(4)))
        thread.start()
        thread.join()
    assert outer.parameters.shape == (3, 3)
    assert inner.parameters.shape == (2, 3)
    with heads.noting() as twice:
        head(features())
        head(features())
    with pytest.raises(RuntimeError, match="Received: 2 calls"):
        _ = twice.parameters
    assert len(twice.all) == 2


def test_an_error_inside_ends_the_noting():
    head = heads.Categorical(3)
    with pytest.raises(ZeroDivisionError), heads.noting() as notes:
        raise ZeroDivisionError
    head(features())
    assert notes.all == []


def test_building_a_functional_model_notes_nothing():
    with heads.noting() as notes:
        model = two_outputs(heads.Categorical(3))
    assert notes.all == []
    with heads.noting() as notes:
        model(features())
    assert notes.parameters.shape == (3, 3)


def test_heads_of_a_model():
    composite = heads.Composite({"a": heads.Categorical(2), "b": (heads.Gaussian(1), heads.Bernoulli(2))})
    model = two_outputs(composite)
    assert heads.heads_of(model) == [composite]
    assert [type(head) for head in heads.heads_of(model, heads.ValueHead)] == [heads.HistogramValue]
    outer = keras.Sequential([keras.Input((5,)), keras.Sequential([keras.layers.Dense(3), heads.Categorical(2)])])
    assert [type(head) for head in heads.heads_of(outer)] == [heads.Categorical]
    assert heads.heads_of(keras.Sequential([keras.layers.Dense(3)])) == []
