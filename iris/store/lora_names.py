"""The names that trainers give to the layers of FLUX.2, and which layers of the base they mean.

Four spellings: the modules of diffusers (transformer_blocks.0.attn.to_q), those of the published
checkpoint, which ComfyUI uses too (double_blocks.0.img_attn.qkv), and either with underscores for
dots, as kohya's scripts write them (lora_unet_double_blocks_0_img_attn_qkv). Each may stand behind
one or several prefixes. The published checkpoint has one matrix where diffusers has three.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_DOTTED_PREFIXES = (
    "base_model.model.",
    "model.diffusion_model.",
    "diffusion_model.",
    "transformer.",
    "unet.",
    "model.",
)
_FLAT_PREFIXES = (
    "lora_unet_",
    "lora_transformer_",
    "lycoris_unet_",
    "lycoris_transformer_",
    "lycoris_",
    "lora_",
)
_DOUBLE = {
    "attn.to_out.0": "img_attn.proj",
    "attn.to_add_out": "txt_attn.proj",
    "ff.linear_in": "img_mlp.0",
    "ff.linear_out": "img_mlp.2",
    "ff_context.linear_in": "txt_mlp.0",
    "ff_context.linear_out": "txt_mlp.2",
}
_FUSED = {  # one matrix in the published checkpoint
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
}
_FUSED_BY_DIFFUSERS = {"attn.to_qkv": "img_attn.qkv", "attn.to_added_qkv": "txt_attn.qkv"}
_SINGLE = {"attn.to_qkv_mlp_proj": "linear1", "attn.to_out": "linear2"}
_OUTSIDE = {
    "x_embedder": "img_in",
    "context_embedder": "txt_in",
    "time_guidance_embed.timestep_embedder.linear_1": "time_in.in_layer",
    "time_guidance_embed.timestep_embedder.linear_2": "time_in.out_layer",
    "proj_out": "final_layer.linear",
    "single_stream_modulation.linear": "single_stream_modulation.lin",
    "double_stream_modulation_img.linear": "double_stream_modulation_img.lin",
    "double_stream_modulation_txt.linear": "double_stream_modulation_txt.lin",
}
# Here the published checkpoint answers shift and scale, diffusers scale and shift.
_SWAPPED = {"norm_out.linear": "final_layer.adaLN_modulation.1"}

_DIFFUSERS_BLOCK = re.compile(r"((?:single_)?transformer_blocks)\.(\d+)\.(.+)")
_SHOWN_CHARACTERS = 100


def shown(name: str) -> str:
    """A stranger's name as a message may have it: cut, and nothing that a terminal would obey."""
    plain = ascii(name)[1:-1]
    return plain if len(plain) <= _SHOWN_CHARACTERS else f"{plain[:_SHOWN_CHARACTERS]}..."


@dataclass(frozen=True, slots=True)
class Target:
    """A module of the base that a named layer means, and which rows of the layer are its own."""

    module: str
    part: int = 0
    num_parts: int = 1
    is_swapped: bool = False  # the halves of its rows stand in the other order


class LayerNames:
    """Every spelling of the layers of one base."""

    def __init__(self, modules: Iterable[str]) -> None:
        """modules: the linear layers of the base's transformer, as diffusers names them."""
        self._dotted: dict[str, tuple[Target, ...]] = {}
        for module in modules:
            self._dotted[module] = (Target(module),)
            published = _published(module)
            if published is not None:
                is_swapped = module in _SWAPPED
                self._dotted[published] = (Target(module, is_swapped=is_swapped),)
        for module in list(self._dotted):
            self._add_fused(module)
        self._flat = {name.replace(".", "_"): found for name, found in self._dotted.items()}

    def find(self, spelled: str) -> tuple[Target, ...] | None:
        """The modules that the name means; None where the base has nothing of that name."""
        name = spelled
        while prefix := next((p for p in _DOTTED_PREFIXES if name.startswith(p)), None):
            name = name.removeprefix(prefix)
        if name.startswith("sformer_blocks."):  # `transformer.` cut off once too often
            name = "tran" + name
        if name in self._dotted:
            return self._dotted[name]
        for prefix in _FLAT_PREFIXES:  # lora_transformer_blocks_0 stands behind lora_ alone
            flat = name.removeprefix(prefix)
            if flat != name and flat in self._flat:
                return self._flat[flat]
        return None

    def _add_fused(self, module: str) -> None:
        block = _DIFFUSERS_BLOCK.fullmatch(module)
        if block is None or block[1] != "transformer_blocks":
            return
        for published, parts in _FUSED.items():
            if block[3] != parts[0]:
                continue
            modules = [f"transformer_blocks.{block[2]}.{part}" for part in parts]
            targets = tuple(Target(m, part, len(parts)) for part, m in enumerate(modules))
            self._dotted[f"double_blocks.{block[2]}.{published}"] = targets
            for fused, same in _FUSED_BY_DIFFUSERS.items():
                if same == published:
                    self._dotted[f"transformer_blocks.{block[2]}.{fused}"] = targets


def _published(module: str) -> str | None:
    """The name in the published checkpoint of a module that is a matrix of its own there."""
    block = _DIFFUSERS_BLOCK.fullmatch(module)
    if block is None:
        return _OUTSIDE.get(module) or _SWAPPED.get(module)
    if block[1] == "transformer_blocks":
        inner, outer = _DOUBLE.get(block[3]), "double_blocks"
    else:
        inner, outer = _SINGLE.get(block[3]), "single_blocks"
    return None if inner is None else f"{outer}.{block[2]}.{inner}"
