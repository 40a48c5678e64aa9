"""Banks of fog: in the sky, over the land and before the objects."""

from __future__ import annotations

from collections.abc import Sequence

import skia

from world.brush import Brush
from world.frame import Frame


def draw(brush: Brush, frame: Frame) -> None:
    """A bank in the sky."""
    _wisps(brush, frame, (0.34 * frame.dome,), 0.95)


def draw_veil(brush: Brush, frame: Frame) -> None:
    """The fog over the land, behind the objects; nothing at other times."""
    if brush.scene.time == "fog":
        _wisps(brush, frame, (frame.horizon + 0.06 * frame.unit,), 0.55)


def draw_fall(brush: Brush, frame: Frame) -> None:
    """The fog before the objects."""
    # Its middle is at the edge of the picture: it crosses the feet of what stands aside.
    _wisps(brush, frame, (frame.ground + 0.02 * frame.unit,), 0.62, edge=True)


def _wisps(
    brush: Brush, frame: Frame, rows: Sequence[float], alpha: float, edge: bool = False
) -> None:
    """Flat banks of fog, at these heights from the top."""
    colour = brush.raw((244, 247, 247))
    for k, y in enumerate(rows):
        side = 1 if (k + brush.backdrop.sky) % 2 else -1
        shift = (0.0 if edge else 0.5) + (0.06 if edge else 0.18) * side
        for n in range(-1, frame.tiles + 2):
            bank = skia.Path()
            middle = (n + shift) * frame.unit
            for step, (far, half) in enumerate(((0.05, 0.19), (-0.04, 0.3), (0.07, 0.17))):
                x = middle + side * far * frame.unit
                top = y + (step - 1.5) * 0.05 * frame.unit
                rect = skia.Rect.MakeLTRB(
                    x - half * frame.unit, top, x + half * frame.unit, top + 0.054 * frame.unit
                )
                bar = skia.Path.RRect(
                    skia.RRect.MakeRectXY(rect, 0.027 * frame.unit, 0.027 * frame.unit)
                )
                bank = skia.Op(bank, bar, skia.PathOp.kUnion_PathOp)
            brush.fill(bank, brush.paint(colour, alpha), edge=False)
