"""Styles as gated LoRA: every adapter stays beside the weights, a gate per token opens it.

    y = base(x) + ((x @ A) * gate) @ B

A and B are all adapters' matrices side by side; `gate` holds, for every rank column, the strength
of the style it belongs to. Nothing is fused into the weights or taken out again, which would wear
bfloat16 weights down, and rows of unlike styles can share one forward pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from diffusers import Flux2KleinPipeline
from safetensors import SafetensorError
from torch import Tensor, nn

from iris.engine.transfer import upload
from iris.errors import StoreError

_WEIGHTS = "pytorch_lora_weights.safetensors"


class Styles:
    """The styles that lie beside the weights, in the order of their gates."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names

    def strengths(
        self, wanted: Sequence[tuple[str | None, float]], device: torch.device
    ) -> Tensor | None:
        """How far each style is open for each row: (rows, styles); None where no row has one.

        wanted: each row's style, or None, and its strength.
        """
        if all(name is None or strength == 0.0 for name, strength in wanted):
            return None
        opened = torch.zeros(len(wanted), len(self.names))
        for row, (name, strength) in enumerate(wanted):
            if name is not None:
                opened[row, self.names.index(name)] = strength
        return upload(opened, device)


class GatedLinear(nn.Module):
    """A linear layer with every style's low-rank matrices beside it."""

    def __init__(self, base: nn.Linear, adapters: Mapping[int, Adapter]) -> None:
        """adapters: index of the style -> its matrices for this layer; the others have none."""
        super().__init__()
        self.base = base
        weight = base.weight
        down = torch.cat([adapter.down for adapter in adapters.values()]).to(weight)
        up = torch.cat([adapter.up for adapter in adapters.values()], dim=1).to(weight)
        columns = [i for i, adapter in adapters.items() for _ in range(len(adapter.down))]
        scales = [a.scale for a in adapters.values() for _ in range(len(a.down))]
        self.register_buffer("down", down, persistent=False)  # (total rank, in)
        self.register_buffer("up", up, persistent=False)  # (out, total rank)
        self.register_buffer("style_of_rank", torch.tensor(columns, device=weight.device), False)
        self.register_buffer("scale_of_rank", torch.tensor(scales, device=weight.device), False)

    down: Tensor
    up: Tensor
    style_of_rank: Tensor
    scale_of_rank: Tensor

    def forward(self, x: Tensor, strengths: Tensor | None = None) -> Tensor:
        """x: (tokens, in); strengths: (tokens or 1, styles), None = all closed."""
        y: Tensor = self.base(x)
        if strengths is None:
            return y
        gate = (strengths[:, self.style_of_rank] * self.scale_of_rank).to(x.dtype)
        return y.addmm_((x @ self.down.T) * gate, self.up.T)  # y is ours alone: no copy is made


@dataclass(frozen=True, slots=True)
class Adapter:
    """One style for one layer. down: (rank, in), up: (out, rank), scale: alpha / rank."""

    down: Tensor
    up: Tensor
    scale: float


def read_adapters(folder: Path) -> dict[str, Adapter]:
    """Read a style: module path in the transformer -> its matrices.

    Goes through diffusers' own reader, which knows the key formats in use; whatever it does not
    turn into complete pairs is an error here, never silently dropped.

    Raises:
        StoreError: no such file, not safetensors, no pair found, or a key that fits nothing.
    """
    try:
        state, metadata = Flux2KleinPipeline.lora_state_dict(
            folder,
            weight_name=_WEIGHTS,
            use_safetensors=True,
            local_files_only=True,
            return_lora_metadata=True,
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise StoreError(f"The style in {folder} cannot be read: {error}") from error
    prefix = "transformer."
    downs: dict[str, Tensor] = {}
    ups: dict[str, Tensor] = {}
    alphas: dict[str, float] = {}
    for key, tensor in state.items():
        path = key.removeprefix(prefix)
        for ending, found in ((".lora_A.weight", downs), (".lora_B.weight", ups)):
            if path.endswith(ending):
                found[path.removesuffix(ending)] = tensor
                break
        else:
            if not path.endswith(".alpha"):
                raise StoreError(f"The style in {folder} has a tensor {key!r} that is no LoRA.")
            alphas[path.removesuffix(".alpha")] = float(tensor)
    if not downs or downs.keys() != ups.keys():
        raise StoreError(
            f"The style in {folder} has {len(downs)} down and {len(ups)} up matrices; it needs "
            "at least one pair and every pair complete."
        )
    settings = {k.removeprefix(prefix): v for k, v in (metadata or {}).items()}
    adapters = {}
    for path, down in downs.items():
        rank = down.shape[0]
        alpha = alphas.get(path, settings.get("alpha_pattern", {}).get(path))
        if alpha is None:
            alpha = settings.get("lora_alpha", rank)
        adapters[path] = Adapter(down, ups[path], float(alpha) / rank)
    return adapters


def install_styles(transformer: nn.Module, folders: Mapping[str, Path]) -> Styles:
    """Put every style beside the transformer's weights.

    folders: style name -> folder of its weights.

    Raises:
        StoreError: a style names a layer the transformer lacks, or has another shape.
    """
    by_module: dict[str, dict[int, Adapter]] = {}
    for index, (name, folder) in enumerate(folders.items()):
        for path, adapter in read_adapters(folder).items():
            _check_fits(transformer, name, path, adapter)
            by_module.setdefault(path, {})[index] = adapter
    for path, adapters in by_module.items():
        parent, _, leaf = path.rpartition(".")
        base = cast(nn.Linear, transformer.get_submodule(path))
        setattr(transformer.get_submodule(parent), leaf, GatedLinear(base, adapters))
    return Styles(tuple(folders))


def _check_fits(transformer: nn.Module, name: str, path: str, adapter: Adapter) -> None:
    try:
        layer = transformer.get_submodule(path)
    except AttributeError:
        layer = None
    if not isinstance(layer, nn.Linear):
        raise StoreError(f"Style {name!r} changes {path!r}, which this base model does not have.")
    found = (adapter.up.shape[0], adapter.down.shape[1])
    if found != (layer.out_features, layer.in_features):
        raise StoreError(
            f"Style {name!r} was made for another base: {path!r} is "
            f"{layer.out_features}x{layer.in_features} here and {found[0]}x{found[1]} in the style."
        )
