"""shows a saved agent at work in a window.

    kerasrl-pg play --from=runs/cartpole --episodes=3

Where there is no display, `kerasrl-pg video` films it.
"""

import gymnasium as gym
from absl import flags

from kerasrl_pg.cli.command import need, no_more
from kerasrl_pg.cli.folder import load


def define(values):
    """Defines the flags."""
    kind = {"flag_values": values}
    flags.DEFINE_string("from", None, "A saved agent (.keras) or a run's folder.", **kind)
    flags.DEFINE_string("env", None, "A gymnasium id; else the run's own.", **kind)
    flags.DEFINE_integer("episodes", 1, "How many.", lower_bound=1, **kind)
    flags.DEFINE_integer("seed", 0, "Of the environment and of samples.", lower_bound=0, **kind)
    flags.DEFINE_bool("deterministic", True, "The policy's mode, not its samples.", **kind)


def run(values, positional):
    """Plays."""
    from kerasrl_pg import callbacks

    no_more(positional, "from")
    need(values, "from")
    env = environment(values)
    made = gym.make(env, render_mode="human") if isinstance(env, str) else env(render_mode="human")
    try:
        returns = callbacks.play(load(values["from"].value), made, values.episodes, values.deterministic, values.seed)
    finally:
        made.close()
    print_returns(returns)


def environment(values):
    """What the flags say to play in: a gymnasium id, or a function that makes an environment.

    Raises:
        absl.app.UsageError: If nothing says so.
        ValueError: If the run's own environment is a compiled one, which has no pictures.
    """
    from pathlib import Path

    from kerasrl_pg.cli.evaluate import _environments

    if values.env:
        return values.env

    class Own:
        env = []

    ((name, env),) = _environments(Own, Path(values["from"].value))
    if hasattr(env, "num_envs"):
        raise ValueError(
            f"--env must name a gymnasium environment to look at: the run's own, {name}, is a compiled one, which has "
            "no pictures. Received: none."
        )
    return env


def print_returns(returns):
    """Prints the return of each episode."""
    for number, value in enumerate(returns, 1):
        print(f"Episode {number}: return {value:.1f}")
