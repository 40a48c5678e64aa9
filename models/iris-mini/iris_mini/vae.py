"""The autoencoder in closed form: block means in, smooth colour fields out, nothing trained.

A channel layout makes the network linear although every block normalises and
bends its input. Of C channels, the first 3C/4 hold signals as pairs (+s, -s);
the last C/4 are constants that alternate +LEVEL, -LEVEL. Then
- the mean of all channels is exactly 0 and their deviation LEVEL/2 whatever the
  picture is, so GroupNorm with one group is a known scale;
- silu(s) - silu(-s) = s for every s, so reading a pair undoes the SiLU.

Latent channels: 0..2 the mean of R, G, B over a block; 3 and 4 half the
difference of luma between its right and left, lower and upper halves; the
others 0.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKLFlux2
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from iris_mini.config import MiniConfig
from iris_mini.scenes import typical_pictures

LEVEL = 1024.0  # against signals of size 1 it leaves the deviation known to about 1e-6
GATE = 28.0  # SiLU is shut at -GATE/2, linear at +GATE/2, and bf16 still resolves 0.06 there
GATED_LEVEL = 16384.0  # against gates of size GATE
OPEN = 16.0  # silu(16) is 16 within 2e-6
LUMA = (0.299, 0.587, 0.114)
RGB = 3
SLOPES = (3, 4)  # latent channels of the horizontal and the vertical luma difference
SIGNALS = 5
LOG_VARIANCE = -12.0

SMOOTH = torch.tensor([0.25, 0.5, 0.25])  # after nearest upsampling: (3a + b)/4, (a + 3b)/4
SHARPEN = torch.tensor([-0.125, 1.25, -0.125])  # undoes the softening of SMOOTH at every level
MEAN = torch.tensor([0.5, 0.5, 0.0])  # the two taps of a stride that are inside the block
HALVES = torch.tensor([-0.5, 0.5, 0.0])
TILT = torch.tensor([0.25, 0.0, -0.25])  # after upsampling: left sample down, right sample up


def build_vae(config: MiniConfig, generator: torch.Generator) -> AutoencoderKLFlux2:
    """The whole autoencoder in fp32, its batch-norm statistics measured on rendered pictures."""
    levels = config.levels
    vae = AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=config.vae_widths,
        layers_per_block=1,
        latent_channels=config.latent_channels,
        norm_num_groups=1,
        sample_size=768,
        mid_block_add_attention=False,
    )
    vae.eval()
    with torch.no_grad():
        for module in vae.modules():
            if isinstance(module, ResnetBlock2D):
                _identity(module, generator)
        _write_encoder(vae)
        _write_decoder(vae)
        _write_statistics(vae, config)
    return vae


def _identity(block: ResnetBlock2D, generator: torch.Generator) -> None:
    """Make a residual block pass its signals through, ready to be trained."""
    fan_in = block.conv1.weight[0].numel()
    block.conv1.weight.copy_(
        torch.randn(block.conv1.weight.shape, generator=generator) / fan_in**0.5
    )
    for parameter in (block.conv1.bias, block.conv2.weight, block.conv2.bias):
        parameter.zero_()
    if block.conv_shortcut is not None:
        signals = 3 * min(block.in_channels, block.out_channels) // 8
        _clear(block.conv_shortcut)
        for signal in range(signals):
            _tap(block.conv_shortcut, signal, signal, torch.ones(1, 1))
        _constants(block.conv_shortcut)


def _clear(conv: nn.Conv2d) -> None:
    conv.weight.zero_()
    if conv.bias is not None:
        conv.bias.zero_()


def _tap(conv: nn.Conv2d, source: int, target: int, kernel: Tensor) -> None:
    """Add kernel * signal `source` to the pair of signal `target`; (k, k)."""
    for sign, row in ((1.0, 2 * target), (-1.0, 2 * target + 1)):
        conv.weight[row, 2 * source] += sign * 0.5 * kernel
        conv.weight[row, 2 * source + 1] -= sign * 0.5 * kernel


def _constants(conv: nn.Conv2d, level: float = LEVEL) -> None:
    first = 3 * conv.out_channels // 4
    conv.bias[first::2] = level
    conv.bias[first + 1 :: 2] = -level


def _outer(rows: Tensor, columns: Tensor) -> Tensor:
    return rows[:, None] * columns[None, :]


def _write_encoder(vae: AutoencoderKLFlux2) -> None:
    encoder = vae.encoder
    _clear(encoder.conv_in)
    for channel in range(RGB):
        encoder.conv_in.weight[2 * channel, channel, 1, 1] = 1.0
        encoder.conv_in.weight[2 * channel + 1, channel, 1, 1] = -1.0
    _constants(encoder.conv_in)

    for index, block in enumerate(encoder.down_blocks[:-1]):
        conv = block.downsamplers[0].conv
        _clear(conv)
        for channel in range(RGB):
            _tap(conv, channel, channel, _outer(MEAN, MEAN))
        if index == len(encoder.down_blocks) - 2:
            for channel in range(RGB):
                _tap(conv, channel, SLOPES[0], LUMA[channel] * _outer(MEAN, HALVES))
                _tap(conv, channel, SLOPES[1], LUMA[channel] * _outer(HALVES, MEAN))
        _constants(conv)

    encoder.conv_norm_out.weight.fill_(LEVEL / 2)
    encoder.conv_norm_out.bias.zero_()
    _clear(encoder.conv_out)
    for signal in range(SIGNALS):
        encoder.conv_out.weight[signal, 2 * signal, 1, 1] = 1.0
        encoder.conv_out.weight[signal, 2 * signal + 1, 1, 1] = -1.0
    encoder.conv_out.bias[vae.config.latent_channels :] = LOG_VARIANCE
    for conv in (vae.quant_conv, vae.post_quant_conv):
        _clear(conv)
        conv.weight[:, :, 0, 0] = torch.eye(conv.out_channels)


def _write_decoder(vae: AutoencoderKLFlux2) -> None:
    decoder = vae.decoder
    conv = decoder.conv_in
    _clear(conv)
    for signal in range(SIGNALS):
        kernel = torch.zeros(3, 3)
        kernel[1, 1] = 1.0
        if signal < RGB:
            kernel = _outer(SHARPEN, SHARPEN)
        conv.weight[2 * signal, signal] = kernel
        conv.weight[2 * signal + 1, signal] = -kernel
    _constants(conv)
    _mend_borders(decoder.mid_block.resnets, float(SHARPEN[1:].sum()))

    for index, block in enumerate(decoder.up_blocks[:-1]):
        conv = block.upsamplers[0].conv
        _clear(conv)
        for channel in range(RGB):
            _tap(conv, channel, channel, _outer(SMOOTH, SMOOTH))
            if index == 0:
                _tap(conv, SLOPES[0], channel, _outer(SMOOTH, TILT))
                _tap(conv, SLOPES[1], channel, _outer(TILT, SMOOTH))
        _constants(conv)
        _mend_borders(decoder.up_blocks[index + 1].resnets, float(SMOOTH[1:].sum()))

    decoder.conv_norm_out.weight.fill_(LEVEL / 2)
    decoder.conv_norm_out.bias.zero_()
    _clear(decoder.conv_out)
    for channel in range(RGB):
        decoder.conv_out.weight[channel, 2 * channel, 1, 1] = 1.0
        decoder.conv_out.weight[channel, 2 * channel + 1, 1, 1] = -1.0


def _mend_borders(blocks: nn.ModuleList, coverage: float) -> None:
    """Divide the outermost pixels by `coverage`, the kernel's weight that fell inside the picture.

    A zero-padded convolution loses the weight that falls outside. The first
    block mends the left and right columns, the second the top and bottom rows.
    """
    _mend_axis(blocks[0], coverage, across=True)
    _mend_axis(blocks[1], coverage, across=False)


def _mend_axis(block: ResnetBlock2D, coverage: float, across: bool) -> None:
    gain = 1.0 / coverage - 1.0
    # bf16 keeps 8 bits: split the gain over two weights so that their product keeps more
    slope = min(
        (step / 64.0 for step in range(64, 128)),
        key=lambda s: abs(float(torch.tensor(gain / (2 * s)).bfloat16()) * 2 * s - gain),
    )
    width_in, width = block.in_channels, block.out_channels
    block.norm1.weight.fill_(LEVEL / 2)
    block.norm1.weight[3 * width_in // 4 :] = OPEN / 2
    block.norm1.bias.zero_()

    _clear(block.conv1)
    one = 3 * width_in // 4  # reads OPEN inside the picture and 0 outside
    ends = ((1, 0), (1, 2)) if across else ((0, 1), (2, 1))

    def add_edge(row: int, amount: float) -> None:
        # amount where one neighbour is outside, 0 where both are inside
        for y, x in ends:
            block.conv1.weight[row, one, y, x] -= amount / OPEN
        block.conv1.bias[row] += 2 * amount

    for channel in range(RGB):
        for sign, row in ((1.0, 2 * channel), (-1.0, 2 * channel + 1)):
            block.conv1.weight[row, 2 * channel, 1, 1] = sign * slope
            block.conv1.weight[row, 2 * channel + 1, 1, 1] = -sign * slope
            add_edge(row, GATE)
    _constants(block.conv1, GATED_LEVEL)
    constants = range(3 * width // 4, width)
    for row in constants:
        add_edge(row, -2 * RGB * GATE / len(constants))  # keeps the mean at 0

    block.norm2.weight.fill_(GATED_LEVEL / 2)
    block.norm2.bias.zero_()
    block.norm2.bias[: 2 * RGB] = -GATE / 2

    _clear(block.conv2)
    for channel in range(RGB):
        for sign, row in ((1.0, 2 * channel), (-1.0, 2 * channel + 1)):
            block.conv2.weight[row, 2 * channel, 1, 1] = sign * gain / (2 * slope)
            block.conv2.weight[row, 2 * channel + 1, 1, 1] = -sign * gain / (2 * slope)


def _write_statistics(vae: AutoencoderKLFlux2, config: MiniConfig) -> None:
    """Mean and variance of every latent channel over rendered pictures, the same in all places."""
    latents = vae.encode(typical_pictures(config.pixels_per_token * 4)).latent_dist.mode()
    mean = latents.mean(dim=(0, 2, 3))
    variance = latents.var(dim=(0, 2, 3), unbiased=False)
    variance[SIGNALS:] = 1.0
    vae.bn.running_mean.copy_(mean.repeat_interleave(4))
    vae.bn.running_var.copy_(variance.repeat_interleave(4))
