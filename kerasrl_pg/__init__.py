"""Policy gradients the Keras way: `agent.compile(...)`, `agent.fit("CartPole-v1", total_steps=100_000)`."""

from kerasrl_pg import compilation_cache, quiet

quiet.begin()  # Before TensorFlow is imported.
compilation_cache.enable()  # Before it computes anything.

from kerasrl_pg import baselines, callbacks, envs, estimators, heads, models, ops, presets, rollouts, serving  # noqa: E402
from kerasrl_pg.agents import (  # noqa: E402
    A2C,
    NPG,
    PPO,
    REINFORCE,
    TRPO,
    Agent,
    ConstrainedGradient,
    PPOPenalty,
)
from kerasrl_pg.models import Networks  # noqa: E402
from kerasrl_pg.seeds import SeedRuns, fit_seeds  # noqa: E402

__version__ = "0.1.0"

__all__ = [
    "A2C",
    "Agent",
    "ConstrainedGradient",
    "NPG",
    "Networks",
    "PPO",
    "PPOPenalty",
    "REINFORCE",
    "SeedRuns",
    "TRPO",
    "baselines",
    "callbacks",
    "envs",
    "estimators",
    "fit_seeds",
    "heads",
    "models",
    "ops",
    "presets",
    "rollouts",
    "serving",
]
