"""Edits within a mask: what lies outside of it is held to the source at every step.

After each step the tokens outside are put back to the source at the noise that the step has come
to, so that what is made inside meets it. A token stands for a square of pixels and the autoencoder
blurs, so at the end the pixels outside are the source's own, unchanged.
Source: diffusers, Flux2KleinInpaintPipeline.__call__ and prepare_mask_latents.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from iris.engine.canvas import Canvas, resized
from iris.engine.flow import mix
from iris.jobs import Pixels


@dataclass(frozen=True, slots=True)
class Held:
    """What a row is held to outside its mask."""

    source: Tensor  # (1, picture tokens, C) float32: the source's latents
    noise: Tensor  # same shape: the row's own
    inside: Tensor  # (1, picture tokens, 1): 1 = made anew, 0 = held

    def hold(self, latents: Tensor, sigma: float) -> Tensor:
        """The latents at noise level sigma, with the source outside the mask."""
        outside = mix(self.source, self.noise, sigma)
        return (1.0 - self.inside) * outside + self.inside * latents


def tokens_inside(
    mask: bytes, width_px: int, height_px: int, canvas: Canvas, side_px: int
) -> Tensor:
    """How far each token is inside the mask: (1, tokens, 1) float32, 0..1.

    mask: a byte a pixel, 255 inside. side_px: of the square a token stands for. Beyond the picture
    its last row and column go on.
    """
    grid = canvas.grid
    values = torch.frombuffer(bytearray(mask), dtype=torch.uint8).view(1, 1, height_px, width_px)
    painted = resized((values > 127).float(), canvas.width_px, canvas.height_px).clamp(0.0, 1.0)
    right, bottom = grid.columns * side_px - canvas.width_px, grid.rows * side_px - canvas.height_px
    inside = functional.pad(painted, (0, right, 0, bottom), mode="replicate")
    inside = functional.interpolate(inside, size=(grid.rows, grid.columns), mode="bilinear")
    return inside.flatten(2).transpose(1, 2)


def restore_outside(picture: Tensor, source: Pixels, mask: bytes) -> Tensor:
    """The picture, (3, height_px, width_px) in 0..1, with the source's own pixels outside."""
    shape = source.height_px, source.width_px
    values = torch.frombuffer(bytearray(source.rgb), dtype=torch.uint8).view(*shape, 3)
    inside = torch.frombuffer(bytearray(mask), dtype=torch.uint8).view(shape) > 127
    original = values.permute(2, 0, 1).to(picture.device).float() / 255.0
    return torch.where(inside.to(picture.device), picture, original)
