"""The transformer's sizes, and its folder on disk."""

from __future__ import annotations

import math
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, Flux2Transformer2DModel
from diffusers.models.transformers import transformer_flux2
from torch import Tensor, nn

from training import text
from training.attention import attention
from training.examples import MOODS, MOST
from world.spec import COLOURS, KINDS

TOKEN_CHANNELS = 128
HEAD_WIDTH = 64
COORDINATES = 14
PLACES = 4  # whole numbers below MOST that say where a token is
PARTS = 3  # the same of an object: column and row in it, and how many it has
LAND = 2  # the same of the land: column and row
LESSONS = COORDINATES + (PLACES + PARTS + LAND) * MOST + 2 + len(KINDS) + len(COLOURS) + sum(MOODS)
SHIFT = 7.0  # most steps where the noise is high: there it is decided what the picture shows


def build_transformer() -> Flux2Transformer2DModel:
    """From random weights (torch's seed decides)."""
    return Flux2Transformer2DModel(
        in_channels=TOKEN_CHANNELS,
        num_layers=2,
        num_single_layers=4,
        attention_head_dim=HEAD_WIDTH,
        num_attention_heads=4,
        joint_attention_dim=len(text.OUT_LAYERS) * text.WIDTH,
        timestep_guidance_channels=64,
        mlp_ratio=3.0,
        axes_dims_rope=(8, 24, 24, 8),
        rope_theta=2000,
        guidance_embeds=False,
    )


def build_scheduler() -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(
        num_train_timesteps=1000, shift=SHIFT, use_dynamic_shifting=False
    )


def shifted(u: Tensor, shift: float = SHIFT) -> Tensor:
    """The scheduler's time shift; 0..1 to 0..1."""
    return shift * u / (1.0 + (shift - 1.0) * u)


def positions(grid: tuple[int, int], time: int = 0) -> Tensor:
    """(tokens, 4): T, H, W, L of a picture; references have times 10, 20, ..."""
    rows, columns = grid
    return torch.cartesian_prod(
        torch.tensor([time]), torch.arange(rows), torch.arange(columns), torch.tensor([0])
    )


def coordinates(grid: tuple[int, int]) -> Tensor:
    """(tokens, COORDINATES): where each token of a picture is, in several plain numbers, -1..1."""
    rows, columns = grid
    row = torch.arange(rows).repeat_interleave(columns)
    column = torch.arange(columns).repeat(rows)
    across, down = 2 * (column + 0.5) / columns - 1, 2 * (row + 0.5) / rows - 1
    waves = [
        wave(math.pi * turns / 2 * place)
        for turns in (1, 2, 3)
        for place in (across, down)
        for wave in (torch.sin, torch.cos)
    ]
    return torch.stack([across, down, *waves], dim=1)


def places(grid: tuple[int, int]) -> Tensor:
    """(tokens, PLACES) int64: row, column, and how many rows and columns there are."""
    rows, columns = grid
    row = torch.arange(rows).repeat_interleave(columns)
    column = torch.arange(columns).repeat(rows)
    sides = [torch.full_like(row, side) for side in grid]
    return torch.stack([row, column, *sides], dim=1)


def compile_blocks(model: Flux2Transformer2DModel) -> None:
    """Compile the two kinds of blocks for any number of tokens; all of a kind share what is made.

    What is around them stays as it is: the whole takes several times as long to compile.
    """
    for block in (*model.transformer_blocks, *model.single_transformer_blocks):
        block.forward = torch.compile(block.forward, dynamic=True)


class Taught(nn.Module):
    """The transformer with teachers at its inner layers, which training alone has.

    Rotary positions are relative. Where a token is in the picture, and how large the picture is,
    it can only find out by looking at the prompt and its neighbours; nothing in the noise tells.
    Left to itself the model had not found its columns after 57,000 samples, and drew clouds of
    colour. Asked for its coordinates after three of the blocks, it finds them in some thousands.
    Row and column are asked for as classes: half a token's error is a blur, and next to nothing as
    a square. They ask as well what a token shows, which part of which object or of the land,
    and which of its few backdrops the picture has, so that the noise is read for it.
    """

    def __init__(self, model: Flux2Transformer2DModel) -> None:
        super().__init__()
        self.model = model
        self.listens_only = False  # teachers learn to read the model, which learns nothing of them
        transformer_flux2.dispatch_attention_fn = attention
        width = model.config.num_attention_heads * model.config.attention_head_dim
        self.teachers = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, LESSONS)) for _ in range(3)
        )
        self._inner: list[Tensor] = []
        for block in model.transformer_blocks:
            block.register_forward_hook(
                lambda _module, _inputs, output: self._inner.append(output[1])
            )
        model.single_transformer_blocks[1].register_forward_hook(
            lambda _module, _inputs, output: self._inner.append(output[:, text.TOKENS :])
        )

    def forward(self, **inputs: Any) -> tuple[Tensor, list[Tensor]]:
        """The velocity, and what each teacher was told: (B, tokens, LESSONS)."""
        self._inner.clear()
        velocity = self.model(**inputs, return_dict=False)[0]
        shown = [one.detach() for one in self._inner] if self.listens_only else self._inner
        told = [teacher(inner) for teacher, inner in zip(self.teachers, shown, strict=True)]
        return velocity, told


def text_positions(tokens: int = text.TOKENS) -> Tensor:
    """(tokens, 4)."""
    zero = torch.tensor([0])
    return torch.cartesian_prod(zero, zero, zero, torch.arange(tokens))
