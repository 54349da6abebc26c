"""Keras callbacks of this library."""

from kerasrl_pg.callbacks.budget import Budget
from kerasrl_pg.callbacks.progress import Compiling, Progress

__all__ = ["Budget", "Compiling", "Progress"]
