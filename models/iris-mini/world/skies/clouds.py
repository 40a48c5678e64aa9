"""Clouds, as most skies have them."""

from __future__ import annotations

from collections.abc import Sequence

import skia

from world.brush import Brush
from world.colour import Colour
from world.frame import Frame
from world.paths import placed, union


def _cloud() -> skia.Path:
    # Three heaps on a flat foot, 1 wide, the foot at y = 0.
    return union(
        skia.Path.RRect(skia.RRect.MakeRectXY(skia.Rect.MakeLTRB(-0.5, -0.18, 0.5, 0), 0.09, 0.09)),
        skia.Path.Circle(-0.2, -0.16, 0.15),
        skia.Path.Circle(0.05, -0.24, 0.21),
        skia.Path.Circle(0.27, -0.14, 0.13),
    )


_CLOUD = _cloud()


def draw_clouds(
    brush: Brush,
    frame: Frame,
    spots: Sequence[tuple[float, float, float]],
    colour: Colour,
    shade: Colour | None = None,
    clear: tuple[float, float] | None = None,
) -> None:
    """Clouds at (share of a unit, share of the dome, width in units).

    None is drawn over the point `clear`, where the sun is.
    """
    for k in range(frame.tiles):
        for x, y, size in spots:
            cx = (k + x) * frame.unit
            if clear is not None and (
                abs(cx - clear[0]) < 0.24 * frame.unit
                and abs(y * frame.dome - 0.1 * frame.unit - clear[1]) < 0.2 * frame.unit
            ):
                continue
            cloud = placed(_CLOUD, cx, y * frame.dome, size * frame.unit)
            if shade is not None:
                under = placed(_CLOUD, cx, (y + 0.03) * frame.dome, size * frame.unit)
                brush.fill(under, brush.raw(shade), edge=False)
            brush.fill(cloud, brush.raw(colour))
