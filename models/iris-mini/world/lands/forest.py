"""A forest of firs."""

from __future__ import annotations

import skia

from world.brush import Brush
from world.colour import WHITE, Colour
from world.frame import Frame
from world.lands.ground import draw_flat, repeated, ridge
from world.paths import placed, polygon

_FIR = (
    (0.0, 0.0), (0.2, 0.34), (0.12, 0.34), (0.29, 0.64), (0.2, 0.64), (0.38, 0.96),
    (-0.38, 0.96), (-0.2, 0.64), (-0.29, 0.64), (-0.12, 0.34), (-0.2, 0.34),
)  # fmt: skip
_FIR_PATH = polygon(_FIR)
_FIR_CAP = polygon(
    [(0.0, 0.0), (0.2, 0.34), (0.07, 0.28), (0.0, 0.36), (-0.07, 0.28), (-0.2, 0.34)]
)


def draw(brush: Brush, frame: Frame) -> None:
    """Two rows of firs far away, three firs near by."""
    s = frame.unit
    rows = (
        (-0.02, 0.24, 0.136, (98, 160, 128), 0.36),
        (0.05, 0.28, 0.17, (54, 124, 90), 0.12),
    )
    for order, (drop, tall, gap, green, far) in enumerate(rows):
        colour = brush.land(green, far=far, snow=0.22)
        count = 2 * round(0.5 / gap)  # in a unit; even, as firs are tall and small in turn
        width = s / count
        whole, caps = skia.Path(), skia.Path()
        for k in range(-1, count * frame.tiles + 2):
            x = (k + 0.5 * order) * width
            high = tall * (1.0 if k % 2 else 0.78) * s
            y = frame.horizon + drop * s - high
            whole.addPath(placed(_FIR_PATH, x, y, high))
            caps.addPath(placed(_FIR_CAP, x, y, high))
        brush.fill(whole, colour)
        if brush.snowy:
            brush.fill(caps, brush.land(WHITE, far=far), edge=False)
        floor = frame.horizon + (drop - 0.012) * s
        draw_flat(brush, floor, colour, colour)
    meadow = [(x, frame.horizon + y * s) for x, y in repeated(frame, [(0.2, 0.06), (0.7, 0.09)])]
    brush.fill(
        ridge(meadow, 1.1 * frame.h),
        brush.fade(
            [brush.land((96, 164, 92), snow=0.92), brush.land((62, 126, 76), snow=0.84)],
            frame.horizon,
            frame.h,
        ),
    )
    near = brush.land((34, 98, 72), snow=0.1)
    foot = frame.horizon + 0.1 * s
    _fir(brush, frame.w - 0.16 * s, foot, 0.72 * 0.4 * s, near)
    _fir(brush, 0.01 * s, foot + 0.06 * s, 0.5 * s, near)
    _fir(brush, frame.w, foot + 0.06 * s, 0.4 * s, near)


def _fir(brush: Brush, x: float, foot: float, tall: float, colour: Colour) -> None:
    trunk = skia.Path()
    trunk.addRect(skia.Rect.MakeLTRB(x - 0.05 * tall, foot - 0.1 * tall, x + 0.05 * tall, foot))
    brush.fill(trunk, brush.land((112, 76, 54)))
    brush.fill(placed(_FIR_PATH, x, foot - tall, tall), colour)
    if brush.snowy:
        brush.fill(placed(_FIR_CAP, x, foot - tall, tall), brush.land(WHITE), edge=False)
