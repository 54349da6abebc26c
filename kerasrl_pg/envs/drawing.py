"""Pictures of worlds in NumPy alone: flat shapes with smooth edges."""

import numpy as np

# Okabe and Ito 2008, "Color universal design": told apart by the colour-blind, and of different greys in print.
PAPER, INK, GREY = (252, 250, 245), (38, 38, 48), (203, 203, 198)
BLUE, SKY, GREEN = (0, 114, 178), (86, 180, 233), (0, 158, 115)
ORANGE, VERMILION, YELLOW = (230, 159, 0), (213, 94, 0), (240, 228, 66)
# Digits of three by five points, a row each.
DIGITS = ["75557", "26227", "71747", "71317", "55711", "74717", "74757", "71111", "75757", "75717"]
FINE = 3  # Ours: each point is drawn as so many by so many, and averaged.


class Canvas:
    """A picture to draw on, in units of which the upper left corner is (0, 0).

    Args:
        width, height: In units.
        scale: Points to a unit.
        colour: Of the ground.

    >>> canvas = Canvas(2, 1, scale=4, colour=(255, 255, 255))
    >>> canvas.rectangle(0, 0, 1, 1, (0, 0, 0))
    >>> canvas.image()[0, :, 0].tolist()
    [0, 0, 0, 0, 255, 255, 255, 255]
    """

    def __init__(self, width, height, scale, colour=PAPER):
        self.scale = scale
        self._points = np.empty((round(height * scale) * FINE, round(width * scale) * FINE, 3), np.uint8)
        self._points[:] = colour

    def _part(self, left, top, right, bottom):
        """The points of a rectangle, a view, and the units at their middles, [height, 1] and [1, width]."""
        fine, (height, width, _) = self.scale * FINE, self._points.shape
        left, right = (min(max(round(x * fine), 0), width) for x in (left, right))
        top, bottom = (min(max(round(y * fine), 0), height) for y in (top, bottom))
        y, x = np.ogrid[top:bottom, left:right]
        return self._points[top:bottom, left:right], (y + 0.5) / fine, (x + 0.5) / fine

    def rectangle(self, left, top, right, bottom, colour):
        """Fills a rectangle, as far as it is in the picture."""
        self._part(left, top, right, bottom)[0][:] = colour

    def disc(self, x, y, radius, colour):
        """Fills a disc."""
        points, rows, columns = self._part(x - radius, y - radius, x + radius, y + radius)
        points[(rows - y) ** 2 + (columns - x) ** 2 <= radius**2] = colour

    def line(self, x0, y0, x1, y1, width, colour):
        """A straight line with round ends."""
        half = width / 2
        points, rows, columns = self._part(
            min(x0, x1) - half, min(y0, y1) - half, max(x0, x1) + half, max(y0, y1) + half
        )
        along_x, along_y = x1 - x0, y1 - y0
        length = max(along_x**2 + along_y**2, 1e-12)
        share = np.clip(((columns - x0) * along_x + (rows - y0) * along_y) / length, 0.0, 1.0)
        distance = (columns - x0 - share * along_x) ** 2 + (rows - y0 - share * along_y) ** 2
        points[distance <= half**2] = colour

    def number(self, x, y, value, height, colour):
        """A whole number, its middle at (x, y)."""
        point, text = height / 5, str(value)
        left, top = x - point * (4 * len(text) - 1) / 2, y - height / 2
        for index, digit in enumerate(text):
            for row, bits in enumerate(DIGITS[int(digit)]):
                for column in range(3):
                    if int(bits) & (4 >> column):
                        corner = left + point * (4 * index + column), top + point * row
                        self.rectangle(*corner, corner[0] + point, corner[1] + point, colour)

    def image(self):
        """The picture, uint8 [height x scale, width x scale, 3]."""
        # Rows are added, then columns: `mean` over both axes takes ten times as long.
        total = self._points.astype(np.uint16)
        total = sum(total[row::FINE] for row in range(FINE))
        total = sum(total[:, column::FINE] for column in range(FINE))
        return ((total + FINE**2 // 2) // FINE**2).astype(np.uint8)
