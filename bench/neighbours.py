"""What a picture's neighbours change of it here, and what it costs that they change nothing.

    python bench/neighbours.py [--mixes 20] [--klein] [--device cuda]

Random mixes of unlike pictures are made together, and each of them alone: the default way, and the
strict one (IRIS_STRICT=on), in which no matrix product spans two pictures. --klein takes the whole
architecture of FLUX.2-klein-4B with random weights instead of the embedded model: its pictures mean
nothing, but whether they are equal, and what equality costs, is the large model's.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from architecture import add_styles, components_of, klein
from machine import facts
from server import CHECKOUT, RESULTS
from solo import a_source

from iris.engine.activity import Activity
from iris.engine.cache import Cache
from iris.engine.conditioning import Conditioner
from iris.engine.denoiser import Denoiser, Row, to_pixels
from iris.engine.loader import Components, choose_compiled, choose_dtype, load_components, quieten
from iris.engine.lora import Styles, install_styles
from iris.jobs import EditJob, GenerateJob, Job, Pixels

MINI = CHECKOUT / "models" / "iris-mini"
SIDES = (512, 640, 704, 768, 960)


def a_job(rng: random.Random, styles: tuple[str, ...]) -> Job:
    side, sources = rng.choice(SIDES), rng.choice((0, 0, 1, 3))
    common: dict[str, Any] = {
        "request_id": "bench",
        "owner": f"owner {rng.random()}",  # nothing is taken from the cache
        "prompt": rng.choice(("a red boat on a calm sea at sunset", "seekor kucing di pantai", "")),
        "width_px": side,
        "height_px": rng.choice(SIDES),
        "num_inference_steps": rng.choice((2, 4, 4, 8)),
        "seed": rng.randrange(2**32),
        "guidance_scale": rng.choice((1.0, 1.0, 2.0)),
        "lora": rng.choice((None, *styles)),
        "lora_strength": rng.choice((0.4, 0.8, 1.2)),
        "deadline_s": 3600.0,
    }
    if not sources:
        return GenerateJob(**common)
    pictures = (a_source(rng.choice((512, 704)), turn) for turn in range(sources))
    images = tuple(Pixels(*picture.size, picture.tobytes()) for picture in pictures)
    return EditJob(**common, images=images, strength=None)


class Bench:
    """One model, run as the engine runs it, without its threads."""

    def __init__(self, components: Components, styles: Styles) -> None:
        compiled = choose_compiled("auto", components.device)
        self._denoiser = Denoiser(components, styles, compiled=compiled)
        self._denoiser.warm()
        self._conditioner = Conditioner(components, self._denoiser, Cache(0), Activity())

    def rows(self, jobs: Sequence[Job]) -> list[Row]:
        rows = []
        for row in self._conditioner.rows(jobs):
            if isinstance(row, Exception):
                raise row
            rows.append(row)
        return rows

    def pictures(self, jobs: Sequence[Job]) -> tuple[list[np.ndarray], float]:
        """The pictures of jobs that are made together, and the seconds of their steps."""
        rows = self.rows(jobs)
        _wait()
        begun = time.perf_counter()
        while going := [row for row in rows if not row.is_done]:
            self._denoiser.step(going)
        _wait()
        seconds = time.perf_counter() - begun
        return [_array(to_pixels(self._denoiser.decode(row))) for row in rows], seconds


def _array(pixels: Pixels) -> np.ndarray:
    return np.frombuffer(pixels.rgb, np.uint8).astype(np.int16)


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def compare(bench: Bench, mixes: Sequence[Sequence[Job]]) -> dict[str, Any]:
    """Every picture in its mix beside the same picture alone."""
    worst, same, powers, seconds = 0, 0, [], 0.0
    total = sum(map(len, mixes))
    for jobs in mixes:
        together, spent = bench.pictures(jobs)
        seconds += spent
        for job, picture in zip(jobs, together, strict=True):
            [alone], _ = bench.pictures([job])
            off = np.abs(picture - alone)
            worst = max(worst, int(off.max()))
            same += not off.any()
            power = float(np.square(off).mean())
            powers.append(10 * math.log10(255**2 / power) if power else math.inf)
    lowest = min(powers)
    return {
        "pictures": total,
        "equal": same,
        "worst_level": worst,  # of 255
        "least_db": None if math.isinf(lowest) else round(lowest, 1),
        "median_db": None if math.isinf(m := statistics.median(powers)) else round(m, 1),
        "steps_s": round(seconds, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mixes", type=int, default=20)
    parser.add_argument("--klein", action="store_true", help="the large architecture, random")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    quieten()
    device = torch.device(options.device)
    if options.klein:
        pipeline = klein(1, device, choose_dtype("auto", device))
        components = components_of(pipeline, device)
        styles = add_styles(pipeline.transformer, ("dark", "anime"))
    else:
        components = load_components(MINI / "weights", device, choose_dtype("auto", device))
        folders = {name: MINI / "styles" / name for name in ("dark", "anime")}
        styles = install_styles(components.transformer, folders)
    rng = random.Random(options.seed)  # noqa: S311
    mixes = [
        [a_job(rng, styles.names) for _ in range(rng.randint(2, 5))] for _ in range(options.mixes)
    ]
    result: dict[str, Any] = {
        "machine": facts(),
        "model": "klein-4B, random weights" if options.klein else "iris-mini",
        "dtype": str(components.dtype).removeprefix("torch."),
    }
    for name, is_strict in (("default", False), ("strict", True)):
        bench = Bench(replace(components, is_strict=is_strict), styles)
        with torch.inference_mode():
            bench.pictures(mixes[0])  # the first of every shape is slower
            result[name] = compare(bench, mixes)
        print(f"{name}: {json.dumps(result[name])}", flush=True)
    result["strict/default"] = round(result["strict"]["steps_s"] / result["default"]["steps_s"], 3)
    print("strict/default:", result["strict/default"])
    out = options.out or RESULTS / f"neighbours-{'klein' if options.klein else 'mini'}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
