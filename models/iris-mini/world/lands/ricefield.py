"""Terraced rice fields below a volcano."""

from __future__ import annotations

import skia

from world.brush import Brush
from world.colour import Colour, mix
from world.frame import Frame
from world.lands.ground import repeated, ridge


def draw(brush: Brush, frame: Frame) -> None:
    """The volcano, and terraces with water between them."""
    s = frame.unit
    # A lone volcano far away, with a flat crater.
    x = frame.column(0.68)
    base, tall = frame.horizon + 0.05 * s, 0.26 * s
    cone = skia.Path()
    cone.moveTo(x - 0.42 * s, base)
    cone.quadTo(x - 0.14 * s, base - 0.3 * tall, x - 0.055 * s, base - tall)
    cone.lineTo(x + 0.055 * s, base - tall)
    cone.quadTo(x + 0.14 * s, base - 0.3 * tall, x + 0.42 * s, base)
    cone.close()
    brush.fill(cone, brush.land((112, 158, 168), far=0.32, snow=0.45))
    sky = mix(brush.weather.sky[2], brush.weather.sky[1], 0.5)
    water = brush.raw(mix(sky, brush.land((176, 220, 236)), 0.35))
    bank = brush.land((66, 118, 58), snow=0.12)
    greens: tuple[Colour, ...] = (
        (92, 164, 88), (132, 196, 84), (104, 178, 76), (150, 206, 88), (112, 186, 76),
        (142, 202, 84), (100, 172, 72),
    )  # fmt: skip
    for k, share in enumerate((0.0, 0.06, 0.14, 0.25, 0.38, 0.53, 0.7)):
        swing = (0.02 + 0.007 * k) * s
        bend = (1.0 + 0.12 * k) * swing
        shift = 0.05 * k * frame.unit
        points = [
            (px + shift, frame.horizon + share * s + py)
            for px, py in repeated(frame, [(0.12, bend), (0.62, -bend)])
        ]
        thick = (0.016 + 0.006 * k) * s
        brush.fill(ridge(points, 1.1 * frame.h), bank)
        if k:
            wet = [(px, py + 0.4 * thick) for px, py in points]
            brush.fill(ridge(wet, 1.1 * frame.h), water, edge=False)
            points = [(px, py + 1.5 * thick) for px, py in points]
        brush.fill(ridge(points, 1.1 * frame.h), brush.land(greens[k], snow=0.72), edge=False)
