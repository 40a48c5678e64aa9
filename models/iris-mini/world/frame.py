"""Where things are in a picture: the horizon, the ground, the sun or moon."""

from __future__ import annotations

import math
from dataclasses import dataclass

from world.spec import Scene

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
# Share of the width at which backdrop.sky puts sun, moon and bolt.
_ACROSS = (0.19, 0.52, 0.81)


@dataclass(frozen=True, slots=True)
class Frame:
    """The lengths of a picture, in pixels."""

    w: float
    h: float
    s: float  # the shorter side, unit of nearly everything drawn
    horizon: float
    ground: float

    @property
    def tiles(self) -> int:
        """How often a pattern made for a square repeats across the width."""
        return max(1, round(self.w / self.s / 1.15))

    def squares(self) -> list[tuple[float, float]]:
        """Corners of the squares, a shorter side wide, that cover the picture row by row."""
        across, down = math.ceil(self.w / self.s - 0.01), math.ceil(self.h / self.s - 0.01)
        return [(i * self.s, j * self.s) for j in range(down) for i in range(across)]


def frame_of(scene: Scene, width: float, height: float) -> Frame:
    """The lengths of a picture of this width and height, in pixels."""
    return Frame(width, height, min(width, height), horizon_y(scene, height), ground_y(height))


def horizon_y(scene: Scene, height: float) -> float:
    """Where the land of a scene begins, in pixels from the top."""
    return (_HORIZON[scene.scene] + 0.025 * scene.backdrop.horizon) * height


def ground_y(height: float) -> float:
    """Where standing objects have their foot, in pixels from the top."""
    return _GROUND * height


def across(scene: Scene) -> float:
    """Share of the width at which sun, moon or bolt is, clear of what stands at the edges."""
    place = _ACROSS[scene.backdrop.sky]
    if scene.scene == "beach":
        # The palm is at the left edge in the first outline, else at the right one.
        return (0.28 if scene.backdrop.land == 0 else 0.02) + 0.7 * place
    if scene.scene in ("bamboo", "forest"):
        return 0.5 + 0.72 * (place - 0.5)
    return place
