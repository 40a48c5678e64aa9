"""Latents, tokens and where a token stands.

The VAE's latents are folded 2x2 into tokens; every token has a position (T, H, W, L): T tells
the picture itself (0) from its references (10, 20, ...), L counts the tokens of the prompt.
Source: Flux2KleinPipeline, prepare_latents and prepare_image_latents.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import AutoencoderKLFlux2
from torch import Tensor

_REFERENCE_SPACING = 10


@dataclass(frozen=True, slots=True)
class Grid:
    """A picture's token grid: the smallest one that covers its pixels."""

    rows: int
    columns: int

    @property
    def tokens(self) -> int:
        return self.rows * self.columns

    @classmethod
    def covering(cls, width_px: int, height_px: int, pixels_per_token: int) -> Grid:
        return cls(-(-height_px // pixels_per_token), -(-width_px // pixels_per_token))


def patchify(latents: Tensor) -> Tensor:
    """(B, C, 2H, 2W) -> (B, 4C, H, W): each 2x2 patch becomes one cell."""
    batch, channels, height, width = latents.shape
    folded = latents.view(batch, channels, height // 2, 2, width // 2, 2)
    return folded.permute(0, 1, 3, 5, 2, 4).reshape(batch, channels * 4, height // 2, width // 2)


def unpatchify(cells: Tensor) -> Tensor:
    """(B, 4C, H, W) -> (B, C, 2H, 2W): the inverse of `patchify`."""
    batch, channels, height, width = cells.shape
    unfolded = cells.reshape(batch, channels // 4, 2, 2, height, width)
    return unfolded.permute(0, 1, 4, 2, 5, 3).reshape(batch, channels // 4, height * 2, width * 2)


def to_tokens(cells: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H*W, C), row-major."""
    return cells.flatten(2).transpose(1, 2)


def to_cells(tokens: Tensor, grid: Grid) -> Tensor:
    """(B, H*W, C) -> (B, C, H, W): the inverse of `to_tokens`."""
    batch, _, channels = tokens.shape
    return tokens.transpose(1, 2).reshape(batch, channels, grid.rows, grid.columns)


def normalise(cells: Tensor, vae: AutoencoderKLFlux2) -> Tensor:
    """Bring cells to the scale the transformer was trained on, by the VAE's batch-norm buffers."""
    mean, std = _statistics(cells, vae)
    return (cells - mean) / std


def denormalise(cells: Tensor, vae: AutoencoderKLFlux2) -> Tensor:
    """The inverse of `normalise`."""
    mean, std = _statistics(cells, vae)
    return cells * std + mean


def _statistics(cells: Tensor, vae: AutoencoderKLFlux2) -> tuple[Tensor, Tensor]:
    mean = vae.bn.running_mean.view(1, -1, 1, 1).to(cells.device, cells.dtype)
    variance = vae.bn.running_var.view(1, -1, 1, 1)
    return mean, torch.sqrt(variance + vae.config.batch_norm_eps).to(cells.device, cells.dtype)


def image_positions(grid: Grid, reference: int | None = None) -> Tensor:
    """Positions (H*W, 4) of a picture's tokens, or of its reference number 0, 1, 2, ..."""
    time = 0 if reference is None else _REFERENCE_SPACING * (reference + 1)
    return torch.cartesian_prod(
        torch.tensor([time]),
        torch.arange(grid.rows),
        torch.arange(grid.columns),
        torch.tensor([0]),
    )


def text_positions(tokens: int) -> Tensor:
    """Positions (tokens, 4) of a prompt."""
    zero = torch.tensor([0])
    return torch.cartesian_prod(zero, zero, zero, torch.arange(tokens))
