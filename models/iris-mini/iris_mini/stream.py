"""What flows through a transformer at one place, measured on pure noise."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import Flux2Transformer2DModel
from torch import Tensor, nn

SIDE = 12  # of the token grid that is looked at


@dataclass(frozen=True, slots=True)
class Stream:
    """What arrives at one LayerNorm: the mean of each channel, and the deviation within a token."""

    mean: Tensor  # (width,)
    std: float


def measure(transformer: Flux2Transformer2DModel, norm: nn.Module, prompt_embeds: Tensor) -> Stream:
    """Run pure noise through the transformer and look at the image tokens that reach `norm`."""
    seen: list[Tensor] = []
    handle = norm.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    count, length = prompt_embeds.shape[0], prompt_embeds.shape[1]
    places = torch.arange(SIDE)
    zero = torch.zeros(1, dtype=torch.long)
    generator = torch.Generator().manual_seed(count)
    noise = torch.randn((count, SIDE * SIDE, transformer.config.in_channels), generator=generator)
    transformer(
        hidden_states=noise,
        timestep=torch.ones(count),
        encoder_hidden_states=prompt_embeds,
        img_ids=torch.cartesian_prod(zero, places, places, zero),
        txt_ids=torch.cartesian_prod(zero, zero, zero, torch.arange(length)),
    )
    handle.remove()
    tokens = seen[0][:, -SIDE * SIDE :]
    # rounded, so that another machine's last digits end in the same weights
    std = round(float(tokens.std(dim=-1, unbiased=False).mean()), 3)
    return Stream(mean=tokens.mean(dim=(0, 1)), std=std)
