"""A picture's way from noise to pixels: prepare it, step it beside others, decode it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from iris.engine.canvas import Canvas, resized
from iris.engine.convolutions import Pieces, at_once
from iris.engine.decoder import PictureDecoder
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
from iris.engine.lora import Styles, Worn
from iris.engine.masking import Held, restore_outside, tokens_inside
from iris.engine.pointwise import Pointwise, Rotation
from iris.engine.quantised import EightBitLinear
from iris.engine.recordings import Recordings
from iris.engine.streaming import StreamedBlocks
from iris.engine.transfer import upload
from iris.engine.transformer import PackedTransformer
from iris.jobs import EditJob, Job, Pixels, Usage

_COMMON_SIDES_PX = (512, 768, 960)  # of square pictures, recorded before anybody asks


@dataclass(slots=True)
class Row:
    """A picture in the making. Everything but `latents` and `step` is set once by `prepare`."""

    job: Job
    canvas: Canvas
    prompt: Tensor  # (1, text tokens, width)
    unconditional: Tensor | None  # same shape; None = no guidance
    references: Tensor | None  # (1, reference tokens, C)
    rotation: Rotation  # of text, picture and reference tokens
    sigmas: Tensor  # (steps + 1,) float32 on the CPU
    held: Held | None  # to the source, outside a mask
    worn: Worn | None  # its style, on the device as long as the row holds it
    usage: Usage
    latents: Tensor  # (1, picture tokens, C) float32: many small steps add up in it
    step: int = 0

    @property
    def is_done(self) -> bool:
        return self.step >= len(self.sigmas) - 1


class Denoiser:
    """Runs the transformer and the VAE's decoder."""

    def __init__(self, components: Components, styles: Styles, *, compiled: bool = False) -> None:
        """compiled: what lies between matrix products is, by `warm`."""
        self._model = components
        self._styles = styles
        pointwise = Pointwise(compiled=compiled)
        self._decoder = PictureDecoder(components.vae, pointwise)
        self._transformer = PackedTransformer(
            components.transformer, pointwise, is_strict=components.is_strict
        )
        if compiled and _is_whole(components) and components.device.type == "cuda":
            self._transformer.record_in(Recordings("denoise"))
            self._decoder.record_in(Recordings("decode"))
            if not components.is_strict:  # its products do not span rows
                self._transformer.dress_in_products()

    @torch.inference_mode()
    def warm(self) -> None:
        """Do at start what would otherwise be done while somebody waits."""
        side, sides = self._model.pixels_per_token, self._model.sides
        common = {Canvas.of(px, px, side, sides).grid for px in _COMMON_SIDES_PX}
        # first: the transformer's settles what both are made of
        self._decoder.warm([Grid(2 * grid.rows, 2 * grid.columns) for grid in common])
        self._transformer.warm(self._model.text_tokens, [grid.tokens for grid in common])

    def image_pixels(self, job: Job) -> int:
        """Of a job's images, as they are read."""
        return sum(canvas.pixels for canvas in self._model.image_canvases(job))

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
        where the picture starts from, with a mask what it is held to.
        """
        model = self._model
        canvas = model.canvas(job)
        grid = canvas.grid
        strength = job.strength if isinstance(job, EditJob) and job.strength is not None else 1.0
        sigmas = sigma_schedule(
            new_scheduler(model), job.num_inference_steps, grid.tokens, strength
        )
        channels = model.transformer.config.in_channels
        shape = (1, channels, grid.rows, grid.columns)
        noise = initial_noise(shape, job.seed, model.device).flatten(2).transpose(1, 2)
        latents = noise
        if strength < 1.0:
            latents = mix(images[0][0].float(), noise, float(sigmas[0]))
        held = None
        if isinstance(job, EditJob) and job.mask is not None:
            size = job.width_px, job.height_px
            inside = tokens_inside(job.mask, *size, canvas, model.pixels_per_token)
            held = Held(images[0][0].float(), noise, upload(inside, model.device))
        positions = [text_positions(prompt.shape[1]), image_positions(grid)]
        positions += [image_positions(g, reference=i) for i, (_, g) in enumerate(images)]
        return Row(
            job=job,
            canvas=canvas,
            prompt=prompt,
            unconditional=unconditional,
            references=torch.cat([t for t, _ in images], dim=1) if images else None,
            rotation=self._transformer.rotation(upload(torch.cat(positions), model.device)),
            sigmas=sigmas,
            held=held,
            worn=self._styles.wear(job.lora, job.lora_strength),
            usage=Usage(text_tokens, sum(g.tokens for _, g in images), grid.tokens),
            latents=latents,
        )

    @torch.inference_mode()
    def step(self, rows: Sequence[Row]) -> None:
        """Take each row one of its own noise levels down, all in one forward pass.

        Nothing is changed in any row if it raises.
        """
        prompts = [(row, row.prompt) for row in rows]
        prompts += [(row, row.unconditional) for row in rows if row.unconditional is not None]
        predicted = iter(self._velocities(prompts))
        velocities = [next(predicted) for _ in rows]
        for i, row in enumerate(rows):
            if row.unconditional is not None:
                away = next(predicted)
                velocities[i] = away + row.job.guidance_scale * (velocities[i] - away)
        stepped = []
        for row, velocity in zip(rows, velocities, strict=True):
            sigma, sigma_next = row.sigmas[row.step], row.sigmas[row.step + 1]
            latents = euler_step(row.latents, velocity, sigma, sigma_next)
            if row.held is not None:
                latents = row.held.hold(latents, float(sigma_next))
            stepped.append(latents)
        for row, latents in zip(rows, stepped, strict=True):  # nothing fails any more
            row.latents = latents
            row.step += 1

    def _velocities(self, rows: Sequence[tuple[Row, Tensor]]) -> list[Tensor]:
        """What the transformer predicts for each row's own picture with that prompt."""
        model = self._model
        # Rows in styles side by side: what styles cost is paid from the first to the last of them.
        order = sorted(range(len(rows)), key=lambda i: rows[i][0].worn is not None)
        rows = [rows[i] for i in order]
        pictures = []
        for row, _ in rows:
            tokens = row.latents
            if row.references is not None:
                tokens = torch.cat([tokens, row.references], dim=1)
            pictures.append(tokens[0].to(model.dtype))
        # Through thousandths and back, as the stock pipeline does it: the rounding is the same.
        sigmas = torch.stack([row.sigmas[row.step] for row, _ in rows])
        timesteps = upload(sigmas * 1000, model.device, model.dtype) / 1000
        predicted = self._transformer(
            [prompt[0] for _, prompt in rows],
            pictures,
            [row.latents.shape[1] for row, _ in rows],
            [row.rotation for row, _ in rows],
            timesteps,
            [row.worn for row, _ in rows],
        )
        velocities = [velocity[None].float() for velocity in predicted]
        return [velocities[order.index(i)] for i in range(len(rows))]

    def decode(self, row: Row) -> Tensor:
        """Turn finished latents into a picture: (3, height_px, width_px) float32, 0..1.

        Cropped from the model's grid to what was painted, and brought to the size asked for.

        Raises:
            FloatingPointError: the picture is not finite.
        """
        return at_once(self.decoding(row))

    @torch.inference_mode()
    def decoding(self, row: Row) -> Pieces[Tensor]:
        """`decode`, with stops at which the device can be used for something else."""
        cells = unpatchify(denormalise(to_cells(row.latents, row.canvas.grid), self._model.vae))
        image = yield from self._decoder.pieces(cells.to(self._model.dtype))
        image = image[:, :, : row.canvas.height_px, : row.canvas.width_px].float()
        image = resized(image, row.job.width_px, row.job.height_px)[0]
        if not bool(torch.isfinite(image).all()):
            raise FloatingPointError("the decoded picture is not finite")
        picture: Tensor = (image / 2 + 0.5).clamp(0, 1)
        if isinstance(row.job, EditJob) and row.job.mask is not None:
            return restore_outside(picture, row.job.images[0], row.job.mask)
        return picture


def _is_whole(components: Components) -> bool:
    """Whether the blocks lie on the device for good, as products of their own there."""
    transformer = components.transformer
    blocks = (transformer.transformer_blocks, transformer.single_transformer_blocks)
    return not any(
        isinstance(module, EightBitLinear | StreamedBlocks)
        for part in blocks
        for module in part.modules()
    )


def to_pixels(image: Tensor) -> Pixels:
    """(3, height_px, width_px), 0..1 -> 8-bit pixels, rounded to the nearest level."""
    levels = image.mul(255).round().to(torch.uint8)
    rgb = levels.permute(1, 2, 0).contiguous().cpu().numpy().tobytes()
    return Pixels(width_px=image.shape[2], height_px=image.shape[1], rgb=rgb)
