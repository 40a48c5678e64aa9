"""Minutes of mixed work on the real engine, with FLUX.2-klein-4B's architecture on a GPU.

    python bench/gpu_soak.py [--minutes 10] [--load 0.5] [--strict] [--rehearse]

The engine itself, with its threads, scheduler, caches and styles, without HTTP; random weights.
Previews, finals, edits, masks, guidance and styles come at random times and do not wait for one
another, at a share of what the engine got done at once before; some are cancelled midway, some as
soon as they are in, and now and then more finals come at once than fit their deadline. A style is
served in a new version every minute. Memory is read all the time, and where the engine has nothing
to do: that is what must not grow from minute 2 on. At the end, pictures that were made in the mix
are made again, alone. SIGTERM ends it early, with a result.

Without a GPU it says so. --rehearse runs it small on a CPU for a while and keeps nothing.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import random
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from gpu import RANK, components_of, klein
from machine import facts
from prometheus_client import REGISTRY
from safetensors.torch import save_file
from server import RESULTS
from solo import a_source
from torch import nn

import iris.engine.engine as engine_module
from iris.engine.engine import Engine
from iris.engine.loader import choose_compiled, keep_memory, quieten, use_threads
from iris.engine.lora import Styles, install_styles
from iris.jobs import (
    Admission,
    EditJob,
    Failure,
    GenerateJob,
    Job,
    Picture,
    Pixels,
    Quote,
    Refusal,
)

_GIB = 1 << 30
STYLES = ("one", "two", "three")
RELOADED = "three"  # is served in another version every minute
PROMPTS = (
    "a red house on the beach, sunset",
    "a blue cat in the city at night",
    "sebuah balon kuning di pegunungan",
    "a green car in the desert",
    "seekor kucing di pantai, lukisan cat air",
)
CANCELLED, ABORTED = 0.08, 0.04  # shares of the pictures
TOGETHER = 0.1  # share of the arrivals that bring several pictures in one call
DEADLINE_S = 300.0  # as the service has it by default
CACHE_BYTES, MAX_WAITING, MAX_RUNNING = 256 << 20, 64, 8  # likewise
SURGE, SURGE_DEADLINES = 24, 8.0  # finals at once; their deadline, times what one takes
LOST_S = 60.0  # behind its deadline nobody waits any longer
# What is still called flat between minute 2 and the end, where the engine has nothing to do.
FLAT_GIB = {"allocated": 0.05, "reserved": 1.0, "rss": 0.5}


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


# -- what is asked for ----------------------------------------------------------------------


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


# -- who asks -------------------------------------------------------------------------------


class Clients:
    """Asks one engine for pictures, from many threads, and notes what became of each."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._pool = ThreadPoolExecutor(128)
        # As many as the service calls the engine from: each has its own workspace on the device.
        self._admitting = ThreadPoolExecutor(4)
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        self.seconds: dict[str, list[float]] = {}  # from asking to pixels
        self.admitting_s: list[float] = []  # encoding, and reading a style that is not there
        self.ratios: list[float] = []  # to what was promised
        self.wrong: list[str] = []
        self.in_flight = 0

    def send(self, jobs: Sequence[Job], fate: str = "kept", part: float = 0.0) -> Future[Any]:
        """Ask for them in one call. Comes to their pictures, with None for what was not made.

        fate: "cancelled" after that part of the time promised, "aborted" at once.
        """
        with self._lock:
            self.in_flight += 1
        return self._pool.submit(self._one, jobs, fate, part)

    def _one(self, jobs: Sequence[Job], fate: str, part: float) -> list[Picture | None]:
        try:
            return self._made(jobs, fate, part)
        except Exception as error:  # of the engine: it answers, it never raises
            logging.getLogger("soak").exception("a client was thrown out")
            self._count("thrown", type(error).__name__)
            return [None for _ in jobs]
        finally:
            with self._lock:
                self.in_flight -= 1

    def _made(self, jobs: Sequence[Job], fate: str, part: float) -> list[Picture | None]:
        engine, asked = self._engine, time.monotonic()
        self._count("asked", count=len(jobs))
        answers = self._admitting.submit(self._admitted, jobs).result()
        pictures: list[Picture | None] = []
        outcomes = [
            None if isinstance(answer, Refusal) else engine.collect(answer.ticket_id)
            for answer in answers
        ]
        for job, answer, outcome in zip(jobs, answers, outcomes, strict=True):
            if isinstance(answer, Refusal) or outcome is None:
                self._count("refused", answer.code if isinstance(answer, Refusal) else None)
                pictures.append(None)
                continue
            self._count("admitted")
            if fate == "aborted":
                engine.cancel(answer.ticket_id)
            elif fate == "cancelled":
                with suppress(Late):
                    outcome.result(part * answer.predicted_s)
                engine.cancel(answer.ticket_id)
            try:
                found = outcome.result(job.deadline_s + LOST_S)
            except Late:
                self._count("lost")
                pictures.append(None)
                continue
            engine.cancel(answer.ticket_id)
            took_s = time.monotonic() - asked
            pictures.append(self._noted(job, found, fate, took_s, answer.predicted_s))
        return pictures

    def _admitted(self, jobs: Sequence[Job]) -> list[Admission]:
        begun = time.monotonic()
        answers = self._engine.admit(jobs)
        with self._lock:
            self.admitting_s.append(time.monotonic() - begun)
        return answers

    def _noted(
        self, job: Job, found: Any, fate: str, took_s: float, predicted_s: float
    ) -> Picture | None:
        if isinstance(found, Failure):
            if fate != "kept" and "cancelled" in found.message:
                self._count(fate)
            elif found.code == "backend_timeout":
                self._count("expired")
            else:
                self._count("failed", found.message)
            return None
        picture: Picture = found
        wrong = what_is_wrong(job, picture.pixels)
        with self._lock:
            self.counts["delivered"] += 1
            self.seconds.setdefault(job.request_id, []).append(took_s)
            self.ratios.append(took_s / max(predicted_s, 1e-3))
            if wrong is not None:
                self.counts["wrong"] += 1
                self.wrong.append(f"{job.request_id}: {wrong}")
        return picture

    def _count(self, name: str, detail: str | None = None, count: int = 1) -> None:
        with self._lock:
            self.counts[name] += count
            if detail is not None:
                self.counts[f"{name}: {detail}"] += count

    def wait_idle(self, timeout_s: float) -> bool:
        until = time.monotonic() + timeout_s
        while self.in_flight and time.monotonic() < until:
            time.sleep(0.05)
        return not self.in_flight

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._admitting.shutdown(wait=False, cancel_futures=True)


