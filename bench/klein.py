"""FLUX.2-klein-4B's architecture with random weights, in every way to fit it into a GPU's memory.

    python bench/klein.py [--only whole/whole,fp8/int8] [--side 960] [--rounds 3] [--rehearse]

For each way: seconds to place the weights, GiB they take, peak GiB of a picture of 960x960, its
milliseconds from prompt to pixels, and how far the first velocity and the prompt's embedding are
from those of the whole model (relative: norm of the difference over the norm). Needs no BentoML.
--rehearse runs it small on a CPU, for what a CPU can, and writes nothing.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from itertools import product
from pathlib import Path
from typing import Any

import torch
from gpu import Bench, a_job, components_of, klein, milliseconds
from machine import facts
from server import RESULTS
from torch import Tensor

from iris.engine.lora import Styles
from iris.engine.placement import place
from iris.errors import StoreError
from iris.fit import TEXT_ENCODER, TRANSFORMER, WORKING_BYTES, Fit

_GIB = 1 << 30
_CPU = torch.device("cpu")


def built(fit: Fit, shrink: int, device: torch.device, dtype: torch.dtype) -> tuple[Any, float]:
    """The components of the same random model, placed, and the seconds that placing took."""
    torch.manual_seed(0)
    pipeline = klein(shrink, device, dtype)  # random numbers are slow to draw on a CPU
    pipeline.to(_CPU)
    text = pipeline.text_encoder.model
    text.layers, text.norm = text.layers[:27], torch.nn.Identity()
    pipeline.vae.to(device)
    begun = time.perf_counter()
    place(pipeline.transformer, text, fit, device)
    _empty(device)
    return components_of(pipeline, device), time.perf_counter() - begun


def velocity_and_prompt(bench: Bench, side: int) -> tuple[Tensor, Tensor]:
    (row,) = bench.rows([a_job(side, 4, 0, seed=1)])
    before = row.latents
    bench.denoiser.step([row])
    moved = (row.latents - before) / (row.sigmas[1] - row.sigmas[0])
    return moved.float().cpu(), row.prompt.float().cpu()


def _empty(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def measured(fit: Fit, side: int, rounds: int, shrink: int, device: torch.device) -> dict[str, Any]:
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    components, seconds = built(fit, shrink, device, dtype)
    found: dict[str, Any] = {"place_s": round(seconds, 1)}
    if device.type == "cuda":
        found["weights_gib"] = round(torch.cuda.memory_allocated() / _GIB, 2)
    bench = Bench(components, Styles(components.transformer), compiled=False)
    job = a_job(side, 4, 0)
    found["picture_ms"] = round(milliseconds(bench.pictures([job]), rounds))
    if device.type == "cuda":
        found["peak_gib"] = round(torch.cuda.max_memory_allocated() / _GIB, 2)
        found["reserved_gib"] = round(torch.cuda.max_memory_reserved() / _GIB, 2)
    found["kept"] = velocity_and_prompt(bench, side)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="TRANSFORMER/TEXT,... ; the first is what is compared with")
    parser.add_argument("--side", type=int, default=960)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS / "klein.json")
    options = parser.parse_args()
    if not torch.cuda.is_available() and not options.rehearse:
        print("There is no GPU here: nothing was measured.")
        return
    device = torch.device("cpu" if options.rehearse else "cuda")
    side = options.side // 8 // 16 * 16 if options.rehearse else options.side
    shrink = 24 if options.rehearse else 1
    ways = [
        Fit("whole", "whole"),
        *(Fit(transformer, "int8") for transformer in TRANSFORMER),
        *(Fit("whole", text) for text in TEXT_ENCODER if text not in ("whole", "int8")),
        Fit("offload", "offload"),
    ]
    if options.only:
        ways = [Fit(*way.split("/")) for way in options.only.split(",")]
    for way in ways:
        if (way.transformer, way.text_encoder) not in product(TRANSFORMER, TEXT_ENCODER):
            raise SystemExit(f"{way}: TRANSFORMER is {TRANSFORMER}, TEXT is {TEXT_ENCODER}.")
    result: dict[str, Any] = {"machine": facts(), "side": side, "rounds": options.rounds}
    exact: tuple[Tensor, Tensor] | None = None
    with torch.inference_mode():
        for way in ways:
            name = f"{way.transformer}/{way.text_encoder}"
            try:
                found = measured(way, side, options.rounds, shrink, device)
            except StoreError as error:
                print(f"{name}: {error.message}")
                continue
            ours = found.pop("kept")
            exact = exact or ours
            for part, one, other in zip(("velocity", "prompt"), ours, exact, strict=True):
                found[f"{part}_off"] = round(float((one - other).norm() / other.norm()), 5)
            result[name] = found
            print(f"{name}: {json.dumps(found)}", flush=True)
    print(f"counted beside the weights before loading: {WORKING_BYTES / _GIB:.1f} GiB")
    if options.rehearse:
        print("A rehearsal: these figures mean nothing and are not kept.")
        return
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
