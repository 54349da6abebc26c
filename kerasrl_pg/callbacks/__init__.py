"""Keras callbacks of this library."""

from kerasrl_pg.callbacks.budget import Budget
from kerasrl_pg.callbacks.collapse import Collapse
from kerasrl_pg.callbacks.fit_callbacks import FitCallbacks, as_list
from kerasrl_pg.callbacks.progress import Compiling, Progress

__all__ = ["Budget", "Collapse", "Compiling", "FitCallbacks", "Progress", "as_list"]
