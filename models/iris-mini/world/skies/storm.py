"""Heavy clouds and a bolt of lightning."""

from __future__ import annotations

import skia

from world.brush import Brush
from world.frame import Frame, across
from world.paths import placed, polygon

_BOLT = polygon(
    [(0.12, 0), (-0.2, 0.5), (0.0, 0.5), (-0.16, 1.0), (0.3, 0.36), (0.08, 0.36), (0.34, 0)]
)


def draw(brush: Brush, frame: Frame) -> None:
    """A ceiling of clouds, and the bolt."""
    x = across(brush.scene, frame)
    # A ceiling of heavy clouds, two rows of heaps hanging from the top edge.
    for row, colour in ((0.30, (86, 92, 108)), (0.17, (60, 64, 80))):
        step = 0.25 * frame.unit
        count = 4 * frame.tiles
        shift = (0.0 if row > 0.2 else 0.5) + 0.3 * brush.backdrop.sky
        ceiling = skia.Path()
        y = row * frame.dome
        ceiling.moveTo(-step, -frame.h)
        ceiling.lineTo((shift - 2) * step, y)
        for k in range(-2, count + 2):
            x0 = (k + shift) * step
            drop = (0.085 if k % 2 else 0.055) * frame.unit
            ceiling.cubicTo(x0, y + drop, x0 + step, y + drop, x0 + step, y)
        ceiling.lineTo(frame.w + step, -frame.h)
        ceiling.close()
        brush.fill(ceiling, brush.raw(colour))
    top = 0.13 * frame.dome
    reach = 0.64 * frame.dome
    bolt = placed(_BOLT, x - 0.04 * frame.unit, top, reach)
    brush.stroke(bolt, brush.raw((176, 172, 150)), 0.035 * frame.unit, edge=False)
    brush.fill(bolt, brush.raw((255, 240, 120)))
