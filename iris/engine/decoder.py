"""The VAE's decoder: latents into a picture, in pieces, recorded where its size is common.

Source: diffusers, models/autoencoders/vae.py, Decoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from diffusers import AutoencoderKLFlux2
from torch import Tensor

from iris.engine.convolutions import Convolutions, Pieces, at_once
from iris.engine.latents import Grid
from iris.engine.pointwise import Pointwise
from iris.engine.recordings import Recordings

_WARM_SIZES = ((9, 14), (16, 11))  # latents that a compiler is shown


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
        self._do = Convolutions(self._vae.decoder, pointwise)

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
        vae, decoder, do = self._vae, self._vae.decoder, self._do
        x = latents if vae.post_quant_conv is None else vae.post_quant_conv(latents)
        now = yield from do.middle(decoder.mid_block, do.convolved(decoder.conv_in, x))
        for block in decoder.up_blocks:
            for resnet in block.resnets:
                now = yield from do.resnet(resnet, now)
            for upsampler in block.upsamplers or ():
                now = do.enlarged(upsampler, now)
                yield
        return cast(Tensor, decoder.conv_out(do.activated(decoder.conv_norm_out, now)))
