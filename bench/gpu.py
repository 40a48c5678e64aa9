"""The whole of FLUX.2-klein-4B on a GPU, with random weights: what the engine takes for it.

    python bench/gpu.py [--rounds 5] [--rehearse]

Without a GPU it says so and measures nothing. --rehearse runs all of it on a CPU with a model of
the same shape and a fraction of its width, to see that it runs; it writes no result.

Milliseconds of the steps alone and of whole pictures, TFLOP/s of the steps, peak memory, the share
of the floor, and the stock pipeline beside it, eager and compiled.
Source of the configuration and of the floors: the published config of FLUX.2-klein-4B, and the
floating-point operations of its steps at 790 TFLOP/s, dense bfloat16 as measured on an H200.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
)
from machine import facts
from safetensors.torch import save_file
from server import CHECKOUT, RESULTS
from solo import a_source, job_of
from torch import nn
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from iris.engine.activity import Activity
from iris.engine.cache import Cache
from iris.engine.conditioning import Conditioner
from iris.engine.denoiser import Denoiser, Row, to_pixels
from iris.engine.loader import Components, cut
from iris.engine.lora import Styles, install_styles
from iris.jobs import EditJob, Job

# side, steps, references: the floor on an H200 in ms, where one is known
CASES = {(768, 4, 0): 113, (960, 4, 0): 171, (768, 30, 0): None} | {
    (704, 4, count): floor for count, floor in ((1, 180), (3, 382), (5, 631))
}
TEXT_TOKENS, TEXT_LAYERS = 512, (9, 18, 27)
RANK = 16


def klein(shrink: int, device: torch.device, dtype: torch.dtype) -> Flux2KleinPipeline:
    """klein-4B's architecture; every width but the heads' divided by `shrink`."""
    hidden = 2560 // shrink
    with torch.device(device):
        torch.set_default_dtype(dtype)
        transformer = Flux2Transformer2DModel(
            in_channels=128,
            num_layers=5,
            num_single_layers=20,
            attention_head_dim=128,
            num_attention_heads=24 // shrink,
            joint_attention_dim=3 * hidden,
            mlp_ratio=3.0,
            axes_dims_rope=(32, 32, 32, 32),
            rope_theta=2000,
            guidance_embeds=False,
        )
        vae = AutoencoderKLFlux2(
            block_out_channels=tuple(max(32, width // shrink) for width in (128, 256, 512, 512)),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
        )
        text = Qwen3ForCausalLM(
            Qwen3Config(
                vocab_size=151936 // shrink,
                hidden_size=hidden,
                intermediate_size=9728 // shrink,
                num_hidden_layers=36,
                num_attention_heads=32 // shrink,
                num_key_value_heads=max(1, 8 // shrink),
                head_dim=128,
                tie_word_embeddings=True,
            )
        )
        torch.set_default_dtype(torch.float32)
    pipeline = Flux2KleinPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15, shift=3.0
        ),
        vae=vae,
        text_encoder=text.eval(),
        tokenizer=AutoTokenizer.from_pretrained(CHECKOUT / "models/iris-mini/weights/tokenizer"),
        transformer=transformer.eval(),
        is_distilled=True,
    )
    pipeline.set_progress_bar_config(disable=True)
    for part in (transformer, vae, text):
        part.requires_grad_(False)
    return pipeline


def components_of(pipeline: Flux2KleinPipeline, device: torch.device) -> Components:
    """As the loader takes them; the pipeline loses the layers of text that it has no use for."""
    cut(pipeline.text_encoder.model, max(TEXT_LAYERS))
    return Components(
        transformer=pipeline.transformer,
        vae=pipeline.vae.to(memory_format=torch.channels_last),
        text_encoder=pipeline.text_encoder.model,
        tokenizer=pipeline.tokenizer,
        scheduler_config=dict(pipeline.scheduler.config),
        pixels_per_token=2 * pipeline.vae_scale_factor,
        text_layers=TEXT_LAYERS,
        text_tokens=TEXT_TOKENS,
        device=device,
        dtype=pipeline.transformer.dtype,
    )


def add_styles(transformer: nn.Module, names: tuple[str, ...]) -> Styles:
    """Random adapters of RANK for every linear layer of the blocks, read from files."""
    blocks = ("transformer_blocks.", "single_transformer_blocks.")
    folders = {name: Path(tempfile.mkdtemp()) for name in names}
    for folder in folders.values():
        tensors = {}
        for path, layer in transformer.named_modules():
            if isinstance(layer, nn.Linear) and path.startswith(blocks):
                new = layer.weight.new_empty
                down = new(RANK, layer.in_features).normal_(std=0.01)
                up = new(layer.out_features, RANK).normal_(std=0.01)
                tensors |= {f"transformer.{path}.lora_A.weight": down.cpu()}
                tensors |= {f"transformer.{path}.lora_B.weight": up.cpu()}
        save_file(tensors, folder / "pytorch_lora_weights.safetensors")
    styles = install_styles(transformer, folders)
    for name, folder in folders.items():
        styles.wear(name, 1.0)  # kept on the device from here on
        shutil.rmtree(folder)
    return styles


def a_job(side: int, steps: int, references: int, lora: str | None = None, seed: int = 0) -> Job:
    return replace(job_of(side, steps, references, seed), lora=lora, lora_strength=0.8)


def flops_a_step(components: Components, row: Row) -> float:
    """Floating-point operations of one step: two for each weight and token, and attention's."""
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


