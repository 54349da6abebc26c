"""Turning anything a user passes into one interface; environments that compile."""

from kerasrl_pg.envs.adapter import CompiledVectorEnv
from kerasrl_pg.envs.breakout import Breakout
from kerasrl_pg.envs.checking import check_equal
from kerasrl_pg.envs.classic_control import Acrobot, CartPole, MountainCar, MountainCarContinuous, Pendulum
from kerasrl_pg.envs.compiled import CompiledEnv, Transition, check_contract
from kerasrl_pg.envs.pixelcopter import PixelCopter
from kerasrl_pg.envs.registration import register
from kerasrl_pg.envs.spaces import ObservationSpec, space_from_config, space_to_config
from kerasrl_pg.envs.vacuum import Vacuum
from kerasrl_pg.envs.vector import Stepper, make_vector_env
from kerasrl_pg.envs.worlds import Catch, Corridor, TabularMDP, TMaze
from kerasrl_pg.envs.wrappers import mask_observations, repeat_actions, time_limit

__all__ = [
    "Acrobot",
    "Breakout",
    "CartPole",
    "Catch",
    "CompiledEnv",
    "CompiledVectorEnv",
    "Corridor",
    "MountainCar",
    "MountainCarContinuous",
    "ObservationSpec",
    "Pendulum",
    "PixelCopter",
    "Stepper",
    "TMaze",
    "TabularMDP",
    "Transition",
    "Vacuum",
    "check_contract",
    "check_equal",
    "make_vector_env",
    "mask_observations",
    "repeat_actions",
    "space_from_config",
    "space_to_config",
    "time_limit",
]

register()
