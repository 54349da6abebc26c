"""Shipping a trained policy: atomic files, SavedModel export, and its verification."""

from kerasrl_pg.serving.export import describe_signatures, export_saved_model, sample_observations
from kerasrl_pg.serving.files import write_beside

__all__ = ["describe_signatures", "export_saved_model", "sample_observations", "write_beside"]
