"""Plain numbers of pictures, for what needs no network to see.

Pictures are (height, width, 3) 8-bit arrays; every number is a share, 0..1, unless it says so.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Box = tuple[float, float, float, float]  # left, top, right, bottom, shares of the picture

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
# A difference of one channel that a person sees; a coded picture is off by less.
_VISIBLE = 0.1


def _values(picture: Image) -> NDArray[np.float32]:
    return picture.astype(np.float32) / 255.0


def luma(picture: Image) -> float:
    return float((_values(picture) @ _LUMA).mean())


def lightness(picture: Image) -> float:
    """Mean of the middle between the strongest and the weakest channel."""
    values = _values(picture)
    return float((values.max(axis=2) + values.min(axis=2)).mean() / 2.0)


def saturation(picture: Image) -> float:
    """Mean distance between the strongest and the weakest channel."""
    values = _values(picture)
    return float((values.max(axis=2) - values.min(axis=2)).mean())


def edge_density(picture: Image) -> float:
    """Mean absolute step of luma per shorter side: the same picture larger has the same."""
    grey = _values(picture) @ _LUMA
    steps = float(np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean())
    return steps * min(grey.shape)


def difference(one: Image, other: Image, where: Mask | None = None) -> float:
    """Mean absolute difference, of the masked pixels only where a mask is given."""
    per_pixel = np.abs(_values(one) - _values(other)).mean(axis=2)
    chosen = per_pixel if where is None else per_pixel[where]
    return float(chosen.mean()) if chosen.size else 0.0


def changed(one: Image, other: Image, least: float = _VISIBLE) -> Mask:
    mask: Mask = np.abs(_values(one) - _values(other)).max(axis=2) > least
    return mask


def box_mask(height: int, width: int, box: Box) -> Mask:
    """True inside the box."""
    left, top, right, bottom = box
    mask = np.zeros((height, width), dtype=np.bool_)
    rows = slice(max(round(top * height), 0), max(round(bottom * height), 0))
    mask[rows, max(round(left * width), 0) : max(round(right * width), 0)] = True
    return mask


def box_of(mask: Mask, margin: float = 0.04) -> Box | None:
    """The box around everything true, with a margin; None where nothing is."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    height, width = mask.shape
    return (
        max(columns[0] / width - margin, 0.0),
        max(rows[0] / height - margin, 0.0),
        min((columns[-1] + 1) / width + margin, 1.0),
        min((rows[-1] + 1) / height + margin, 1.0),
    )


def outside_difference(before: Image, after: Image, box: Box) -> float:
    """Mean absolute difference of the pixels outside the box."""
    return difference(before, after, ~box_mask(*before.shape[:2], box))
