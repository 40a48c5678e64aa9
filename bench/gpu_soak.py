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
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from architecture import components_of, klein, write_styles
from gpu_clients import Clients
from gpu_memory import MemoryWatch
from gpu_pictures import REAL, RELOADED, SMALL, STYLES, Mix, Scale
from machine import facts
from server import RESULTS

import iris.engine.engine as engine_module
from iris.engine.engine import Engine
from iris.engine.loader import choose_compiled, quieten, use_threads
from iris.engine.lora import Styles, install_styles
from iris.jobs import (
    Pixels,
    Quote,
)

CANCELLED, ABORTED = 0.08, 0.04  # shares of the pictures
TOGETHER = 0.1  # share of the arrivals that bring several pictures in one call
CACHE_BYTES, MAX_WAITING, MAX_RUNNING = 256 << 20, 64, 8  # as the service has it
SURGE, SURGE_DEADLINES = 24, 8.0  # finals at once; their deadline, times what one takes
# What is still called flat between minute 2 and the end, where the engine has nothing to do.
FLAT_GIB = {"allocated": 0.05, "reserved": 1.0, "rss": 0.5}


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
        found["rss"] = round(found["rss"] - self._to_compare_gib(), 4)
        self._quiet.append(found if is_idle else found | {"was_busy": 1.0})
        print(f"quiet: {json.dumps(self._quiet[-1])}", flush=True)
        self._keep("quiet", self._quiet)
        self._keep("verdict", self.verdict())  # so far

    def _to_compare_gib(self) -> float:
        """Of the process's memory: pictures that are kept for the end."""
        made = (of.result()[0] for _, of in self._made if of.done())
        return sum(len(picture.pixels.rgb) for picture in made if picture is not None) / 2**30

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
