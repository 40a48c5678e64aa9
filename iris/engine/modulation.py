"""What the noise levels do to each row's tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from iris.engine.lora import Worn
from iris.engine.rows import Rows


class Modulation:
    """(rows, N) shifts, scales and gates, of all blocks of a kind together.

    Row by row: products that are one token high are below every floor.
    """

    def __init__(
        self, model: Any, timesteps: Tensor, worn: Sequence[Worn | None], dtype: torch.dtype
    ) -> None:
        rows = []
        for i, style in enumerate(worn):
            gated = Rows([1], [style], timesteps.device)
            embed = model.time_guidance_embed
            wave = embed.time_proj(timesteps[i : i + 1].to(dtype) * 1000).to(dtype)
            hidden = gated(embed.timestep_embedder.linear_1, wave)
            time = gated(embed.timestep_embedder.linear_2, embed.timestep_embedder.act(hidden))
            rows.append(
                [
                    gated(layer, nn.functional.silu(time))
                    for layer in (
                        model.double_stream_modulation_txt.linear,
                        model.double_stream_modulation_img.linear,
                        model.single_stream_modulation.linear,
                        model.norm_out.linear,
                    )
                ]
            )
        self._take([torch.cat(parts) for parts in zip(*rows, strict=True)])

    def repeat(self) -> None:
        """Every row a second time, which no token belongs to."""
        parts = (self.double_text, self.double_picture, self.single, self.out)
        self._take([part.repeat(2, 1) for part in parts])

    def _take(self, parts: Sequence[Tensor]) -> None:
        self.double_text, self.double_picture, self.single, self.out = parts
