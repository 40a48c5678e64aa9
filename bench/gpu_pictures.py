"""Random pictures of every kind, and what can be wrong with one that was made."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
from solo import a_source

from iris.jobs import (
    EditJob,
    GenerateJob,
    Job,
    Pixels,
)

STYLES = ("one", "two", "three")
RELOADED = "three"  # is served in another version every minute
PROMPTS = (
    "a red house on the beach, sunset",
    "a blue cat in the city at night",
    "sebuah balon kuning di pegunungan",
    "a green car in the desert",
    "seekor kucing di pantai, lukisan cat air",
)
DEADLINE_S = 300.0  # as the service has it by default


@dataclass(frozen=True)
class Scale:
    """Sizes and times of a real run, or of a rehearsal."""

    shrink: int  # of the model's widths
    pixels: int  # sides are divided by this
    steps: int  # of finals, likewise
    capacity_s: float  # to measure for what load 1 is
    surge_s: float  # between surges
    probe_s: float  # between pictures that are made again at the end
    line_s: float  # between lines of output
    quiet_s: tuple[float, ...]  # when the engine is let run empty

    def side(self, side_px: int) -> int:
        return max(16, side_px // self.pixels // 16 * 16)


REAL = Scale(1, 1, 1, 20.0, 60.0, 40.0, 15.0, (60.0, 120.0, 240.0, 360.0, 480.0))
SMALL = Scale(24, 8, 10, 2.0, 8.0, 4.0, 3.0, (6.0, 12.0))


class Mix:
    """Random pictures, as many as are asked for."""

    def __init__(self, scale: Scale, seed: int) -> None:
        self._scale = scale
        self._rng = random.Random(seed)  # noqa: S311
        self._count = 0
        side = scale.side(704)
        self._sources = {
            size: [Pixels(size, size, a_source(size, turn).tobytes()) for turn in range(4)]
            for size in {scale.side(512), side}
        }

    def picture(self, kind: str | None = None, **fields: Any) -> Job:
        """One picture; fields: what is not left to chance."""
        rng, scale = self._rng, self._scale
        self._count += 1
        kind = kind or rng.choices(("preview", "final", "edit"), (0.6, 0.2, 0.2))[0]
        sides = {"preview": (512, 640, 768), "final": (768, 960), "edit": (512, 704)}[kind]
        steps = 4 if kind != "final" else max(2, rng.randint(20, 30) // scale.steps)
        number = rng.randrange(1000)  # a few prompts come often, most come once
        common: dict[str, Any] = {
            "request_id": kind,
            "owner": f"owner {rng.randrange(4)}",
            "prompt": rng.choice(PROMPTS) + ("" if number < 300 else f", number {number}"),
            "width_px": scale.side(rng.choice(sides)),
            "height_px": scale.side(rng.choice(sides)),
            "num_inference_steps": steps,
            "seed": self._count,
            "guidance_scale": rng.choice((1.0, 1.0, 1.0, 2.5)),
            "lora": rng.choice((None, *STYLES)),
            "lora_strength": rng.choice((0.4, 0.8, 1.2)),
            "deadline_s": DEADLINE_S,
        } | fields
        return GenerateJob(**common) if kind != "edit" else self._edit(common)

    def _edit(self, common: dict[str, Any]) -> Job:
        rng = self._rng
        way = rng.choice(("strength", "references", "references", "mask"))
        if way == "references":
            pool = self._sources[rng.choice(sorted(self._sources))]
            images = tuple(rng.sample(pool, rng.randint(1, 3)))
            return EditJob(**common, images=images, strength=None)
        common["height_px"] = common["width_px"]
        source = rng.choice(self._sources[common["width_px"]])
        strength = rng.choice((0.4, 0.75, 1.0))
        mask = a_mask(common["width_px"]) if way == "mask" else None
        return EditJob(**common, images=(source,), strength=strength, mask=mask)

    def probes(self) -> list[Job]:
        """Pictures of every kind that are the same whenever they are asked for."""
        side, large = self._scale.side(704), self._scale.side(960)
        source = self._sources[side][1]
        same: dict[str, Any] = {"lora": None, "lora_strength": 0.8, "guidance_scale": 1.0}
        preview = self.picture(
            "preview", **same, width_px=self._scale.side(768), height_px=self._scale.side(768)
        )
        final = self.picture(
            "final",
            **(same | {"lora": "one", "guidance_scale": 2.5}),
            width_px=large,
            height_px=self._scale.side(640),
        )
        edit = EditJob(
            **{field: getattr(preview, field) for field in preview.__dataclass_fields__}
            | {"width_px": side, "height_px": side, "lora": "two", "request_id": "edit"},
            images=(source,),
            strength=0.75,
            mask=a_mask(side),
        )
        return [preview, final, edit]

    def chance(self) -> float:
        return self._rng.random()

    def wait_s(self, rate: float) -> float:
        return self._rng.expovariate(rate)


def a_mask(side_px: int) -> bytes:
    """The middle of a square picture is to be made anew."""
    mask = np.zeros((side_px, side_px), np.uint8)
    mask[side_px // 4 : -side_px // 4, side_px // 4 : -side_px // 4] = 255
    return mask.tobytes()


def what_is_wrong(job: Job, pixels: Pixels) -> str | None:
    """Of a delivered picture; None where nothing is."""
    if (pixels.width_px, pixels.height_px) != (job.width_px, job.height_px):
        return "size"
    if len(pixels.rgb) != 3 * job.width_px * job.height_px:
        return "bytes"
    levels = np.frombuffer(pixels.rgb, np.uint8).reshape(job.height_px, job.width_px, 3)
    if levels.min() == levels.max():
        return "one colour"
    if isinstance(job, EditJob) and job.mask is not None:
        source = np.frombuffer(job.images[0].rgb, np.uint8).reshape(levels.shape)
        outside = np.frombuffer(job.mask, np.uint8).reshape(levels.shape[:2]) < 128
        if (levels[outside] != source[outside]).any():
            return "outside of its mask"
    return None
