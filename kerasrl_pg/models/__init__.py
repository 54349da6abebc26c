"""Keras models for policies and critics."""

from kerasrl_pg.models.networks import Networks, cnn
from kerasrl_pg.models.normalization import RewardScaling, RunningNormalization, normalizers

__all__ = ["Networks", "RewardScaling", "RunningNormalization", "cnn", "normalizers"]
