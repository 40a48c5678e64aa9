"""Whether a style can be used: its LoRA fits the base model, module by module."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from iris.errors import StoreError
from iris.store.tensors import TensorInfo, is_finite, read_header

WEIGHTS_FILE = "pytorch_lora_weights.safetensors"  # as diffusers saves it

_ENDINGS = (".lora_A.weight", ".lora_B.weight", ".alpha")


def lora_file(folder: Path) -> Path:
    """The weights of a style's folder.

    Raises:
        StoreError: they are missing, or there are others beside them that nobody would load.
    """
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.safetensors"))
    if found != [WEIGHTS_FILE]:
        raise StoreError(
            f"{folder} holds {', '.join(found) or 'no safetensors file'}. A style has exactly one, "
            f"{WEIGHTS_FILE}."
        )
    return folder / WEIGHTS_FILE


def check_lora(path: Path, *, rank: int, base_weights: Mapping[str, TensorInfo]) -> int:
    """Check that every tensor of the file is part of an update of a weight of the base.

    base_weights: the tensors of the base's transformer. A module with a weight of (out, in) needs
    lora_A of (r, in) and lora_B of (out, r), and may have one number alpha; rank is the largest r.
    Returns how many modules the style changes.

    Raises:
        StoreError: a tensor is none of these, has no partner, no module in the base, another rank
            or another shape, is not finite; or there is no tensor at all.
    """
    tensors = read_header(path)
    downs, ups, alphas = (_by_module(tensors, ending) for ending in _ENDINGS)
    # lora_down and lora_up are among these: diffusers drops them silently under such names
    strange = tensors.keys() - {*downs.values(), *ups.values(), *alphas.values()}
    strange |= {alphas[module] for module in alphas.keys() - downs.keys()}
    if strange:
        raise StoreError(
            f"{path} holds tensors that would be ignored: {_some(strange)}. Only pairs of "
            "transformer.<module>.lora_A.weight and .lora_B.weight are loaded, and their alpha."
        )
    if not downs and not ups:
        raise StoreError(f"{path} changes no module of the base: it holds no LoRA tensor.")
    single = downs.keys() ^ ups.keys()
    if single:
        raise StoreError(f"{path} holds only one half of the pair for {_some(single)}.")
    unknown = {module for module in downs if f"{module}.weight" not in base_weights}
    if unknown:
        raise StoreError(
            f"{path} does not fit its base: {len(unknown)} of {len(downs)} modules are not in the "
            f"base's transformer: {_some(unknown)}. It was made for another model or saved with "
            "other names."
        )
    for module, down in downs.items():
        weight = base_weights[f"{module}.weight"]
        _check_shapes(path, module, tensors[down], tensors[ups[module]], weight)
    largest = max(tensors[down].shape[0] for down in downs.values())
    if largest != rank:
        raise StoreError(f"{path} has rank {largest}, the registry says {rank}.")
    for module, alpha in alphas.items():
        if math.prod(tensors[alpha].shape) != 1:
            raise StoreError(f"{path}: the alpha of {module} must be one number.")
    for name, tensor in tensors.items():
        if not is_finite(path, tensor):
            raise StoreError(f"{path}: {name} holds NaN or infinite numbers. Train it again.")
    return len(downs)


def _by_module(names: Iterable[str], ending: str) -> dict[str, str]:
    return {
        name.removesuffix(ending).removeprefix("transformer."): name
        for name in names
        if name.endswith(ending)
    }


def _check_shapes(
    path: Path, module: str, down: TensorInfo, up: TensorInfo, weight: TensorInfo
) -> None:
    if len(down.shape) != 2 or len(up.shape) != 2 or len(weight.shape) != 2:
        raise StoreError(f"{path}: {module} is not a linear layer; only those can have a style.")
    if down.shape[0] != up.shape[1]:
        raise StoreError(
            f"{path}: {module} has rank {down.shape[0]} (A) and {up.shape[1]} (B); they must agree."
        )
    if (up.shape[0], down.shape[1]) != weight.shape:
        raise StoreError(
            f"{path}: {module} changes a weight of {up.shape[0]}x{down.shape[1]}, the base has "
            f"{weight.shape[0]}x{weight.shape[1]} there."
        )


def _some(names: Iterable[str]) -> str:
    ordered = sorted(names)
    rest = len(ordered) - 3
    return ", ".join(ordered[:3]) + (f" and {rest} more" if rest > 0 else "")
