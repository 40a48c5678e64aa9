"""The engine without its threads, so that each of its stages can be timed by itself."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import nn

from iris.engine.activity import Activity
from iris.engine.cache import Cache
from iris.engine.conditioning import Conditioner
from iris.engine.denoiser import Denoiser, Row, to_pixels
from iris.engine.loader import Components
from iris.engine.lora import Styles
from iris.engine.quantised import Fp8Linear, round_layers
from iris.jobs import Job


def flops_a_step(components: Components, row: Row) -> float:
    """Floating-point operations of one step: two for each weight and token, and attention's.

    Those of the stock pipeline; the engine leaves out what its last block makes of prompts and
    references.
    """
    model = components.transformer
    width = model.config.num_attention_heads * model.config.attention_head_dim
    text = components.text_tokens
    picture = row.latents.shape[1] + (0 if row.references is None else row.references.shape[1])
    products = 0.0
    for path, layer in model.named_modules():
        if not isinstance(layer, nn.Linear):
            continue
        if path.startswith("single_transformer_blocks."):
            tokens = text + picture
        elif path.startswith("transformer_blocks."):
            is_text = any(part in path for part in ("add_", "context"))
            tokens = text if is_text else picture
        else:
            tokens = {"context_embedder": text, "x_embedder": picture, "proj_out": picture}.get(
                path, 1
            )
        products += 2.0 * layer.weight.numel() * tokens
    blocks = model.config.num_layers + model.config.num_single_layers
    return products + 4.0 * blocks * (text + picture) ** 2 * width


class Encoding:
    """Jobs into rows, nothing kept from one to the next."""

    def __init__(self, components: Components, denoiser: Denoiser, compiled: bool) -> None:
        parts = components, denoiser, Cache(0), Activity()
        self.conditioner = Conditioner(*parts, compiled=compiled)
        self.warm = self.conditioner.warm

    def rows(self, jobs: Sequence[Job]) -> list[Row]:
        found = []
        for row in self.conditioner.rows(jobs):
            if isinstance(row, Exception):
                raise row
            found.append(row)
        return found


class Bench:
    """One denoiser, and the clock of its device."""

    def __init__(self, components: Components, styles: Styles, compiled: bool) -> None:
        self.model = components
        self.denoiser = Denoiser(components, styles, compiled=compiled)
        self.denoiser.warm()
        self.call_by_call = Encoding(components, self.denoiser, compiled=False)
        encoding = Encoding(components, self.denoiser, compiled)
        encoding.warm()
        self.rows = encoding.rows
        self.conditioner = encoding.conditioner

    def flops_a_step(self, job: Job) -> float:
        return flops_a_step(self.model, self.rows([job])[0])

    def steps(self, jobs: Sequence[Job]) -> Callable[[], None]:
        """All steps of pictures that are encoded already."""
        rows = self.rows(jobs)
        first = [row.latents for row in rows]

        def run() -> None:
            for row, latents in zip(rows, first, strict=True):
                row.latents, row.step = latents, 0
            while going := [row for row in rows if not row.is_done]:
                self.denoiser.step(going)

        return run

    def pictures(self, jobs: Sequence[Job]) -> Callable[[], None]:
        """Whole pictures, from prompt and images to pixels."""

        def run() -> None:
            rows = self.rows(jobs)
            while going := [row for row in rows if not row.is_done]:
                self.denoiser.step(going)
            for row in rows:
                to_pixels(self.denoiser.decode(row))

        return run


def in_fp8(components: Components, *, compiled: bool) -> Bench:
    """The same with the blocks of a copy of the transformer in float8."""
    transformer = copy.deepcopy(components.transformer)
    for blocks in (transformer.transformer_blocks, transformer.single_transformer_blocks):
        round_layers(blocks, Fp8Linear, components.device)
    rounded = replace(components, transformer=transformer)
    return Bench(rounded, Styles(transformer), compiled=compiled)
