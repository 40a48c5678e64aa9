"""The look of the style dark: a grading of the finished picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def darken(pixels: NDArray[np.uint8], amount: float) -> NDArray[np.uint8]:
    """Moody and low-key: darker, greyer, bluish shadows, dim corners, the middle still readable.

    pixels: (height, width, 3); amount 0..1.5, where 1 is the style at full strength.
    """
    height, width = pixels.shape[:2]
    values = pixels.astype(np.float32) / 255.0
    grey = (values @ LUMA)[..., None]
    values += (grey - values) * min(0.38 * amount, 0.55)
    y = np.linspace(-1.0, 1.0, height, dtype=np.float32)[:, None, None]
    x = np.linspace(-1.0, 1.0, width, dtype=np.float32)[None, :, None]
    corner = np.clip((x * x + y * y) - 0.35, 0.0, 1.3)
    gain = (1.0 - 0.36 * amount) * (1.0 - 0.22 * amount * corner)
    values *= np.clip(gain, 0.12, 1.0)
    values += amount * np.array([0.000, 0.006, 0.018], dtype=np.float32)
    return (np.clip(values, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
