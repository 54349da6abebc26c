"""Keras models for policies and critics."""

from kerasrl_pg.models.actor_critic import ActorCritic
from kerasrl_pg.models.adopt import adopt
from kerasrl_pg.models.encoders import cnn
from kerasrl_pg.models.memory import GRU, LSTM, History, Memory, Recurrent, memories, recall
from kerasrl_pg.models.networks import Networks
from kerasrl_pg.models.normalization import RewardScaling, RunningNormalization, normalizers

__all__ = [
    "ActorCritic",
    "GRU",
    "History",
    "LSTM",
    "Memory",
    "Networks",
    "Recurrent",
    "RewardScaling",
    "RunningNormalization",
    "adopt",
    "cnn",
    "memories",
    "normalizers",
    "recall",
]
