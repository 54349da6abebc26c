"""Agents: one policy-gradient method a file, in the order of the lecture notes."""

from kerasrl_pg.agents.a2c import A2C
from kerasrl_pg.agents.agent import Agent
from kerasrl_pg.agents.behavior_cloning import BehaviorCloning
from kerasrl_pg.agents.constrained import ConstrainedGradient
from kerasrl_pg.agents.importance_sampling import ImportanceSampling
from kerasrl_pg.agents.npg import NPG
from kerasrl_pg.agents.ppo import PPO
from kerasrl_pg.agents.ppo_penalty import PPOPenalty
from kerasrl_pg.agents.reinforce import REINFORCE
from kerasrl_pg.agents.trpo import TRPO

__all__ = [
    "A2C",
    "Agent",
    "BehaviorCloning",
    "ConstrainedGradient",
    "ImportanceSampling",
    "NPG",
    "PPO",
    "PPOPenalty",
    "REINFORCE",
    "TRPO",
]
