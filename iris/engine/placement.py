"""Putting a loaded model where it will run, in the way that was chosen for its memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from iris.engine.quantised import Fp8Linear, Int8Linear, check_fp8, round_layers
from iris.engine.streaming import StreamedBlocks
from iris.fit import Fit

_EIGHT_BITS: dict[str, type[Fp8Linear | Int8Linear]] = {"fp8": Fp8Linear, "int8": Int8Linear}
_BLOCKS = ("transformer_blocks", "single_transformer_blocks")


class HostEmbedding(nn.Module):
    """A token embedding that lies and is looked up in host memory, and answers on the device."""

    def __init__(self, embedding: nn.Embedding, device: torch.device) -> None:
        super().__init__()
        self._weight = embedding.weight.detach().cpu()
        self._device = device

    def forward(self, ids: Tensor) -> Tensor:
        """ids: (...) -> (..., width)."""
        return functional.embedding(ids.cpu(), self._weight).to(self._device)


def place(transformer: Any, text_encoder: Any, fit: Fit, device: torch.device) -> None:
    """Bring both to the device, each in its way; they come in host memory, in the dtype served.

    Done block by block, so that the device never holds more of them than it will later.

    Raises:
        StoreError: the device lacks what the fit needs.
    """
    if fit.transformer == "fp8":
        check_fp8(device)
    for name in _BLOCKS:
        blocks = getattr(transformer, name)
        if fit.transformer == "offload":
            setattr(transformer, name, StreamedBlocks(blocks, device))
        elif fit.transformer != "whole":
            round_layers(blocks, _EIGHT_BITS[fit.transformer], device)
    _move(transformer, device)
    if fit.text_encoder == "cpu":
        text_encoder.cpu()
        return
    if fit.text_encoder != "whole":
        text_encoder.embed_tokens = HostEmbedding(text_encoder.embed_tokens, device)
    if fit.text_encoder == "int8":
        round_layers(text_encoder.layers, Int8Linear, device)
    elif fit.text_encoder == "offload":
        text_encoder.layers = StreamedBlocks(text_encoder.layers, device)
    _move(text_encoder, device)


def _move(model: nn.Module, device: torch.device) -> None:
    """Everything but what is streamed."""
    for child in model.children():
        if not isinstance(child, StreamedBlocks):
            child.to(device)
