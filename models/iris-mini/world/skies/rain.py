"""Rain and its clouds."""

from __future__ import annotations

import skia

from world.brush import Brush
from world.frame import Frame
from world.skies.clouds import draw_clouds


def draw(brush: Brush, frame: Frame) -> None:
    """Rain clouds."""
    spots = (
        ((0.28, 0.42, 0.44), (0.76, 0.34, 0.38)),
        ((0.5, 0.4, 0.5), (0.98, 0.34, 0.3)),
        ((0.22, 0.34, 0.38), (0.7, 0.42, 0.44)),
    )
    draw_clouds(brush, frame, spots[brush.backdrop.sky], (214, 222, 232), (150, 164, 184))


def draw_fall(brush: Brush, frame: Frame) -> None:
    """Streaks of rain."""
    s = frame.unit
    points = []
    for x, y in frame.squares():
        for row in range(4):
            for column in range(4):
                px = x + (0.14 + 0.25 * column + (0.125 if row % 2 else 0.0)) * s
                py = y + (0.04 + 0.25 * row + 0.06 * (column % 2)) * s
                points.append(skia.Point(px, py))
                points.append(skia.Point(px - 0.05 * s, py + 0.14 * s))
    paint = brush.paint(brush.raw((226, 238, 252)), 0.75)
    paint.setStrokeWidth(0.017 * s)
    paint.setStrokeCap(skia.Paint.kRound_Cap)
    brush.canvas.drawPoints(skia.Canvas.PointMode.kLines_PointMode, points, paint)
