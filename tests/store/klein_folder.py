"""A folder laid out as the published FLUX.2-klein-4B is: names, configs, shards, dtype; small.

Beside the pipeline it has what the repository has and nobody loads: a single file in the root,
pictures, a pickle.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import TensorSpec, serialize_file

WIDTH, TEXT, TEXT_LAYERS = 16, 8, 30
PIPELINE = "Flux2KleinPipeline"

INDEX = {
    "_class_name": PIPELINE,
    "_diffusers_version": "0.37.0.dev0",
    "is_distilled": True,
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "Qwen3ForCausalLM"],
    "tokenizer": ["transformers", "Qwen2TokenizerFast"],
    "transformer": ["diffusers", "Flux2Transformer2DModel"],
    "vae": ["diffusers", "AutoencoderKLFlux2"],
}


def write_klein(folder: Path) -> Path:
    """Write it; returns the folder."""
    folder.mkdir(parents=True)
    (folder / "model_index.json").write_text(json.dumps(INDEX))
    for part, name in (
        ("scheduler", "scheduler_config.json"),
        ("text_encoder", "config.json"),
        ("text_encoder", "generation_config.json"),
        ("tokenizer", "tokenizer.json"),
        ("tokenizer", "tokenizer_config.json"),
        ("tokenizer", "added_tokens.json"),
        ("tokenizer", "special_tokens_map.json"),
        ("tokenizer", "vocab.json"),
        ("tokenizer", "merges.txt"),
        ("tokenizer", "chat_template.jinja"),
        ("transformer", "config.json"),
        ("vae", "config.json"),
    ):
        (folder / part).mkdir(exist_ok=True)
        (folder / part / name).write_text(f'{{"of": "{part}"}}')
    _save(folder / "transformer" / "diffusion_pytorch_model.safetensors", transformer())
    _save(
        folder / "vae" / "diffusion_pytorch_model.safetensors", {"decoder.conv_in.weight": (4, 4)}
    )
    text = text_encoder()
    names = sorted(text)
    shards = {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):  # two shards
        file = folder / "text_encoder" / f"model-0000{number}-of-00002.safetensors"
        _save(file, {name: text[name] for name in part})
        shards |= dict.fromkeys(part, file.name)
    index = {"metadata": {}, "weight_map": shards}
    (folder / "text_encoder" / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "README.md").write_text("a card")
    (folder / "LICENSE.md").write_text("Apache License, Version 2.0")
    # what is left where it is
    (folder / "flux-2-klein-4b.safetensors").write_bytes(bytes(5_000))
    (folder / "teaser.png").write_bytes(b"\x89PNG")
    (folder / ".gitattributes").write_text("*.safetensors filter=lfs")
    (folder / "transformer" / "diffusion_pytorch_model.bin").write_bytes(b"\x80\x02pickle")
    (folder / "transformer" / "modeling.py").write_text("raise SystemExit('code of a repository')")
    return folder


def transformer() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "x_embedder.weight": (WIDTH, 8),
        "context_embedder.weight": (WIDTH, 3 * TEXT),
        "proj_out.weight": (8, WIDTH),
    }
    for block in range(5):
        shapes[f"transformer_blocks.{block}.attn.to_q.weight"] = (WIDTH, WIDTH)
        shapes[f"transformer_blocks.{block}.attn.norm_q.weight"] = (4,)
        shapes[f"transformer_blocks.{block}.ff.linear_in.weight"] = (6 * WIDTH, WIDTH)
    for block in range(20):
        shapes[f"single_transformer_blocks.{block}.attn.to_out.weight"] = (WIDTH, 4 * WIDTH)
    return shapes


def text_encoder() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (50, TEXT),
        "model.norm.weight": (TEXT,),
    }
    for layer in range(TEXT_LAYERS):
        shapes[f"model.layers.{layer}.mlp.up_proj.weight"] = (3 * TEXT, TEXT)
    return shapes


def _save(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """In bfloat16, as published."""
    random = np.random.default_rng(3)
    held = {
        name: random.integers(0x3C00, 0x3F00, shape).astype(np.uint16)
        for name, shape in shapes.items()
    }
    serialize_file(
        {
            name: TensorSpec(
                dtype="bfloat16",
                shape=shapes[name],
                data_ptr=values.ctypes.data,
                data_len=values.nbytes,
            )
            for name, values in held.items()
        },
        path,
        {"format": "pt"},
    )
