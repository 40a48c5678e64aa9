"""Asks one engine for pictures, from many threads, and notes what became of each."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late
from contextlib import suppress
from typing import Any

from gpu_pictures import what_is_wrong

from iris.engine.engine import Engine
from iris.jobs import (
    Admission,
    Failure,
    Job,
    Picture,
    Refusal,
)

LOST_S = 60.0  # behind its deadline nobody waits any longer


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
