"""How many parameters the parts of a model have, read from the headers of its files."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path

from iris.errors import StoreError
from iris.fit import ModelSize
from iris.store.tensors import TensorInfo, read_headers

_BLOCK = re.compile(r"((?:single_)?transformer_blocks\.\d+)\.")
_LAYER = re.compile(r"model\.layers\.(\d+)\.")
_KLEIN_LAYERS = 27  # the published checkpoints say it nowhere; see iris.engine.loader


def model_size(folder: Path) -> ModelSize:
    """The size of a base model's parts, as far as the engine keeps them.

    Raises:
        StoreError: a part is missing or broken.
    """
    transformer = _parameters(read_headers(folder / "transformer"))
    text = _parameters(read_headers(folder / "text_encoder"))
    blocks = _by(_BLOCK, transformer)
    num_layers = _num_text_layers(folder)
    layers = {n: size for n, size in _by(_LAYER, text).items() if int(n) < num_layers}
    if not blocks or not layers:
        raise StoreError(f"{folder} is no FLUX.2-klein model: it has no blocks or no text layers.")
    return ModelSize(
        blocks=sum(blocks.values()),
        largest_block=max(blocks.values()),
        transformer_rest=sum(transformer.values()) - sum(blocks.values()),
        text_layers=sum(layers.values()),
        largest_text_layer=max(layers.values()),
        text_embedding=text.get("model.embed_tokens.weight", 0),
        autoencoder=sum(_parameters(read_headers(folder / "vae")).values()),
    )


def _parameters(tensors: Mapping[str, TensorInfo]) -> dict[str, int]:
    return {name: math.prod(tensor.shape) for name, tensor in tensors.items()}


def _by(form: re.Pattern[str], sizes: Mapping[str, int]) -> dict[str, int]:
    found: dict[str, int] = {}
    for name, size in sizes.items():
        match = form.match(name)
        if match is not None:
            found[match[1]] = found.get(match[1], 0) + size
    return found


def _num_text_layers(folder: Path) -> int:
    file = folder / "iris.json"
    if not file.is_file():
        return _KLEIN_LAYERS
    try:
        numbers = json.loads(file.read_text(encoding="utf-8"))
        return int(max(numbers["text_encoder_out_layers"]))
    except (ValueError, KeyError, TypeError):
        return _KLEIN_LAYERS