# -- memory ---------------------------------------------------------------------------------


def rss_bytes() -> int:
    """Of this process, without what it shares with files it has mapped."""
    _, resident, shared, *_ = Path("/proc/self/statm").read_text().split()
    return (int(resident) - int(shared)) * 4096


def kept_bytes() -> tuple[float, float]:
    """Of the engine's cache, and of the styles it keeps on the device."""
    names = ("iris_engine_cache_bytes", "iris_engine_style_bytes")
    cache, styles = (REGISTRY.get_sample_value(name) or 0.0 for name in names)
    return cache, styles


class MemoryWatch:
    """Reads the device's memory all the time; `window` tells of the time since it was last asked.

    The least that was allocated in a window is about what lies there between steps.
    """

    def __init__(self, device: torch.device) -> None:
        self._is_cuda = device.type == "cuda"
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self.peak = 0.0  # GiB, of all
        self._least = float("inf")
        threading.Thread(target=self._run, name="memory", daemon=True).start()

    def _run(self) -> None:
        while not self._ended.wait(0.1):
            with self._lock:
                self._least = min(self._least, self.now()["allocated"])

    def now(self) -> dict[str, float]:
        """GiB. On a CPU nothing but the process and what is kept is known."""
        cache, styles = kept_bytes()
        found = {"rss": rss_bytes(), "cache": cache, "styles": styles, "allocated": 0.0}
        if self._is_cuda:
            found["allocated"] = torch.cuda.memory_allocated()
            found["reserved"] = torch.cuda.memory_reserved()
        return {name: value / _GIB for name, value in found.items()}

    def window(self) -> dict[str, float]:
        with self._lock:
            found = self.now() | {"between_steps": min(self._least, self.now()["allocated"])}
            self._least = float("inf")
        if self._is_cuda:
            found["peak"] = torch.cuda.max_memory_allocated() / _GIB
            self.peak = max(self.peak, found["peak"])
            torch.cuda.reset_peak_memory_stats()
        return {name: round(value, 3) for name, value in found.items()}

    def quiet(self) -> dict[str, float]:
        """When nothing is under way; `allocated` is then weights, caches, and what leaks."""
        gc.collect()
        if self._is_cuda:
            torch.cuda.synchronize()
        found = self.now()
        found["allocated_less_kept"] = found["allocated"] - found["cache"] - found["styles"]
        return {name: round(value, 4) for name, value in found.items()}

    def stop(self) -> None:
        self._ended.set()