class Bench:
    """One denoiser, and the clock of its device."""

    def __init__(self, components: Components, styles: Styles, compiled: bool) -> None:
        self._model = components
        self.denoiser = Denoiser(components, styles, compiled=compiled)
        self.denoiser.warm()
        self.conditioner = Conditioner(components, self.denoiser, Cache(0), Activity())

    def rows(self, jobs: Sequence[Job]) -> list[Row]:
        found = []
        for row in self.conditioner.rows(jobs):
            if isinstance(row, Exception):
                raise row
            found.append(row)
        return found

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


def milliseconds(work: Callable[[], object], rounds: int) -> float:
    """The median, each round to the end of what it asked the device for."""
    taken = []
    for turn in range(rounds + 1):  # the first is not counted
        _wait()
        begun = time.perf_counter()
        work()
        _wait()
        if turn > 0:
            taken.append(1000 * (time.perf_counter() - begun))
    return statistics.median(taken)


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rehearse", action="store_true", help="on a CPU, small, without a result")
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu.json")
    options = parser.parse_args()
    if not torch.cuda.is_available() and not options.rehearse:
        print("There is no GPU here: nothing was measured.")
        return
    shrink = 24 if options.rehearse else 1
    device = torch.device("cpu" if options.rehearse else "cuda")
    dtype = torch.float32 if options.rehearse else torch.bfloat16
    side_of = (lambda side: side // 8) if options.rehearse else (lambda side: side)
    result: dict[str, Any] = {"machine": facts(), "rounds": options.rounds}

    def keep(name: str, value: dict[str, Any]) -> None:
        result[name] = value
        print(f"{name}: {json.dumps(value)}", flush=True)
        if not options.rehearse:  # at once: whatever has been measured when it is stopped is kept
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(result, indent=2) + "\n")

    begun = time.perf_counter()
    pipeline = klein(shrink, device, dtype)
    _wait()
    keep("build", {"seconds": round(time.perf_counter() - begun, 1)})

    def stock(job: Job) -> Callable[[], object]:
        count = len(job.images) if isinstance(job, EditJob) else 0
        return lambda: pipeline(
            image=[a_source(job.width_px, turn) for turn in range(count)] or None,
            prompt=job.prompt,
            height=job.height_px,
            width=job.width_px,
            num_inference_steps=job.num_inference_steps,
            guidance_scale=1.0,
            generator=torch.Generator("cpu").manual_seed(job.seed),
            max_sequence_length=TEXT_TOKENS,
            text_encoder_out_layers=TEXT_LAYERS,
        )

    with torch.inference_mode():
        for (side, steps, count), _ in CASES.items():
            job = a_job(side_of(side), steps, count)
            name = f"{side}x{side}, {steps} steps, {count} references"
            keep(f"stock, {name}", {"picture_ms": round(milliseconds(stock(job), options.rounds))})
        components = components_of(pipeline, device)
        eager = Bench(components, Styles(pipeline.transformer), compiled=False)
        job = a_job(side_of(768), 4, 0)
        keep(
            "engine eager, 768x768, 4 steps",
            {
                "steps_ms": round(milliseconds(eager.steps([job]), options.rounds), 1),
            },
        )
        styles = add_styles(pipeline.transformer, ("one", "two"))
        begun = time.perf_counter()
        bench = Bench(components, styles, compiled=True)
        _wait()
        keep("compile", {"seconds": round(time.perf_counter() - begun, 1)})
        job = a_job(side_of(768), 4, 0)
        [row] = bench.rows([job])
        keep(
            "engine, the stages of 768x768",
            {
                "encode_ms": round(milliseconds(lambda: bench.rows([job]), options.rounds), 1),
                "decode_ms": round(
                    milliseconds(lambda: bench.denoiser.decode(row), options.rounds), 1
                ),
            },
        )
        for (side, steps, count), floor_ms in CASES.items():
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            job = a_job(side_of(side), steps, count)
            taken_ms = milliseconds(bench.steps([job]), options.rounds)
            whole_ms = milliseconds(bench.pictures([job]), options.rounds)
            flops = flops_a_step(components, bench.rows([job])[0]) * steps
            name = f"{side}x{side}, {steps} steps, {count} references"
            stock_ms = result[f"stock, {name}"]["picture_ms"]
            keep(
                f"engine, {name}",
                {
                    "steps_ms": round(taken_ms, 1),
                    "picture_ms": round(whole_ms, 1),
                    "tflops": round(flops / taken_ms / 1e9, 1),
                    "of_the_floor": floor_ms and round(taken_ms / floor_ms, 2),
                    "stock/engine": round(stock_ms / whole_ms, 2),
                    "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 1)
                    if device.type == "cuda"
                    else None,
                },
            )
        plain = [a_job(side_of(768), 4, 0, seed=seed) for seed in range(4)]
        wishes = (None, "one", "two", "one")
        mixed = [a_job(side_of(768), 4, 0, lora, seed) for seed, lora in enumerate(wishes)]
        without = milliseconds(bench.steps(plain), options.rounds)
        with_styles = milliseconds(bench.steps(mixed), options.rounds)
        keep(
            "styles, four pictures at once",
            {
                "none_ms": round(without, 1),
                "mixed_ms": round(with_styles, 1),
                "cost": round(with_styles / without - 1, 4),
            },
        )
        for count in (1, 2, 4):
            for side in (512, 768):
                jobs = [a_job(side_of(side), 4, 0, seed=seed) for seed in range(count)]
                taken_ms = milliseconds(bench.steps(jobs), options.rounds)
                keep(
                    f"batch of {count}, {side}x{side}, 4 steps",
                    {
                        "steps_ms": round(taken_ms, 1),
                        "ms_each": round(taken_ms / count, 1),
                    },
                )
        unlike = [
            a_job(side_of(512), 4, 0),
            a_job(side_of(960), 4, 0, "one"),
            a_job(side_of(704), 4, 2, "two"),
        ]
        apart_ms = sum(milliseconds(bench.steps([job]), options.rounds) for job in unlike)
        together_ms = milliseconds(bench.steps(unlike), options.rounds)
        keep(
            "unlike pictures",
            {
                "one_by_one_ms": round(apart_ms, 1),
                "together_ms": round(together_ms, 1),
            },
        )
        pipeline.transformer.compile_repeated_blocks(dynamic=True)
        job = a_job(side_of(768), 4, 0)
        keep(
            "stock compiled, 768x768, 4 steps",
            {
                "picture_ms": round(milliseconds(stock(job), options.rounds)),
            },
        )
    if options.rehearse:
        print("A rehearsal: these figures mean nothing and are not kept.")


if __name__ == "__main__":
    main()
