"""A clear sky with the sun."""

from __future__ import annotations

import skia

from world.brush import Brush
from world.frame import Frame, across
from world.skies.clouds import draw_clouds


def draw(brush: Brush, frame: Frame) -> None:
    """The sun, and clouds beside it."""
    x = across(brush.scene, frame)
    y, r = 0.3 * frame.dome, 0.085 * frame.unit
    brush.canvas.drawCircle(x, y, 1.5 * r, brush.paint(brush.raw((255, 244, 180)), 0.45))
    brush.fill(skia.Path.Circle(x, y, r), brush.raw((255, 214, 64)))
    spots = (
        ((0.55, 0.38, 0.3), (0.86, 0.62, 0.22)),
        ((0.16, 0.42, 0.28), (0.86, 0.5, 0.28)),
        ((0.14, 0.62, 0.22), (0.46, 0.38, 0.3)),
    )
    draw_clouds(brush, frame, spots[brush.backdrop.sky], (255, 255, 255), (224, 238, 250), (x, y))
