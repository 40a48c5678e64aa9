"""A street before houses and towers."""

from __future__ import annotations

import skia

from world.brush import Brush
from world.colour import WHITE, Colour
from world.frame import Frame
from world.lands.ground import draw_flat

# Each: width and height in units, colour.
_HOUSES: tuple[tuple[float, float, Colour], ...] = (
    (0.19, 0.36, (214, 120, 104)),
    (0.15, 0.24, (240, 206, 150)),
    (0.2, 0.15, (120, 158, 190)),
    (0.16, 0.2, (226, 168, 122)),
    (0.15, 0.13, (152, 184, 178)),
    (0.17, 0.3, (110, 136, 178)),
)


def draw(brush: Brush, frame: Frame) -> None:
    """Towers far away, a row of houses, a pavement and a street."""
    s = frame.unit
    base = frame.horizon + 0.05 * s
    far = brush.land((160, 178, 204), far=0.4, snow=0.1)
    towers = skia.Path()
    heights = (0.3, 0.22, 0.34, 0.19, 0.27, 0.22)
    gap = s / len(heights)
    for k in range(-1, len(heights) * frame.tiles + 1):
        tall = heights[k % len(heights)]
        x = k * gap
        towers.addRect(skia.Rect.MakeLTRB(x, base - tall * s, x + 0.86 * gap, base))
    brush.fill(towers, far)
    total = sum(house[0] for house in _HOUSES)
    grow = 1.0 / total
    dark = brush.scene.time in ("night", "storm")
    pane = brush.raw((255, 220, 110)) if dark else brush.land((226, 242, 252), snow=0.2)
    panes = skia.Path()
    x = -_HOUSES[-1][0] * s * grow
    for wide, tall, colour in (_HOUSES[-1], *(_HOUSES * frame.tiles), _HOUSES[0]):
        width, height = wide * s * grow, tall * s
        wall = skia.Path()
        wall.addRect(skia.Rect.MakeLTRB(x, base - height, x + width, base + 0.02 * s))
        brush.fill(wall, brush.land(colour))
        if brush.snowy:
            roof = skia.Path()
            roof.addRect(
                skia.Rect.MakeLTRB(
                    x, base - height - 0.012 * s, x + width, base - height + 0.02 * s
                )
            )
            brush.fill(roof, brush.land(WHITE), edge=False)
        columns = 3 if wide > 0.165 else 2
        step = width / columns
        rows = int((height - 0.03 * s) / (0.072 * s))
        for row in range(rows):
            for column in range(columns):
                px = x + (column + 0.5) * step
                py = base - height + (0.052 + 0.072 * row) * s
                panes.addRect(
                    skia.Rect.MakeLTRB(px - 0.018 * s, py - 0.02 * s, px + 0.018 * s, py + 0.02 * s)
                )
        x += width
    brush.fill(panes, pane, edge=False)
    walk = brush.land((206, 204, 200), snow=0.8)
    draw_flat(brush, base, walk, walk)
    kerb = base + 0.1 * s
    draw_flat(
        brush,
        kerb,
        brush.land((92, 96, 108), snow=0.66),
        brush.land((112, 116, 128), snow=0.72),
    )
    dash = 0.25 * s
    lines = skia.Path()
    y = frame.ground + 0.07 * s
    for k in range(-1, int(frame.w / dash) + 2):
        left = (k + 0.25) * dash
        lines.addRect(skia.Rect.MakeLTRB(left, y - 0.012 * s, left + 0.55 * dash, y + 0.012 * s))
    brush.fill(lines, brush.land((250, 240, 200), snow=0.2), edge=False)
