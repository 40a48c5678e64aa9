"""The look of the style anime: lighter, more saturated colours, and ink around shapes."""

from __future__ import annotations

import skia

from world.colour import WHITE, Colour, mix
from world.spec import Scene

INK: Colour = (38, 30, 56)


def amount_of(scene: Scene) -> float:
    """The amount of the style "anime" in a scene, 0 when it has another style or none."""
    return max(0.0, scene.amount) if scene.style == "anime" else 0.0


def pastel(rgb: Colour, amount: float) -> Colour:
    """`rgb` lighter and more saturated by the amount of the style "anime"."""
    if amount <= 0.0:
        return rgb
    light = mix(rgb, WHITE, 0.22 * amount)
    grey = 0.3 * light[0] + 0.59 * light[1] + 0.11 * light[2]
    more = 1.0 + 0.3 * amount
    r, g, b = (min(255.0, max(0.0, grey + (c - grey) * more)) for c in light)
    return (r, g, b)


def ink(amount: float, unit: float) -> skia.Paint:
    """The paint of an outline, for the amount of the style and the scenery's unit in pixels."""
    return skia.Paint(
        AntiAlias=True,
        Color=skia.Color(*(int(c) for c in INK), int(255 * min(0.95, 0.35 + 0.7 * amount))),
        Style=skia.Paint.kStroke_Style,
        StrokeWidth=0.016 * unit * min(1.3, amount),
        StrokeJoin=skia.Paint.kRound_Join,
        StrokeCap=skia.Paint.kRound_Cap,
    )
