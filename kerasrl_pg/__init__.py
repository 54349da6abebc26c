"""Policy gradients the Keras way: `agent.compile(...)`, `agent.fit("CartPole-v1", total_steps=100_000)`."""

import os
import sys


def _check_backend():
    """Refuses Keras's other backends before TensorFlow is loaded and Keras fails in its own words."""
    name, cause = os.environ.get("KERAS_BACKEND") or "tensorflow", None
    if name == "tensorflow" or "keras" in sys.modules:
        try:
            import keras

            name = keras.config.backend()
        except ModuleNotFoundError as error:  # A backend of keras.json that is not installed.
            if error.name not in ("jax", "torch", "openvino"):
                raise
            name, cause = error.name, error
    if name != "tensorflow":
        raise ImportError(
            "kerasrl_pg needs Keras's TensorFlow backend, since its updates are TensorFlow programs. Received: "
            f"KERAS_BACKEND={name!r}. Set KERAS_BACKEND=tensorflow, in the environment or as `backend` in keras.json, "
            "before Keras is imported."
        ) from cause


from kerasrl_pg import compilation_cache, quiet  # noqa: E402

quiet.begin()  # Before TensorFlow is imported.
compilation_cache.enable()  # Before it computes anything.
_check_backend()

from kerasrl_pg import (  # noqa: E402
    baselines,
    callbacks,
    data,
    envs,
    estimators,
    heads,
    lab,
    models,
    ops,
    presets,
    rollouts,
    schedules,
    serving,
)
from kerasrl_pg.agents import (  # noqa: E402
    A2C,
    A3C,
    NPG,
    PPO,
    REINFORCE,
    TRPO,
    Agent,
    BehaviorCloning,
    ConstrainedGradient,
    EvolutionStrategies,
    HillClimbing,
    ImportanceSampling,
    PPOPenalty,
    SimulatedAnnealing,
)
from kerasrl_pg.models import Networks  # noqa: E402
from kerasrl_pg.run import Run  # noqa: E402
from kerasrl_pg.seeds import SeedRuns, fit_seeds  # noqa: E402
from kerasrl_pg.workers import Workers  # noqa: E402

__version__ = "0.1.0"

__all__ = [
    "A2C",
    "A3C",
    "Agent",
    "BehaviorCloning",
    "ConstrainedGradient",
    "EvolutionStrategies",
    "HillClimbing",
    "ImportanceSampling",
    "NPG",
    "Networks",
    "PPO",
    "PPOPenalty",
    "REINFORCE",
    "Run",
    "SeedRuns",
    "SimulatedAnnealing",
    "TRPO",
    "Workers",
    "baselines",
    "callbacks",
    "data",
    "envs",
    "estimators",
    "fit_seeds",
    "heads",
    "lab",
    "models",
    "ops",
    "presets",
    "rollouts",
    "schedules",
    "serving",
]
