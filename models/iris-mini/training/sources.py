"""How a source reaches the model that nobody rendered for its grid of tokens.

What the model made lies on the grid again when it is edited, only softer, see `training.grids`.
What was made elsewhere does not, nor what comes with a side that is no whole number of tokens, nor
an image that is only looked at and read smaller. The target is drawn on the grid all the same: the
model paints by cells, and is to say again, sharply, what it sees, where it would have put it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from world.render import render
from world.spec import Scene

_SIDES = (768, 768, 960)  # that pictures are made in, before they are read at another
_MISSING = (16, 32, 48)  # pixels that a side can lack of whole tokens


@dataclass(frozen=True, slots=True)
class Taking:
    """How far a source is from one that was rendered on the grid."""

    enlarged: float = 1.0  # how much larger it was drawn than it comes
    missing_px: tuple[int, int] = (0, 0)  # of width and height, filled up by the last row or column
    softness: float = 0.0  # standard deviation of a blur, shares of a token's side

    @property
    def is_on_grid(self) -> bool:
        return self.enlarged == 1.0 and self.missing_px == (0, 0)


AS_RENDERED = Taking()


def draw_taking(rng: random.Random, longest_px: int, as_rendered: float) -> Taking:
    """A taking at random; the share `as_rendered` of them changes nothing.

    longest_px: the longer side of the source as it comes.
    """
    if rng.random() < as_rendered:
        return AS_RENDERED
    softness = rng.uniform(0.005, 0.03)
    if rng.random() < 0.25:
        return Taking(softness=softness)
    softness = rng.choice((softness, 0.0))
    enlarged = rng.choice(_SIDES) / longest_px
    if enlarged <= 1.0 or rng.random() < 0.3:
        enlarged = rng.uniform(0.8, 1.6)
    missing = tuple(rng.choice(_MISSING) if rng.random() < 0.2 else 0 for _ in range(2))
    return Taking(enlarged, (missing[0], missing[1]), softness)


def take(scene: Scene, width: int, height: int, scale: float, taking: Taking) -> NDArray[np.uint8]:
    """The scene as a source of that width and height: (height, width, 3), 8-bit.

    scale: 0.5 gives all of it at half the size, the lengths of `taking` too.
    """
    if taking == AS_RENDERED:
        return render(scene, width, height, scale)
    across, down = (round(scale * missing) for missing in taking.missing_px)
    size = width - across, height - down
    drawn = [round(taking.enlarged * side) for side in size]
    picture = Image.fromarray(render(scene, *drawn, scale))
    if picture.size != size:
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    if taking.softness:
        picture = picture.filter(ImageFilter.GaussianBlur(taking.softness * 64 * scale))
    filled: NDArray[np.uint8] = np.pad(
        np.asarray(picture), ((0, down), (0, across), (0, 0)), mode="edge"
    )
    return filled
