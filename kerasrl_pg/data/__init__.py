"""Stored trajectories, in Minari's format: recorded, learned from, and what they say of other policies."""

from kerasrl_pg.data.estimate import Estimate, estimate_return
from kerasrl_pg.data.record import record
from kerasrl_pg.data.trajectories import Trajectories

__all__ = ["Estimate", "Trajectories", "estimate_return", "record"]
