"""The engine beside the stock pipeline, one picture at a time, on the same weights.

    python bench/solo.py [--rounds 5] [--threads 2] [--compile] [--model models/iris-mini/weights]

Each side has a process of its own, and they take turns; what counts is the ratio of their medians.
The stock pipeline is run in the engine's dtype and in float32, and compared in the faster one.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

# as service.py has it; both sides get it
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import torch
from diffusers import Flux2KleinPipeline
from machine import facts
from PIL import Image
from server import CHECKOUT, RESULTS

from iris.engine.engine import Engine
from iris.engine.loader import (
    choose_device,
    choose_dtype,
    keep_memory,
    load_components,
    quieten,
    use_one_heap,
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


def engine(model: Path, compiled: bool) -> Callable[[Job], None]:
    device = choose_device("auto")
    use_one_heap(device)
    components = load_components(model, device, choose_dtype("auto", device))
    # every size as it is, as the stock pipeline does
    components = replace(components, sides=None, composition_sides=None, reference_sides=None)
    styles = install_styles(components.transformer, {})
    keep_memory(device)
    ours = Engine(
        components,
        styles,
        max_waiting=8,
        max_running=8,
        cache_bytes=0,
        stall_s=600.0,
        compiled=compiled,
    )
    ours.start()

    def make(job: Job) -> None:
        (ticket,) = ours.admit([job])
        if not isinstance(ticket, Ticket):
            raise SystemExit(ticket.message)
        outcome = ours.collect(ticket.ticket_id).result()
        if not isinstance(outcome, Picture):
            raise SystemExit(outcome.message)
        ours.cancel(ticket.ticket_id)

    return make


def stock(model: Path, dtype: torch.dtype) -> Callable[[Job], None]:
    numbers = json.loads((model / "iris.json").read_text())
    pipeline = Flux2KleinPipeline.from_pretrained(model, dtype=dtype).to(choose_device("auto"))
    pipeline.set_progress_bar_config(disable=True)

    def make(job: Job) -> None:
        given = job.images if isinstance(job, EditJob) else ()
        sources = [Image.frombytes("RGB", (i.width_px, i.height_px), i.rgb) for i in given]
        with torch.inference_mode():
            pipeline(
                image=sources or None,
                prompt=job.prompt,
                height=job.height_px,
                width=job.width_px,
                num_inference_steps=job.num_inference_steps,
                guidance_scale=1.0,
                generator=torch.Generator("cpu").manual_seed(job.seed),
                max_sequence_length=numbers["max_sequence_length"],
                text_encoder_out_layers=numbers["text_encoder_out_layers"],
            )

    return make


def serve(make: Callable[[Job], None]) -> None:
    """Seconds of each case that is asked for on stdin."""
    print("ready", flush=True)
    for line in sys.stdin:
        job = job_of(*json.loads(line))
        begun = time.perf_counter()
        make(job)
        print(time.perf_counter() - begun, flush=True)


class Side:
    """One side in a process of its own."""

    def __init__(self, name: str, arguments: list[str]) -> None:
        command = [sys.executable, __file__, *arguments, "--side", name]
        self._process = subprocess.Popen(  # noqa: S603
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._line()

    def seconds(self, *case: int) -> float:
        assert self._process.stdin is not None  # noqa: S101
        self._process.stdin.write(json.dumps(case) + "\n")
        self._process.stdin.flush()
        return float(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None  # noqa: S101
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("one side has ended")
        return line

    def close(self) -> None:
        assert self._process.stdin is not None  # noqa: S101
        self._process.stdin.close()
        self._process.wait(60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true", help="as IRIS_COMPILE=on")
    parser.add_argument("--model", type=Path, default=CHECKOUT / "models" / "iris-mini" / "weights")
    parser.add_argument("--out", type=Path, default=RESULTS / "solo.json")
    parser.add_argument(
        "--only", default="", metavar="WORD", help="the cases with this in their name"
    )
    parser.add_argument("--side", help=argparse.SUPPRESS)
    options = parser.parse_args()
    dtype = choose_dtype("auto", choose_device("auto"))
    names = {"engine": dtype} | {
        f"stock {one}".replace("torch.", ""): one for one in sorted({dtype, torch.float32}, key=str)
    }
    if options.side:
        quieten()
        use_threads(options.threads)
        if options.side == "engine":
            serve(engine(options.model, options.compile))
        else:
            serve(stock(options.model, names[options.side]))
        return
    result: dict[str, object] = {
        "machine": facts(),
        "threads": options.threads,
        "compiled": options.compile,
        "engine": str(dtype).replace("torch.", ""),
        "model": options.model.parent.name,
        "rounds": options.rounds,
    }
    sides = {name: Side(name, sys.argv[1:]) for name in names}
    for name, (side, steps, count) in CASES.items():
        if options.only not in name:
            continue
        seconds: dict[str, list[float]] = {who: [] for who in sides}
        for turn in range(options.rounds + 1):  # the first is not counted
            for who, process in sides.items():
                taken = process.seconds(side, steps, count, turn)
                if turn:
                    seconds[who].append(taken)
        medians = {who: statistics.median(times) for who, times in seconds.items()}
        fastest = min(median for who, median in medians.items() if who != "engine")
        result[name] = {
            **{f"{who}_s": round(median, 3) for who, median in medians.items()},
            "stock/engine": round(fastest / medians["engine"], 2),
        }
        print(f"{name}: {result[name]}", flush=True)
    for process in sides.values():
        process.close()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
