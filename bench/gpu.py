"""The whole of FLUX.2-klein-4B on a GPU, with random weights: what the engine takes for it.

    python bench/gpu.py [--rounds 5] [--rehearse]

Without a GPU it says so and measures nothing. --rehearse runs all of it on a CPU with a model of
the same shape and a fraction of its width, to see that it runs; it writes no result.

Milliseconds of the steps alone and of whole pictures, TFLOP/s of the steps, peak memory, the share
of the floor, with blocks in bfloat16 and in float8, in turns with the stock pipeline's pictures;
and the stock pipeline compiled. What matters most comes first, and each figure is written when it
is there.
Source of the configuration and of the floors: the published config of FLUX.2-klein-4B, and the
floating-point operations of its steps at 790 TFLOP/s, dense bfloat16 as measured on an H200.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from architecture import TEXT_LAYERS, TEXT_TOKENS, add_styles, components_of, klein
from gpu_engine import Bench, in_fp8
from machine import facts
from server import RESULTS
from solo import a_source, job_of
from torch import Tensor

from iris.engine.attention import Attention, Segments, one_by_one, varlen
from iris.engine.loader import Components
from iris.engine.lora import Styles
from iris.jobs import EditJob, Job

# side, steps, references: the floor on an H200 in ms, where one is known
CASES: dict[tuple[int, int, int], int | None] = {
    (768, 4, 0): 113,
    (960, 4, 0): 171,
    (704, 4, 1): 180,
    (704, 4, 3): 382,
    (704, 4, 5): 631,
    (768, 30, 0): None,
}
FIRST = (768, 4, 0)
Case = tuple[int, int, int]


def a_job(side: int, steps: int, references: int, lora: str | None = None, seed: int = 0) -> Job:
    return replace(job_of(side, steps, references, seed), lora=lora, lora_strength=0.8)


def milliseconds(work: Callable[[], object], rounds: int) -> float:
    """The median, each round to the end of what it asked the device for."""
    return in_turns([work], rounds)[0]


def in_turns(works: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """The median of each: what one gets of the device's clock, the others get, too."""
    taken: list[list[float]] = [[] for _ in works]
    for turn in range(rounds + 1):  # the first is not counted
        for work, times in zip(works, taken, strict=True):
            _wait()
            begun = time.perf_counter()
            work()
            _wait()
            if turn > 0:
                times.append(1000 * (time.perf_counter() - begun))
    return [statistics.median(times) for times in taken]


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class Measure:
    """What is measured, each kept under its name at once."""

    def __init__(
        self,
        keep: Callable[[str, dict[str, Any]], None],
        rounds: int,
        side_of: Callable[[int], int],
        stock: Callable[[Job], Callable[[], object]],
    ) -> None:
        """side_of: the side that stands for another one, in a rehearsal a smaller one."""
        self._keep = keep
        self._stock = stock
        self._rounds = rounds
        self._side_of = side_of

    def _ms(self, work: Callable[[], object]) -> float:
        return milliseconds(work, self._rounds)

    def _plain(self, side: int, count: int = 1) -> list[Job]:
        return [a_job(self._side_of(side), 4, 0, seed=seed) for seed in range(count)]

    def tried(self, name: str, work: Callable[[], None]) -> None:
        """What this device or this torch cannot do is noted, and does not stop the rest."""
        try:
            work()
        except Exception as error:
            self._keep(f"{name} failed", {"error": f"{type(error).__name__}: {error}"[:400]})

    def stock(self, name: str, case: Case) -> None:
        """By itself; `engine` measures it beside the engine."""
        side, steps, count = case
        job = a_job(self._side_of(side), steps, count)
        self._keep(f"{name}, {_name(case)}", {"picture_ms": round(self._ms(self._stock(job)), 1)})

    def engine(self, name: str, bench: Bench, case: Case) -> None:
        """Steps alone, how soon all of them are asked for; whole pictures and the stock's."""
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        side, steps, count = case
        job = a_job(self._side_of(side), steps, count)
        all_steps = bench.steps([job])
        taken_ms = self._ms(all_steps)
        begun = time.perf_counter()
        all_steps()
        asked_ms = 1000 * (time.perf_counter() - begun)
        bench.pictures([job])()
        peak_bytes = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
        works = [bench.pictures([job]), self._stock(job)]
        whole_ms, stock_ms = in_turns(works, self._rounds)
        flops = bench.flops_a_step(job) * steps
        floor_ms = CASES[case]
        self._keep(
            f"{name}, {_name(case)}",
            {
                "steps_ms": round(taken_ms, 1),
                "asked_for_ms": round(asked_ms, 1),
                "picture_ms": round(whole_ms, 1),
                "stock_ms": round(stock_ms, 1),
                "tflops": round(flops / taken_ms / 1e9, 1),
                "of_the_floor": floor_ms and round(taken_ms / floor_ms, 2),
                "stock/engine": round(stock_ms / whole_ms, 2),
                "peak_gib": peak_bytes and round(peak_bytes / 2**30, 1),
            },
        )

    def stages(self, bench: Bench) -> None:
        """What is not steps, replayed and call by call; and how like the two are.

        Call by call, prompts go through the library's layers as they are, without a compiler.
        """
        [job] = self._plain(768)
        [row], [other] = bench.rows([job]), bench.call_by_call.rows([job])
        taken = {
            "encode_ms": self._ms(lambda: bench.rows([job])),
            "encode_call_by_call_ms": self._ms(lambda: bench.call_by_call.rows([job])),
            "decode_ms": self._ms(lambda: bench.denoiser.decode(row)),
        }
        picture = bench.denoiser.decode(row)
        with patch.object(bench.denoiser._decoder, "_recordings", None):
            taken["decode_call_by_call_ms"] = self._ms(lambda: bench.denoiser.decode(row))
            same = bench.denoiser.decode(row)
        edit = a_job(self._side_of(704), 4, 1)
        [canvas] = bench.model.image_canvases(edit)
        work = partial(bench.conditioner._images.encode, edit.images[0], canvas)
        taken["encode_image_704_ms"] = self._ms(work)
        stages = {name: round(ms, 1) for name, ms in taken.items()}
        self._keep("engine, the stages of 768x768", stages)
        self._keep(
            "a prompt compiled and replayed beside the library's", _off(row.prompt, other.prompt)
        )
        self._keep("a replayed picture beside itself call by call", _off(picture, same))

    def recorded(self, bench: Bench) -> None:
        """The same passes asked for call by call; and whether a replay is what they give."""
        [job] = self._plain(768)
        ends = [self._end(bench, job)]
        with patch.object(bench.denoiser._transformer, "_recordings", None):
            self.engine("engine call by call", bench, FIRST)
            ends.append(self._end(bench, job))
        self._keep("replayed passes beside themselves call by call", _off(*ends))

    def styles(self, bench: Bench) -> None:
        wishes = (None, "one", "two", "one")
        plain = self._plain(768, len(wishes))
        mixed = [replace(job, lora=wish) for job, wish in zip(plain, wishes, strict=True)]
        none_ms, mixed_ms = in_turns([bench.steps(plain), bench.steps(mixed)], self._rounds)
        self._keep(
            "styles, four pictures at once",
            {
                "none_ms": round(none_ms, 1),
                "mixed_ms": round(mixed_ms, 1),
                "cost": round(mixed_ms / none_ms - 1, 4),
            },
        )
        [one] = self._plain(768)
        works = [bench.steps([job]) for job in (one, replace(one, lora="one"))]
        alone_ms, dressed_ms = in_turns(works, self._rounds)
        self._keep("styles, one picture", {"cost": round(dressed_ms / alone_ms - 1, 4)})

    def fp8(self, bench: Bench, components: Components) -> None:
        """The blocks of a copy in float8."""
        begun = time.perf_counter()
        eight_bits = in_fp8(components, compiled=components.device.type == "cuda")
        _wait()
        self._keep(
            "fp8, rounding and compiling", {"seconds": round(time.perf_counter() - begun, 1)}
        )
        for case in (FIRST, (960, 4, 0)):
            self.engine("engine fp8", eight_bits, case)
        self.likeness("fp8 beside bfloat16, 768x768, 4 steps", bench, eight_bits)

    def likeness(self, name: str, bench: Bench, other: Bench) -> None:
        """How far latents are apart after all steps; of random weights, so only roughly telling."""
        [job] = self._plain(768)
        self._keep(name, _off(self._end(bench, job), self._end(other, job)))

    def _end(self, bench: Bench, job: Job) -> Tensor:
        """A picture's latents after all steps."""
        rows = bench.rows([job])
        while not rows[0].is_done:
            bench.denoiser.step(rows)
        return rows[0].latents

    def attention(self, device: torch.device, dtype: torch.dtype, heads: int) -> None:
        """Every implementation that serves this device, over one segment and over four."""
        kinds = {"one by one": one_by_one}
        if device.type == "cuda":
            kinds["varlen"] = varlen
        for lengths in ((1536,), (2816,), (8256,), (2816,) * 4):
            segments = Segments(tuple(map(self._side_of, lengths)), device)
            shape = (3, sum(segments.lengths), heads, 128)
            parts = torch.randn(shape, device=device, dtype=dtype)

            def repeated(attend: Attention, parts: Tensor = parts, s: Segments = segments) -> None:
                for _ in range(10):
                    attend(*parts, s)

            taken = {
                kind: round(self._ms(partial(repeated, attend)) / 10, 3)
                for kind, attend in kinds.items()
            }
            self._keep(f"attention, {len(lengths)} of {lengths[0]} tokens, ms", taken)

    def batches(self, bench: Bench) -> None:
        for count, side in ((1, 512), (2, 512), (4, 512), (2, 768)):
            taken_ms = self._ms(bench.steps(self._plain(side, count)))
            self._keep(
                f"batch of {count}, {side}x{side}, 4 steps",
                {"steps_ms": round(taken_ms, 1), "ms_each": round(taken_ms / count, 1)},
            )

    def unlike(self, bench: Bench) -> None:
        jobs = [
            a_job(self._side_of(512), 4, 0),
            a_job(self._side_of(960), 4, 0, "one"),
            a_job(self._side_of(704), 4, 2, "two"),
        ]
        apart_ms = sum(self._ms(bench.steps([job])) for job in jobs)
        together_ms = self._ms(bench.steps(jobs))
        self._keep(
            "unlike pictures",
            {"one_by_one_ms": round(apart_ms, 1), "together_ms": round(together_ms, 1)},
        )


