"""The VAE's decoder, in place: its largest tensors are made once, not three times over.

The modules are those of diffusers' AutoencoderKLFlux2 and the result is theirs to the bit; what is
ours is the way through them, which writes activations and sums over what nobody reads any more.
Source: diffusers, models/autoencoders/vae.py, Decoder, and models/resnet.py, ResnetBlock2D.
"""

from __future__ import annotations

from typing import Any, cast

from diffusers import AutoencoderKLFlux2
from torch import Tensor, nn
from torch.nn import functional

from iris.errors import StoreError


class PictureDecoder:
    """Latents into a picture, one at a time."""

    def __init__(self, vae: AutoencoderKLFlux2) -> None:
        """
        Raises:
            StoreError: the decoder has a part of another kind than FLUX.2's.
        """
        self._vae: Any = vae  # its submodules are not typed
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
        vae, decoder = self._vae, self._vae.decoder
        x = latents if vae.post_quant_conv is None else vae.post_quant_conv(latents)
        x = decoder.conv_in(x)
        first, *others = decoder.mid_block.resnets
        x = _resnet(first, x)
        for attention, resnet in zip(decoder.mid_block.attentions, others, strict=True):
            x = _resnet(resnet, x if attention is None else attention(x))
        for block in decoder.up_blocks:
            for resnet in block.resnets:
                x = _resnet(resnet, x)
            for upsampler in block.upsamplers or ():
                x = upsampler(x)
        x = functional.silu(decoder.conv_norm_out(x), inplace=True)
        return cast(Tensor, decoder.conv_out(x))


def _resnet(block: Any, x: Tensor) -> Tensor:
    hidden = block.conv1(functional.silu(block.norm1(x), inplace=True))
    hidden = block.conv2(functional.silu(block.norm2(hidden), inplace=True))
    return cast(Tensor, hidden.add_(x if block.conv_shortcut is None else block.conv_shortcut(x)))
