"""Images into tokens: brought to the model's scale and grid, then through the VAE's encoder.

Source: diffusers, models/autoencoders/vae.py, Encoder.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

from iris.engine.canvas import Canvas, resized
from iris.engine.convolutions import Convolutions, Pieces, at_once
from iris.engine.latents import normalise, patchify, to_tokens
from iris.engine.loader import Components
from iris.engine.pointwise import Pointwise
from iris.engine.transfer import upload
from iris.jobs import Pixels

_WARM_SIZES = ((9, 14), (16, 11))  # latents of the images that a compiler is shown


class ImageEncoder:
    """Images into tokens, one at a time."""

    def __init__(self, components: Components, pointwise: Pointwise) -> None:
        """pointwise: its own, where it compiles: few graphs of one function are made.

        Raises:
            StoreError: the encoder has a part of another kind than FLUX.2's.
        """
        self._model = components
        self._vae: Any = components.vae  # its submodules are not typed
        self._pointwise = pointwise
        self._do = Convolutions(self._vae.encoder, self._pointwise)

    def warm(self) -> None:
        """Compile what is to be compiled, for images of any size; then no more."""
        if not self._pointwise.is_compiled:
            return
        side_px = self._model.pixels_per_token // 2  # of one latent
        weight: Tensor = self._vae.encoder.conv_in.weight
        for rows, columns in _WARM_SIZES:
            self._latents(weight.new_zeros(1, 3, side_px * rows, side_px * columns))
        self._pointwise.settle()

    @torch.inference_mode()
    def encode(self, pixels: Pixels, canvas: Canvas) -> Tensor:
        """An image's tokens on its canvas: (1, H*W, C).

        Sides off the model's own grid are continued by their last row and column, the same way a
        picture is made on the covering grid and cropped.
        """
        model, grid = self._model, canvas.grid
        values = torch.frombuffer(bytearray(pixels.rgb), dtype=torch.uint8)
        values = upload(values, model.device)
        image = values.view(1, pixels.height_px, pixels.width_px, 3).permute(0, 3, 1, 2).float()
        image = resized(image, canvas.width_px, canvas.height_px).clamp(0.0, 255.0)
        image = 2.0 * (image / 255.0) - 1.0
        right = grid.columns * model.pixels_per_token - canvas.width_px
        bottom = grid.rows * model.pixels_per_token - canvas.height_px
        image = functional.pad(image, (0, right, 0, bottom), mode="replicate")
        cells = patchify(self._latents(image.to(model.dtype)))
        return to_tokens(normalise(cells, model.vae))

    @torch.inference_mode()
    def _latents(self, image: Tensor) -> Tensor:
        """The middle of what the VAE takes an image for: (1, channels, height, width)."""
        with self._pointwise.stance():
            moments = at_once(self._moments(image))
        return moments.chunk(2, dim=1)[0]

    def _moments(self, image: Tensor) -> Pieces[Tensor]:
        vae, encoder, do = self._vae, self._vae.encoder, self._do
        now = do.convolved(encoder.conv_in, image)
        for block in encoder.down_blocks:
            for resnet in block.resnets:
                now = yield from do.resnet(resnet, now)
            for downsampler in block.downsamplers or ():
                now = do.shrunk(downsampler, now)
        now = yield from do.middle(encoder.mid_block, now)
        moments = encoder.conv_out(do.activated(encoder.conv_norm_out, now))
        return cast(Tensor, moments if vae.quant_conv is None else vae.quant_conv(moments))
