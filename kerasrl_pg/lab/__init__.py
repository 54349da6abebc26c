"""The laboratory: what is estimated, beside what is exact.

A small decision process is solved (`MDP`), an agent's own gradient is measured against it (`measure`, `sweep`), and what
comes out is drawn (`pictures`).
"""

from kerasrl_pg.lab.exact import MDP, Evaluation
from kerasrl_pg.lab.gradients import Expectation, fisher, natural_gradient, objective, policy_gradient
from kerasrl_pg.lab.measure import Measurement, measure, sweep, table
from kerasrl_pg.lab.policy import PolicyTable

__all__ = [
    "Evaluation",
    "Expectation",
    "MDP",
    "Measurement",
    "PolicyTable",
    "fisher",
    "measure",
    "natural_gradient",
    "objective",
    "policy_gradient",
    "sweep",
    "table",
]
