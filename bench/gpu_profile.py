"""Where a GPU's time goes in one picture of FLUX.2-klein-4B's architecture, with random weights.

    python bench/gpu_profile.py [--options '{"max_autotune_pointwise": true}'] [--rehearse]

Prints, and keeps in --out: the picture again and again with the clock, the power and the
temperature of each; what its parts take alone; the kernels of one picture by time, how long the
device had none, and between which. --options are the compiler's, to see what they change.
Without a GPU it says so and measures nothing; --rehearse runs it on a CPU, narrow.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import torch._inductor.config as compiler
from architecture import components_of, klein
from gpu import a_job, milliseconds
from gpu_engine import Bench
from machine import facts
from server import RESULTS
from torch.profiler import ProfilerActivity, profile

from iris.engine.denoiser import to_pixels
from iris.engine.lora import Styles
from iris.jobs import Job

_GAP_US = 20.0  # a device without work for longer than this waits for somebody


def stages(bench: Bench, job: Job, rounds: int) -> dict[str, float]:
    """Each part of a picture alone, milliseconds; their sum beside the whole."""
    [row] = bench.rows([job])
    image = bench.denoiser.decode(row)
    taken = {
        "prompt, noise and positions": milliseconds(lambda: bench.rows([job]), rounds),
        "steps": milliseconds(bench.steps([job]), rounds),
        "decoding": milliseconds(lambda: bench.denoiser.decode(row), rounds),
        "pixels": milliseconds(lambda: to_pixels(image), rounds),
    }
    taken["sum"] = sum(taken.values())
    taken["whole"] = milliseconds(bench.pictures([job]), rounds)
    return {name: round(ms, 2) for name, ms in taken.items()}


def one_after_another(bench: Bench, job: Job, count: int) -> list[dict[str, float]]:
    """Pictures without a pause, each with what the card says of itself right after it."""
    work = bench.pictures([job])
    pictures = []
    for _ in range(count):
        begun = time.perf_counter()
        work()
        picture = {"ms": round(1000 * (time.perf_counter() - begun), 1)}
        if torch.cuda.is_available():
            with suppress(ModuleNotFoundError):  # torch asks nvidia-ml-py
                picture |= {
                    "mhz": torch.cuda.clock_rate(),
                    "watts": round(torch.cuda.power_draw() / 1000),
                    "celsius": torch.cuda.temperature(),
                }
        pictures.append(picture)
    return pictures


def kernels(bench: Bench, job: Job) -> dict[str, Any]:
    """One picture's kernels: by time, and where the device had none."""
    on_gpu = torch.cuda.is_available()
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * on_gpu
    with profile(activities=activities) as seen:
        bench.pictures([job])()
    wanted = "DeviceType.CUDA" if on_gpu else "DeviceType.CPU"
    events = sorted(
        (event for event in seen.events() if str(event.device_type) == wanted),
        key=lambda event: event.time_range.start,
    )
    busy_us: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    gaps: list[tuple[float, str, str]] = []
    end, last = events[0].time_range.start, ""
    for event in events:
        if event.time_range.start - end > _GAP_US:
            gaps.append((event.time_range.start - end, last, event.name))
        busy_us[event.name] += max(0.0, event.time_range.end - max(end, event.time_range.start))
        calls[event.name] += 1
        if event.time_range.end > end:
            end, last = event.time_range.end, event.name
    return {
        "span_ms": round((end - events[0].time_range.start) / 1000, 2),
        "busy_ms": round(sum(busy_us.values()) / 1000, 2),
        "gaps_ms": round(sum(gap for gap, *_ in gaps) / 1000, 2),
        "longest_gaps": [
            {"us": round(us), "after": after[:90], "before": before[:90]}
            for us, after, before in sorted(gaps, reverse=True)[:12]
        ],
        "kernels": [
            {"ms": round(us / 1000, 2), "calls": calls[name], "name": name[:120]}
            for name, us in busy_us.most_common(30)
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pictures", type=int, default=30)
    parser.add_argument("--options", type=json.loads, default={}, help="of torch._inductor.config")
    parser.add_argument("--rehearse", action="store_true", help="on a CPU, small, without a result")
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu-profile.json")
    options = parser.parse_args()
    if not torch.cuda.is_available() and not options.rehearse:
        print("There is no GPU here: nothing was measured.")
        return
    device = torch.device("cpu" if options.rehearse else "cuda")
    dtype = torch.float32 if options.rehearse else torch.bfloat16
    for name, value in options.options.items():
        setattr(compiler, name, value)
    pipeline = klein(24 if options.rehearse else 1, device, dtype)
    components = components_of(pipeline, device)
    begun = time.perf_counter()
    with torch.inference_mode():
        bench = Bench(components, Styles(components.transformer), compiled=not options.rehearse)
        compiled_s = time.perf_counter() - begun
        job = a_job(96 if options.rehearse else 768, 4, 0)
        result = {
            "machine": facts(),
            "options": options.options,
            "compile_s": round(compiled_s, 1),
            "stages_ms": stages(bench, job, options.rounds),
            "one_after_another": one_after_another(bench, job, options.pictures),
            "one_picture": kernels(bench, job),
        }
    times = [picture["ms"] for picture in result["one_after_another"]]
    print(json.dumps(result, indent=2))
    print(f"one after another: {statistics.median(times):.1f} ms, {min(times)} to {max(times)}")
    if options.rehearse:
        print("A rehearsal: these figures mean nothing and are not kept.")
    else:
        options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
