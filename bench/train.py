"""Training a style on FLUX.2-klein-4B's architecture with random weights.

    python bench/train.py [--steps 15] [--side 768] [--rehearse]

The way of `iris styles train`, without the store: pictures and prompts are encoded, the adapter is
trained, saved, read again and written as a style. Seconds of each, memory, and whether every tensor
of the style moved and stayed finite. Needs a GPU; --rehearse runs it small on a CPU, without a
result.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from architecture import components_of, klein
from machine import facts
from PIL import Image
from server import RESULTS

from iris.engine.lora import read_adapters
from iris.engine.placement import place
from iris.fit import Fit
from iris.training import adapter
from iris.training.lesson import prepare
from iris.training.pictures import find_examples
from iris.training.run import Recipe, _Run, _text_fit

PICTURES = 6


def draw_pictures(folder: Path, side_px: int) -> None:
    rng = np.random.default_rng(0)
    for number in range(PICTURES):
        small = Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8))
        size = (side_px, side_px) if number % 2 else (side_px * 5 // 4, side_px)
        small.resize(size, Image.Resampling.BICUBIC).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"a picture of {number} things")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--side", type=int, default=768)
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS / "train.json")
    options = parser.parse_args()
    if not torch.cuda.is_available() and not options.rehearse:
        print("There is no GPU here: nothing was measured.")
        return
    device = torch.device("cpu" if options.rehearse else "cuda")
    side = options.side // 8 if options.rehearse else options.side
    result: dict[str, Any] = {"machine": facts(), "side": side, "rank": 16}
    begun = time.perf_counter()

    def keep(name: str, value: Any) -> None:
        result[name] = value
        print(f"{name}: {json.dumps(value)}", flush=True)

    def lap(name: str) -> None:
        nonlocal begun
        if device.type == "cuda":
            torch.cuda.synchronize()
        keep(name, round(time.perf_counter() - begun, 1))
        begun = time.perf_counter()

    pipeline = klein(
        24 if options.rehearse else 1,
        device,
        torch.float32 if options.rehearse else torch.bfloat16,
    )
    components = components_of(pipeline, device)
    pipeline.to("cpu")
    components.vae.to(device)
    lap("build_s")
    fit = Fit(text_encoder=_text_fit(device))
    place(components.transformer, components.text_encoder, fit, device)
    lap("place_s")
    folder = tempfile.TemporaryDirectory(prefix="iris-train-")  # gone with the process
    under = Path(folder.name)
    draw_pictures(under, side)
    recipe = Recipe(
        base="klein-4b:random",
        images=under,
        captions=None,
        trigger="gloomy",
        rank=16,
        steps=options.steps,
        rate=1e-4,
        batch=1,
        side_px=side,
        seed=0,
        sample_every=0,
        sample_steps=4,
    )
    begun = time.perf_counter()
    lessons, prompts = prepare(find_examples(under, None, recipe.trigger), components, side)
    lap("encode_s")
    components = replace(components, text_encoder=None)
    pipeline.text_encoder = None
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    (under / "run").mkdir()
    run = _Run(recipe, components, lessons, prompts, under / "run")
    before = {key: value.clone() for key, value in adapter.state_of(run._model, run.name).items()}
    seconds, losses = [], []
    for _ in range(options.steps):
        begun = time.perf_counter()
        losses.append(round(run._step(), 4))  # waits for the device
        seconds.append(time.perf_counter() - begun)
    keep("losses", losses)
    keep("step_s", {"first": round(seconds[0], 2), "median": round(statistics.median(seconds), 3)})
    if device.type == "cuda":
        keep("peak_gib", round(torch.cuda.max_memory_allocated() / 2**30, 2))
        keep("reserved_gib", round(torch.cuda.max_memory_reserved() / 2**30, 2))
    after = adapter.state_of(run._model, run.name)
    keep(
        "tensors",
        {
            "all": len(after),
            "changed": sum(not torch.equal(after[key], value) for key, value in before.items()),
            "finite": all(bool(torch.isfinite(value).all()) for value in after.values()),
        },
    )
    begun = time.perf_counter()
    run._save()
    run._load()
    lap("save_and_load_s")
    file = adapter.write(components.transformer, run.name, run.targets, under / "style")
    adapters = read_adapters(file.parent)
    keep("style", {"mib": round(file.stat().st_size / 2**20, 1), "layers": len(adapters)})
    if options.rehearse:
        print("A rehearsal: these figures mean nothing and are not kept.")
    else:
        options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
