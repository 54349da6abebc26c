"""Loads an exported policy with TensorFlow alone and compares its actions with recorded ones.

Run as a program by `Agent.export`: python -I verify.py FOLDER CHECK.npz [POLICY.tflite], where CHECK holds `input_NAME`
and `expected_NAME` arrays and, where the inputs after the first ones are extreme, the number `mild` of those. Importing
kerasrl_pg, TensorFlow Probability or Keras is made impossible first, so success shows that a server needs none of them;
TensorFlow starts in half the time, too.
"""

import sys


class _Forbid:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("kerasrl_pg", "tensorflow_probability", "tf_keras"):
            raise ImportError(f"{name} must not be needed to serve a policy.")


def main(folder, check, litert=None):
    """Exits with a sentence if the actions of the model, or of the LiteRT file beside it, differ from the recorded ones
    by more than rounding."""
    sys.meta_path.insert(0, _Forbid())
    sys.modules["keras"] = None  # TensorFlow asks whether it is there, so that no error may answer.
    import numpy as np
    import tensorflow as tf

    arrays = np.load(check, allow_pickle=False)
    inputs = {name.removeprefix("input_"): arrays[name] for name in arrays.files if name.startswith("input_")}
    names = [name.removeprefix("expected_") for name in arrays.files if name.startswith("expected_")]
    constants = {name: tf.constant(array) for name, array in inputs.items()}
    answers = {"": tf.saved_model.load(folder).signatures["serving_default"](**constants)}
    if litert:
        answers["LiteRT: "] = interpreter(litert).get_signature_runner("serving_default")(**inputs)
    for whose, received in answers.items():
        if set(names) != set(received):
            sys.exit(f"{whose}Expected the outputs {sorted(names)}, received {sorted(received)}.")
        for name in names:
            compare(arrays[f"expected_{name}"], np.asarray(received[name]), arrays.get("mild"), whose)


def interpreter(path):
    """Of a LiteRT file, by the package of that name, or TensorFlow's own."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        import tensorflow as tf

        Interpreter = tf.lite.Interpreter
    return Interpreter(model_path=path, num_threads=1)


def compare(expected, received, mild, whose=""):
    """Exits with a sentence if actions differ by more than rounding from those expected."""
    import numpy as np

    if received.shape != expected.shape or received.dtype != expected.dtype:
        sys.exit(
            f"{whose}Expected actions {expected.dtype}{expected.shape}, received {received.dtype}{received.shape}."
        )
    discrete, mild = expected.dtype.kind in "iub", int(len(expected) if mild is None else mild)
    rtol = 1e-3 if expected.dtype == np.float16 else 1e-4
    close = np.isclose(received, expected, rtol=rtol, atol=1e-5, equal_nan=True)
    same = received == expected if discrete else close
    # Rounding may turn a near tie between discrete actions, and what cancels among large numbers: a rare difference
    # of those is no error.
    if np.mean(same) < 0.98 or np.mean(same[:mild]) < (0.98 if discrete else 1.0):
        sys.exit(
            f"{whose}{np.mean(~same):.1%} of the actions differ, first: expected {expected[~same][0]}, "
            f"received {received[~same][0]}."
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
