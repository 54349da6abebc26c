"""Pictures: matplotlib where it is installed, and files that are whole."""

import io
from pathlib import Path

from kerasrl_pg.serving.files import write_beside

DPI = 130  # Ours: text of 9 points is read at full size.


def figure(width, height, extra):
    """An empty matplotlib `Figure`, which needs no display.

    Args:
        width, height: In inches.
        extra: Of this package, that has matplotlib in it; for the sentence.

    Raises:
        ImportError: If matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(f"Pictures need matplotlib: pip install kerasrl-pg[{extra}]") from error
    return Figure(figsize=(width, height), layout="constrained")


def write(figure, filepath):
    """Writes a picture beside `filepath`, reads it back, and renames it: an older one is never lost half-way.

    Args:
        figure: A matplotlib `Figure`.
        filepath: Where; its suffix says how, `.png` where it has none.

    Returns:
        The path.

    Raises:
        ValueError: If matplotlib writes no such files.
        OSError: If the disk does not take it; what was there is still there.
    """
    path = Path(filepath)
    path = path if path.suffix else path.with_suffix(".png")
    content = io.BytesIO()
    figure.savefig(content, dpi=DPI, format=path.suffix[1:])

    def verify(written):
        if Path(written).read_bytes() != content.getvalue():
            raise OSError(f"`filepath` must keep what is written. Received: {str(path)!r}, which reads otherwise.")

    write_beside(path, path.suffix, lambda part: Path(part).write_bytes(content.getvalue()), verify)
    return path
