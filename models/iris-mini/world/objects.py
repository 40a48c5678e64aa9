"""Draws one object of the small world in any of the nine colours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import skia

from .figures import FIGURES, Layer

Rgb = tuple[float, float, float]

PAINT: dict[str, Rgb] = {
    "red": (0.84, 0.12, 0.14),
    "orange": (0.96, 0.52, 0.08),
    "yellow": (0.98, 0.83, 0.12),
    "green": (0.16, 0.62, 0.22),
    "blue": (0.13, 0.36, 0.84),
    "purple": (0.50, 0.20, 0.66),
    "pink": (0.97, 0.52, 0.72),
    "white": (0.96, 0.96, 0.95),
    "black": (0.10, 0.10, 0.12),
}
AIRBORNE = frozenset({"balloon", "bird"})  # float in the air

# Colours that do not follow the object's own.
ACCENTS: dict[str, Rgb] = {
    "beak": (0.95, 0.60, 0.12),
    "bone": (0.95, 0.92, 0.84),
    "brass": (0.66, 0.50, 0.24),
    "brick": (0.70, 0.16, 0.12),
    "coal": (0.13, 0.12, 0.16),
    "coffee": (0.30, 0.17, 0.10),
    "cream": (0.98, 0.94, 0.80),
    "glass": (0.76, 0.90, 0.96),
    "glow": (1.00, 0.93, 0.60),
    "gold": (0.96, 0.78, 0.26),
    "leaf": (0.25, 0.52, 0.22),
    "rose": (0.92, 0.55, 0.58),
    "skin": (0.93, 0.74, 0.58),
    "steam": (0.93, 0.95, 0.97),
    "steel": (0.82, 0.86, 0.90),
    "stone": (0.62, 0.60, 0.58),
    "wood": (0.46, 0.28, 0.16),
}
INK: Rgb = (0.12, 0.10, 0.16)
RIM = 1.5  # width of the soft edge around an object, of 100

_WHITE: Rgb = (1.0, 1.0, 1.0)
_SLATE: Rgb = (0.36, 0.42, 0.58)  # what white is shaded with
_BROWN: Rgb = (0.42, 0.24, 0.12)
_SHEET = 100.0


def _mix(one: Rgb, other: Rgb, share: float) -> Rgb:
    return (
        one[0] + (other[0] - one[0]) * share,
        one[1] + (other[1] - one[1]) * share,
        one[2] + (other[2] - one[2]) * share,
    )


def _tones(colour: Rgb) -> dict[str, Rgb]:
    """The tones of an object's own colour.

    White has no lighter tone and black no darker one: they are shaded the other way.
    """
    if min(colour) > 0.85:
        light, shade, rim = (_mix(colour, _SLATE, share) for share in (0.12, 0.28, 0.55))
    elif max(colour) < 0.25:
        light, shade, rim = (_mix(colour, _WHITE, share) for share in (0.27, 0.14, 0.55))
    else:
        light = _mix(colour, _WHITE, 0.24)
        # Less green than red: a shadow stays warm and does not turn to mud.
        shade = (colour[0] * 0.82, colour[1] * 0.71, colour[2] * 0.74)
        rim = _mix(shade, INK, 0.50)
    golden = colour[0] > 0.85 and colour[1] > 0.7 and colour[2] < 0.4
    centre = _BROWN if golden else ACCENTS["gold"]
    return {"body": colour, "light": light, "shade": shade, "rim": rim, "centre": centre}


def _path(outline: str) -> skia.Path:
    path = skia.Path()
    words = iter(_words(outline))

    def take(count: int) -> list[float]:
        return [float(next(words)) for _ in range(count)]

    ovals = 0
    for word in words:
        if word == "M":
            path.moveTo(*take(2))
        elif word == "L":
            path.lineTo(*take(2))
        elif word == "Q":
            path.quadTo(*take(4))
        elif word == "C":
            path.cubicTo(*take(6))
        elif word == "Z":
            path.close()
        elif word == "O":
            x, y, across, down = take(4)
            path.addOval(skia.Rect.MakeLTRB(x - across, y - down, x + across, y + down))
            ovals += 1
        elif word == "R":
            x, y, width, height, corner = take(5)
            path.addRoundRect(skia.Rect.MakeXYWH(x, y, width, height), corner, corner)
        else:
            raise ValueError(f"unknown outline command {word!r}")
    # Ellipses that overlap are one shape: an outline must not cross it.
    return skia.Simplify(path) if ovals > 1 else path


def _words(outline: str) -> Iterator[str]:
    for letter in "MLQCZOR":
        outline = outline.replace(letter, f" {letter} ")
    yield from outline.split()


@dataclass(frozen=True, slots=True)
class _Drawn:
    """A layer ready for the canvas."""

    tone: str
    path: skia.Path
    line: float
    main: bool


def _drawn(layer: Layer) -> _Drawn:
    return _Drawn(layer.tone, _path(layer.outline), layer.line, layer.main)


def _silhouette(layers: tuple[_Drawn, ...]) -> skia.Path:
    path = skia.Path()
    for layer in layers:
        if layer.main and not layer.line:
            path = skia.Op(path, layer.path, skia.PathOp.kUnion_PathOp)
    return path


_LAYERS = {kind: tuple(_drawn(layer) for layer in figure) for kind, figure in FIGURES.items()}
_SILHOUETTES = {kind: _silhouette(layers) for kind, layers in _LAYERS.items()}


def _pen() -> skia.Paint:
    return skia.Paint(
        AntiAlias=True,
        Style=skia.Paint.kStroke_Style,
        StrokeCap=skia.Paint.kRound_Cap,
        StrokeJoin=skia.Paint.kRound_Join,
    )


def draw_thing(
    canvas: skia.Canvas,
    kind: str,
    colour: Rgb,
    box: tuple[float, float, float, float],
    ink: float,
    mute: Callable[[Rgb], Rgb],
) -> None:
    """Draw an object of the given kind into a box (x, y, width, height) in pixels.

    `colour` is the object's own before light; `mute` gives any colour as light and style show it.
    `ink` is the width of the outlines as a share of the box, 0 for none.
    """
    palette = ACCENTS | _tones(colour)
    seen: dict[str, skia.Color4f] = {}

    def look(tone: str) -> skia.Color4f:
        if tone not in seen:
            red, green, blue = mute(INK if tone == "ink" else palette[tone])
            seen[tone] = skia.Color4f(red, green, blue, 1.0)
        return seen[tone]

    def paint(path: skia.Path, tone: str, width: float = 0.0) -> None:
        tool = brush
        if width:
            tool = pen
            pen.setStrokeWidth(width)
        tool.setColor4f(look(tone))
        canvas.drawPath(path, tool)

    brush, pen = skia.Paint(AntiAlias=True), _pen()
    edge = ink * _SHEET
    layers = _LAYERS[kind]
    canvas.save()
    canvas.translate(box[0], box[1])
    canvas.scale(box[2] / _SHEET, box[3] / _SHEET)
    for layer in layers:
        if layer.main and layer.line:
            paint(layer.path, "rim", layer.line + 2 * RIM)
    paint(_SILHOUETTES[kind], "rim", 2 * RIM)
    for layer in layers:
        if not layer.line:
            paint(layer.path, layer.tone)
            if edge and layer.main:
                paint(layer.path, "ink", edge)
        else:
            if edge and layer.main:
                paint(layer.path, "ink", layer.line + edge)
            paint(layer.path, layer.tone, layer.line)
    canvas.restore()
