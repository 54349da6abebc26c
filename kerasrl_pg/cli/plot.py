"""draws the learning curves of runs.

A thin line a seed, the interquartile mean of them in bold, and its 95 % bootstrap interval as a band:

kerasrl-pg plot runs/five runs/other --out=curves.png
kerasrl-pg plot runs/cartpole --log=entropy --out=entropy.png
"""

import csv
from pathlib import Path

from absl import app, flags

from kerasrl_pg.cli.command import need
from kerasrl_pg.cli.folder import Folder

# Okabe and Ito's, which survive printing and colour blindness.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


def define(values):
    """Defines the flags."""
    flags.DEFINE_string("out", None, "The picture: .png, .svg or .pdf.", flag_values=values)
    flags.DEFINE_string("log", "episode_return", "Which column of the histories.", flag_values=values)


def run(values, positional):
    """Draws."""
    need(values, "out")
    if not positional:
        raise app.UsageError("plot must be given runs' folders. Received: none.")
    from kerasrl_pg import figures

    figure = figures.figure(6.5, 4, extra="plot")
    axes = figure.subplots(subplot_kw={"xlabel": "environment steps", "ylabel": values.log.replace("_", " ")})
    for colour, given in zip(COLOURS * len(positional), positional, strict=False):
        draw(axes, curves(given, values.log), Path(given).name, colour)
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    print(f"Picture: {figures.write(figure, values.out)}")


def curves(given, log):
    """`(steps, values)` of each seed of a run's folder.

    Raises:
        FileNotFoundError: If there is no history.
        ValueError: If the history has no such log.
    """
    folder = Folder(given)
    found = [each for each in (folder.seeds() or [folder]) if each.history().exists()]
    if not found:
        raise FileNotFoundError(f"`plot` must be given runs' folders. Received: {given}, which has no history.csv.")
    drawn = []
    for each in found:
        runs = [each.history()]
        while each.history(len(runs) + 1).exists():
            runs.append(each.history(len(runs) + 1))
        rows = [row for path in runs for row in csv.DictReader(path.open(encoding="utf8"))]
        if rows and log not in rows[0]:
            raise ValueError(f"--log must be one of {', '.join(rows[0])}. Received: --log={log}.")
        pairs = [(float(row["env_steps"]), float(row[log])) for row in rows if row[log] not in ("", "NA")]
        drawn.append(tuple(zip(*pairs, strict=True)) if pairs else ((), ()))
    return drawn


def draw(axes, drawn, name, colour):
    """One run's curves."""
    import numpy as np

    from kerasrl_pg.seeds import bootstrap_interval, interquartile_mean

    if len(drawn) == 1:
        axes.plot(*drawn[0], color=colour, linewidth=2, label=name)
        return
    for steps, values in drawn:
        axes.plot(steps, values, color=colour, alpha=0.3, linewidth=0.8)
    shared = max((steps for steps, _ in drawn), key=len)
    shared = [step for step in shared if all(s and s[0] <= step <= s[-1] for s, _ in drawn)]
    if not shared:
        return
    rows = np.array([np.interp(shared, steps, values) for steps, values in drawn])
    intervals = np.array([bootstrap_interval(column, 2000) for column in rows.T])
    axes.plot(shared, interquartile_mean(rows, 0), color=colour, linewidth=2.2, label=f"{name} ({len(drawn)} seeds)")
    axes.fill_between(shared, intervals[:, 0], intervals[:, 1], color=colour, alpha=0.15, linewidth=0)
