"""Rollouts: the records, their collection, and the fast actor."""

from kerasrl_pg.rollouts.actor import Actor
from kerasrl_pg.rollouts.collect import Collector, EpisodeStatistics
from kerasrl_pg.rollouts.records import Inputs, Rollout, Samples

__all__ = ["Actor", "Collector", "EpisodeStatistics", "Inputs", "Rollout", "Samples"]
