"""Keras callbacks of this library."""

from kerasrl_pg.callbacks.budget import Budget, LearningRateAnnealing, budget_callbacks
from kerasrl_pg.callbacks.progress import Progress

__all__ = ["Budget", "LearningRateAnnealing", "Progress", "budget_callbacks"]
