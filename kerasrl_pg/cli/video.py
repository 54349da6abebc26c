"""films a saved agent, as a GIF, or as an MP4, which needs kerasrl-pg[video].

kerasrl-pg video --from=runs/cartpole --out=cartpole.gif
"""

import os

from absl import flags

from kerasrl_pg.cli import play
from kerasrl_pg.cli.command import need, no_more
from kerasrl_pg.cli.folder import load


def define(values):
    """Defines the flags."""
    play.define(values)
    flags.DEFINE_string("out", None, "The film: .gif or .mp4.", flag_values=values)
    flags.DEFINE_integer("max_steps", 1000, "The most steps of all episodes.", lower_bound=1, flag_values=values)


def run(values, positional):
    """Films."""
    from kerasrl_pg import callbacks

    no_more(positional, "from")
    need(values, "from", "out")
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # Films need no display.
    returns = callbacks.film(
        load(values["from"].value),
        play.environment(values),
        values.out,
        episodes=values.episodes,
        max_steps=values.max_steps,
        deterministic=values.deterministic,
        seed=values.seed,
    )
    play.print_returns(returns)
    print(f"Film: {values.out}")
