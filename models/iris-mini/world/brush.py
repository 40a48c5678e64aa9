"""What the land and the sky are painted with."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import skia

from world import anime
from world.colour import Colour, mix, times
from world.frame import Frame
from world.spec import Scene
from world.weather import WEATHERS


@dataclass(frozen=True, slots=True)
class Fade:
    """A gradient from `top` to `bottom`: places (share of the way) and the colours there."""

    stops: tuple[tuple[float, Colour], ...]
    top: float
    bottom: float

    def draw(self, canvas: skia.Canvas, area: skia.Rect) -> None:
        """Draw it over an area as plain strips, five times as fast as Skia's own gradient."""
        left, right, reach = area.left(), area.right(), self.bottom - self.top
        paint = skia.Paint()
        edge = min(area.top(), self.top)
        for (p0, c0), (p1, c1) in itertools.pairwise(self.stops):
            if p1 - p0 < 1e-6:
                continue
            # No more strips than there are different colours, or rows.
            steps = max(abs(a - b) for a, b in zip(c0, c1, strict=True))
            count = max(1, min(math.ceil(steps), math.ceil((p1 - p0) * reach)))
            for k in range(count):
                r, g, b = mix(c0, c1, (k + 0.5) / count)
                paint.setColor(skia.Color(int(r), int(g), int(b)))
                below = self.top + reach * (p0 + (p1 - p0) * (k + 1) / count)
                canvas.drawRect(skia.Rect.MakeLTRB(left, edge, right, below), paint)
                edge = below
        if edge < area.bottom():
            r, g, b = self.stops[-1][1]
            paint.setColor(skia.Color(int(r), int(g), int(b)))
            canvas.drawRect(skia.Rect.MakeLTRB(left, edge, right, area.bottom()), paint)


class Brush:
    """A canvas on which every colour passes through the time and the style of one scene."""

    def __init__(self, canvas: skia.Canvas, scene: Scene, frame: Frame) -> None:
        self.canvas = canvas
        self.scene = scene
        self.frame = frame
        self.backdrop = scene.backdrop
        self.weather = WEATHERS[scene.time]
        self.anime = anime.amount_of(scene)
        warm = 0.14 * scene.backdrop.warmth
        self.warm: Colour = (1 + warm, 1 + 0.2 * warm, 1 - warm)
        self.snowy = scene.time == "snow"
        self.stroke_ink = anime.ink(self.anime, frame.unit) if self.anime > 0 else None

    def raw(self, rgb: Colour) -> Colour:
        """A colour of the sky itself: only the hue of the light and the style change it."""
        return anime.pastel(times(rgb, self.warm), self.anime)

    def land(self, rgb: Colour, far: float = 0.0, snow: float = 0.0) -> Colour:
        """A colour of the land: seen from `far` (0..1), and covered by `snow` when it snows."""
        if snow and self.snowy:
            # Snow far away is bluer, so that one white hill stands out before another.
            rgb = mix(rgb, mix((252, 253, 255), (170, 194, 224), min(1.0, 1.6 * far)), snow)
        lit = mix(times(rgb, self.weather.land.tint), *self.weather.land.haze)
        return self.raw(mix(lit, self.weather.sky[2], far))

    def water(self, rgb: Colour, far: float = 0.0, snow: float = 0.0) -> Colour:
        """A colour of open water: as land, but purple at sunset, when it mirrors the sky."""
        if self.scene.time == "night":
            # Darker than land, so that a blue boat stands out from it.
            rgb = mix(rgb, (0, 0, 0), 0.32)
        if self.scene.time != "sunset":
            return self.land(rgb, far, snow)
        r, g, b = rgb
        purple = (0.9 * r + 84, 0.5 * g + 10, 0.7 * b + 14)
        return self.raw(mix(purple, self.weather.sky[2], far))

    def paint(self, rgb: Colour, alpha: float = 1.0) -> skia.Paint:
        """A plain paint of a finished colour."""
        r, g, b = rgb
        return skia.Paint(
            AntiAlias=True, Color=skia.Color(int(r), int(g), int(b), int(255 * alpha))
        )

    def fade(self, colours: Sequence[Colour], top: float, bottom: float) -> Fade:
        """A gradient downwards; the style "anime" hardens it into flat bands."""
        last = len(colours) - 1
        # A flat band reaches to the middle between its colour and the next.
        half = 0.49 / last * min(1.0, self.anime)
        stops = []
        for k, colour in enumerate(colours):
            stops.append((k / last - half, colour))
            stops.append((k / last + half, colour))
        return Fade(tuple(stops), top, bottom)

    def fill(self, path: skia.Path, rgb: Colour | Fade | skia.Paint, edge: bool = True) -> None:
        """Fill a path, and ink its edge if the style asks for it."""
        if isinstance(rgb, Fade):
            self.canvas.save()
            self.canvas.clipPath(path, doAntiAlias=True)
            rgb.draw(self.canvas, path.getBounds())
            self.canvas.restore()
        elif isinstance(rgb, skia.Paint):
            self.canvas.drawPath(path, rgb)
        else:
            self.canvas.drawPath(path, self.paint(rgb))
        if edge and self.stroke_ink is not None:
            self.canvas.drawPath(path, self.stroke_ink)

    def stroke(self, path: skia.Path, rgb: Colour, width: float, edge: bool = True) -> None:
        """Draw a round thick line, inked on both sides if the style asks for it."""
        paint = self.paint(rgb)
        paint.setStyle(skia.Paint.kStroke_Style)
        paint.setStrokeCap(skia.Paint.kRound_Cap)
        paint.setStrokeJoin(skia.Paint.kRound_Join)
        if edge and self.stroke_ink is not None:
            ink = skia.Paint(self.stroke_ink)
            ink.setStrokeWidth(width + 2 * self.stroke_ink.getStrokeWidth())
            self.canvas.drawPath(path, ink)
        paint.setStrokeWidth(width)
        self.canvas.drawPath(path, paint)
