"""Pictures as blocks of pixels, and the waves that a block is made of."""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 32  # pixels a side of what one latent sees
CELL = 64  # pixels a side of a token: 2x2 latents


def blocks_of(pictures: Tensor, side: int) -> Tensor:
    """(B, 3, H, W) -> (B, H/side, W/side, 3 * side * side); what does not fill a block is cut."""
    batch, colours, height, width = pictures.shape
    rows, columns = height // side, width // side
    pictures = pictures[:, :, : rows * side, : columns * side]
    folded = pictures.reshape(batch, colours, rows, side, columns, side)
    return folded.permute(0, 2, 4, 1, 3, 5).reshape(batch, rows, columns, -1)


def cosines(side: int) -> Tensor:
    """The orthonormal cosine waves (frequency, place) of `side` places."""
    places = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    waves = torch.cos(torch.pi * torch.arange(side, dtype=torch.float64)[:, None] * places)
    waves[0] /= 2**0.5
    return (waves * (2.0 / side) ** 0.5).float()


def low_waves(side: int, count: int) -> Tensor:
    """The `count` lowest two-dimensional waves (count, side * side) of a block."""
    if side == 1:
        return torch.ones(1, 1)
    waves = cosines(side)
    pairs = [(y, x) for y in range(side) for x in range(side)]
    pairs.sort(key=lambda pair: (pair[0] ** 2 + pair[1] ** 2, pair))
    return torch.stack([torch.outer(waves[y], waves[x]).flatten() for y, x in pairs[:count]])
