"""A Scene -> pixels."""

from __future__ import annotations

import numpy as np
import skia
from numpy.typing import NDArray

from world.frame import frame_of
from world.grading import darken
from world.objects import PAINT, Rgb, draw_thing
from world.scenery import draw_back, draw_front
from world.spec import Scene
from world.weather import Light, light

INK = 0.022  # outline of an object at anime 1.0, share of its box


def render(scene: Scene, width: int, height: int, scale: float = 1.0) -> NDArray[np.uint8]:
    """Draw a scene: (height, width, 3), 8-bit sRGB. The same scene gives the same bytes.

    scale: 0.5 draws the picture of twice the size, small.
    """
    frame = frame_of(scene, width, height, scale)
    surface = skia.Surface(width, height)
    canvas = surface.getCanvas()
    draw_back(canvas, scene, frame)
    shine = light(scene)
    ink = INK * scene.amount if scene.style == "anime" else 0.0

    def mute(colour: Rgb) -> Rgb:
        return _lit(colour, shine)

    for thing in scene.things:
        left, top, side = frame.box(thing)
        box = (left, top, side, side)
        draw_thing(canvas, thing.kind, PAINT[thing.colour], box, ink, mute)
    draw_front(canvas, scene, frame)
    pixels: NDArray[np.uint8] = surface.makeImageSnapshot().toarray(
        colorType=skia.ColorType.kRGBA_8888_ColorType
    )[:, :, :3]
    if scene.style == "dark":
        pixels = darken(pixels, scene.amount)
    return np.ascontiguousarray(pixels)


def _lit(colour: Rgb, shine: Light) -> Rgb:
    """A colour of an object, 0..1, as it looks in the light and the style of the scene."""
    red, green, blue = colour
    seen = shine.on((255.0 * red, 255.0 * green, 255.0 * blue))
    red, green, blue = (min(max(value / 255.0, 0.0), 1.0) for value in seen)
    return (red, green, blue)
