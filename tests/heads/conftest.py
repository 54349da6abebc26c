"""What several of the heads' tests need."""

import pytest


def _litert_program(function):
    """The function as a LiteRT program of builtin operations only, converted at its first call."""
    import tensorflow as tf

    interpreters = []

    def convert(arguments):
        signature = [tf.TensorSpec(a.shape, a.dtype, name=f"x{i}") for i, a in enumerate(arguments)]
        concrete = tf.function(function, input_signature=signature).get_concrete_function()
        converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        interpreters.append(tf.lite.Interpreter(model_content=converter.convert()))
        interpreters[0].allocate_tensors()

    def call(*arguments):
        if not interpreters:
            convert(arguments)
        interpreter = interpreters[0]
        inputs = {detail["name"]: detail["index"] for detail in interpreter.get_input_details()}
        for i, argument in enumerate(arguments):
            interpreter.set_tensor(inputs[f"x{i}"], argument)
        interpreter.invoke()
        return [interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()]

    return call


@pytest.fixture
def litert_program():
    """Function from a function of tensors to the same as a LiteRT program of builtin operations only."""
    return _litert_program
