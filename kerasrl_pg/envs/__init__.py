"""Turning anything a user passes as an environment into one interface."""

from kerasrl_pg.envs.spaces import ObservationSpec, space_from_config, space_to_config
from kerasrl_pg.envs.vector import Stepper, make_vector_env

__all__ = ["ObservationSpec", "Stepper", "make_vector_env", "space_from_config", "space_to_config"]
