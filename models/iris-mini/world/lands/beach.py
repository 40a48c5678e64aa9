"""A beach with a palm."""

from __future__ import annotations

import skia

from world.brush import Brush
from world.frame import Frame
from world.lands.ground import draw_flat, repeated, ridge
from world.lands.water import draw_glitter
from world.paths import mirrored, placed


def _leaf() -> skia.Path:
    path = skia.Path()
    path.moveTo(0, 0)
    path.cubicTo(0.3, -0.32, 0.8, -0.22, 1.0, 0.2)
    path.cubicTo(0.72, 0.02, 0.35, -0.04, 0, 0.07)
    path.close()
    return path


_LEAF = _leaf()
_LEAF_LEFT = mirrored(_LEAF)


def draw(brush: Brush, frame: Frame) -> None:
    """Water, surf and sand, with a palm at an edge."""
    s = frame.unit
    draw_flat(
        brush, frame.horizon, brush.water((52, 150, 208)), brush.water((104, 192, 228), far=0.15)
    )
    draw_glitter(brush, frame, frame.horizon + 0.1 * s)
    shore = frame.horizon + 0.14 * s
    swing = 0.035 * s
    points = [(0.0, -swing), (0.34, swing), (0.68, -0.4 * swing)]
    line = [(x, shore + y) for x, y in repeated(frame, points)]
    foam = [(x, y - 0.035 * s) for x, y in line]
    brush.fill(ridge(foam, 1.1 * frame.h), brush.land((246, 252, 255)))
    wet = brush.land((222, 186, 126), snow=0.5)
    brush.fill(ridge(line, 1.1 * frame.h), wet, edge=False)
    dry = [(x, y + 0.04 * s) for x, y in line]
    sand = brush.fade(
        [brush.land((250, 222, 156), snow=0.86), brush.land((238, 200, 128), snow=0.8)],
        shore,
        frame.h,
    )
    brush.fill(ridge(dry, 1.1 * frame.h), sand, edge=False)
    foot = frame.horizon + 0.34 * s
    _palm(brush, 0.03 * s, foot + 0.04 * s, 0.13 * s, 0.52 * s)


def _palm(brush: Brush, x: float, y: float, lean: float, tall: float) -> None:
    top_x, top_y = x + lean, y - tall
    trunk = skia.Path()
    trunk.moveTo(x, y)
    trunk.quadTo(x + 0.15 * lean, y - 0.6 * tall, top_x, top_y)
    brush.stroke(trunk, brush.land((160, 110, 70)), 0.075 * tall)
    reach = 0.44 * tall
    under, over = skia.Path(), skia.Path()
    for leaf, turn in ((_LEAF, 45), (_LEAF_LEFT, -45), (_LEAF, -62), (_LEAF_LEFT, 62)):
        under.addPath(placed(leaf, top_x, top_y, 0.92 * reach, turn))
    for leaf, turn in ((_LEAF, 6), (_LEAF_LEFT, -6), (_LEAF, -30), (_LEAF_LEFT, 30)):
        over.addPath(placed(leaf, top_x, top_y, reach, turn))
    brush.fill(under, brush.land((34, 124, 74), snow=0.3))
    brush.fill(over, brush.land((58, 164, 88), snow=0.6))
    nuts = skia.Path()
    nuts.addCircle(top_x - 0.03 * tall, top_y + 0.05 * tall, 0.045 * tall)
    nuts.addCircle(top_x + 0.05 * tall, top_y + 0.05 * tall, 0.045 * tall)
    brush.fill(nuts, brush.land((122, 78, 48)))
