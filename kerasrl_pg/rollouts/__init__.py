"""Rollouts: the record, its collection, and the fast actor."""

from kerasrl_pg.rollouts.actor import Actor
from kerasrl_pg.rollouts.collect import Collector, EpisodeStatistics
from kerasrl_pg.rollouts.rollout import Rollout

__all__ = ["Actor", "Collector", "EpisodeStatistics", "Rollout"]
