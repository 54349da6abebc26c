"""Importing the package with another backend of Keras."""

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_another_backend_is_refused_at_import_before_tensorflow_is_loaded(backend):
    code = "import sys\ntry: import kerasrl_pg\nexcept ImportError as e: print(e, 'tensorflow' in sys.modules)"
    shown = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "KERAS_BACKEND": backend}, capture_output=True, text=True
    ).stdout
    assert f"Received: KERAS_BACKEND='{backend}'. Set KERAS_BACKEND=tensorflow" in shown and "False" in shown
