"""Keras models for policies and critics."""

from kerasrl_pg.models.action_scores import Scored
from kerasrl_pg.models.actor_critic import ActorCritic
from kerasrl_pg.models.adopt import adopt
from kerasrl_pg.models.architecture import Architecture
from kerasrl_pg.models.encoders import cnn
from kerasrl_pg.models.linear import Linear
from kerasrl_pg.models.memory import GRU, LSTM, History, Memory, Recurrent, memories, recall
from kerasrl_pg.models.networks import Networks
from kerasrl_pg.models.normalization import RewardScaling, RunningNormalization, normalizers
from kerasrl_pg.models.tabular import Tabular

__all__ = [
    "ActorCritic",
    "Architecture",
    "GRU",
    "History",
    "LSTM",
    "Linear",
    "Memory",
    "Networks",
    "Recurrent",
    "RewardScaling",
    "RunningNormalization",
    "Scored",
    "Tabular",
    "adopt",
    "cnn",
    "memories",
    "normalizers",
    "recall",
]
