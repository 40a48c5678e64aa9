"""The engine beside the stock pipeline, one picture at a time, on the same weights.

    python bench/solo.py [--rounds 5] [--threads 2] [--model models/iris-mini/weights]

All sides take turns in one process; what counts is the ratio of their medians. The stock pipeline
has one dtype for all its parts, so it is run in each that the engine uses; the faster one counts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from diffusers import Flux2KleinPipeline
from machine import facts
from PIL import Image
from server import CHECKOUT, RESULTS

from iris.engine.engine import Engine
from iris.engine.loader import (
    choose_device,
    choose_precision,
    load_components,
    quieten,
    use_threads,
)
from iris.engine.lora import install_styles
from iris.jobs import EditJob, GenerateJob, Job, Picture, Pixels, Ticket

PROMPT = "a red boat on a calm sea at sunset"
SIZES, STEPS, REFERENCES = (512, 768, 960), (4, 30), (1, 3)
CASES = {f"{side}x{side}, {steps} steps": (side, steps, 0) for side in SIZES for steps in STEPS}
CASES |= {f"edit 704x704, {count} references": (704, 4, count) for count in REFERENCES}


def a_source(side: int, turn: int) -> Image.Image:
    ramp = Image.linear_gradient("L").rotate(90 * turn).resize((side, side))
    return Image.merge("RGB", (ramp, ramp.rotate(90), ramp.rotate(180)))


def job_of(side: int, steps: int, count: int, seed: int) -> Job:
    common = {
        "request_id": "bench",
        "owner": f"owner {seed}",  # a new one each time: nothing is taken from the cache
        "prompt": PROMPT,
        "width_px": side,
        "height_px": side,
        "num_inference_steps": steps,
        "seed": seed,
        "guidance_scale": 1.0,
        "lora": None,
        "lora_strength": 0.6,
        "deadline_s": 3600.0,
    }
    if not count:
        return GenerateJob(**common)
    sources = (a_source(side, turn) for turn in range(count))
    images = tuple(Pixels(side, side, image.tobytes()) for image in sources)
    return EditJob(**common, images=images, strength=None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true", help="as IRIS_COMPILE=on")
    parser.add_argument("--model", type=Path, default=CHECKOUT / "models" / "iris-mini" / "weights")
    parser.add_argument("--out", type=Path, default=RESULTS / "solo.json")
    options = parser.parse_args()
    quieten()
    use_threads(options.threads)
    device = choose_device("auto")
    precision = choose_precision("auto", device)
    components = load_components(options.model, device, precision)
    styles = install_styles(components.transformer, {})
    engine = Engine(
        components,
        styles,
        max_waiting=8,
        max_running=8,
        cache_bytes=0,
        stall_s=600.0,
        compiled=options.compile,
    )
    engine.start()
    stock = {}
    for dtype in sorted({precision.model, precision.vae}, key=str):
        pipeline = Flux2KleinPipeline.from_pretrained(options.model, dtype=dtype).to(device)
        pipeline.set_progress_bar_config(disable=True)
        stock[f"stock {dtype}".replace("torch.", "")] = pipeline

    def ours(job: Job) -> None:
        (ticket,) = engine.admit([job])
        if not isinstance(ticket, Ticket):
            raise SystemExit(ticket.message)
        outcome = engine.collect(ticket.ticket_id).result()
        if not isinstance(outcome, Picture):
            raise SystemExit(outcome.message)
        engine.cancel(ticket.ticket_id)

    def theirs(pipeline: Flux2KleinPipeline, job: Job) -> None:
        count = len(job.images) if isinstance(job, EditJob) else 0
        with torch.inference_mode():
            pipeline(
                image=[a_source(job.width_px, turn) for turn in range(count)] or None,
                prompt=job.prompt,
                height=job.height_px,
                width=job.width_px,
                num_inference_steps=job.num_inference_steps,
                guidance_scale=1.0,
                generator=torch.Generator("cpu").manual_seed(job.seed),
                max_sequence_length=components.text_tokens,
                text_encoder_out_layers=components.text_layers,
            )

    result: dict[str, object] = {
        "machine": facts(),
        "threads": options.threads,
        "compiled": options.compile,
        "engine": f"{precision.model}, VAE {precision.vae}".replace("torch.", ""),
        "model": options.model.parent.name,
        "rounds": options.rounds,
    }
    for name, (side, steps, count) in CASES.items():
        makers: dict[str, Callable[[Job], None]] = {"engine": ours}
        makers |= {who: partial(theirs, pipeline) for who, pipeline in stock.items()}
        seconds: dict[str, list[float]] = {who: [] for who in makers}
        for turn in range(options.rounds + 1):  # the first is not counted
            for who, make in makers.items():
                job = job_of(side, steps, count, turn)
                begun = time.perf_counter()
                make(job)
                if turn:
                    seconds[who].append(time.perf_counter() - begun)
        medians = {who: statistics.median(times) for who, times in seconds.items()}
        result[name] = {
            **{f"{who}_s": round(median, 3) for who, median in medians.items()},
            "stock/engine": round(min(medians[who] for who in stock) / medians["engine"], 2),
        }
        print(f"{name}: {result[name]}", flush=True)
    engine.close()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
