"""What a model paints for a picture of some size.

A model paints well what it was trained on. One that was trained on pictures of one scale says so in
its `iris.json`: whatever size is asked for is painted at that scale, with the aspect kept, and
scaled afterwards. Sizes between two grids of tokens are painted on the larger one and cropped.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from iris.engine.latents import Grid


@dataclass(frozen=True, slots=True)
class Sides:
    """How large a model paints or reads pictures, in pixels."""

    shorter_px: int  # the shorter side, where the longer one allows it
    longer_most_px: int

    def __post_init__(self) -> None:
        if not 0 < self.shorter_px <= self.longer_most_px:
            raise ValueError(f"0 < shorter_px <= longer_most_px must hold, not {self}")


@dataclass(frozen=True, slots=True)
class Canvas:
    """A picture as it is painted or read: its size, and the tokens that cover it."""

    width_px: int
    height_px: int
    grid: Grid

    @property
    def pixels(self) -> int:
        return self.width_px * self.height_px

    @classmethod
    def of(
        cls, width_px: int, height_px: int, pixels_per_token: int, sides: Sides | None
    ) -> Canvas:
        """For a picture of this size: as it is, or brought to `sides`."""
        if sides is not None:
            width_px, height_px = _scaled(width_px, height_px, sides)
        return cls(width_px, height_px, Grid.covering(width_px, height_px, pixels_per_token))


def _scaled(width_px: int, height_px: int, sides: Sides) -> tuple[int, int]:
    shorter, longer = sorted((width_px, height_px))
    wanted, given = sides.shorter_px, shorter
    if wanted * longer > sides.longer_most_px * shorter:  # too long for it
        wanted, given = sides.longer_most_px, longer
    # the nearest whole pixels; integers only, so that the same size is the same everywhere
    width, height = (
        max(1, (2 * side * wanted + given) // (2 * given)) for side in (width_px, height_px)
    )
    return width, height


def resized(images: Tensor, width_px: int, height_px: int) -> Tensor:
    """Images (N, channels, height, width) of any size at this one; those that have it as they are.

    Bicubic, averaged where it gets smaller; what was at the ends of its range may lie beyond.
    """
    if images.shape[2:] == (height_px, width_px):
        return images
    return functional.interpolate(
        images, (height_px, width_px), mode="bicubic", align_corners=False, antialias=True
    )
