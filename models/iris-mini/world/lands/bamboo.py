"""A bamboo forest."""

from __future__ import annotations

import skia

from world.brush import Brush
from world.frame import Frame
from world.lands.ground import draw_flat, repeated, ridge
from world.paths import mirrored, placed


def _blade() -> skia.Path:
    path = skia.Path()
    path.moveTo(0, 0)
    path.quadTo(0.42, -0.2, 1.0, 0.06)
    path.quadTo(0.4, 0.2, 0, 0)
    path.close()
    return path


_BLADE = _blade()
_BLADE_LEFT = mirrored(_BLADE)


def draw(brush: Brush, frame: Frame) -> None:
    """Thin stalks far away, thick ones at both edges."""
    s = frame.unit
    thin = brush.land((150, 204, 120), far=0.3, snow=0.1)
    gap = frame.cell
    stalks = skia.Path()
    for k in range(-1, 8 * frame.tiles + 1):
        x = (k + 0.5 + (0.16 if k % 2 else -0.1)) * gap
        half = (0.011 if k % 2 else 0.015) * s
        stalks.addRect(skia.Rect.MakeLTRB(x - half, -0.1 * s, x + half, frame.horizon + 0.05 * s))
    brush.fill(stalks, thin)
    bank = [(x, frame.horizon + y * s) for x, y in repeated(frame, [(0.2, 0.0), (0.7, -0.035)])]
    brush.fill(ridge(bank, 1.1 * frame.h), brush.land((104, 168, 92), far=0.16, snow=0.85))
    draw_flat(
        brush,
        frame.horizon + 0.07 * s,
        brush.land((112, 140, 72), snow=0.86),
        brush.land((146, 178, 92), snow=0.92),
    )
    foot = frame.horizon + 0.22 * s
    edges = ((0.035, 0.06, 0.0), (0.14, 0.045, -0.09), (0.9, 0.045, -0.06), (0.985, 0.06, 0.03))
    for x, wide, drop in edges:
        # Places are in units from the nearer edge, whatever the width is.
        at = x * s if x < 0.5 else frame.w - (1.0 - x) * s
        _stalk(brush, at, foot + drop * s, wide * s)


def _stalk(brush: Brush, x: float, foot: float, wide: float) -> None:
    half = 0.5 * wide
    joint = 3.4 * wide
    body, shine, nodes = skia.Path(), skia.Path(), skia.Path()
    body.addRect(skia.Rect.MakeLTRB(x - half, -wide, x + half, foot))
    shine.addRect(skia.Rect.MakeLTRB(x - 0.6 * half, -wide, x - 0.15 * half, foot))
    y = foot - 0.6 * joint
    leaves = skia.Path()
    inward = 1 if x < 0.5 * brush.frame.w else -1
    k = 0
    while y > -wide:
        rect = skia.Rect.MakeLTRB(x - 1.25 * half, y - 0.2 * half, x + 1.25 * half, y + 0.25 * half)
        nodes.addRoundRect(rect, 0.2 * half, 0.2 * half)
        if k % 2 == 1:
            for turn in (28, -8):
                leaf = _BLADE if inward > 0 else _BLADE_LEFT
                leaves.addPath(placed(leaf, x + inward * half, y, 2.3 * wide, inward * turn))
        k += 1
        y -= joint
    brush.fill(body, brush.land((112, 178, 76), snow=0.08))
    brush.fill(shine, brush.land((164, 212, 112), snow=0.1), edge=False)
    brush.fill(nodes, brush.land((70, 128, 58), snow=0.35))
    brush.fill(leaves, brush.land((64, 146, 70), snow=0.3))