# -- the run --------------------------------------------------------------------------------


def write_styles(transformer: nn.Module, names: Sequence[str], under: Path) -> dict[str, Path]:
    """Random adapters for every linear layer of the blocks, in folders that stay there."""
    blocks = ("transformer_blocks.", "single_transformer_blocks.")
    folders = {}
    for name in names:
        tensors = {}
        for path, layer in transformer.named_modules():
            if isinstance(layer, nn.Linear) and path.startswith(blocks):
                new = layer.weight.new_empty
                down = new(RANK, layer.in_features).normal_(std=0.01)
                up = new(layer.out_features, RANK).normal_(std=0.01)
                tensors[f"transformer.{path}.lora_A.weight"] = down.cpu()
                tensors[f"transformer.{path}.lora_B.weight"] = up.cpu()
        folders[name] = under / name
        folders[name].mkdir()
        save_file(tensors, folders[name] / "pytorch_lora_weights.safetensors")
    return folders


def started(
    scale: Scale, device: torch.device, is_strict: bool, under: Path
) -> tuple[Engine, dict[str, Path], dict[str, Any]]:
    """An engine that takes work, the folders of its styles, and the seconds until then."""
    spent: dict[str, Any] = {}
    begun = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal begun
        if device.type == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        spent[name], begun = round(now - begun, 2), now
        print(f"{name}: {spent[name]}", flush=True)

    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    pipeline = klein(scale.shrink, device, dtype)
    components = replace(components_of(pipeline, device), is_strict=is_strict)
    del pipeline
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    lap("build_s")
    folders = write_styles(components.transformer, (*STYLES, "newer"), under)
    one_style = (folders["one"] / "pytorch_lora_weights.safetensors").stat().st_size
    styles: Styles = install_styles(
        components.transformer,
        {name: folders[name] for name in STYLES},
        kept_bytes=int(2.5 * one_style),  # two stay on the device, the others come and go
    )
    lap("styles_s")
    compiled = choose_compiled("auto", device)
    engine = Engine(
        components,
        styles,
        max_waiting=MAX_WAITING,
        max_running=MAX_RUNNING,
        cache_bytes=CACHE_BYTES if device.type == "cuda" else 4 << 20,
        stall_s=60.0,
        compiled=compiled,
        on_hang=lambda: print("THE DEVICE HANGS", flush=True),
    )
    lap("made_s")
    measure = engine_module.measure

    def timed(*parts: Any) -> None:
        lap("compile_s")
        measure(*parts)
        lap("calibrate_s")

    with patch.object(engine_module, "measure", timed):
        engine.start()
    spent["compiled"] = compiled
    spent["until_ready_s"] = round(sum(v for k, v in spent.items() if k.endswith("_s")), 2)
    return engine, folders, spent


def capacity(clients: Clients, mix: Mix, seconds: float) -> float:
    """Pictures a second that the engine gets done when it always has work."""

    def keep_busy(until: float) -> int:
        done, going = 0, [clients.send([mix.picture()]) for _ in range(MAX_RUNNING)]
        while going:
            first = going.pop(0)
            done += first.result() != [None]
            if time.monotonic() < until:
                going.append(clients.send([mix.picture()]))
        return done

    keep_busy(time.monotonic() + seconds / 4)  # the first of every shape is slower
    begun = time.monotonic()
    done = keep_busy(begun + seconds)
    return done / (time.monotonic() - begun)


