"""A low and large sun."""

from __future__ import annotations

import skia

from world.brush import Brush
from world.frame import Frame, across
from world.skies.clouds import draw_clouds


def draw(brush: Brush, frame: Frame) -> None:
    """The sun near the horizon, and clouds beside it."""
    x = across(brush.scene, frame)
    r = 0.15 * frame.unit
    y = max(1.3 * r, frame.horizon - 0.1875 * frame.unit)
    brush.canvas.drawCircle(x, y, 1.4 * r, brush.paint(brush.raw((255, 226, 130)), 0.4))
    brush.fill(skia.Path.Circle(x, y, r), brush.raw((255, 238, 150)))
    spots = (
        ((0.6, 0.3, 0.34), (0.88, 0.5, 0.24)),
        ((0.14, 0.34, 0.3), (0.84, 0.28, 0.32)),
        ((0.14, 0.5, 0.24), (0.4, 0.3, 0.34)),
    )
    draw_clouds(brush, frame, spots[brush.backdrop.sky], (250, 160, 160), clear=(x, y))
