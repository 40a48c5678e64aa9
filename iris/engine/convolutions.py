"""What the VAE's two halves have in common: residual blocks, in pieces and in place.

The modules are those of diffusers' AutoencoderKLFlux2 and the result is the stock pipeline's; what
is ours is the way through them, which writes activations and sums over what nobody reads any more:
large tensors are made once, not three times over. Where it is compiled, norms and activations are
one, biases of convolutions are added on the way, and the result is theirs but for rounding.
Source: diffusers, models/resnet.py, ResnetBlock2D, and models/unets/unet_2d_blocks.py.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from iris.engine.pointwise import Pointwise, by_group
from iris.errors import StoreError

Result = TypeVar("Result")
Pieces = Generator[None, None, Result]  # stops between pieces of the work; returns what came of it


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A picture in the making, (1, channels, height, width), and what is still to be added to it.

    Biases of convolutions are the same all over the picture: added up by channel, they wait for
    somebody who goes over all pixels anyway.
    """

    x: Tensor
    offset: Tensor | None = None  # (channels,) float32

    def plus(self, offset: Tensor | None) -> Unfinished:
        if self.offset is None or offset is None:
            return Unfinished(self.x, offset if self.offset is None else self.offset)
        return Unfinished(self.x, self.offset + offset)

    def replaced(self, x: Tensor) -> Unfinished:
        """A picture that is whole, in the place of this one."""
        return Unfinished(x, None if self.offset is None else torch.zeros_like(self.offset))

    def whole(self) -> Tensor:
        if self.offset is None:
            return self.x
        return (self.x + self.offset.view(-1, 1, 1)).to(self.x.dtype)


class Convolutions:
    """The way through the layers of a VAE's encoder or decoder, one picture at a time."""

    def __init__(self, half: Any, pointwise: Pointwise) -> None:
        """
        Raises:
            StoreError: it has a part of another kind than FLUX.2's.
        """
        self._pointwise = pointwise
        self._kernels: dict[nn.Module, Tensor] = {}  # of upsamplers, see `_spread`
        blocks = half.down_blocks if hasattr(half, "down_blocks") else half.up_blocks
        resnets = [resnet for block in (half.mid_block, *blocks) for resnet in block.resnets]
        activations = [half.conv_act, *(resnet.nonlinearity for resnet in resnets)]
        if (
            any(resnet.output_scale_factor != 1.0 for resnet in resnets)
            or not all(isinstance(activation, nn.SiLU) for activation in activations)
            or any(hasattr(block, "attentions") for block in blocks)  # only the middle has some
        ):
            raise StoreError("The base model's autoencoder is not built as FLUX.2's is.")

    def middle(self, block: Any, now: Unfinished) -> Pieces[Unfinished]:
        """Through the block between the way down and the way up."""
        first, *others = block.resnets
        now = yield from self.resnet(first, now)
        for attention, resnet in zip(block.attentions, others, strict=True):
            if attention is not None:
                now = now.replaced(attention(now.whole()))
            now = yield from self.resnet(resnet, now)
        return now

    def resnet(self, block: Any, now: Unfinished) -> Pieces[Unfinished]:
        """Through one residual block."""
        hidden = self.convolved(block.conv1, self.activated(block.norm1, now))
        yield
        hidden = self.convolved(block.conv2, self.activated(block.norm2, hidden))
        yield
        if block.conv_shortcut is not None:
            offset = now.offset
            now = self.convolved(block.conv_shortcut, now.x)
            if offset is not None:
                now = now.plus(block.conv_shortcut.weight[:, :, 0, 0].float() @ offset)
        return Unfinished(hidden.x.add_(now.x), hidden.offset).plus(now.offset)

    def convolved(self, conv: Any, x: Tensor) -> Unfinished:
        """x, whole, through a convolution; compiled, its bias is left to whoever comes next."""
        if self._pointwise.is_compiled:
            # A copy, also of what is float32: a weight is another kind of tensor to the compiler.
            offset = conv.bias.to(torch.float32, copy=True)
            return Unfinished(conv._conv_forward(x, conv.weight, None), offset)
        return Unfinished(conv(x))

    def activated(self, norm: Any, now: Unfinished) -> Tensor:
        """GroupNorm and SiLU."""
        x, offset, do = now.x, now.offset, self._pointwise
        if offset is not None:
            how = do.levels(x, offset, norm.weight, norm.bias, norm.num_groups, norm.eps)
            return cast(Tensor, do.activated(x, *how))
        if _is_plain(x):
            scale, shift = _levels(norm, x)
            return functional.silu((x * scale).add_(shift), inplace=True)
        return functional.silu(norm(x), inplace=True)

    def shrunk(self, downsampler: Any, now: Unfinished) -> Unfinished:
        """Half as high and wide."""
        if now.offset is None:
            return Unfinished(downsampler(now.x))
        return self.convolved(downsampler.conv, self._pointwise.bordered(now.x, now.offset))

    def enlarged(self, upsampler: Any, now: Unfinished) -> Unfinished:
        """Twice as high and wide."""
        if now.offset is not None:
            return self.convolved(upsampler.conv, self._pointwise.enlarged(now.x, now.offset))
        if not _is_plain(now.x):
            return Unfinished(upsampler(now.x))
        conv = upsampler.conv
        if conv not in self._kernels:
            self._kernels[conv] = _spread(conv.weight)
        weight, bias = self._kernels[conv], conv.bias
        return Unfinished(functional.conv_transpose2d(now.x, weight, bias, stride=2, padding=1))


def _is_plain(x: Tensor) -> bool:
    """Whether float32 on a CPU: what is said of it here was measured there."""
    return x.dtype == torch.float32 and x.device.type == "cpu"


def _levels(norm: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """What a GroupNorm does to a picture: scale and shift by channel.

    The library's own sums up pixel by pixel where channels come last, which takes twice as long,
    and a hundred-thousandth of the largest value is lost. In float32 that is far more than else
    is, and two of iris-mini's channels are so much larger than the picture that it would be off by
    eight levels of 255.
    """
    lines = x.permute(0, 2, 3, 1)  # summed up in the order of memory
    mean, square = (values.mean(2).mean(1)[0] for values in (lines, lines.square()))
    nothing = torch.zeros_like(mean)
    return by_group(mean, square, nothing, norm.weight, norm.bias, norm.num_groups, norm.eps)


def _spread(weight: Tensor) -> Tensor:
    """A kernel of 3x3 over pixels that are four each -> one of 4x4 that spreads a pixel over them.

    (out, in, 3, 3) -> (in, out, 4, 4), of a transposed convolution with stride 2 and padding 1:
    four ninths of the products, and the picture is not made larger first.
    """
    turned = functional.pad(weight.flip(2, 3).transpose(0, 1), (1, 1, 1, 1))
    lines = turned[:, :, 1:] + turned[:, :, :-1]
    return (lines[..., 1:] + lines[..., :-1]).contiguous(memory_format=torch.channels_last)


def at_once(work: Pieces[Result]) -> Result:
    """Do all pieces one after the other."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return cast(Result, end.value)
