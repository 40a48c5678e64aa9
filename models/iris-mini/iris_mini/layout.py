"""Which channels of the transformer's stream carry what, and how a linear layer addresses them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from iris_mini.config import MiniConfig

ONES = 8  # channels of the constant
SMOOTH = 12  # RGB at each of a token's 2x2 places, in the order of the noisy latents
ROPE_THETA = 2000


@dataclass(frozen=True, slots=True)
class Layout:
    """The stream of an image token: [noisy latents | smoothed RGB | free features | constant].

    Every block may read all but the noisy latents, and writes only free
    features; what is built in closed form writes the rest.
    """

    tokens: int  # channels of the noisy latents, copied in by x_embedder
    width: int

    @property
    def noisy(self) -> slice:
        return slice(0, self.tokens)

    @property
    def smooth(self) -> slice:
        return slice(self.tokens, self.tokens + SMOOTH)

    @property
    def free(self) -> slice:
        return slice(self.tokens + SMOOTH, self.width - ONES)

    @property
    def ones(self) -> slice:
        return slice(self.width - ONES, self.width)

    def read_ones(self, amount: float) -> Tensor:
        """(width,): a row that gives `amount` when the constant has size 1, and no mean."""
        row = torch.zeros(self.width)
        row[self.ones] = self.signs() * amount / ONES
        return row

    def signs(self) -> Tensor:
        """(ONES,): the constant alternates, so that it adds nothing to the mean."""
        return torch.tensor([1.0, -1.0]).repeat(ONES // 2)

    def reader(self, rows: int, generator: torch.Generator) -> Tensor:
        """(rows, width): random rows of unit output that are blind to the noise and to the mean."""
        weight = torch.randn((rows, self.width), generator=generator)
        weight[:, self.noisy] = 0.0
        weight[:, self.ones] /= 2 * ONES  # the constant is many times the size of a feature
        weight[:, self.tokens :] -= weight[:, self.tokens :].mean(dim=1, keepdim=True)
        return weight / (self.width - self.tokens) ** 0.5

    def writer(self, columns: int, size: float, generator: torch.Generator) -> Tensor:
        """(width, columns): random columns that write free features whose sum is 0."""
        weight = torch.zeros((self.width, columns))
        free = torch.randn((self.free.stop - self.free.start, columns), generator=generator)
        weight[self.free] = (free - free.mean(dim=0)) * size / columns**0.5
        return weight


def layout_of(config: MiniConfig) -> Layout:
    return Layout(tokens=config.token_channels, width=config.width)


def rope_frequency(axes: tuple[int, ...], axis: int, wanted: float) -> float:
    """The rotary frequency on `axis` that is nearest to `wanted`; radians a step."""
    return min(_frequencies(axes[axis]), key=lambda frequency: abs(frequency - wanted))


def rope_dim(axes: tuple[int, ...], axis: int, wanted: float) -> int:
    """The first of the two head channels that turn with rope_frequency(axes, axis, wanted)."""
    pair = _frequencies(axes[axis]).index(rope_frequency(axes, axis, wanted))
    return sum(axes[:axis]) + 2 * pair


def _frequencies(dims: int) -> list[float]:
    return [ROPE_THETA ** (-2 * pair / dims) for pair in range(dims // 2)]
