"""Agents: one method a file; policy gradients in the order of the lecture notes, and searches without gradients."""

from kerasrl_pg.agents.a2c import A2C
from kerasrl_pg.agents.a3c import A3C
from kerasrl_pg.agents.agent import Agent
from kerasrl_pg.agents.behavior_cloning import BehaviorCloning
from kerasrl_pg.agents.constrained import ConstrainedGradient
from kerasrl_pg.agents.evolution_strategies import EvolutionStrategies
from kerasrl_pg.agents.hill_climbing import HillClimbing
from kerasrl_pg.agents.importance_sampling import ImportanceSampling
from kerasrl_pg.agents.npg import NPG
from kerasrl_pg.agents.ppo import PPO
from kerasrl_pg.agents.ppo_penalty import PPOPenalty
from kerasrl_pg.agents.reinforce import REINFORCE
from kerasrl_pg.agents.simulated_annealing import SimulatedAnnealing
from kerasrl_pg.agents.trpo import TRPO

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
    "PPO",
    "PPOPenalty",
    "REINFORCE",
    "SimulatedAnnealing",
    "TRPO",
]
