"""Policy gradients the Keras way: `agent.compile(...)`, `agent.fit("CartPole-v1", total_steps=100_000)`."""

from kerasrl_pg import baselines, callbacks, envs, estimators, heads, models, ops, presets, rollouts, serving
from kerasrl_pg.agents import A2C, PPO, REINFORCE, Agent
from kerasrl_pg.models import Networks

__version__ = "0.1.0"

__all__ = [
    "A2C",
    "Agent",
    "Networks",
    "PPO",
    "REINFORCE",
    "baselines",
    "callbacks",
    "envs",
    "estimators",
    "heads",
    "models",
    "ops",
    "presets",
    "rollouts",
    "serving",
]
