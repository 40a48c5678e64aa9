"""Ground: flat land and soft outlines, as most lands have them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import skia

from world.brush import Brush
from world.colour import Colour, mix
from world.frame import Frame
from world.paths import polygon


def draw_flat(brush: Brush, y: float, near: Colour, far: Colour) -> None:
    """Flat ground from `y` to the lower edge, from the colour far away to the one near by."""
    frame = brush.frame
    area = polygon(
        [
            (-frame.unit, y),
            (frame.w + frame.unit, y),
            (frame.w + frame.unit, frame.h * 1.1),
            (-frame.unit, frame.h * 1.1),
        ]
    )
    brush.fill(area, brush.fade([far, mix(far, near, 0.5), near], y, frame.h))


def ridge(points: Sequence[tuple[float, float]], bottom: float) -> skia.Path:
    """A soft outline through points from left to right, closed at `bottom`."""
    path = skia.Path()
    path.moveTo(points[0][0], bottom)
    path.lineTo(*points[0])
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        middle = 0.5 * (x0 + x1)
        path.cubicTo(middle, y0, middle, y1, x1, y1)
    path.lineTo(points[-1][0], bottom)
    path.close()
    return path


def repeated(frame: Frame, points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points (share of a unit, height) of one unit, repeated over the width and past its edges."""
    out = [((k + x) * frame.unit, y) for k in range(-1, frame.tiles + 1) for x, y in points]
    return out
