"""What all pictures look like: colours that stay apart in grey, and a line style and marker with each."""

import textwrap

from kerasrl_pg import figures

# From dark to light, so that they stay apart without colour; hues near Okabe and Ito's, safe for the colour-blind.
COLOURS = "#101010", "#00558c", "#b8450b", "#2f9e77", "#7db7dd", "#e8b23a"
LINES = "-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3))
MARKERS = "o", "s", "^", "D", "v", "P"
HATCHES = "", "//", "..", "xx", "--", "++"


def style(place, marker=True):
    """Keyword arguments of `Axes.plot` for the place-th line."""
    place %= len(COLOURS)
    look = {"color": COLOURS[place], "linestyle": LINES[place], "linewidth": 1.8}
    return look | ({"marker": MARKERS[place], "markersize": 5} if marker else {})


def figure(columns=1, width=4.6, height=3.6, **subplots):
    """`(Figure, axes)`, a row of so many.

    Raises:
        ImportError: If matplotlib is missing.
    """
    made = figures.figure(width * columns + 0.4, height + 0.9, extra="lab")
    axes = made.subplots(1, columns, **subplots)
    for one in [axes] if columns == 1 else axes:
        one.spines[["top", "right"]].set_visible(False)
        one.grid(True, color="0.9", linewidth=0.6)
        one.set_axisbelow(True)
    return made, axes


def save(made, filepath, title, caption):
    """Writes a picture, with its title above and the sentence that says what it shows below; returns the path."""
    made.suptitle(title, fontsize=12, fontweight="bold")
    width = int(made.get_size_inches()[0] * 13.5)
    made.supxlabel(textwrap.fill(caption, width), fontsize=9, color="0.25")
    return figures.write(made, filepath)
