"""What the style paints so far: a row for each prompt, without it and at rising strengths."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, Flux2KleinPipeline
from PIL import Image
from torch import Tensor

from iris.errors import StoreError

STRENGTHS = (0.0, 0.6, 1.0)
_MOST_PROMPTS = 4


@torch.inference_mode()
def sample_grid(
    pipeline: Flux2KleinPipeline,
    name: str,
    prompts: Mapping[str, Tensor],
    *,
    side_px: int,
    num_inference_steps: int,
    seed: int,
) -> Image.Image:
    """Pictures by the stock pipeline over the transformer that is trained.

    prompts: text -> embedding; the first few are painted.
    """
    chosen = list(prompts.values())[:_MOST_PROMPTS]
    sheet = Image.new("RGB", (side_px * len(STRENGTHS), side_px * len(chosen)))
    transformer: Any = pipeline.transformer
    for column, strength in enumerate(STRENGTHS):
        transformer.set_adapters([name], [strength])
        for row, prompt in enumerate(chosen):
            picture = pipeline(
                prompt_embeds=prompt.to(transformer.device, transformer.dtype),
                height=side_px,
                width=side_px,
                num_inference_steps=num_inference_steps,
                guidance_scale=1.0,
                generator=torch.Generator("cpu").manual_seed(seed),
            ).images[0]
            sheet.paste(picture, (side_px * column, side_px * row))
    transformer.set_adapters([name], [1.0])
    return sheet


def sampler(components: Any) -> Flux2KleinPipeline:
    """A stock pipeline over the parts, without a text encoder."""
    pipeline = Flux2KleinPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler.from_config(components.scheduler_config),
        vae=components.vae,
        text_encoder=None,
        tokenizer=None,
        transformer=components.transformer,
        is_distilled=True,  # no second pass
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def save(sheet: Image.Image, path: Path) -> None:
    """Raises StoreError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(path)
    except OSError as error:
        raise StoreError(
            f"{path} cannot be written ({error.strerror}). Make room there, and start it again."
        ) from error
