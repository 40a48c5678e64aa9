"""The size a decoded image is wanted in, and the arithmetic of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from iris.images.header import Unusable


@dataclass(frozen=True, slots=True)
class Exact:
    """Exactly this size, whatever the aspect."""

    width_px: int
    height_px: int

    def __post_init__(self) -> None:
        if self.width_px < 1 or self.height_px < 1:
            raise ValueError(f"Exact needs sides of at least 1 px, not {self}")


@dataclass(frozen=True, slots=True)
class Within:
    """Scaled down, never up, with the aspect kept; then each side floored to a multiple."""

    max_side_px: int
    max_area_px: int
    multiple_px: int

    def __post_init__(self) -> None:
        if self.multiple_px < 1 or self.max_side_px < 1 or self.max_area_px < 1:
            raise ValueError(f"Within needs positive limits, not {self}")


Fit = Exact | Within


def fitted_size(width_px: int, height_px: int, fit: Fit) -> tuple[int, int]:
    """Return the width and height an upright image of this size is resized to.

    Integers only: floor(side * scale) of every limit is exact, so 1408x704 within 704 is 704x352
    and never 703.

    Raises:
        Unusable: a side would be floored to 0.
    """
    if isinstance(fit, Exact):
        return fit.width_px, fit.height_px
    longest = max(width_px, height_px)
    width = min(
        width_px,
        width_px * fit.max_side_px // longest,
        math.isqrt(width_px * fit.max_area_px // height_px),
    )
    height = min(
        height_px,
        height_px * fit.max_side_px // longest,
        math.isqrt(height_px * fit.max_area_px // width_px),
    )
    if min(width, height) < fit.multiple_px:
        scaled = (
            "" if (width, height) == (width_px, height_px) else f", {width}x{height} once scaled"
        )
        raise Unusable(
            f"is too small: {width_px}x{height_px} px{scaled};"
            f" each side must be at least {fit.multiple_px} px. Send a larger one."
        )
    return width - width % fit.multiple_px, height - height % fit.multiple_px


def most_pixels(fit: Fit) -> int:
    """Return the largest area `fitted_size` can give, in pixels."""
    if isinstance(fit, Exact):
        return fit.width_px * fit.height_px
    return min(fit.max_area_px, fit.max_side_px**2)
