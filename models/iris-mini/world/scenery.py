"""The picture behind and before its objects."""

from __future__ import annotations

import skia

from world.brush import Brush
from world.frame import Frame
from world.lands import LANDS
from world.lands.water import draw_wave
from world.skies import draw_fall, draw_sky
from world.skies.blossoms import draw_branch
from world.skies.fog import draw_veil
from world.spec import Scene


def draw_back(canvas: skia.Canvas, scene: Scene, frame: Frame) -> None:
    """Everything behind the objects: the sky of the time and the land of the scene."""
    brush = Brush(canvas, scene, frame)
    if scene.scene != "studio":
        draw_sky(brush, frame)
    canvas.save()
    if scene.backdrop.land == 1:
        canvas.translate(frame.w, 0)
        canvas.scale(-1, 1)
    LANDS[scene.scene](brush, frame)
    canvas.restore()
    if scene.scene != "studio":
        draw_veil(brush, frame)
        draw_branch(brush, frame, frame.unit)


def draw_front(canvas: skia.Canvas, scene: Scene, frame: Frame) -> None:
    """Everything before the objects: the wave that carries them, and what falls."""
    brush = Brush(canvas, scene, frame)
    if scene.scene == "sea":
        # Objects float: the nearest waves hide a little of their foot.
        draw_wave(brush, frame, frame.ground - 0.025 * frame.unit, 4)
        draw_wave(brush, frame, frame.ground + 0.07 * frame.unit, 5)
    if scene.scene != "studio":
        draw_fall(brush, frame)
