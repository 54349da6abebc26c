"""Workers: processes on this machine or others, by Ray, that play for an agent."""

from kerasrl_pg.workers.crew import Crew, Event
from kerasrl_pg.workers.settings import Workers

__all__ = ["Crew", "Event", "Workers"]
