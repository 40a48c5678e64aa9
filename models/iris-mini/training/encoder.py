"""The encoder: one linear map a block, 32x32 pixels of 3 colours to 32 numbers, in closed form.

The numbers are the principal components of rendered pictures. The map is written into
AutoencoderKLFlux2 as a cascade: each strided convolution turns 2x2 neighbours into the directions
that the components still need, and every residual block passes its input through.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKLFlux2
from torch import Tensor, nn

from training.blocks import BLOCK, blocks_of
from training.components import GAIN, Components
from training.decoder import LATENTS, RGB

ENCODER_WIDTHS = (12, 24, 32, 48, 64, 96)  # full resolution first
CASCADE = (3, 12, 24, 32, 48, 32)  # directions kept of blocks of 1, 2, 4, ... 32 pixels
WHITENING = 0.5  # 0 leaves the deviations of the components as they are, 1 makes them equal
LEVEL = 1024.0  # of the constant channels that hold GroupNorm still
CONSTANTS = 24  # a quarter of the last encoder width: their deviation is LEVEL / 2 exactly
LOG_VARIANCE = -12.0


def write_encoder(vae: AutoencoderKLFlux2, components: Components) -> None:
    """Write the encoder and the statistics of `components`, rounded to bf16."""
    with torch.no_grad():
        _write_cascade(vae, components)
        variance = components.deviation ** (2 * WHITENING)
        power = (components.deviation**2 / variance).mean()  # so that a token's is 1 on average
        variance = variance * power - vae.config.batch_norm_eps
        vae.bn.running_mean.copy_(components.mean.repeat_interleave(4))
        vae.bn.running_var.copy_(variance.repeat_interleave(4))
        for module in (vae.encoder, vae.quant_conv, vae.bn):
            for tensor in (*module.parameters(), *module.buffers()):
                if tensor.is_floating_point():
                    tensor.copy_(tensor.bfloat16().float())


def _write_cascade(vae: AutoencoderKLFlux2, components: Components) -> None:
    encoder = vae.encoder
    for channel in range(RGB):
        encoder.conv_in.weight[channel, channel, 1, 1] = 1.0
    for level, step in enumerate(_cascade(components)):
        block = encoder.down_blocks[level]
        _pass_on(block.resnets[0].conv_shortcut)
        kept, seen = step.shape[:2]
        block.downsamplers[0].conv.weight[:kept, :seen, :2, :2] = step
    # pairs (+s, -s), since silu(s) - silu(-s) = s; constants make GroupNorm a known scale
    shortcut = encoder.down_blocks[-1].resnets[0].conv_shortcut
    for latent in range(LATENTS):
        shortcut.weight[2 * latent, latent] = 1.0
        shortcut.weight[2 * latent + 1, latent] = -1.0
        encoder.conv_out.weight[latent, 2 * latent, 1, 1] = 1.0
        encoder.conv_out.weight[latent, 2 * latent + 1, 1, 1] = -1.0
    shortcut.bias[-CONSTANTS::2] = LEVEL
    shortcut.bias[-CONSTANTS + 1 :: 2] = -LEVEL
    encoder.conv_norm_out.weight.fill_(LEVEL / 2)
    encoder.conv_out.bias[LATENTS:] = LOG_VARIANCE


def _pass_on(shortcut: nn.Conv2d | None) -> None:
    if shortcut is not None:
        for channel in range(min(shortcut.weight.shape[:2])):
            shortcut.weight[channel, channel] = 1.0


def _cascade(components: Components) -> list[Tensor]:
    """Kernels (kept, seen, 2, 2), finest first, that together are the components / GAIN.

    Each keeps the directions that the components' own parts of that size span best.
    """
    basis = components.basis.view(LATENTS, RGB, BLOCK, BLOCK).double()
    wanted = basis * components.deviation.view(-1, 1, 1, 1)
    steps = []
    inner = torch.eye(RGB, dtype=torch.float64)  # rows: directions kept of the finer block
    for level in range(1, len(CASCADE)):
        side = 2**level
        half = side // 2
        corners = inner.view(-1, RGB, half, half)
        seen = torch.zeros(len(inner), 2, 2, RGB, side, side, dtype=torch.float64)
        for y in range(2):
            for x in range(2):
                seen[:, y, x, :, y * half : (y + 1) * half, x * half : (x + 1) * half] = corners
        seen = seen.view(len(inner) * 4, -1)  # orthonormal rows, as `inner` has
        if side == BLOCK:
            step = basis.flatten(1) @ seen.T / GAIN
        else:
            parts = blocks_of(wanted, side).flatten(0, 2) @ seen.T
            _, vectors = torch.linalg.eigh(parts.T @ parts)
            step = vectors.flip(1)[:, : CASCADE[level]].T
            peaks = step.gather(1, step.abs().argmax(1, keepdim=True))
            step = step * peaks.sign()
            inner = step @ seen
        steps.append(step.view(len(step), -1, 2, 2).float())
    return steps
