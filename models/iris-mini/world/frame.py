"""Where things are in a picture: the horizon, the ground, the objects, the sun or moon.

Horizon, ground and objects keep to a grid of CELL pixels, as patterns in a weave do. A model that
paints by cells of that size then has each part of an object to learn once, not at every offset.
Land and sky are of one size in every picture, and repeat after a tile: a larger picture shows more
of them, not larger ones, so that they too are few patterns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from world.objects import AIRBORNE
from world.spec import Scene, Thing

# Share of the height at which land meets sky, and at which objects stand.
_HORIZON = {
    "beach": 0.53,
    "sea": 0.53,
    "hills": 0.6,
    "forest": 0.62,
    "bamboo": 0.64,
    "desert": 0.6,
    "city": 0.62,
    "mountains": 0.62,
    "ricefield": 0.54,
    "studio": 0.62,
}
_GROUND = 0.84
_AIR = 0.18  # how far above the ground what flies has its foot
CELL = 64.0
_LEAST_CELLS = 8  # along the shorter side: pictures below 512 have smaller cells
TILE_CELLS = 8  # after so many cells land and sky repeat
_DOME_CELLS = 5  # down from the top: where sun, moon and clouds are, whatever the height
# Share of the width at which backdrop.sky puts sun, moon and bolt.
_ACROSS = (0.19, 0.52, 0.81)


@dataclass(frozen=True, slots=True)
class Frame:
    """The lengths of a picture, in pixels."""

    w: float
    h: float
    s: float  # the shorter side
    cell: float
    horizon: float
    ground: float

    @property
    def unit(self) -> float:
        """What land and sky are measured in, and the width after which they repeat."""
        return TILE_CELLS * self.cell

    @property
    def dome(self) -> float:
        """The height of that part of the sky in which there is something."""
        return _DOME_CELLS * self.cell

    @property
    def tiles(self) -> int:
        """How often a pattern is repeated to cover the width."""
        return math.ceil(self.w / self.unit - 0.01)

    def squares(self) -> list[tuple[float, float]]:
        """Corners of the squares, a unit wide, that cover the picture row by row."""
        down = math.ceil(self.h / self.unit - 0.01)
        return [(i * self.unit, j * self.unit) for j in range(down) for i in range(self.tiles)]

    def column(self, share: float) -> float:
        """A share of the width in pixels, on the grid."""
        return _whole(share * self.w, self.cell)

    def box(self, thing: Thing) -> tuple[float, float, float]:
        """Left, top and side of the square that an object fills."""
        side = max(self.cell, _whole(thing.share * self.s, self.cell))
        foot = self.ground
        if thing.kind in AIRBORNE:
            foot -= _whole(_AIR * self.h, self.cell)
        return _whole(thing.x * self.w - side / 2, self.cell), foot - side, side


def frame_of(scene: Scene, width: float, height: float, scale: float = 1.0) -> Frame:
    """The lengths of a picture of this width and height, in pixels.

    scale: below 1 the picture is a larger one drawn small; 1 / CELL counts in cells.
    """
    shorter = min(width, height)
    cell = min(CELL * scale, shorter / _LEAST_CELLS)
    horizon = _HORIZON[scene.scene] * height
    return Frame(
        width, height, shorter, cell, _whole(horizon, cell), _whole(_GROUND * height, cell)
    )


def _whole(length: float, cell: float) -> float:
    """The nearest length of whole cells; of two as near, the shorter."""
    return math.ceil(length / cell - 0.5) * cell


def across(scene: Scene, frame: Frame) -> float:
    """Where sun, moon or bolt is, in pixels from the left, clear of what stands at the edges."""
    return frame.column(_share_across(scene))


def _share_across(scene: Scene) -> float:
    place = _ACROSS[scene.backdrop.sky]
    if scene.scene == "beach":
        # The palm is at the left edge in the first outline, else at the right one.
        return (0.28 if scene.backdrop.land == 0 else 0.02) + 0.7 * place
    if scene.scene in ("bamboo", "forest"):
        return 0.5 + 0.72 * (place - 0.5)
    return place
