"""Shapes are where they should be, and their areas right."""

import numpy as np
import pytest

from kerasrl_pg.envs.drawing import DIGITS, FINE, Canvas

BLACK, WHITE = (0, 0, 0), (255, 255, 255)


def drawn(width=10, height=8, scale=10):
    return Canvas(width, height, scale, colour=WHITE)


def ink(canvas):
    """How much is black, in square units."""
    return float((1 - canvas.image()[..., 0] / 255).sum()) / canvas.scale**2


def test_a_rectangle():
    canvas = drawn()
    canvas.rectangle(1, 2, 4, 3, BLACK)
    expected = np.full((80, 100, 3), 255)
    expected[20:30, 10:40] = 0
    np.testing.assert_array_equal(canvas.image(), expected)


def test_what_is_outside_is_not_drawn():
    canvas = drawn()
    canvas.rectangle(-5, -5, 1, 1, BLACK)
    canvas.rectangle(20, 20, 30, 30, BLACK)
    canvas.disc(-30, 0, 2, BLACK)
    assert ink(canvas) == 1.0


def test_each_point_is_the_mean_of_the_fine_ones_in_it():
    canvas = drawn(width=3, height=2)
    canvas._points[:] = np.random.default_rng(0).integers(0, 256, canvas._points.shape)
    parts = canvas._points.reshape(20, FINE, 30, FINE, 3)
    image = canvas.image()
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, parts.mean((1, 3)).round())


def test_a_disc():
    canvas = drawn()
    canvas.disc(6, 3, 2, BLACK)
    assert ink(canvas) == pytest.approx(4 * np.pi, rel=0.01)
    rows, columns = np.nonzero(canvas.image()[..., 0] < 128)
    assert (rows.mean() + 0.5, columns.mean() + 0.5) == pytest.approx((30, 60), abs=0.1)
    assert len(np.unique(canvas.image())) > 2  # smooth edges


def test_a_line():
    canvas = drawn()
    canvas.line(2, 2, 5, 6, 1, BLACK)
    assert ink(canvas) == pytest.approx(5 + np.pi / 4, rel=0.01)
    assert canvas.image()[40, 35, 0] == 0 and canvas.image()[20, 50, 0] == 255
    dot = drawn()
    dot.line(3, 3, 3, 3, 2, BLACK)
    assert ink(dot) == pytest.approx(np.pi, rel=0.02)


def test_numbers():
    canvas = Canvas(9, 7, 1, colour=WHITE)
    canvas.number(4.5, 3.5, 17, 5, BLACK)
    rows = ["".join("#" if x < 128 else "." for x in row[:, 0]) for row in canvas.image()]
    assert rows == [".........", "..#..###.", ".##....#.", "..#....#.", "..#....#.", ".###...#.", "........."]
    assert len({*DIGITS}) == 10 and all(len(digit) == 5 for digit in DIGITS)
