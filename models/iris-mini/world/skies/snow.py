"""Falling snow and its cloud."""

from __future__ import annotations

import skia

from world.brush import Brush
from world.frame import Frame
from world.skies.clouds import draw_clouds

# One square of a unit: share across, share down, size.
_FLAKES = (
    (0.08, 0.1, 1.0), (0.3, 0.2, 0.7), (0.55, 0.08, 0.9), (0.8, 0.22, 1.1),
    (0.18, 0.4, 0.8), (0.44, 0.36, 1.1), (0.68, 0.46, 0.7), (0.93, 0.44, 0.9),
    (0.06, 0.66, 1.0), (0.34, 0.62, 0.8), (0.58, 0.7, 1.0), (0.84, 0.68, 0.8),
    (0.2, 0.88, 0.9), (0.46, 0.92, 0.8), (0.72, 0.9, 1.1), (0.96, 0.92, 0.7),
)  # fmt: skip


def draw(brush: Brush, frame: Frame) -> None:
    """A pale cloud."""
    spots = (((0.26, 0.4, 0.34),), ((0.5, 0.36, 0.36),), ((0.76, 0.4, 0.34),))
    draw_clouds(brush, frame, spots[brush.backdrop.sky], (238, 244, 250), (196, 212, 230))


def draw_fall(brush: Brush, frame: Frame) -> None:
    """Flakes."""
    s = frame.unit
    path = skia.Path()
    for x, y in frame.squares():
        for fx, fy, size in _FLAKES:
            path.addCircle(x + fx * s, y + fy * s, 0.022 * size * s)
    brush.fill(path, brush.paint((255, 255, 255), 0.95), edge=False)
