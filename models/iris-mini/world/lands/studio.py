"""A photographer's studio, with a window to the sky."""

from __future__ import annotations

import skia

from world.brush import Brush
from world.colour import WHITE, Colour, mix
from world.frame import Frame
from world.paths import polygon
from world.skies import draw_fall, draw_sky
from world.skies.blossoms import draw_branch

_WALL: Colour = (208, 192, 180)
_FLOOR: Colour = (228, 216, 204)


def draw(brush: Brush, frame: Frame) -> None:
    """A wall and the floor, a window and a lamp."""
    s, canvas = frame.unit, brush.canvas
    canvas.drawRect(skia.Rect.MakeWH(frame.w, frame.h), brush.paint(brush.land(_WALL)))
    sweep = frame.horizon + 0.02 * s
    bow = skia.Path()
    bow.addRect(skia.Rect.MakeLTRB(-s, sweep, frame.w + s, 1.1 * frame.h))
    floor, lit = brush.land(_FLOOR), brush.land(mix(_FLOOR, WHITE, 0.3))
    brush.fill(bow, brush.fade([floor, lit, floor], sweep, frame.h))
    spot = skia.Path()
    spot.addOval(
        skia.Rect.MakeLTRB(
            0.5 * frame.w - 0.46 * frame.w, frame.ground - 0.07 * s,
            0.5 * frame.w + 0.46 * frame.w, frame.ground + 0.07 * s,
        )
    )  # fmt: skip
    brush.fill(spot, brush.paint(brush.raw((255, 250, 236)), 0.45), edge=False)
    _window(brush, frame)
    _softbox(brush, frame)


def _window(brush: Brush, frame: Frame) -> None:
    """A wide window high in the wall: the sky of the time, and what falls from it."""
    s, canvas = frame.unit, brush.canvas
    left, right = 0.5 * frame.cell, frame.w - 2.5 * frame.cell
    top, bottom = 0.5 * frame.cell, frame.horizon - frame.cell
    width, height = right - left, bottom - top
    wood = brush.land((250, 248, 244))
    frame_box = skia.Path()
    edge = 0.028 * s
    frame_box.addRect(skia.Rect.MakeLTRB(left - edge, top - edge, right + edge, bottom + edge))
    brush.fill(frame_box, wood)
    pane = Frame(width, height, s, 0.625 * frame.cell, height, height)
    canvas.save()
    canvas.clipRect(skia.Rect.MakeLTRB(left, top, right, bottom), doAntiAlias=True)
    canvas.translate(left, top)
    if brush.backdrop.land == 1:
        # Undo the mirror of the land: suns and streaks keep their side and slant.
        canvas.translate(width, 0)
        canvas.scale(-1, 1)
    draw_sky(brush, pane)
    draw_branch(brush, pane, pane.s)
    draw_fall(brush, pane)
    canvas.restore()
    bars = skia.Path()
    middle = 0.5 * (left + right)
    bars.addRect(skia.Rect.MakeLTRB(middle - 0.4 * edge, top, middle + 0.4 * edge, bottom))
    canvas.drawPath(bars, brush.paint(wood))
    if brush.stroke_ink is not None:
        rim = skia.Path()
        rim.addRect(skia.Rect.MakeLTRB(left, top, right, bottom))
        canvas.drawPath(rim, brush.stroke_ink)
    sill = skia.Path()
    sill.addRect(
        skia.Rect.MakeLTRB(left - 2 * edge, bottom + edge, right + 2 * edge, bottom + 2.2 * edge)
    )
    brush.fill(sill, brush.land((228, 220, 212)))


def _softbox(brush: Brush, frame: Frame) -> None:
    """A lamp with a square white screen on a tripod, at the edge that is free."""
    s = frame.unit
    x = frame.w - 0.12 * s
    foot = frame.horizon + 0.22 * s
    head = frame.horizon - 0.28 * s
    dark = brush.land((58, 60, 70))
    legs = skia.Path()
    legs.moveTo(x, head)
    legs.lineTo(x, foot - 0.02 * s)
    knee = foot - 0.16 * s
    legs.moveTo(x, knee)
    legs.lineTo(x - 0.09 * s, foot)
    legs.moveTo(x, knee)
    legs.lineTo(x + 0.09 * s, foot)
    brush.stroke(legs, dark, 0.018 * s)
    shell = polygon(
        [
            (x - 0.12 * s, head + 0.07 * s),
            (x - 0.06 * s, head - 0.14 * s),
            (x + 0.13 * s, head - 0.09 * s),
            (x + 0.08 * s, head + 0.13 * s),
        ]
    )
    brush.fill(shell, dark)
    screen = polygon(
        [
            (x - 0.1 * s, head + 0.055 * s),
            (x - 0.047 * s, head - 0.12 * s),
            (x + 0.107 * s, head - 0.078 * s),
            (x + 0.065 * s, head + 0.108 * s),
        ]
    )
    brush.fill(screen, brush.raw((255, 250, 226)), edge=False)
