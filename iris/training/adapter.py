"""The LoRA that is trained: peft's layers in the transformer's blocks, and its file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import Flux2KleinPipeline, Flux2Transformer2DModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from iris.errors import StoreError

FILE = "pytorch_lora_weights.safetensors"
_BLOCKS = ("transformer_blocks.", "single_transformer_blocks.")


def adapt(model: Flux2Transformer2DModel, name: str, rank: int) -> list[str]:
    """Freeze the model and add an adapter to every linear layer of its blocks; returns their names.

    The adapter adds nothing until it is trained.
    """
    targets = sorted(
        key
        for key, module in model.named_modules()
        if isinstance(module, nn.Linear) and key.startswith(_BLOCKS)
    )
    model.requires_grad_(False)
    model.add_adapter(
        LoraConfig(r=rank, lora_alpha=rank, target_modules=targets), adapter_name=name
    )
    return targets


def state_of(model: Flux2Transformer2DModel, name: str) -> dict[str, Tensor]:
    """The adapter's tensors, as `take` takes them."""
    state: dict[str, Tensor] = get_peft_model_state_dict(model, adapter_name=name)
    return state


def take(model: Flux2Transformer2DModel, name: str, state: dict[str, Tensor]) -> None:
    """Go on from these tensors.

    Raises:
        StoreError: they have layers that the model lacks.
    """
    found: Any = set_peft_model_state_dict(model, state, adapter_name=name)
    if found.unexpected_keys:
        raise StoreError(f"The adapter has layers that the model lacks: {found.unexpected_keys[0]}")


def read(model: Flux2Transformer2DModel, name: str, file: Path) -> None:
    """Take over an adapter that `write` saved. Raises StoreError as `take`."""
    state = {key.removeprefix("transformer."): value for key, value in load_file(file).items()}
    take(model, name, state)


def write(model: Flux2Transformer2DModel, name: str, targets: list[str], out: Path) -> Path:
    """Save the adapter as diffusers does, in bfloat16; returns the file. Raises StoreError."""
    metadata = model.peft_config[name].to_dict()
    metadata["target_modules"] = targets  # peft keeps a set, whose order changes from run to run
    layers = {
        key: value.to(torch.bfloat16).contiguous() for key, value in state_of(model, name).items()
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        Flux2KleinPipeline.save_lora_weights(
            save_directory=out,
            transformer_lora_layers=layers,
            transformer_lora_adapter_metadata=metadata,
        )
    except (OSError, SafetensorError) as error:
        raise StoreError(f"{out / FILE} cannot be written ({error}). Make room there.") from error
    return out / FILE
