"""What a picture is made from: prompts and images, turned into tokens for the transformer."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional

from iris.engine import metrics
from iris.engine.denoiser import Denoiser, Row
from iris.engine.latents import Grid, normalise, patchify, to_tokens
from iris.engine.loader import Components
from iris.jobs import EditJob, Job, Pixels

_PLACE = "PROMPT-GOES-HERE"


class PromptEncoder:
    """Prompts -> embeddings, any number of prompts in one forward pass.

    Safe to call from several threads.
    """

    def __init__(self, components: Components) -> None:
        self._model = components
        self._lock = threading.Lock()  # fast tokenizers carry state between calls
        text = components.tokenizer.apply_chat_template(
            [{"role": "user", "content": _PLACE}],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=False,
        )
        before, _, after = text.partition(_PLACE)
        self._before: list[int] = components.tokenizer(before)["input_ids"]
        self._after: list[int] = components.tokenizer(after)["input_ids"]
        markup = components.tokenizer.get_added_vocab()  # special or not: all are matched whole
        self._markup = re.compile("|".join(map(re.escape, markup)) or r"(?!)")
        self._unconditional: Tensor | None = None

    def token_ids(self, prompt: str) -> list[int]:
        """The prompt inside the model's chat template, at most `text_tokens` ids, not padded.

        Chat markup that a user typed is text like any other, never a special token. A prompt that
        is too long loses its own end, never the template's.
        """
        ids: list[int] = []
        for piece in self._without_markup(prompt):
            with self._lock:
                ids += self._model.tokenizer(piece, add_special_tokens=False)["input_ids"]
        room = self._model.text_tokens - len(self._before) - len(self._after)
        return self._before + ids[:room] + self._after

    def _without_markup(self, prompt: str) -> list[str]:
        """The prompt cut after the first character of every token that only a template may use."""
        cuts = [0, *(match.start() + 1 for match in self._markup.finditer(prompt)), len(prompt)]
        return [prompt[start:end] for start, end in pairwise(cuts)]

    @torch.inference_mode()
    def encode(self, prompts: Sequence[str]) -> Tensor:
        """Embed prompts: (prompts, text_tokens, width).

        The transformer was trained to see the padding too, so all of it is kept.
        Source: Flux2KleinPipeline._get_qwen3_prompt_embeds.
        """
        model = self._model
        rows = [self.token_ids(prompt) for prompt in prompts]
        ids = torch.full((len(rows), model.text_tokens), model.tokenizer.pad_token_id)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
            mask[i, : len(row)] = 1
        output = model.text_encoder(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            output_hidden_states=True,
            use_cache=False,
        )
        layers = [output.hidden_states[layer] for layer in model.text_layers]
        return torch.cat(layers, dim=-1).to(model.dtype)

    def unconditional(self) -> Tensor:
        """The embedding of the empty prompt, (1, text_tokens, width), computed once."""
        with self._lock:
            known = self._unconditional
        if known is None:
            known = self.encode([""])
            with self._lock:
                self._unconditional = known
        return known


@torch.inference_mode()
def encode_image(pixels: Pixels, components: Components) -> tuple[Tensor, Grid]:
    """An image's tokens: (1, H*W, C), and their grid.

    Sides off the model's own grid are continued by their last row and column, the same way a
    picture is made on the covering grid and cropped.
    """
    grid = Grid.covering(pixels.width_px, pixels.height_px, components.pixels_per_token)
    values = torch.frombuffer(bytearray(pixels.rgb), dtype=torch.uint8)
    image = values.view(1, pixels.height_px, pixels.width_px, 3).permute(0, 3, 1, 2).float()
    image = 2.0 * (image / 255.0) - 1.0
    right = grid.columns * components.pixels_per_token - pixels.width_px
    bottom = grid.rows * components.pixels_per_token - pixels.height_px
    image = functional.pad(image, (0, right, 0, bottom), mode="replicate")
    image = image.to(components.device, components.dtype)
    cells = patchify(components.vae.encode(image).latent_dist.mode())
    return to_tokens(normalise(cells, components.vae)), grid


class Conditioner:
    """Jobs -> rows ready to be stepped, all their prompts through the text encoder at once."""

    def __init__(self, components: Components, denoiser: Denoiser) -> None:
        self._model = components
        self._denoiser = denoiser
        self._prompts = PromptEncoder(components)

    def rows(self, jobs: Sequence[Job]) -> list[Row | Exception]:
        """Condition the jobs; a job that cannot be conditioned gives its exception in its place."""
        if not jobs:
            return []
        try:
            with metrics.timed("text_encode"):
                embeddings = self._prompts.encode([job.prompt for job in jobs])
        except Exception as error:
            if len(jobs) == 1:
                return [error]
            return [row for job in jobs for row in self.rows([job])]  # find the one that fails
        rows: list[Row | Exception] = []
        for i, job in enumerate(jobs):
            try:
                rows.append(self._row(job, embeddings[i : i + 1]))
            except Exception as error:
                rows.append(error)
        return rows

    def _row(self, job: Job, prompt: Tensor) -> Row:
        images: list[tuple[Tensor, Grid]] = []
        if isinstance(job, EditJob):
            for pixels in job.images:
                with metrics.timed("image_encode"):
                    images.append(encode_image(pixels, self._model))
        return self._denoiser.prepare(
            job,
            prompt,
            self._prompts.unconditional() if job.guidance_scale > 1.0 else None,
            images,
            text_tokens=len(self._prompts.token_ids(job.prompt)),
        )
