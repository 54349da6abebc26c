"""Hyperparameter search with KerasTuner: several seeds a trial, ready spaces, searches that go on where they stopped.

>>> import kerasrl_pg as pg
>>> sorted(pg.tuning.space("a2c"))[:3]
['entropy_coef', 'estimator.gae_lambda', 'gamma']
"""

from kerasrl_pg.tuning import spaces
from kerasrl_pg.tuning.hyper_agent import HyperAgent
from kerasrl_pg.tuning.records import repair
from kerasrl_pg.tuning.results import Comparison, Results, results, retrain
from kerasrl_pg.tuning.search import tuner
from kerasrl_pg.tuning.spaces import sources, space
from kerasrl_pg.tuning.stopping import Median, MedianStopping

__all__ = [
    "Comparison",
    "HyperAgent",
    "Median",
    "MedianStopping",
    "Results",
    "repair",
    "results",
    "retrain",
    "sources",
    "space",
    "spaces",
    "tuner",
]
