"""What is learnt from one picture: its latents, its prompt and where its tokens stand; the loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import Flux2Transformer2DModel
from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu
from torch import Tensor
from torch.nn import functional

from iris.engine.canvas import Canvas
from iris.engine.conditioning import PromptEncoder
from iris.engine.encoder import ImageEncoder
from iris.engine.latents import Grid, image_positions, text_positions
from iris.engine.loader import Components
from iris.engine.pointwise import Pointwise
from iris.training.pictures import Example, read_pixels

_STEPS = 20  # of the schedule whose shift the noise levels have


@dataclass(frozen=True, slots=True)
class Lesson:
    """A picture as the transformer sees it. On the host."""

    latents: Tensor  # (1, tokens, C) float32
    prompt: Tensor  # (1, text tokens, width)
    grid: Grid


@torch.inference_mode()
def prepare(
    examples: Sequence[Example], components: Components, side_px: int
) -> tuple[list[Lesson], dict[str, Tensor]]:
    """Encode every picture and caption once; also the prompts by their text.

    Raises:
        StoreError: a picture cannot be read.
    """
    read_prompt = PromptEncoder(components)
    images = ImageEncoder(components, Pointwise(compiled=False))
    prompts = {
        caption: read_prompt.encode([caption]).cpu().clone()
        for caption in sorted({example.caption for example in examples})
    }
    lessons = []
    for example in examples:
        pixels = read_pixels(example.file, side_px, components.pixels_per_token)
        size = pixels.width_px, pixels.height_px
        canvas = Canvas.of(*size, components.pixels_per_token, components.sides)
        latents = images.encode(pixels, canvas).float().cpu().clone()
        lessons.append(Lesson(latents, prompts[example.caption], canvas.grid))
    return lessons, prompts


def loss_of(
    model: Flux2Transformer2DModel,
    lesson: Lesson,
    scheduler_config: Any,
    generator: torch.Generator,
    device: torch.device,
) -> Tensor:
    """How far the velocity is from the one that leads from this noise to the picture.

    The noise level is drawn as rectified flow is trained: logit-normal, shifted as the schedule
    shifts it for a picture of this size.
    """
    weight = model.x_embedder.weight
    level = torch.sigmoid(torch.randn((), generator=generator)).item()
    sigma = _shifted(level, scheduler_config, lesson.grid.tokens)
    noise = torch.randn(lesson.latents.shape, generator=generator)
    noisy = (1.0 - sigma) * lesson.latents + sigma * noise
    predicted = model(
        hidden_states=noisy.to(device, weight.dtype),
        timestep=torch.tensor([sigma], device=device, dtype=weight.dtype),
        guidance=None,
        encoder_hidden_states=lesson.prompt.to(device, weight.dtype),
        txt_ids=text_positions(lesson.prompt.shape[1])[None].to(device),
        img_ids=image_positions(lesson.grid)[None].to(device),
        return_dict=False,
    )[0]
    return functional.mse_loss(predicted.float(), (noise - lesson.latents).to(device))


def _shifted(level: float, config: Any, tokens: int) -> float:
    if not config["use_dynamic_shifting"]:
        shift = float(config["shift"])
    else:
        mu = float(compute_empirical_mu(image_seq_len=tokens, num_steps=_STEPS))
        shift = math.exp(mu) if config["time_shift_type"] == "exponential" else mu
    return shift * level / (1.0 + (shift - 1.0) * level)
