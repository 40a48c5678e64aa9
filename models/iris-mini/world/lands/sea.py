"""The sea, with an island far away in one outline."""

from __future__ import annotations

import skia

from world.brush import Brush
from world.frame import Frame
from world.lands.ground import draw_flat
from world.lands.water import WATER, draw_glitter, draw_wave


def draw(brush: Brush, frame: Frame) -> None:
    """Waves, one row before another."""
    draw_flat(brush, frame.horizon, brush.water(WATER[0]), brush.water((96, 182, 226), far=0.2))
    if brush.jitter.land == 2:
        x = frame.column(0.86) + 0.05 * brush.jitter.slide * frame.unit
        island = skia.Path()
        island.addArc(
            skia.Rect.MakeXYWH(
                x - 0.16 * frame.unit,
                frame.horizon - 0.06 * frame.unit,
                0.32 * frame.unit,
                0.12 * frame.unit,
            ),
            180,
            180,
        )
        brush.fill(island, brush.land((96, 160, 128), far=0.3, snow=0.8))
    for band, share in enumerate((0.14, 0.36, 0.64)):
        draw_wave(brush, frame, frame.horizon + share * 0.4 * frame.unit, band + 1)
    draw_glitter(brush, frame, frame.ground)
