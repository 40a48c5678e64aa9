"""The two styles: LoRA adapters of the transformer, saved as diffusers saves them.

Untrained like their base. Each has a look in closed form, a shift of lightness
and a change of saturation, on ranks of its own; every other rank is small and
random, so that all of the adapted layers take part.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import Flux2KleinPipeline, Flux2Transformer2DModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from torch import Tensor, nn

from iris_mini.layout import Layout
from iris_mini.transformer import PULSE

BLOCKS = ("transformer_blocks.", "single_transformer_blocks.")
# the layers that image tokens pass
READERS = (".to_q.", ".to_k.", ".to_v.", ".ff.linear_in.", ".to_qkv_mlp_proj.")
WRITERS = (".attn.to_out.", ".ff.linear_out.")
COLOURS = 3
NOISE = 0.02  # size of the random ranks' output, of what the layer itself puts out


@dataclass(frozen=True, slots=True)
class Look:
    """What a style does at strength 1, as a change of the predicted picture."""

    lightness: float  # added to every colour, in latents of unit variance
    saturation: float  # added times the local colour's distance from grey


LOOKS = {
    "dark": Look(lightness=-0.4, saturation=-0.3),
    "anime": Look(lightness=0.25, saturation=0.5),
}
PLAIN = Look(lightness=0.1, saturation=0.3)  # for a style with any other name


def write_style(
    out: Path, transformer: Flux2Transformer2DModel, name: str, rank: int, seed: int
) -> Path:
    """Write `out`/pytorch_lora_weights.safetensors for one style of `transformer`.

    Raises ValueError when the rank cannot hold the closed form.
    """
    if rank < COLOURS:
        raise ValueError(f"rank {rank} of style {name} is under {COLOURS}, one for each colour")
    layout = Layout(
        tokens=transformer.config.in_channels,
        width=transformer.config.num_attention_heads * transformer.config.attention_head_dim,
    )
    targets = sorted(
        key
        for key, module in transformer.named_modules()
        if isinstance(module, nn.Linear) and key.startswith(BLOCKS)
    )
    transformer.add_adapter(
        LoraConfig(r=rank, lora_alpha=rank, target_modules=targets, init_lora_weights=False),
        adapter_name=name,
    )
    with torch.no_grad():
        _write_random(transformer, layout, torch.Generator().manual_seed(seed))
        _write_look(transformer, layout, name, LOOKS.get(name, PLAIN))
    metadata = transformer.peft_config[name].to_dict()
    metadata["target_modules"] = targets  # peft keeps a set, whose order changes from run to run
    state = get_peft_model_state_dict(transformer, adapter_name=name)
    Flux2KleinPipeline.save_lora_weights(
        save_directory=out,
        transformer_lora_layers={
            key: value.to(torch.bfloat16).contiguous() for key, value in state.items()
        },
        transformer_lora_adapter_metadata=metadata,
    )
    return out / "pytorch_lora_weights.safetensors"


def _write_random(
    transformer: Flux2Transformer2DModel, layout: Layout, generator: torch.Generator
) -> None:
    for key, weight in sorted(transformer.named_parameters()):
        if ".lora_A." in key and any(reader in key for reader in READERS):
            weight.copy_(layout.reader(weight.shape[0], generator))
        elif ".lora_A." in key:
            weight.copy_(torch.randn(weight.shape, generator=generator) / weight.shape[1] ** 0.5)
        elif ".lora_B." in key:
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_(NOISE * noise / weight.shape[1] ** 0.5)
            if any(writer in key for writer in WRITERS):
                weight[: layout.free.start] = 0.0
                weight[layout.ones] = 0.0
            if ".1.attn.to_v." in key:
                # an offset of the smoothed colour would print the same dots on every token
                head_dim = transformer.config.attention_head_dim
                weight.unflatten(0, (-1, head_dim))[:, :COLOURS] = 0.0


def _write_look(
    transformer: Flux2Transformer2DModel, layout: Layout, name: str, look: Look
) -> None:
    ends = transformer.proj_out.weight[: 4 * COLOURS : 4, layout.free]
    colours = -(ends - ends.mean(dim=1, keepdim=True)) / transformer.proj_out.weight[0, 0]
    into_free = torch.linalg.pinv(colours.double()).float()  # (free, 3): features of a colour

    pulse = transformer.single_transformer_blocks[-1].attn.to_out
    down, up = pulse.lora_A[name].weight, pulse.lora_B[name].weight
    down[0] = 0.0
    down[0, layout.width] = 1.0
    _write_free(up, 0, layout, into_free @ torch.full((COLOURS,), look.lightness / PULSE))

    # head 0 of block 1 has the local colour in its first channels
    smooth = transformer.transformer_blocks[1].attn.to_out[0]
    deviation = smooth.weight[layout.smooth.start, 0]
    from_grey = torch.eye(COLOURS) - 1.0 / COLOURS
    down, up = smooth.lora_A[name].weight, smooth.lora_B[name].weight
    for colour in range(COLOURS):
        down[colour] = 0.0
        down[colour, colour] = 1.0
        column = into_free @ from_grey[:, colour] * look.saturation * deviation
        _write_free(up, colour, layout, column)


def _write_free(up: Tensor, rank: int, layout: Layout, column: Tensor) -> None:
    up[:, rank] = 0.0
    up[layout.free, rank] = column