class Soak:
    def __init__(
        self, engine: Engine, folders: dict[str, Path], scale: Scale, watch: MemoryWatch, out: Any
    ) -> None:
        self._engine = engine
        self._folders = folders
        self._scale = scale
        self._watch = watch
        self._keep = out  # takes a name and a value of the result
        self.ended = threading.Event()
        self.clients = Clients(engine)
        self.mix = Mix(scale, seed=1)
        self._probes = self.mix.probes()
        self._made: list[tuple[int, Future[Any]]] = []  # the probe's number, what came of it
        self._quiet: list[dict[str, float]] = []
        self._lines: list[dict[str, Any]] = []
        self._begun = 0.0
        self._version = 0  # of the style that is reloaded

    def _passed_s(self) -> float:
        return time.monotonic() - self._begun

    def run(self, seconds: float, rate: float) -> None:
        """Random arrivals, so many a second, until the time is over or `ended` is set."""
        scale, mix = self._scale, self.mix
        self._begun = time.monotonic()
        self._quiet_point()
        # What is done again and again: when next, how long after that, and what.
        due: list[tuple[float, Callable[[], float], Callable[[], None]]] = [
            (0.0, lambda: mix.wait_s(rate), self._arrive),
            (scale.surge_s / 3, lambda: scale.surge_s, self._surge),
            (scale.surge_s / 2, lambda: scale.surge_s, self._renew_a_style),
            (scale.probe_s / 4, lambda: scale.probe_s, self._probe),
            (scale.line_s, lambda: scale.line_s, self._line),
        ]
        quiet = [at for at in scale.quiet_s if at < seconds]
        while not self.ended.is_set() and (now := self._passed_s()) < seconds:
            if quiet and now >= quiet[0]:
                quiet.pop(0)
                self._quiet_point()
                pause_s = self._passed_s() - now  # nobody makes up for it
                due = [(at + pause_s, again, work) for at, again, work in due]
            for number, (at, again, work) in enumerate(due):
                if now >= at:
                    due[number] = (at + again(), again, work)
                    work()
            soonest = min(seconds, *(at for at, _, _ in due))
            self.ended.wait(min(0.5, max(0.0, soonest - self._passed_s())))
        self._quiet_point()
        self._line()

    def _arrive(self) -> None:
        if self.mix.chance() < TOGETHER:
            self.clients.send([self.mix.picture("preview") for _ in range(3)])
            return
        chance, part = self.mix.chance(), 0.1 + 0.8 * self.mix.chance()
        fate = "cancelled" if chance < CANCELLED else "kept"
        if CANCELLED <= chance < CANCELLED + ABORTED:
            fate = "aborted"
        self.clients.send([self.mix.picture()], fate, part)

    def _renew_a_style(self) -> None:
        """Pictures in the making keep the version that they began with."""
        self._version += 1
        folder = self._folders["newer" if self._version % 2 else RELOADED]
        self._engine.serve_styles({RELOADED: folder})

    def _surge(self) -> None:
        """More finals at once than fit their deadline: some have to be refused."""
        job = self.mix.picture("final")
        quote = self._engine.quote(job)
        own_s = quote.own_s if isinstance(quote, Quote) else 1.0
        for _ in range(SURGE):
            deadline_s = max(3.0, SURGE_DEADLINES * own_s)
            self.clients.send([self.mix.picture("final", deadline_s=deadline_s)])

    def _probe(self) -> None:
        for number, job in enumerate(self._probes):
            self._made.append((number, self.clients.send([job])))
            self.clients.send([self.mix.picture()])

    def _quiet_point(self) -> None:
        is_idle = self.clients.wait_idle(60.0)
        found = {"at_s": round(self._passed_s(), 1)} | self._watch.quiet()
        self._quiet.append(found if is_idle else found | {"was_busy": 1.0})
        print(f"quiet: {json.dumps(self._quiet[-1])}", flush=True)
        self._keep("quiet", self._quiet)
        self._keep("verdict", self.verdict())  # so far

    def _line(self) -> None:
        counts = self.clients.counts
        health = self._engine.health()
        line: dict[str, Any] = {"at_s": round(self._passed_s(), 1)} | self._watch.window()
        names = ("delivered", "refused", "cancelled", "aborted", "expired", "failed", "wrong")
        line |= {name: counts[name] for name in names}
        line |= {"waiting": health.waiting, "running": health.running}
        self._lines.append(line)
        print(json.dumps(line), flush=True)
        if not health.alive:
            print(f"not alive: {health.detail}", flush=True)
        self._keep("timeline", self._lines)

    def alone(self) -> dict[str, Any]:
        """The pictures that were made in the mix, made again with nothing beside them."""
        found: dict[str, Any] = {}
        for number, job in enumerate(self._probes):
            [alone] = self.clients.send([job]).result()
            begun = time.perf_counter()
            self.clients.send([job]).result()
            found[f"{job.request_id}_alone_ms"] = round(1000 * (time.perf_counter() - begun))
            if alone is None:
                continue
            mixed = [made.result()[0] for which, made in self._made if which == number]
            off = [levels_off(alone.pixels, one.pixels) for one in mixed if one is not None]
            found[job.request_id] = {
                "made_in_the_mix": len(off),
                "equal": sum(not one for one in off),
                "furthest_off_levels": max(off, default=None),
            }
        return found

    def verdict(self) -> dict[str, Any]:
        """What was to be shown, and whether it is."""
        counts, seconds = self.clients.counts, self.clients.seconds
        late = [point for point in self._quiet if point["at_s"] >= 119.0]
        first, last = (late or self._quiet)[0], self._quiet[-1]
        growth = {
            name: round(last[key] - first[key], 4)
            for name, key in (
                ("allocated", "allocated_less_kept"),
                ("reserved", "reserved"),
                ("rss", "rss"),
            )
            if key in first
        }
        gone = sum(counts[n] for n in ("delivered", "cancelled", "aborted", "expired"))
        broken = sum(counts[name] for name in ("failed", "wrong", "lost", "thrown"))
        return {
            "growth_gib": growth,
            "from_s": first["at_s"],
            "to_s": last["at_s"],
            "is_flat": all(value <= FLAT_GIB[name] for name, value in growth.items()),
            "none_failed": broken == 0,
            "all_admitted_answered": gone == counts["admitted"],
            "expired": counts["expired"],
            "wrong": self.clients.wrong[:10],
            "counts": dict(sorted(counts.items())),
            "peak_gib": round(self._watch.peak, 2),
            "promise_ratio_p50": round(statistics.median(self.clients.ratios or [0.0]), 2),
            "admitting_s_p50_p95_most": [
                round(of(self.clients.admitting_s or [0.0]), 3)
                for of in (statistics.median, nearly_worst, max)
            ],
            "seconds_p50_p95": {
                kind: [round(statistics.median(times), 3), round(nearly_worst(times), 3)]
                for kind, times in sorted(seconds.items())
            },
        }


