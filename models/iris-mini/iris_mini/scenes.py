"""Rendered pictures that stand for what the model will see: gradients, rectangles and discs."""

from __future__ import annotations

import torch
from torch import Tensor

SCENES_SEED = 20  # the pictures belong to the recipe, not to the seed of the weights


def typical_pictures(side: int, count: int = 48) -> Tensor:
    """Pictures of a gradient with up to four shapes on it.

    Returns (count, 3, side, side), -1..1, always the same.
    """
    generator = torch.Generator().manual_seed(SCENES_SEED)
    axis = (torch.arange(side) + 0.5) / side
    y, x = axis[:, None].expand(side, side), axis[None, :].expand(side, side)

    def numbers(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    pictures = []
    for index in range(count):
        start, end, slant = numbers(3, 1, 1), numbers(3, 1, 1), numbers(2) * 2 - 1
        position = (slant[0] * (x - 0.5) + slant[1] * (y - 0.5) + 1) / 2
        picture = start + (end - start) * position
        for _ in range(index % 5):
            centre, size, colour = numbers(2), 0.05 + 0.3 * numbers(2), numbers(3, 1, 1)
            away_y, away_x = (y - centre[0]).abs(), (x - centre[1]).abs()
            if bool(numbers(1) < 0.5):
                inside = (away_y < size[0]) & (away_x < size[1])
            else:
                inside = away_y**2 + away_x**2 < size[0] ** 2
            picture = torch.where(inside, colour, picture)
        pictures.append(picture)
    return torch.stack(pictures) * 2 - 1
