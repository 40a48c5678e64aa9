"""The engine's Prometheus metrics.

BentoML runs the engine in a process of its own and sets prometheus_client's multiprocess
directory, so the front's listener shows these next to its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)

WAITING = Gauge(
    "iris_engine_waiting_pictures",
    "Pictures admitted and not started.",
    multiprocess_mode="livesum",
)
RUNNING = Gauge(
    "iris_engine_running_pictures",
    "Pictures sharing the step loop.",
    multiprocess_mode="livesum",
)
READY = Gauge("iris_engines_ready", "Engines that take work.", multiprocess_mode="livesum")
PREDICTED = Gauge(
    "iris_engine_predicted_wait_seconds",
    "Engine time until everything admitted is done.",
    multiprocess_mode="livemax",
)
PICTURES = Counter(
    "iris_engine_pictures_total", "Pictures that left the engine.", ["kind", "outcome"]
)
STEPS = Counter("iris_engine_steps_total", "Denoising steps taken, each of one picture.")
REFUSALS = Counter("iris_engine_refusals_total", "Pictures refused at admission.", ["code"])
STAGE = Histogram(
    "iris_engine_stage_seconds", "Time in one stage of the work.", ["stage"], buckets=_SECONDS
)
ADMITTED = Histogram(
    "iris_engine_admission_batch_pictures",
    "Pictures admitted by one call, their prompts encoded together.",
    ["method"],
    buckets=(1, 2, 3, 4, 6, 8, 12, 16, 32),
)
QUEUED = Histogram(
    "iris_engine_queue_seconds", "From admission to the first step.", buckets=_SECONDS
)
PROMISE = Histogram(
    "iris_engine_promise_ratio",
    "Time a delivered picture took, divided by the time predicted at its admission.",
    buckets=(0.25, 0.5, 0.67, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 4.0),
)

CACHE = Counter(
    "iris_engine_cache_total", "Prompts and images looked up before encoding.", ["kind", "result"]
)
STYLE_BYTES = Gauge(
    "iris_engine_style_bytes",
    "Device memory of the styles lately asked for.",
    multiprocess_mode="livesum",
)
RECORDING_BYTES = Gauge(
    "iris_engine_recording_bytes",
    "Device memory that recorded work keeps for what goes in and comes out.",
    ["stage"],
    multiprocess_mode="livesum",
)
CACHE_BYTES = Gauge(
    "iris_engine_cache_bytes",
    "Encoded prompts and images that are kept.",
    multiprocess_mode="livesum",
)
OUT_OF_MEMORY = Counter(
    "iris_engine_out_of_memory_total", "Times the device's memory did not suffice at first."
)


@contextmanager
def timed(stage: str) -> Iterator[None]:
    """Observe the time spent inside, also when it raises."""
    start = perf_counter()
    try:
        yield
    finally:
        STAGE.labels(stage).observe(perf_counter() - start)
