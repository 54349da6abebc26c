"""The laboratory: what is estimated, beside what is exact.

A small decision process is solved (`MDP`), an agent's own gradient is measured against it (`measure`, `sweep`), the way
it takes is followed (`landscape`, `paths`), and what comes out is drawn (`pictures`).
"""

from kerasrl_pg.lab import pictures
from kerasrl_pg.lab.env import MDPEnv
from kerasrl_pg.lab.exact import MDP, Evaluation
from kerasrl_pg.lab.gradients import Expectation, fisher, natural_gradient, objective, policy_gradient
from kerasrl_pg.lab.landscape import Landscape, landscape, paths
from kerasrl_pg.lab.measure import Measurement, measure, measure_gradients, sweep, table
from kerasrl_pg.lab.policy import PolicyTable

__all__ = [
    "Evaluation",
    "Expectation",
    "Landscape",
    "MDP",
    "MDPEnv",
    "Measurement",
    "PolicyTable",
    "fisher",
    "landscape",
    "measure",
    "measure_gradients",
    "natural_gradient",
    "objective",
    "paths",
    "pictures",
    "policy_gradient",
    "sweep",
    "table",
]