def _name(case: Case) -> str:
    side, steps, count = case
    return f"{side}x{side}, {steps} steps, {count} references"


def _off(one: Tensor, other: Tensor) -> dict[str, Any]:
    """How far two are apart, of the size of the second."""
    one, other = one.float(), other.float()
    return {
        "same": torch.equal(one, other),
        "relative": float(f"{float((one - other).norm() / other.norm()):.2e}"),
    }


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
        sources = [a_source(job.width_px, turn) for turn in range(count)]
        return lambda: pipeline(
            image=sources or None,
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
        measure = Measure(keep, options.rounds, side_of, stock)
        components = components_of(pipeline, device)
        measure.stock("stock before anything is compiled", FIRST)
        styles = add_styles(pipeline.transformer, ("one", "two"))
        begun = time.perf_counter()
        bench = Bench(components, styles, compiled=not options.rehearse)
        _wait()
        keep("compile", {"seconds": round(time.perf_counter() - begun, 1)})
        measure.stages(bench)
        measure.engine("engine", bench, FIRST)
        measure.tried("recorded", lambda: measure.recorded(bench))
        measure.tried("styles", lambda: measure.styles(bench))
        for case in list(CASES)[1:]:
            measure.engine("engine", bench, case)
        measure.batches(bench)
        measure.unlike(bench)
        heads = pipeline.transformer.config.num_attention_heads
        measure.tried("attention", lambda: measure.attention(device, dtype, heads))
        measure.tried("fp8", lambda: measure.fp8(bench, components))
        eager = Bench(components, Styles(pipeline.transformer), compiled=False)
        measure.engine("engine eager", eager, FIRST)
        pipeline.transformer.compile_repeated_blocks(dynamic=True)
        measure.stock("stock compiled", FIRST)
    if options.rehearse:
        print("A rehearsal: these figures mean nothing and are not kept.")


if __name__ == "__main__":
    main()
