"""Dunes, with a cactus."""

from __future__ import annotations

import skia

from world.brush import Brush
from world.colour import WHITE, Colour
from world.frame import Frame
from world.lands.ground import draw_flat, repeated, ridge


def draw(brush: Brush, frame: Frame) -> None:
    """Two rows of dunes, and a cactus."""
    s = frame.unit
    draw_flat(
        brush,
        frame.horizon + 0.08 * s,
        brush.land((240, 186, 104), snow=0.7),
        brush.land((246, 200, 122), snow=0.7),
    )
    dunes = (
        ((0.25, -0.13), (0.8, 0.03)),
        ((0.02, 0.04), (0.68, -0.05)),
    )
    colours: tuple[tuple[Colour, Colour], ...] = (
        ((232, 168, 98), (214, 142, 84)),
        ((244, 194, 116), (226, 162, 92)),
    )
    for order, (points, (lit, shaded)) in enumerate(zip(dunes, colours, strict=True)):
        line = [(x, frame.horizon + y * s) for x, y in repeated(frame, points)]
        far = 0.14 if order == 0 else 0.0
        dune = ridge(line, 1.1 * frame.h)
        brush.fill(dune, brush.land(lit, far=far, snow=0.74))
        # The lee of each crest lies in shade, under a soft line running down from it.
        for k, (x, y) in enumerate(line[:-1]):
            nx, ny = line[k + 1]
            if y >= ny:
                continue
            lee = skia.Path()
            lee.moveTo(x, y)
            middle = 0.5 * (x + nx)
            lee.cubicTo(middle, y, middle, ny, nx, ny)
            lee.lineTo(nx, ny + 0.1 * s)
            lee.cubicTo(middle, ny + 0.1 * s, x - 0.1 * s, ny + 0.06 * s, x, y)
            lee.close()
            brush.fill(lee, brush.land(shaded, far=far, snow=0.5), edge=False)
    floor = [
        (x, frame.horizon + 0.1 * s + y * s) for x, y in repeated(frame, [(0.2, 0.03), (0.7, 0.0)])
    ]
    brush.fill(
        ridge(floor, 1.1 * frame.h),
        brush.fade(
            [brush.land((250, 208, 132), snow=0.9), brush.land((238, 182, 102), snow=0.84)],
            frame.horizon,
            frame.h,
        ),
    )
    foot = frame.horizon + 0.27 * s
    _cactus(brush, 0.09 * s, foot, 0.38 * s)


def _cactus(brush: Brush, x: float, y: float, tall: float) -> None:
    path = skia.Path()
    path.moveTo(x, y - 0.06 * tall)
    path.lineTo(x, y - tall)
    for side, low, high in ((-1, 0.38, 0.74), (1, 0.5, 0.86)):
        path.moveTo(x, y - low * tall)
        path.lineTo(x + side * 0.13 * tall, y - low * tall)
        path.quadTo(x + side * 0.25 * tall, y - low * tall, x + side * 0.25 * tall, y - high * tall)
    brush.stroke(path, brush.land((58, 142, 82), snow=0.12), 0.15 * tall)
    ribs = skia.Path()
    ribs.moveTo(x, y - 0.1 * tall)
    ribs.lineTo(x, y - 0.98 * tall)
    brush.stroke(ribs, brush.land((102, 180, 108), snow=0.2), 0.03 * tall, edge=False)
    if brush.snowy:
        cap = skia.Path()
        cap.addCircle(x, y - tall, 0.09 * tall)
        cap.addCircle(x - 0.25 * tall, y - 0.75 * tall, 0.08 * tall)
        cap.addCircle(x + 0.25 * tall, y - 0.87 * tall, 0.08 * tall)
        brush.fill(cap, brush.land(WHITE))
