"""LoRA files for a small FLUX.2, in every key format that trainers write. Numbers are the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

WIDTH, HIDDEN, RANK = 8, 20, 4  # of tokens, of a feed-forward layer
Tensors = dict[str, np.ndarray]

# module in diffusers -> (out, in)
BASE = {
    "x_embedder": (WIDTH, 16),
    "context_embedder": (WIDTH, 12),
    "time_guidance_embed.timestep_embedder.linear_1": (WIDTH, 6),
    "time_guidance_embed.timestep_embedder.linear_2": (WIDTH, WIDTH),
    "double_stream_modulation_img.linear": (6 * WIDTH, WIDTH),
    "double_stream_modulation_txt.linear": (6 * WIDTH, WIDTH),
    "single_stream_modulation.linear": (3 * WIDTH, WIDTH),
    "norm_out.linear": (2 * WIDTH, WIDTH),
    "proj_out": (16, WIDTH),
}
for _block in range(2):
    _at = f"transformer_blocks.{_block}"
    for _name in ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"):
        BASE[f"{_at}.attn.{_name}"] = (WIDTH, WIDTH)
    BASE[f"{_at}.attn.to_out.0"] = (WIDTH, WIDTH)
    for _name in ("ff", "ff_context"):
        BASE[f"{_at}.{_name}.linear_in"] = (2 * HIDDEN, WIDTH)
        BASE[f"{_at}.{_name}.linear_out"] = (WIDTH, HIDDEN)
    _at = f"single_transformer_blocks.{_block}.attn"
    BASE[f"{_at}.to_qkv_mlp_proj"] = (3 * WIDTH + 2 * HIDDEN, WIDTH)
    BASE[f"{_at}.to_out"] = (WIDTH, WIDTH + HIDDEN)

# module in the published checkpoint -> the modules of diffusers whose rows it has, in order
PUBLISHED = {
    "img_in": ["x_embedder"],
    "txt_in": ["context_embedder"],
    "time_in.in_layer": ["time_guidance_embed.timestep_embedder.linear_1"],
    "time_in.out_layer": ["time_guidance_embed.timestep_embedder.linear_2"],
    "double_stream_modulation_img.lin": ["double_stream_modulation_img.linear"],
    "double_stream_modulation_txt.lin": ["double_stream_modulation_txt.linear"],
    "single_stream_modulation.lin": ["single_stream_modulation.linear"],
    "final_layer.linear": ["proj_out"],
    "final_layer.adaLN_modulation.1": ["norm_out.linear"],
}
for _block in range(2):
    _to, _from = f"double_blocks.{_block}", f"transformer_blocks.{_block}"
    PUBLISHED |= {
        f"{_to}.img_attn.qkv": [f"{_from}.attn.{name}" for name in ("to_q", "to_k", "to_v")],
        f"{_to}.txt_attn.qkv": [
            f"{_from}.attn.{name}" for name in ("add_q_proj", "add_k_proj", "add_v_proj")
        ],
        f"{_to}.img_attn.proj": [f"{_from}.attn.to_out.0"],
        f"{_to}.txt_attn.proj": [f"{_from}.attn.to_add_out"],
        f"{_to}.img_mlp.0": [f"{_from}.ff.linear_in"],
        f"{_to}.img_mlp.2": [f"{_from}.ff.linear_out"],
        f"{_to}.txt_mlp.0": [f"{_from}.ff_context.linear_in"],
        f"{_to}.txt_mlp.2": [f"{_from}.ff_context.linear_out"],
        f"single_blocks.{_block}.linear1": [
            f"single_transformer_blocks.{_block}.attn.to_qkv_mlp_proj"
        ],
        f"single_blocks.{_block}.linear2": [f"single_transformer_blocks.{_block}.attn.to_out"],
    }


def pairs() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Module in the published checkpoint -> (down, up) of its LoRA; the same every time."""
    random = np.random.default_rng(7)
    made = {}
    for name, modules in PUBLISHED.items():
        rows, width = sum(BASE[module][0] for module in modules), BASE[modules[0]][1]
        down = random.normal(size=(RANK, width)).astype(np.float32)
        made[name] = down, random.normal(size=(rows, RANK)).astype(np.float32)
    return made


def expected() -> dict[str, np.ndarray]:
    """Module in diffusers -> what the LoRA adds to its weight at scale 1."""
    added = {}
    for name, (down, up) in pairs().items():
        parts = np.split(up @ down, len(PUBLISHED[name]))
        for module, part in zip(PUBLISHED[name], parts, strict=True):
            if module == "norm_out.linear":  # shift and scale there, scale and shift here
                part = np.concatenate(np.split(part, 2)[::-1])
            added[module] = part
    return added


def _diffusers() -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    for name, (down, up) in pairs().items():
        for module, part in zip(PUBLISHED[name], np.split(up, len(PUBLISHED[name])), strict=True):
            if module == "norm_out.linear":
                part = np.concatenate(np.split(part, 2)[::-1])
            yield module, down, part


def _published() -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    return ((name, down, up) for name, (down, up) in pairs().items())


def _spelled(
    layers: Iterator[tuple[str, np.ndarray, np.ndarray]], name: str, down: str, up: str
) -> Tensors:
    tensors: Tensors = {}
    for module, a, b in layers:
        spelled = name.format(dotted=module, flat=module.replace(".", "_"))
        tensors |= {spelled + down: a, spelled + up: b}
    return tensors


_AB = (".lora_A.weight", ".lora_B.weight")
_DOWN_UP = (".lora_down.weight", ".lora_up.weight")

FORMATS: dict[str, Callable[[], Tensors]] = {
    "diffusers": lambda: _spelled(_diffusers(), "transformer.{dotted}", *_AB),
    "diffusers, bare": lambda: _spelled(_diffusers(), "{dotted}", *_AB),
    "diffusers, down and up": lambda: _spelled(_diffusers(), "transformer.{dotted}", *_DOWN_UP),
    "diffusers, old": lambda: _spelled(
        _diffusers(), "transformer.{dotted}", ".lora.down.weight", ".lora.up.weight"
    ),
    "peft": lambda: _spelled(_diffusers(), "base_model.model.{dotted}", *_AB),
    "peft, adapter named": lambda: _spelled(
        _diffusers(),
        "base_model.model.{dotted}",
        ".lora_A.default.weight",
        ".lora_B.default.weight",
    ),
    "peft over the published": lambda: _spelled(_published(), "base_model.model.{dotted}", *_AB),
    "comfyui": lambda: _spelled(_published(), "diffusion_model.{dotted}", *_AB),
    "comfyui, down and up": lambda: _spelled(_published(), "diffusion_model.{dotted}", *_DOWN_UP),
    "comfyui, whole model": lambda: _spelled(_published(), "model.diffusion_model.{dotted}", *_AB),
    "comfyui, diffusers' names": lambda: _spelled(_diffusers(), "diffusion_model.{dotted}", *_AB),
    "published, bare": lambda: _spelled(_published(), "{dotted}", *_AB),
    "kohya": lambda: _spelled(_published(), "lora_unet_{flat}", *_DOWN_UP),
    "kohya, diffusers' names": lambda: _spelled(_diffusers(), "lora_transformer_{flat}", *_DOWN_UP),
    "kohya, one prefix less": lambda: _spelled(_diffusers(), "lora_{flat}", *_DOWN_UP),
    "kohya, lycoris over the transformer": lambda: _spelled(
        _diffusers(), "lycoris_transformer_{flat}", *_DOWN_UP
    ),
    "kohya, lycoris": lambda: _spelled(_diffusers(), "lycoris_{flat}", *_DOWN_UP),
}
