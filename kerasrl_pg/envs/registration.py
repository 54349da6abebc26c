"""The worlds' names in gymnasium's registry."""

import gymnasium as gym

# By name: the class, as a text so that nothing is imported before `gymnasium.make`; the time limit, the compiled
# environment's own; and arguments.
WORLDS = {
    "Vacuum": ("host:VacuumEnv", 50, {}),
    "PixelCopter": ("host:PixelCopterEnv", 1000, {}),
    "PixelCopterPixels": ("host:PixelCopterEnv", 1000, {"pixels": True}),
    "Corridor": ("host:CorridorEnv", 200, {}),
    "RandomMDP": ("host:RandomMDPEnv", 100, {}),
}


def register():
    """Makes each of `WORLDS` known as `kerasrl_pg/<name>-v0`; again does nothing more.

    >>> import gymnasium as gym
    >>> gym.spec("kerasrl_pg/Corridor-v0").max_episode_steps
    200
    """
    for name, (entry_point, limit, kwargs) in WORLDS.items():
        if f"kerasrl_pg/{name}-v0" not in gym.registry:
            gym.register(
                f"kerasrl_pg/{name}-v0",
                entry_point=f"kerasrl_pg.envs.{entry_point}",
                max_episode_steps=limit,
                kwargs=kwargs,
            )
