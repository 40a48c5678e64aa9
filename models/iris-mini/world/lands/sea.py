"""The open sea."""

from __future__ import annotations

from world.brush import Brush
from world.frame import Frame
from world.lands.ground import draw_flat
from world.lands.water import WATER, draw_glitter, draw_wave


def draw(brush: Brush, frame: Frame) -> None:
    """Waves, one row before another."""
    draw_flat(brush, frame.horizon, brush.water(WATER[0]), brush.water((96, 182, 226), far=0.2))
    for band, share in enumerate((0.14, 0.36, 0.64)):
        draw_wave(brush, frame, frame.horizon + share * 0.4 * frame.unit, band + 1)
    draw_glitter(brush, frame, frame.ground)
