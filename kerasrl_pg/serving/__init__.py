"""Shipping a trained policy: SavedModel export and its verification, serving it, and asking it where it is served."""

from kerasrl_pg.serving.client import Client
from kerasrl_pg.serving.export import describe_signatures, export_saved_model, sample_observations
from kerasrl_pg.serving.files import write_beside
from kerasrl_pg.serving.play import play

__all__ = ["Client", "describe_signatures", "export_saved_model", "play", "sample_observations", "write_beside"]
