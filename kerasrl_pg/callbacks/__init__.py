"""Keras callbacks of this library."""

from kerasrl_pg.callbacks.budget import Budget
from kerasrl_pg.callbacks.checkpoint import Checkpoint
from kerasrl_pg.callbacks.collapse import Collapse
from kerasrl_pg.callbacks.fit_callbacks import FitCallbacks, as_list
from kerasrl_pg.callbacks.progress import Compiling, Progress
from kerasrl_pg.callbacks.video import Video, film, play

__all__ = [
    "Budget",
    "Checkpoint",
    "Collapse",
    "Compiling",
    "FitCallbacks",
    "Progress",
    "Video",
    "as_list",
    "film",
    "play",
]
