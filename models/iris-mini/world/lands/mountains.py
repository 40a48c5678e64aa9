"""Mountains with white tops behind meadows."""

from __future__ import annotations

from world.brush import Brush
from world.frame import Frame
from world.lands.ground import repeated, ridge
from world.paths import polygon


def draw(brush: Brush, frame: Frame) -> None:
    """Three peaks, foothills and a meadow."""
    s = frame.unit
    base = frame.horizon + 0.06 * s
    # Each: share of the unit, height and half width in units; far ones first.
    peaks = (
        (0.5, 0.22, 0.3),
        (0.14, 0.36, 0.3),
        (0.84, 0.3, 0.28),
    )
    for order, (px, tall, half) in enumerate(peaks):
        far = 0.34 if order == 0 else 0.12
        face = brush.land((122, 140, 172), far=far, snow=0.25)
        shade = brush.land((92, 108, 144), far=far, snow=0.2)
        cap = brush.land((250, 252, 255), far=0.4 * far)
        for k in range(-1, frame.tiles + 1):
            x, y = (k + px) * s, base - tall * s
            rx, ry = half * s, tall * s

            def at(
                across: float,
                down: float,
                x: float = x,
                y: float = y,
                rx: float = rx,
                ry: float = ry,
            ) -> tuple[float, float]:
                return x + across * rx, y + down * ry

            brush.fill(polygon([at(0, 0), at(1, 1), at(-1, 1)]), face)
            brush.fill(polygon([at(0, 0), at(1, 1), at(0.2, 1), at(-0.1, 0.55)]), shade, False)
            zigzag = [
                at(0, 0), at(0.4, 0.4), at(0.2, 0.33), at(0.06, 0.5), at(-0.1, 0.34),
                at(-0.24, 0.46), at(-0.4, 0.4),
            ]  # fmt: skip
            brush.fill(polygon(zigzag), cap)
    foothills = [(0.0, 0.0), (0.4, 0.035), (0.75, -0.01)]
    line = [(x, frame.horizon + y * s) for x, y in repeated(frame, foothills)]
    brush.fill(ridge(line, 1.1 * frame.h), brush.land((86, 152, 120), far=0.12, snow=0.8))
    meadow = [(x, y + 0.09 * s) for x, y in line]
    brush.fill(
        ridge(meadow, 1.1 * frame.h),
        brush.fade(
            [brush.land((122, 186, 108), snow=0.92), brush.land((92, 160, 88), snow=0.86)],
            frame.horizon,
            frame.h,
        ),
    )
