"""Settings that are known to learn: a method, an environment, and the numbers that made it work, each one a file.

`benchmarks/learning.py` measures them; `benchmarks/results/learning.md` says what they reach.
Where settings come from other libraries, mind that our critic loss is half the squared error:
Stable-Baselines3's `vf_coef` 0.5 is `value_coef=1.0` here.

>>> import kerasrl_pg as pg
>>> pg.presets.PPO_CARTPOLE.agent(seed=0).horizon
128
>>> agent = pg.presets.REINFORCE_CARTPOLE.train(seed=0, total_steps=4000, epochs=1, verbose=0)
>>> agent.act([0.0, 0.0, 0.0, 0.0]) in (0, 1)
True
"""

import functools
from collections.abc import Mapping
from pathlib import Path

import keras

from kerasrl_pg import heads


@keras.saving.register_keras_serializable("kerasrl_pg")
class NarrowGaussian(heads.Gaussian):
    """A `Gaussian` that starts with log σ = -2: random actions that barely reach the bounds.

    A class of its own because `Networks` gives the heads that it builds seeded initial weights.

    Args:
        shape, **kwargs: Of `Gaussian`.
        initial_log_std: -2, as RL Baselines3 Zoo for MuJoCo.

    >>> NarrowGaussian(2).initial_log_std
    -2.0
    """

    def __init__(self, shape, initial_log_std=-2.0, **kwargs):
        super().__init__(shape, initial_log_std=initial_log_std, **kwargs)


FILES = {path.stem.upper(): path for path in sorted(Path(__file__).parent.glob("*.yaml"))}


@functools.cache
def _load(name):
    from kerasrl_pg.run import Run, parse

    return Run.from_dict(parse(FILES[name].read_text(encoding="utf8")))


class _Presets(Mapping):
    """Every preset, a `Run`, by its name; a file is read when it is asked for."""

    def __getitem__(self, name):
        if name not in FILES:
            raise KeyError(name)
        return _load(name)

    def __iter__(self):
        return iter(FILES)

    def __len__(self):
        return len(FILES)


ALL = _Presets()


def __getattr__(name):
    if name in FILES:
        return _load(name)
    raise AttributeError(f"There is no preset {name!r}. There are {', '.join(FILES)}.")


def __dir__():
    return [*globals(), *FILES]


def find(method, env):
    """The preset of a method for an environment.

    Args:
        method: An `Agent` class, or its name in any case.
        env: A gymnasium id.

    Returns:
        A `Run`, or None where there is none.

    >>> import kerasrl_pg as pg
    >>> find("ppo", "CartPole-v1") is pg.presets.PPO_CARTPOLE, find(pg.A2C, "Hopper-v5")
    (True, None)
    """
    name = (method if isinstance(method, str) else method.__name__).lower()
    for preset in ALL.values():
        if (preset.method.__name__.lower(), preset.env) == (name, env):
            return preset
    return None
