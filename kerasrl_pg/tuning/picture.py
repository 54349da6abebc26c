"""The picture of a search: a panel for each hyperparameter."""

import json
import math

from kerasrl_pg import figures

# Okabe and Ito 2008, told apart by the colour-blind and in grey; each has a marker of its own, too.
LOOKS = {
    "done": ("#0072B2", "o", "done"),
    "ended early": ("#E69F00", "v", "ended early"),
    "failed": ("#000000", "x", "failed"),
}
COLUMNS = 4
ASIDE = (0.0, 0.07, -0.07, 0.14, -0.14, 0.21, -0.21, 0.28, -0.28)


def draw(rows, description, filepath):
    """Draws `Results.rows`.

    Args:
        rows: Of `Results`, the best first.
        description: Of `Results`.
        filepath: Where.

    Returns:
        The path.
    """
    rows = [row for row in rows if row.status in LOOKS]
    paths = list(dict.fromkeys(path for row in rows for path in row.values))
    columns = max(1, min(COLUMNS, len(paths)))
    lines = max(1, math.ceil(len(paths) / columns))
    figure = figures.figure(3.1 * columns, 2.6 * lines + 0.6, extra="tuner")
    axes = figure.subplots(lines, columns, squeeze=False, sharey=True)
    for index, axis in enumerate(axes.flat):
        if index >= len(paths):
            axis.set_axis_off()
            continue
        _panel(axis, paths[index], rows, description)
        if index % columns == 0:
            axis.set_ylabel("return, mean over seeds", size=9)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    run = description["run"]
    what = "" if run is None else f"{run['agent']} on {_env(run['env'])}: "
    figure.suptitle(f"{what}{len(rows)} trials, {len(description['seeds'])} seeds each", size=11)
    return figures.write(figure, filepath)


def _panel(axis, path, rows, description):
    rows = [row for row in rows if path in row.values]
    places, names = _places(path, rows, description)
    finite = [value for row in rows for value in row.returns.values()]
    floor = min(finite, default=0.0)
    for status, (colour, marker, label) in LOOKS.items():
        chosen = [(places[i], row) for i, row in enumerate(rows) if row.status == status]
        if not chosen:
            continue
        heights = [floor if row.val_return != row.val_return else row.val_return for _, row in chosen]
        axis.plot([x for x, _ in chosen], heights, marker, color=colour, markersize=4.5, label=label, zorder=3)
        for x, row in chosen:
            if row.val_return == row.val_return:
                axis.plot([x, x], [min(row.returns.values()), max(row.returns.values())], color=colour, linewidth=0.8)
    best = [(places[i], row.val_return) for i, row in enumerate(rows) if row.status == "done"][:1]
    if best:
        axis.plot(*best[0], "*", color="#D55E00", markersize=11, zorder=4, label="best", markeredgecolor="white")
    axis.set_xlabel(path, size=9)
    given = _range(path, description)
    if names:
        axis.set_xticks(range(len(names)), names, rotation=30 if max(map(len, names)) > 8 else 0, size=8)
        axis.set_xlim(-0.5, len(names) - 0.5)
    elif given is not None:
        if given.get("sampling", "linear") != "linear":
            axis.set_xscale("log")
        room = (given["max"] - given["min"]) * 0.04
        logarithmic = axis.get_xscale() == "log"
        axis.set_xlim(
            *((given["min"] / 1.3, given["max"] * 1.3) if logarithmic else (given["min"] - room, given["max"] + room))
        )
    axis.grid(alpha=0.25, linewidth=0.5)


def _range(path, description):
    given = (description["space"] or {}).get(path)
    return given if isinstance(given, dict) and "min" in given else None


def _places(path, rows, description):
    """Where each trial is on the axis, and the names of the choices; [] where the axis is one of numbers."""
    values = [row.values[path] for row in rows]
    given = (description["space"] or {}).get(path)
    numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
    if numbers and not isinstance(given, list):
        return values, []
    texts = [_text(value) for value in values]
    if isinstance(given, list):
        names = [_text(value) for value in given]
    else:
        names = sorted({*texts})
    names += [text for text in dict.fromkeys(texts) if text not in names]
    # Trials of the same choice stand side by side.
    seen, places = {}, []
    for text in texts:
        count = seen[text] = seen.get(text, -1) + 1
        places.append(names.index(text) + ASIDE[count % len(ASIDE)])
    return places, names


def _text(value):
    return value if isinstance(value, str) else json.dumps(value)


def _env(env):
    if isinstance(env, str):
        return env
    inner = env.get("id", env)
    return inner if isinstance(inner, str) else next(iter(inner))
