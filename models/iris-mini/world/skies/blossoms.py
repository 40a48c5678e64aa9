"""Cherry blossoms: a branch in flower, and the petals that fall from it."""

from __future__ import annotations

import math

import skia

from world.brush import Brush
from world.frame import Frame
from world.paths import placed, union
from world.skies.clouds import draw_clouds

# One square of a unit: share across, share down, turn in degrees.
_PETALS = (
    (0.1, 0.3, 20.0), (0.36, 0.16, -50.0), (0.62, 0.34, 75.0), (0.9, 0.46, -20.0),
    (0.2, 0.58, 110.0), (0.5, 0.62, -35.0), (0.78, 0.7, 40.0), (0.08, 0.84, -70.0),
    (0.36, 0.9, 15.0), (0.64, 0.94, 60.0), (0.93, 0.93, -100.0), (0.84, 0.14, 30.0),
)  # fmt: skip


def _petal() -> skia.Path:
    path = skia.Path()
    path.moveTo(0, 0.5)
    path.cubicTo(-0.55, 0.1, -0.35, -0.5, -0.1, -0.5)
    path.lineTo(0, -0.36)
    path.lineTo(0.1, -0.5)
    path.cubicTo(0.35, -0.5, 0.55, 0.1, 0, 0.5)
    path.close()
    return path


def _blossom() -> skia.Path:
    petals = []
    for k in range(5):
        turn = math.radians(72 * k - 90)
        petals.append(skia.Path.Circle(0.5 * math.cos(turn), 0.5 * math.sin(turn), 0.42))
    return union(*petals)


_PETAL = _petal()
_BLOSSOM = _blossom()


def draw(brush: Brush, frame: Frame) -> None:
    """A white cloud."""
    spots = (((0.24, 0.6, 0.24),), ((0.42, 0.56, 0.26),), ((0.76, 0.6, 0.24),))
    draw_clouds(brush, frame, spots[brush.backdrop.sky], (255, 250, 250))


def draw_branch(brush: Brush, frame: Frame, unit: float) -> None:
    """A cherry branch in flower, reaching in from an upper corner; nothing at other times."""
    if brush.scene.time != "blossoms":
        return
    canvas = brush.canvas
    canvas.save()
    if brush.backdrop.sky != 2:
        # The branch comes from the right, away from the cloud; unit paths come from the left.
        canvas.translate(frame.w, 0)
        canvas.scale(-1, 1)
    wood = brush.raw((122, 74, 66))
    branch = skia.Path()
    branch.moveTo(-0.03 * unit, 0.06 * unit)
    branch.quadTo(0.16 * unit, 0.06 * unit, 0.43 * unit, 0.17 * unit)
    twig = skia.Path()
    twig.moveTo(0.16 * unit, 0.075 * unit)
    twig.quadTo(0.2 * unit, 0.16 * unit, 0.21 * unit, 0.24 * unit)
    brush.stroke(twig, wood, 0.016 * unit)
    brush.stroke(branch, wood, 0.026 * unit)
    flowers = (
        (0.04, 0.09, 0.055),
        (0.13, 0.035, 0.05),
        (0.15, 0.13, 0.05),
        (0.215, 0.23, 0.055),
        (0.24, 0.075, 0.058),
        (0.33, 0.15, 0.052),
        (0.43, 0.17, 0.058),
    )
    whole, hearts = skia.Path(), skia.Path()
    for k, (x, y, r) in enumerate(flowers):
        whole.addPath(placed(_BLOSSOM, x * unit, y * unit, r * unit, 24.0 * k))
        hearts.addCircle(x * unit, y * unit, 0.3 * r * unit)
    brush.fill(whole, brush.raw((246, 128, 170)))
    brush.fill(hearts, brush.raw((255, 226, 140)), edge=False)
    canvas.restore()


def draw_fall(brush: Brush, frame: Frame) -> None:
    """Petals."""
    s = frame.unit
    path = skia.Path()
    for x, y in frame.squares():
        for fx, fy, turn in _PETALS:
            path.addPath(placed(_PETAL, x + fx * s, y + fy * s, 0.055 * s, turn))
    brush.fill(path, brush.raw((246, 132, 172)), edge=False)  # ink would leave nothing of them
