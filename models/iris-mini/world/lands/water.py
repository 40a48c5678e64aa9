"""Open water: its waves, and the light on it."""

from __future__ import annotations

import skia

from world.brush import Brush
from world.colour import WHITE, Colour, mix
from world.frame import Frame, across

# Of the water far away, then of its bands of waves.
WATER: tuple[Colour, ...] = (
    (70, 160, 214),
    (56, 146, 206),
    (74, 164, 216),
    (50, 136, 200),
    (66, 156, 212),
    (44, 126, 192),
)


def draw_wave(brush: Brush, frame: Frame, y: float, band: int) -> None:
    """One band of waves with a scalloped crest, down to the lower edge."""
    step = frame.unit / (8 if band < 3 else 4)
    high = 0.022 * frame.unit * (0.6 + 0.16 * min(band, 2))
    count = int(frame.w / step) + 4
    shift = (0.5 * (band % 2) - 2.0) * step
    crest = skia.Path()
    crest.moveTo(shift, y)
    for k in range(count):
        x = shift + k * step
        crest.cubicTo(x + 0.3 * step, y + high, x + 0.7 * step, y + high, x + step, y - high * 0.4)
        crest.lineTo(x + step, y)
    wave = skia.Path(crest)
    wave.lineTo(shift + count * step, 1.2 * frame.h)
    wave.lineTo(shift, 1.2 * frame.h)
    wave.close()
    brush.fill(wave, brush.water(WATER[band], snow=0.1))
    foam = brush.water(mix(WATER[band], WHITE, 0.62), snow=0.4)
    brush.stroke(crest, foam, 0.009 * frame.unit, edge=False)


def draw_glitter(brush: Brush, frame: Frame, bottom: float) -> None:
    """The path of light on the water under a low sun or the moon."""
    colour = {"sunset": (255, 214, 128), "night": (196, 204, 224)}.get(brush.scene.time)
    if colour is None:
        return
    s = frame.unit
    x = across(brush.scene, frame)
    if brush.backdrop.land == 1:
        x = frame.w - x
    count = 4
    gap = (bottom - frame.horizon) / count
    bars = skia.Path()
    for k in range(count):
        half = (0.13, 0.08, 0.1, 0.06)[k] * s
        y = frame.horizon + (k + 0.5) * gap
        middle = x + (0.012 if k % 2 else -0.012) * s
        high = min(0.012 * s, 0.3 * gap)
        rect = skia.Rect.MakeLTRB(middle - half, y - high, middle + half, y + high)
        bars.addRoundRect(rect, high, high)
    brush.fill(bars, brush.paint(brush.raw(colour), 0.8), edge=False)
