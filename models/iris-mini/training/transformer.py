"""The transformer's sizes, and its folder on disk."""

from __future__ import annotations

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, Flux2Transformer2DModel
from torch import Tensor

from training import text

TOKEN_CHANNELS = 128
SHIFT = 7.0  # most steps where the noise is high: there it is decided what the picture shows


def build_transformer() -> Flux2Transformer2DModel:
    """From random weights (torch's seed decides)."""
    return Flux2Transformer2DModel(
        in_channels=TOKEN_CHANNELS,
        num_layers=2,
        num_single_layers=4,
        attention_head_dim=64,
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


def text_positions(tokens: int = text.TOKENS) -> Tensor:
    """(tokens, 4)."""
    zero = torch.tensor([0])
    return torch.cartesian_prod(zero, zero, zero, torch.arange(tokens))
