"""The decoder as it is trained: AutoencoderKLFlux2's, without the normalisation.

GroupNorm would couple a crop to the picture it is cut from and cost a fifth of the time. Here
every norm is a trained scale and shift; `write_decoder` puts the weights into AutoencoderKLFlux2
so that its GroupNorm does the same: two more channels hold +LEVEL and -LEVEL, less half the sum
of the others each. Then the mean of all channels is 0 and their deviation LEVEL * sqrt(2 / C).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import AutoencoderKLFlux2
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch.nn import functional as F

LATENTS = 32
RGB = 3
WIDTHS = (16, 16, 32, 64, 96, 128)  # of AutoencoderKLFlux2's decoder, full resolution first
CONSTANTS = 2
STATES = (72, 48, 30, 12, 3)  # channels that the linear decoder uses, coarsest first
LEVEL = 1024.0


class Scale(nn.Module):
    """A scale and a shift for every channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        return torch.addcmul(bias.view(1, -1, 1, 1), x, weight.view(1, -1, 1, 1))


class Residual(nn.Module):
    """ResnetBlock2D: two convolutions beside a shortcut."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.scale = Scale(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.shortcut = (
            nn.Conv2d(channels_in, channels, 1, bias=False) if channels_in != channels else None
        )

    def forward(self, x: Tensor) -> Tensor:
        inner = self.conv2(F.silu(self.conv1(F.silu(self.scale(x)))))
        return inner + (x if self.shortcut is None else self.shortcut(x))


class Level(nn.Module):
    """UpDecoderBlock2D: two residual blocks and, but at the last, a doubling of the resolution."""

    def __init__(self, channels_in: int, channels: int, last: bool) -> None:
        super().__init__()
        self.residuals = nn.ModuleList(
            (Residual(channels_in, channels), Residual(channels, channels))
        )
        self.up = None if last else nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        for residual in self.residuals:
            x = residual(x)
        if self.up is not None:
            x = self.up(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return x


class Decoder(nn.Module):
    """Latents (B, 32, h, w) to pictures (B, 3, 32h, 32w), -1..1."""

    def __init__(self) -> None:
        super().__init__()
        widths = [width - CONSTANTS for width in reversed(WIDTHS)]
        self.conv_in = nn.Conv2d(LATENTS, widths[0], 3, padding=1, bias=False)
        self.middle = nn.ModuleList(Residual(widths[0], widths[0]) for _ in range(2))
        self.levels = nn.ModuleList(
            Level(before, width, last=index == len(widths) - 1)
            for index, (before, width) in enumerate(
                zip([widths[0], *widths[:-1]], widths, strict=True)
            )
        )
        self.scale = Scale(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], RGB, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        return self.finish(self.half(latents))

    def half(self, latents: Tensor) -> Tensor:
        """What is known at half the resolution, before the last doubling."""
        x = self.conv_in(latents)
        for residual in self.middle:
            x = residual(x)
        for level in self.levels[:-2]:
            x = level(x)
        for residual in self.levels[-2].residuals:
            x = residual(x)
        return x

    def finish(self, x: Tensor) -> Tensor:
        """The picture from `half`."""
        x = self.levels[-2].up(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        x = self.levels[-1](x)
        return self.conv_out(F.silu(self.scale(x)))

    @torch.no_grad()
    def start(self, ups: Sequence[Tensor]) -> None:
        """Become the linear decoder of these kernels; what it leaves free starts at random."""
        for module in self.modules():
            if isinstance(module, Residual):
                module.conv2.weight.zero_()
                if module.shortcut is not None:
                    module.shortcut.weight.zero_()
                    for channel in range(min(module.shortcut.weight.shape[:2])):
                        module.shortcut.weight[channel, channel] = 1.0
        self.conv_in.weight[:LATENTS] = 0.0
        for latent in range(LATENTS):
            self.conv_in.weight[latent, latent, 1, 1] = 1.0
        for level, kernel in zip(self.levels, ups, strict=False):
            kept, seen = kernel.shape[:2]
            level.up.weight[:kept] = 0.0
            level.up.weight[:kept, :seen] = kernel
        # the last kernel makes the colours, as pairs (+s, -s): silu(s) - silu(-s) = s
        last = self.levels[len(ups) - 1].up
        colours = last.weight[:RGB].clone()
        last.weight[: 2 * RGB : 2] = colours
        last.weight[1 : 2 * RGB : 2] = -colours
        self.conv_out.bias.zero_()
        self.conv_out.weight.zero_()
        for colour in range(RGB):
            self.conv_out.weight[colour, 2 * colour, 1, 1] = 1.0
            self.conv_out.weight[colour, 2 * colour + 1, 1, 1] = -1.0


@torch.no_grad()
def write_decoder(vae: AutoencoderKLFlux2, decoder: Decoder) -> None:
    """Put the decoder into the vae, with the channels that hold its GroupNorm still."""
    target = vae.decoder
    _write_stream(target.conv_in, decoder.conv_in, constant=True)
    for block, residual in zip(target.mid_block.resnets, decoder.middle, strict=True):
        _write_residual(block, residual)
    for up_block, level in zip(target.up_blocks, decoder.levels, strict=True):
        for block, residual in zip(up_block.resnets, level.residuals, strict=True):
            _write_residual(block, residual)
        if level.up is not None:
            _write_stream(up_block.upsamplers[0].conv, level.up, constant=True)
    _write_norm(target.conv_norm_out, decoder.scale.weight, decoder.scale.bias)
    target.conv_out.weight.zero_()
    target.conv_out.weight[:, :-CONSTANTS] = decoder.conv_out.weight
    target.conv_out.bias.copy_(decoder.conv_out.bias)


def _write_residual(block: ResnetBlock2D, residual: Residual) -> None:
    _write_norm(block.norm1, residual.scale.weight, residual.scale.bias)
    _write_stream(block.conv1, residual.conv1, constant=True)
    # the shift of conv1 goes after the norm, whose input must not move
    _write_norm(block.norm2, torch.ones_like(residual.conv1.bias), residual.conv1.bias)
    _write_stream(block.conv2, residual.conv2, constant=False)
    if residual.shortcut is not None:
        _write_stream(block.conv_shortcut, residual.shortcut, constant=True)


def _write_stream(conv: nn.Conv2d, source: nn.Conv2d, constant: bool) -> None:
    signals, seen = source.weight.shape[:2]
    conv.weight.zero_()
    conv.bias.zero_()
    conv.weight[:signals, :seen] = source.weight
    conv.weight[signals:, :seen] = -source.weight.sum(0) / CONSTANTS
    if constant:
        conv.bias[-2] = LEVEL
        conv.bias[-1] = -LEVEL


def _write_norm(norm: nn.GroupNorm, weight: Tensor, bias: Tensor) -> None:
    deviation = LEVEL * (CONSTANTS / norm.num_channels) ** 0.5
    norm.weight.zero_()
    norm.bias.zero_()
    norm.weight[:-CONSTANTS] = weight * deviation
    norm.bias[:-CONSTANTS] = bias


@torch.no_grad()
def read_decoder(vae: AutoencoderKLFlux2) -> Decoder:
    """The decoder that `write_decoder` put into the vae."""
    source, decoder = vae.decoder, Decoder()
    _read_stream(decoder.conv_in, source.conv_in)
    for residual, block in zip(decoder.middle, source.mid_block.resnets, strict=True):
        _read_residual(residual, block)
    for level, up_block in zip(decoder.levels, source.up_blocks, strict=True):
        for residual, block in zip(level.residuals, up_block.resnets, strict=True):
            _read_residual(residual, block)
        if level.up is not None:
            _read_stream(level.up, up_block.upsamplers[0].conv)
    _read_norm(source.conv_norm_out, decoder.scale.weight, decoder.scale.bias)
    decoder.conv_out.weight.copy_(source.conv_out.weight[:, :-CONSTANTS])
    decoder.conv_out.bias.copy_(source.conv_out.bias)
    return decoder


def _read_residual(residual: Residual, block: ResnetBlock2D) -> None:
    _read_norm(block.norm1, residual.scale.weight, residual.scale.bias)
    _read_stream(residual.conv1, block.conv1)
    _read_norm(block.norm2, torch.empty_like(residual.conv1.bias), residual.conv1.bias)
    _read_stream(residual.conv2, block.conv2)
    if residual.shortcut is not None:
        _read_stream(residual.shortcut, block.conv_shortcut)


def _read_stream(target: nn.Conv2d, conv: nn.Conv2d) -> None:
    signals, seen = target.weight.shape[:2]
    target.weight.copy_(conv.weight[:signals, :seen])


def _read_norm(norm: nn.GroupNorm, weight: Tensor, bias: Tensor) -> None:
    deviation = LEVEL * (CONSTANTS / norm.num_channels) ** 0.5
    weight.copy_(norm.weight[:-CONSTANTS] / deviation)
    bias.copy_(norm.bias[:-CONSTANTS])
