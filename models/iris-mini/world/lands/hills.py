"""Green hills."""

from __future__ import annotations

import skia

from world.brush import Brush
from world.colour import Colour
from world.frame import Frame
from world.lands.ground import draw_flat, repeated, ridge


def draw(brush: Brush, frame: Frame) -> None:
    """Hills far and near, and a meadow."""
    s = frame.unit
    back = brush.land((136, 206, 146), far=0.3, snow=0.8)
    middle = brush.land((110, 194, 98), far=0.12, snow=0.8)
    draw_flat(
        brush,
        frame.horizon + 0.04 * s,
        brush.land((84, 170, 74), snow=0.9),
        brush.land((120, 200, 92), snow=0.9),
    )
    # Each: share of the unit, top above the horizon and half width in units.
    far, near = (
        ((0.3, 0.16, 0.32), (0.86, 0.1, 0.3)),
        ((0.0, 0.06, 0.36), (0.62, 0.03, 0.34)),
    )
    for group, colour in ((far, back), (near, middle)):
        for k in range(-1, frame.tiles + 1):
            for x, top, rx in group:
                _mound(
                    brush,
                    (k + x) * s,
                    frame.horizon - top * s,
                    rx * s,
                    0.32 * s,
                    colour,
                )
    front = repeated(frame, [(0.1, 0.1), (0.55, 0.17)])
    crest = [(x, frame.horizon + y * s) for x, y in front]
    brush.fill(
        ridge(crest, 1.1 * frame.h),
        brush.fade(
            [brush.land((104, 188, 80), snow=0.92), brush.land((72, 156, 66), snow=0.86)],
            frame.horizon,
            frame.h,
        ),
    )


def _mound(brush: Brush, x: float, top: float, rx: float, ry: float, colour: Colour) -> None:
    path = skia.Path()
    path.addOval(skia.Rect.MakeLTRB(x - rx, top, x + rx, top + 2 * ry))
    brush.fill(path, colour)
