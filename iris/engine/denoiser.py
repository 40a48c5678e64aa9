"""One picture's way from noise to pixels: prepare it, step it, decode it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from iris.engine.flow import euler_step, initial_noise, mix, sigma_schedule
from iris.engine.latents import (
    Grid,
    denormalise,
    image_positions,
    text_positions,
    to_cells,
    unpatchify,
)
from iris.engine.loader import Components, new_scheduler
from iris.engine.lora import Gates
from iris.jobs import EditJob, Job, Pixels, Usage


@dataclass(slots=True)
class Row:
    """A picture in the making. Everything but `latents` and `step` is set once by `prepare`."""

    job: Job
    grid: Grid
    prompt: Tensor  # (1, text tokens, width)
    unconditional: Tensor | None  # same shape; None = no guidance
    references: Tensor | None  # (1, reference tokens, C)
    image_ids: Tensor  # (picture + reference tokens, 4)
    text_ids: Tensor  # (text tokens, 4)
    sigmas: Tensor  # (steps + 1,) float32 on the CPU
    usage: Usage
    latents: Tensor  # (1, picture tokens, C)
    step: int = 0

    @property
    def is_done(self) -> bool:
        return self.step >= len(self.sigmas) - 1


class Denoiser:
    """Runs the transformer and the VAE's decoder. One thread only: the gates are shared state."""

    def __init__(self, components: Components, gates: Gates) -> None:
        self._model = components
        self._gates = gates

    @torch.inference_mode()
    def prepare(
        self,
        job: Job,
        prompt: Tensor,
        unconditional: Tensor | None,
        images: Sequence[tuple[Tensor, Grid]],
        *,
        text_tokens: int,
    ) -> Row:
        """Lay out a picture's tokens and draw its noise.

        images: (tokens, grid) of the job's images in order. With `strength` the first is also
        where the picture starts from.
        """
        model = self._model
        grid = Grid.covering(job.width_px, job.height_px, model.pixels_per_token)
        strength = job.strength if isinstance(job, EditJob) and job.strength is not None else 1.0
        sigmas = sigma_schedule(
            new_scheduler(model), job.num_inference_steps, grid.tokens, strength
        )
        channels = model.transformer.config.in_channels
        shape = (1, channels, grid.rows, grid.columns)
        noise = initial_noise(shape, job.seed, model.device, model.dtype).flatten(2).transpose(1, 2)
        latents = noise
        if strength < 1.0:
            latents = mix(images[0][0], noise, float(sigmas[0]))
        positions = [image_positions(grid)]
        positions += [image_positions(g, reference=i) for i, (_, g) in enumerate(images)]
        return Row(
            job=job,
            grid=grid,
            prompt=prompt,
            unconditional=unconditional,
            references=torch.cat([t for t, _ in images], dim=1) if images else None,
            image_ids=torch.cat(positions).to(model.device),
            text_ids=text_positions(prompt.shape[1]).to(model.device),
            sigmas=sigmas,
            usage=Usage(text_tokens, sum(g.tokens for _, g in images), grid.tokens),
            latents=latents,
        )

    @torch.inference_mode()
    def step(self, row: Row) -> None:
        """Take the row one noise level down."""
        sigma, sigma_next = row.sigmas[row.step], row.sigmas[row.step + 1]
        self._gates.open(row.job.lora, row.job.lora_strength, self._model.device)
        velocity = self._velocity(row, row.prompt, sigma)
        if row.unconditional is not None:
            away = self._velocity(row, row.unconditional, sigma)
            velocity = away + row.job.guidance_scale * (velocity - away)
        row.latents = euler_step(row.latents, velocity, sigma, sigma_next)
        row.step += 1

    def _velocity(self, row: Row, prompt: Tensor, sigma: Tensor) -> Tensor:
        """The transformer's prediction for the picture's own tokens: (1, picture tokens, C)."""
        model = self._model
        tokens = row.latents
        if row.references is not None:
            tokens = torch.cat([tokens, row.references], dim=1)
        # Through thousandths and back, as the stock pipeline does it: the rounding is the same.
        timestep = (sigma * 1000).expand(1).to(model.device, model.dtype) / 1000
        predicted: Tensor = model.transformer(
            hidden_states=tokens.to(model.dtype),
            timestep=timestep,
            guidance=None,
            encoder_hidden_states=prompt,
            txt_ids=row.text_ids,
            img_ids=row.image_ids,
            return_dict=False,
        )[0]
        return predicted[:, : row.latents.shape[1]]

    @torch.inference_mode()
    def decode(self, row: Row) -> Tensor:
        """Turn finished latents into a picture: (3, height_px, width_px) float32, 0..1.

        Cropped from the model's grid to the size asked for.

        Raises:
            FloatingPointError: the picture is not finite.
        """
        cells = unpatchify(denormalise(to_cells(row.latents, row.grid), self._model.vae))
        image = self._model.vae.decode(cells, return_dict=False)[0]
        image = image[0, :, : row.job.height_px, : row.job.width_px].float()
        if not bool(torch.isfinite(image).all()):
            raise FloatingPointError("the decoded picture is not finite")
        picture: Tensor = (image / 2 + 0.5).clamp(0, 1)
        return picture


def to_pixels(image: Tensor) -> Pixels:
    """(3, height_px, width_px), 0..1 -> 8-bit pixels, rounded to the nearest level."""
    levels = image.mul(255).round().to(torch.uint8)
    rgb = levels.permute(1, 2, 0).contiguous().cpu().numpy().tobytes()
    return Pixels(width_px=image.shape[2], height_px=image.shape[1], rgb=rgb)
