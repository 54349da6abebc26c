"""Weights on disk: sealed by a checksum, and read with suspicion."""

from kerasrl_pg.saving.weights import WeightsFile, check_same_weights, read_weights, seal, spaces_from_configs

__all__ = ["WeightsFile", "check_same_weights", "read_weights", "seal", "spaces_from_configs"]
