"""A FLUX.2-klein model folder, loaded: the components and the numbers the model carries.

A model says of itself how many pixels one token covers, which hidden states of the text encoder
condition the transformer and how long a prompt may be. Nothing in the engine knows which model
it runs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
)
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from iris.errors import StoreError

# What the published klein checkpoints use; they carry no file that says so.
# Source: Flux2KleinPipeline.__call__, text_encoder_out_layers and max_sequence_length.
_KLEIN_TEXT_LAYERS = (9, 18, 27)
_KLEIN_TEXT_TOKENS = 512


@dataclass(frozen=True, slots=True)
class Components:
    """The parts of one loaded model, all in eval mode on one device."""

    transformer: Flux2Transformer2DModel
    vae: AutoencoderKLFlux2
    text_encoder: Any  # transformers' Qwen3Model, without the layers that nothing is taken from
    tokenizer: Any  # transformers' Qwen2Tokenizer
    scheduler_config: dict[str, Any]
    pixels_per_token: int  # side of the square of pixels one image token stands for
    text_layers: tuple[int, ...]  # hidden states that are concatenated
    text_tokens: int  # every prompt is padded or cut to this length
    device: torch.device
    dtype: torch.dtype  # of everything but the VAE, whose own is `vae.dtype`


@dataclass(frozen=True, slots=True)
class Precision:
    """What the components compute in."""

    model: torch.dtype  # transformer, text encoder, latents
    vae: torch.dtype


def quieten() -> None:
    """No progress bars: in a log they are noise."""
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()


def use_threads(count: int) -> None:
    """Let torch use `count` CPU threads; its own default oversubscribes busy cores."""
    torch.set_num_threads(count)


def choose_device(device: str, number: int = 0) -> torch.device:
    """`auto` means CUDA where there is one; engines take the GPUs in turn."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        return torch.device("cuda", number % max(1, torch.cuda.device_count()))
    return torch.device(device)


def choose_precision(dtype: str, device: torch.device) -> Precision:
    """`auto` means bfloat16 on CUDA; on a CPU float32, and bfloat16 for the VAE where that is fast.

    On a CPU that multiplies bfloat16 itself, decoding takes half the time and pictures stay within
    40 dB of the exact ones. Steps gain nothing, and would be steady at fewer sizes (`floor.py`).
    """
    if dtype != "auto":
        one = {"float32": torch.float32, "bfloat16": torch.bfloat16}[dtype]
        return Precision(one, one)
    if device.type == "cuda":
        return Precision(torch.bfloat16, torch.bfloat16)
    abilities = torch.cpu.get_capabilities()
    is_fast = abilities.get("avx512_bf16", False) or abilities.get("amx_bf16", False)
    return Precision(torch.float32, torch.bfloat16 if is_fast else torch.float32)


def load_components(folder: Path, device: torch.device, precision: Precision) -> Components:
    """Load a complete Flux2KleinPipeline folder; safetensors only, nothing is downloaded.

    Raises:
        StoreError: the folder lacks a part, or the model asks for something the engine lacks.
    """
    try:
        pipeline = Flux2KleinPipeline.from_pretrained(
            folder, dtype=precision.model, use_safetensors=True, local_files_only=True
        )
    except (OSError, ValueError, KeyError) as error:
        raise StoreError(
            f"The base model in {folder} is no complete Flux2KleinPipeline folder: {error}"
        ) from error
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to(device)
    numbers = _model_numbers(folder)
    components = Components(
        transformer=pipeline.transformer.eval(),
        # convolutions are fastest with channels last, on a CPU and on CUDA
        vae=_in_precision(pipeline.vae.eval(), precision.vae).to(memory_format=torch.channels_last),
        text_encoder=pipeline.text_encoder.model.eval(),
        tokenizer=pipeline.tokenizer,
        scheduler_config=dict(pipeline.scheduler.config),
        # One token is a 2x2 patch of VAE latents. Source: Flux2KleinPipeline.__init__.
        pixels_per_token=2 * pipeline.vae_scale_factor,
        text_layers=tuple(numbers.get("text_encoder_out_layers", _KLEIN_TEXT_LAYERS)),
        text_tokens=int(numbers.get("max_sequence_length", _KLEIN_TEXT_TOKENS)),
        device=device,
        dtype=precision.model,
    )
    _check(components, folder)
    _cut(components.text_encoder, max(components.text_layers))
    for module in (components.transformer, components.vae, components.text_encoder):
        module.requires_grad_(False)
    return components


def _in_precision(vae: AutoencoderKLFlux2, dtype: torch.dtype) -> AutoencoderKLFlux2:
    """Its layers in dtype; the statistics of the latents stay as they were stored."""
    for name, part in vae.named_children():
        if name != "bn":
            part.to(dtype)
    return vae


def _cut(text_encoder: Any, layers: int) -> None:
    """Drop what lies behind the last hidden state that is taken.

    The last of all hidden states is normalised and the others are not, so where layers are dropped
    the norm goes too.
    """
    if layers < len(text_encoder.layers):
        text_encoder.layers = text_encoder.layers[:layers]
        text_encoder.norm = torch.nn.Identity()


def _model_numbers(folder: Path) -> dict[str, Any]:
    file = folder / "iris.json"
    if not file.exists():
        return {}
    numbers = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(numbers, dict):
        raise StoreError(f"{file} must hold a JSON object.")
    return numbers


def _check(components: Components, folder: Path) -> None:
    config = components.scheduler_config
    for key in ("shift_terminal", "use_karras_sigmas", "use_exponential_sigmas"):
        if config.get(key):
            raise StoreError(f"{folder}: scheduler option {key} is not supported by the engine.")
    for key in ("use_beta_sigmas", "invert_sigmas", "stochastic_sampling", "use_flow_sigmas"):
        if config.get(key):
            raise StoreError(f"{folder}: scheduler option {key} is not supported by the engine.")
    layers = components.text_encoder.config.num_hidden_layers
    if not components.text_layers or max(components.text_layers) > layers:
        raise StoreError(
            f"{folder}: text_encoder_out_layers {components.text_layers} do not exist in a text "
            f"encoder of {layers} layers."
        )
    width = len(components.text_layers) * components.text_encoder.config.hidden_size
    if width != components.transformer.config.joint_attention_dim:
        raise StoreError(
            f"{folder}: the transformer takes text of width "
            f"{components.transformer.config.joint_attention_dim}, the text encoder gives {width}."
        )
    channels = 4 * components.vae.config.latent_channels
    if channels != components.transformer.config.in_channels:
        raise StoreError(
            f"{folder}: the transformer takes {components.transformer.config.in_channels} channels "
            f"a token, the autoencoder gives {channels}."
        )


def new_scheduler(components: Components) -> FlowMatchEulerDiscreteScheduler:
    """A fresh noise schedule: the library's keeps state, so it is never shared between pictures."""
    return FlowMatchEulerDiscreteScheduler.from_config(components.scheduler_config)
