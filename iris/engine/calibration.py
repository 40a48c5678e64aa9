"""Measure this machine at start: encoding, one step and decoding at two sizes."""

from __future__ import annotations

import time
from itertools import pairwise
from statistics import median

import torch

from iris.engine.conditioning import Conditioner
from iris.engine.cost import CostModel
from iris.engine.denoiser import Denoiser
from iris.jobs import EditJob, Pixels

# The first run only pays what the first use costs. Aspects differ: a model that paints at one scale
# paints pictures of one aspect alike, whatever their size.
_SIZES_PX = ((128, 768), (128, 768), (768, 768))
_STEPS = 3  # of which the middle one counts: a busy host makes some of them slow


def measure(cost: CostModel, conditioner: Conditioner, denoiser: Denoiser) -> None:
    """Lay the cost model's lines through what two edits take.

    Raises:
        Exception: whatever stops the picture; a model that cannot paint must not be served.
    """
    encodes: list[tuple[float, float]] = []
    steps: list[tuple[float, float]] = []
    decodes: list[tuple[float, float]] = []
    for number, (width, height) in enumerate(_SIZES_PX):
        job = EditJob(
            request_id="calibration",
            owner="calibration",
            prompt=f"calibration {number}",  # new, like the image: what was there costs nothing
            width_px=width,
            height_px=height,
            num_inference_steps=_STEPS,
            seed=0,
            guidance_scale=1.0,
            lora=None,
            lora_strength=0.0,
            deadline_s=0.0,
            images=(Pixels(width, height, bytes([number]) * (3 * width * height)),),
            strength=None,
        )
        asked = _now_s()
        (row,) = conditioner.rows([job])
        if isinstance(row, Exception):
            raise row
        times = [_now_s()]
        while not row.is_done:
            denoiser.step([row])
            times.append(_now_s())
        begun, stepped = times[0], times[-1]
        ends = [_now_s() for _ in denoiser.decoding(row)]
        encodes.append((denoiser.image_pixels(job), begun - asked))
        tokens = len(row.rotation[0])
        steps.append((tokens, median(end - start for start, end in pairwise(times))))
        decoded = _now_s()
        decodes.append((row.canvas.pixels, decoded - stepped))
        cost.decode_left_after = [(decoded - end) / (decoded - stepped) for end in ends]
    cost.encode.calibrate(encodes[1:])
    cost.step.calibrate(steps[1:])
    cost.decode.calibrate(decodes[1:])


def _now_s() -> float:
    """The time when all that was asked of the device is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.monotonic()