def nearly_worst(times: Sequence[float]) -> float:
    """The 95th percentile."""
    return sorted(times)[min(len(times) - 1, int(0.95 * len(times)))]


def levels_off(one: Pixels, other: Pixels) -> int:
    """The furthest that two pictures are apart, of 255 levels."""
    pair = (np.frombuffer(pixels.rgb, np.uint8).astype(np.int16) for pixels in (one, other))
    return int(np.abs(next(pair) - next(pair)).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, help="10; of a rehearsal a quarter of one")
    parser.add_argument(
        "--load", type=float, default=0.5, help="share of what it gets done (0.5), surges aside"
    )
    parser.add_argument("--strict", action="store_true", help="as IRIS_STRICT=on")
    parser.add_argument("--rehearse", action="store_true", help="on a CPU, small, without a result")
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu_soak.json")
    options = parser.parse_args()
    if not torch.cuda.is_available() and not options.rehearse:
        print("There is no GPU here: nothing was measured.")
        return
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    quieten()
    keep_memory()
    use_threads(1 if options.rehearse else 8)
    device = torch.device("cpu" if options.rehearse else "cuda")
    scale = SMALL if options.rehearse else REAL
    minutes = options.minutes or (0.25 if options.rehearse else 10.0)
    result: dict[str, Any] = {
        "machine": facts(),
        "minutes": minutes,
        "load": options.load,
        "strict": options.strict,
        "is_over": False,
    }

    def keep(name: str, value: Any) -> None:
        result[name] = value
        if not options.rehearse:  # at once: what has been seen when it is killed is kept
            options.out.parent.mkdir(parents=True, exist_ok=True)
            partial = options.out.with_suffix(".partial")
            partial.write_text(json.dumps(result, indent=2) + "\n")
            partial.replace(options.out)

    under = Path(tempfile.mkdtemp(prefix="iris-soak-styles-"))
    try:
        engine, folders, spent = started(scale, device, options.strict, under)
        keep("start", spent)
        print(f"start: {json.dumps(spent)}", flush=True)
        watch = MemoryWatch(device)
        soak = Soak(engine, folders, scale, watch, keep)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: soak.ended.set())
        at_once = Clients(engine)  # what it finds is not the soak's
        per_s = capacity(at_once, soak.mix, scale.capacity_s)
        at_once.close()
        keep("capacity", {"pictures_a_second": round(per_s, 3)})
        print(f"capacity: {per_s:.2f} pictures a second", flush=True)
        soak.run(60 * minutes, max(0.05, options.load * per_s))
        keep("alone", soak.alone())
        print(f"alone: {json.dumps(result['alone'])}", flush=True)
        keep("is_over", True)
        keep("verdict", soak.verdict())
        print(f"verdict: {json.dumps(result['verdict'])}", flush=True)
        watch.stop()
        soak.clients.close()
        engine.close()
    finally:
        shutil.rmtree(under, ignore_errors=True)
    if options.rehearse:
        print("A rehearsal: these figures mean nothing and are not kept.")
    shown = result["verdict"]
    is_good = shown["is_flat"] or options.rehearse
    sys.exit(0 if is_good and shown["none_failed"] and shown["all_admitted_answered"] else 1)


if __name__ == "__main__":
    main()
