"""The moon among stars."""

from __future__ import annotations

import math

import skia

from world.brush import Brush
from world.frame import Frame, across
from world.paths import placed, polygon


def _crescent() -> skia.Path:
    return skia.Op(
        skia.Path.Circle(0, 0, 1),
        skia.Path.Circle(0.48, -0.16, 0.82),
        skia.PathOp.kDifference_PathOp,
    )


def _star() -> skia.Path:
    points = []
    for k in range(8):
        reach = 1.0 if k % 2 == 0 else 0.36
        turn = math.radians(45 * k)
        points.append((reach * math.sin(turn), reach * math.cos(turn)))
    return polygon(points)


_CRESCENT = _crescent()
_STAR = _star()

# Two layouts of stars: share of a unit across, share of the dome, size.
_STARS = (
    (0.06, 0.52, 1.0),
    (0.17, 0.14, 1.4),
    (0.3, 0.36, 0.9),
    (0.42, 0.1, 1.0),
    (0.55, 0.5, 1.3),
    (0.66, 0.22, 1.0),
    (0.79, 0.56, 0.9),
    (0.88, 0.12, 1.4),
    (0.96, 0.38, 1.0),
)


def draw(brush: Brush, frame: Frame) -> None:
    """The moon, and stars beside it."""
    x = across(brush.scene, frame)
    y, r = 0.3 * frame.dome, 0.095 * frame.unit
    stars = skia.Path()
    for k in range(frame.tiles):
        for sx, sy, size in _STARS:
            if brush.backdrop.sky == 1:
                sx = 1.0 - sx
            px, py = (k + sx) * frame.unit, sy * 1.2 * frame.dome
            if math.hypot(px - x, py - y) > 2.0 * r:
                stars.addPath(placed(_STAR, px, py, 0.017 * size * frame.unit))
    brush.fill(stars, brush.raw((255, 248, 214)), edge=False)
    brush.canvas.drawCircle(x, y, 1.6 * r, brush.paint(brush.raw((130, 150, 220)), 0.25))
    brush.fill(placed(_CRESCENT, x, y, r), brush.raw((255, 240, 170)))
