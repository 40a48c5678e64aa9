"""The VAE's decoder, in pieces and in place: large tensors are made once, not three times over.

The modules are those of diffusers' AutoencoderKLFlux2 and the result is theirs to the bit; what is
ours is the way through them, which writes activations and sums over what nobody reads any more.
Where it is compiled, norms and activations are one and the result is theirs but for rounding.
Source: diffusers, models/autoencoders/vae.py, Decoder, and models/resnet.py, ResnetBlock2D.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, TypeVar, cast

from diffusers import AutoencoderKLFlux2
from torch import Tensor, nn
from torch.nn import functional

from iris.engine.pointwise import Pointwise
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

    def warm(self) -> None:
        """Compile what is to be compiled, for pictures of any size."""
        if not self._pointwise.is_compiled:
            return
        weight = self._vae.decoder.conv_in.weight
        for rows, columns in _WARM_SIZES:
            at_once(self.pieces(weight.new_zeros(1, weight.shape[1], rows, columns)))

    def pieces(self, latents: Tensor) -> Pieces[Tensor]:
        """The same, with stops at which the device can be used for something else."""
        with self._pointwise.stance():
            return (yield from self._pieces(latents))

    def _pieces(self, latents: Tensor) -> Pieces[Tensor]:
        vae, decoder = self._vae, self._vae.decoder
        x = latents if vae.post_quant_conv is None else vae.post_quant_conv(latents)
        x = decoder.conv_in(x)
        first, *others = decoder.mid_block.resnets
        x = yield from self._resnet(first, x)
        for attention, resnet in zip(decoder.mid_block.attentions, others, strict=True):
            x = yield from self._resnet(resnet, x if attention is None else attention(x))
        for block in decoder.up_blocks:
            for resnet in block.resnets:
                x = yield from self._resnet(resnet, x)
            for upsampler in block.upsamplers or ():
                x = upsampler(x)
                yield
        return cast(Tensor, decoder.conv_out(self._activated(decoder.conv_norm_out, x)))

    def _resnet(self, block: Any, x: Tensor) -> Pieces[Tensor]:
        hidden = block.conv1(self._activated(block.norm1, x))
        yield
        hidden = block.conv2(self._activated(block.norm2, hidden))
        yield
        beside = x if block.conv_shortcut is None else block.conv_shortcut(x)
        return cast(Tensor, hidden.add_(beside))

    def _activated(self, norm: Any, x: Tensor) -> Tensor:
        if self._pointwise.is_compiled:
            do = self._pointwise
            how = do.levels(x, norm.weight, norm.bias, norm.num_groups, norm.eps)
            return cast(Tensor, do.activated(x, *how))
        return functional.silu(norm(x), inplace=True)


def at_once(work: Pieces[Result]) -> Result:
    """Do all pieces one after the other."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return cast(Result, end.value)
