"""The sky of each time of day and weather, and what falls from it."""

from __future__ import annotations

import skia

from world.brush import Brush
from world.frame import Frame
from world.skies import blossoms, day, fog, night, rain, snow, storm, sunset

_SKIES = {
    "day": day.draw,
    "sunset": sunset.draw,
    "night": night.draw,
    "storm": storm.draw,
    "fog": fog.draw,
    "rain": rain.draw,
    "snow": snow.draw,
    "blossoms": blossoms.draw,
}
_FALLS = {
    "fog": fog.draw_fall,
    "rain": rain.draw_fall,
    "snow": snow.draw_fall,
    "blossoms": blossoms.draw_fall,
}


def draw_sky(brush: Brush, frame: Frame) -> None:
    """The sky of the scene's time, from the top of the frame to its lower edge."""
    colours = [brush.raw(c) for c in brush.weather.sky]
    area = skia.Rect.MakeWH(frame.w, frame.h)
    brush.fade(colours, 0, max(frame.horizon, 1.0)).draw(brush.canvas, area)
    _SKIES[brush.scene.time](brush, frame)


def draw_fall(brush: Brush, frame: Frame) -> None:
    """What falls or lies before the objects: rain, flakes, petals, fog."""
    fall = _FALLS.get(brush.scene.time)
    if fall is not None:
        fall(brush, frame)
