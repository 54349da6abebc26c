"""lists what there is.

kerasrl-pg list                 # all of it
kerasrl-pg list presets
kerasrl-pg list environments
"""

import re

from absl import app

ROOMS = ("agents", "presets", "environments", "heads", "networks", "estimators", "baselines")


def define(values):
    """There are no flags of its own."""


def run(values, positional):
    """Prints names, each with the first sentence of what it is."""
    wrong = [name for name in positional if name not in ROOMS]
    if wrong:
        raise app.UsageError(f"list must be of {', '.join(ROOMS)}. Received: {wrong[0]}.")
    for room in positional or ROOMS:
        print(f"{room.capitalize()}:")
        rows = globals()[f"_{room}"]()
        width = max((len(name) for name, _ in rows), default=0) + 2
        for name, what in rows:
            print(f"  {name:{width}}{what}".rstrip())
        print()


def _first(kind):
    text = " ".join((kind.__doc__ or "").strip().split("\n\n")[0].split())
    return re.split(r"[.:] | \(", text)[0].rstrip(".:")


def _classes(module, base):
    kinds = [value for value in vars(module).values() if isinstance(value, type)]
    return [(kind.__name__, _first(kind)) for kind in kinds if issubclass(kind, base) and kind is not base]


def _agents():
    from kerasrl_pg.run import agents

    return [(kind.__name__, _first(kind)) for kind in agents().values()]


def _presets():
    from kerasrl_pg import presets

    return [(name, f"{p.method.__name__} on {p.env}, {p.total_steps:,} steps") for name, p in presets.ALL.items()]


def _environments():
    import gymnasium as gym

    from kerasrl_pg import envs

    compiled = [(f"pg.envs.{name}", what) for name, what in _classes(envs, envs.CompiledEnv)]
    own = [(name, "in gymnasium") for name in gym.registry if name.startswith("kerasrl_pg/")]
    return [*compiled, *own, ("...", "and every id that gymnasium can make")]


def _heads():
    from kerasrl_pg import heads

    return _classes(heads, heads.Head)


def _networks():
    from kerasrl_pg import models

    return _classes(models, models.Architecture)


def _estimators():
    from kerasrl_pg import estimators

    return _classes(estimators, estimators.Estimator)


def _baselines():
    from kerasrl_pg import baselines

    return _classes(baselines, baselines.Baseline)
