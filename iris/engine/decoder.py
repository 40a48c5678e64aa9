"""The VAE's decoder, in pieces and in place: large tensors are made once, not three times over.

The modules are those of diffusers' AutoencoderKLFlux2 and the result is the stock pipeline's; what
is ours is the way through them, which writes activations and sums over what nobody reads any more.
Where it is compiled, norms and activations are one, biases of convolutions are added on the way,
and the result is theirs but for rounding.
Source: diffusers, models/autoencoders/vae.py, Decoder, and models/resnet.py, ResnetBlock2D.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from diffusers import AutoencoderKLFlux2
from torch import Tensor, nn
from torch.nn import functional

from iris.engine.latents import Grid
from iris.engine.pointwise import Pointwise
from iris.engine.recordings import Recordings
from iris.errors import StoreError

_WARM_SIZES = ((9, 14), (16, 11))  # latents that a compiler is shown
Result = TypeVar("Result")
Pieces = Generator[None, None, Result]  # stops between pieces of the work; returns what came of it


class PictureDecoder:
    """Latents into a picture, one at a time."""

    def __init__(self, vae: AutoencoderKLFlux2, pointwise: Pointwise) -> None:
        """
        Raises:
            StoreError: the decoder has a part of another kind than FLUX.2's.
        """
        self._vae: Any = vae  # its submodules are not typed
        self._pointwise = pointwise
        self._recordings: Recordings | None = None
        self._most_recorded = 0  # latents of the largest picture that is
        decoder = self._vae.decoder
        resnets = [*decoder.mid_block.resnets]
        for block in decoder.up_blocks:
            resnets += block.resnets
        activations = [decoder.conv_act, *(resnet.nonlinearity for resnet in resnets)]
        if any(resnet.output_scale_factor != 1.0 for resnet in resnets) or not all(
            isinstance(activation, nn.SiLU) for activation in activations
        ):
            raise StoreError("The base model's autoencoder is not built as FLUX.2's is.")

    def __call__(self, latents: Tensor) -> Tensor:
        """(1, channels, height, width) in latents -> (1, 3, height_px, width_px), -1..1."""
        return at_once(self.pieces(latents))

    def record_in(self, recordings: Recordings) -> None:
        """From now on pictures are recorded when their size comes again, without stops in them.

        Up to the largest that `warm` is told of: what is recorded later fits into its memory.
        CUDA only, and one thread from then on.
        """
        self._recordings = recordings

    def warm(self, common: Sequence[Grid] = ()) -> None:
        """Compile what is to be compiled, for pictures of any size.

        common: in latents, of pictures to be recorded at once, where any are.
        """
        if self._pointwise.is_compiled:
            for rows, columns in _WARM_SIZES:
                self(self._nothing(rows, columns))
        if self._recordings is not None and common:
            common = sorted(common, key=lambda grid: grid.tokens, reverse=True)
            self._most_recorded = common[0].tokens
            for grid in common:
                for _ in range(2):  # done, then recorded
                    self(self._nothing(grid.rows, grid.columns))

    def _nothing(self, rows: int, columns: int) -> Tensor:
        weight: Tensor = self._vae.decoder.conv_in.weight
        return weight.new_zeros(1, weight.shape[1], rows, columns)

    def pieces(self, latents: Tensor) -> Pieces[Tensor]:
        """The same, with stops at which the device can be used for something else."""
        with self._pointwise.stance():
            if self._recordings is None or latents[0, 0].numel() > self._most_recorded:
                return (yield from self._pieces(latents))
            latents = latents.contiguous()  # a recording keeps the strides of its first
            return self._recordings.run(latents.shape, lambda: self._decoded, [latents])

    def _decoded(self, latents: Tensor) -> Tensor:
        return at_once(self._pieces(latents))

    def _pieces(self, latents: Tensor) -> Pieces[Tensor]:
        vae, decoder = self._vae, self._vae.decoder
        x = latents if vae.post_quant_conv is None else vae.post_quant_conv(latents)
        now = self._convolved(decoder.conv_in, x)
        first, *others = decoder.mid_block.resnets
        now = yield from self._resnet(first, now)
        for attention, resnet in zip(decoder.mid_block.attentions, others, strict=True):
            if attention is not None:
                now = now.replaced(attention(now.whole()))
            now = yield from self._resnet(resnet, now)
        for block in decoder.up_blocks:
            for resnet in block.resnets:
                now = yield from self._resnet(resnet, now)
            for upsampler in block.upsamplers or ():
                now = self._enlarged(upsampler, now)
                yield
        return cast(Tensor, decoder.conv_out(self._activated(decoder.conv_norm_out, now)))

    def _resnet(self, block: Any, now: Unfinished) -> Pieces[Unfinished]:
        hidden = self._convolved(block.conv1, self._activated(block.norm1, now))
        yield
        hidden = self._convolved(block.conv2, self._activated(block.norm2, hidden))
        yield
        if block.conv_shortcut is not None:
            offset = now.offset
            now = self._convolved(block.conv_shortcut, now.x)
            if offset is not None:
                now = now.plus(block.conv_shortcut.weight[:, :, 0, 0].float() @ offset)
        return Unfinished(hidden.x.add_(now.x), hidden.offset).plus(now.offset)

    def _convolved(self, conv: Any, x: Tensor) -> Unfinished:
        if self._pointwise.is_compiled:
            # A copy, also of what is float32: a weight is another kind of tensor to the compiler.
            offset = conv.bias.to(torch.float32, copy=True)
            return Unfinished(conv._conv_forward(x, conv.weight, None), offset)
        return Unfinished(conv(x))

    def _enlarged(self, upsampler: Any, now: Unfinished) -> Unfinished:
        if now.offset is None:
            return Unfinished(upsampler(now.x))
        return self._convolved(upsampler.conv, self._pointwise.enlarged(now.x, now.offset))

    def _activated(self, norm: Any, now: Unfinished) -> Tensor:
        if now.offset is None:
            return functional.silu(_normed(norm, now.x), inplace=True)
        do = self._pointwise
        how = do.levels(now.x, now.offset, norm.weight, norm.bias, norm.num_groups, norm.eps)
        return cast(Tensor, do.activated(now.x, *how))


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


def _normed(norm: Any, x: Tensor) -> Tensor:
    """GroupNorm of a picture (1, channels, height, width), with its mean put right on a CPU.

    Where channels come last a CPU sums up its pixels one by one, and a hundred-thousandth of the
    largest is lost. In float32 that is far more than else is, and two of iris-mini's channels are
    so much larger than the picture that it would be off by eight levels of 255.
    """
    if x.dtype != torch.float32 or x.device.type != "cpu":
        return cast(Tensor, norm(x))
    _, channels, height, width = x.shape
    groups, weight = norm.num_groups, norm.weight
    y, mean, rstd = torch.native_group_norm(
        x, weight, norm.bias, 1, channels, height * width, groups, norm.eps
    )
    right = x.mean((2, 3)).view(groups, -1).mean(1)
    off = ((mean[0] - right) * rstd[0]).repeat_interleave(channels // groups)
    return y.add_((weight * off).view(1, -1, 1, 1))


def at_once(work: Pieces[Result]) -> Result:
    """Do all pieces one after the other."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return cast(Result, end.value)
