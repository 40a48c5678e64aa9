"""FLUX.2-klein-4B's architecture with random weights, whole or narrow, and random styles for it.

Source of the configuration: the published config of FLUX.2-klein-4B.
"""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
)
from safetensors.torch import save_file
from server import CHECKOUT
from torch import nn
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from iris.engine.loader import Components, cut
from iris.engine.lora import Styles, install_styles

TEXT_TOKENS, TEXT_LAYERS = 512, (9, 18, 27)
RANK = 16


def klein(shrink: int, device: torch.device, dtype: torch.dtype) -> Flux2KleinPipeline:
    """klein-4B's architecture; every width but the heads' divided by `shrink`."""
    hidden = 2560 // shrink
    with torch.device(device):
        torch.set_default_dtype(dtype)
        transformer = Flux2Transformer2DModel(
            in_channels=128,
            num_layers=5,
            num_single_layers=20,
            attention_head_dim=128,
            num_attention_heads=24 // shrink,
            joint_attention_dim=3 * hidden,
            mlp_ratio=3.0,
            axes_dims_rope=(32, 32, 32, 32),
            rope_theta=2000,
            guidance_embeds=False,
        )
        vae = AutoencoderKLFlux2(
            block_out_channels=tuple(max(32, width // shrink) for width in (128, 256, 512, 512)),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
        )
        text = Qwen3ForCausalLM(
            Qwen3Config(
                vocab_size=151936 // shrink,
                hidden_size=hidden,
                intermediate_size=9728 // shrink,
                num_hidden_layers=36,
                num_attention_heads=32 // shrink,
                num_key_value_heads=max(1, 8 // shrink),
                head_dim=128,
                tie_word_embeddings=True,
            )
        )
        torch.set_default_dtype(torch.float32)
    pipeline = Flux2KleinPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15, shift=3.0
        ),
        vae=vae,
        text_encoder=text.eval(),
        tokenizer=AutoTokenizer.from_pretrained(CHECKOUT / "models/iris-mini/weights/tokenizer"),
        transformer=transformer.eval(),
        is_distilled=True,
    )
    pipeline.set_progress_bar_config(disable=True)
    for part in (transformer, vae, text):
        part.requires_grad_(False)
    return pipeline


def components_of(pipeline: Flux2KleinPipeline, device: torch.device) -> Components:
    """As the loader takes them; the pipeline stays what it is, and the weights are there once.

    Asked for before the pipeline is first called: that leaves hooks in its text encoder.
    """
    text_encoder = pipeline.text_encoder.model
    weights = {id(weight): weight for weight in text_encoder.parameters()}
    text_encoder = copy.deepcopy(text_encoder, weights)  # modules of its own, the same weights
    cut(text_encoder, max(TEXT_LAYERS))
    return Components(
        transformer=pipeline.transformer,
        vae=copy.deepcopy(pipeline.vae).to(memory_format=torch.channels_last),
        text_encoder=text_encoder,
        tokenizer=pipeline.tokenizer,
        scheduler_config=dict(pipeline.scheduler.config),
        pixels_per_token=2 * pipeline.vae_scale_factor,
        sides=None,
        composition_sides=None,
        reference_sides=None,
        text_layers=TEXT_LAYERS,
        text_tokens=TEXT_TOKENS,
        device=device,
        dtype=pipeline.transformer.dtype,
    )


def write_styles(transformer: nn.Module, names: Sequence[str], under: Path) -> dict[str, Path]:
    """Random adapters for every linear layer of the blocks, in folders that stay there."""
    blocks = ("transformer_blocks.", "single_transformer_blocks.")
    folders = {}
    for name in names:
        tensors = {}
        for path, layer in transformer.named_modules():
            if isinstance(layer, nn.Linear) and path.startswith(blocks):
                new = layer.weight.new_empty
                down = new(RANK, layer.in_features).normal_(std=0.01)
                up = new(layer.out_features, RANK).normal_(std=0.01)
                tensors[f"transformer.{path}.lora_A.weight"] = down.cpu()
                tensors[f"transformer.{path}.lora_B.weight"] = up.cpu()
        folders[name] = under / name
        folders[name].mkdir()
        save_file(tensors, folders[name] / "pytorch_lora_weights.safetensors")
    return folders


def add_styles(transformer: nn.Module, names: tuple[str, ...]) -> Styles:
    """Random styles on the device, as if they had been read from files."""
    under = Path(tempfile.mkdtemp())
    styles = install_styles(transformer, write_styles(transformer, names, under))
    for name in names:
        styles.wear(name, 1.0)  # kept on the device from here on
    shutil.rmtree(under)
    return styles
