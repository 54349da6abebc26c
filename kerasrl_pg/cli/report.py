"""writes one HTML file that says how a run did, and opens from disk.

    kerasrl-pg report --from=runs/cartpole --out=cartpole.html

Returns, lengths and entropy of the actions at initialisation, beside a random policy's and the trained one's;
learning curves; what a larger rollout would do to the noise of the gradient; films of the behaviour, those of
--video_steps of `train`, or at the start and now (lecture notes, section 3.8).
"""

import os

from absl import app, flags

from kerasrl_pg.cli.command import need, no_more
from kerasrl_pg.cli.folder import Folder, load


def define(values):
    """Defines the flags."""
    kind = {"flag_values": values}
    flags.DEFINE_string("from", None, "A run's folder; of several seeds, the first is taken.", **kind)
    flags.DEFINE_string("out", None, "The file, .html.", **kind)
    flags.DEFINE_integer("episodes", 20, "Of each policy.", lower_bound=1, **kind)
    flags.DEFINE_integer("rollouts", 64, "Of which gradients are compared.", lower_bound=2, **kind)
    flags.DEFINE_integer("seed", 0, "Of environments and samples.", lower_bound=0, **kind)


def run(values, positional):
    """Writes the report."""
    no_more(positional, "from")
    need(values, "from", "out")
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # Films need no display.
    from kerasrl_pg.report import report
    from kerasrl_pg.run import Run

    folder = Folder(values["from"].value)
    folder = (folder.seeds() or [folder])[0]
    if not folder.run.exists():
        raise app.UsageError(f"--from must be a run's folder. Received: --from={folder.path}, which has no run.yaml.")
    path = report(
        Run.load(folder.run),
        load(folder.path),
        values.out,
        history=folder.history(),
        films=sorted(folder.videos.glob("*.gif")),
        episodes=values.episodes,
        rollouts=values.rollouts,
        seed=values.seed,
    )
    print(f"Report: {path}")
