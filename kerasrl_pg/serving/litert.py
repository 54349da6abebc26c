"""A policy for devices: one LiteRT file, a few kilobytes of code and its weights."""

import warnings
from pathlib import Path

import tensorflow as tf
from absl import logging

from kerasrl_pg.quiet import held_back

NAME = "assets.extra/policy.tflite"


def write_litert(folder, signatures):
    """Converts endpoints of a SavedModel, their names and free batch size kept, and writes the file beside it.

    What draws random numbers is left out: LiteRT has no such operation.

    Args:
        folder: The SavedModel, which has an `assets.extra`.
        signatures: Names of its endpoints.

    Returns:
        A sentence about it, for the card.

    Raises:
        RuntimeError: If the policy needs an operation that LiteRT does not have.
    """
    wanted = [name for name in ("serving_default", "initial_state") if name in signatures]
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        with held_back(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            converter = tf.lite.TFLiteConverter.from_saved_model(str(folder), signature_keys=wanted)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
            content = converter.convert()
    except Exception as error:  # The converter raises many kinds; each means the same here.
        raise RuntimeError(
            "The policy must be made of LiteRT's own operations to be exported with litert=True. Received: "
            f"{' '.join(str(error).split())[:500]}. Nothing was left at the destination; leave litert=True out."
        ) from error
    finally:
        logging.set_verbosity(verbosity)
    (Path(folder) / NAME).write_bytes(content)
    return f"policy.tflite: {', '.join(wanted)}"
