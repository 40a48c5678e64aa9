"""The front's Prometheus metrics, and the listener that shows them off the public port."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    start_http_server,
)
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from iris.api.errors import CLIENT_GONE, OK
from iris.api.record import RequestRecord

_LOGGER = logging.getLogger("iris")
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """What the front counts. Labels are templates, codes and names of ours, nothing a client sent.

    Every app has its own registry. With PROMETHEUS_MULTIPROC_DIR set, prometheus_client keeps the
    values in files there, and the listener shows the sum over all processes.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "iris_requests",
            "Requests answered.",
            ("route", "method", "status", "code"),
            registry=self.registry,
        )
        self.refusals = Counter(
            "iris_refusals", "Requests refused, by error code.", ("code",), registry=self.registry
        )
        self.pictures = Counter(
            "iris_pictures_delivered",
            "Pictures sent to a client that was there to take them.",
            ("route", "lora"),
            registry=self.registry,
        )
        self.key_pictures = Counter(
            "iris_key_pictures",
            "Pictures that were delivered and paid, by the id of the key and its ledger.",
            ("key_id", "ledger"),
            registry=self.registry,
        )
        self.key_charged = Counter(
            "iris_key_charged_idr",
            "Rupiah taken for them.",
            ("key_id", "ledger"),
            registry=self.registry,
        )
        self.key_refusals = Counter(
            "iris_key_refusals",
            "Requests of a key that were refused, by error code.",
            ("key_id", "code"),
            registry=self.registry,
        )
        self.request_s = Histogram(
            "iris_request_duration_seconds",
            "From the first byte of the request to the last of the answer.",
            ("route",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.stage_s = Histogram(
            "iris_stage_duration_seconds",
            "Time of one stage of a request.",
            ("route", "stage"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "iris_requests_in_flight",
            "Requests being served now.",
            registry=self.registry,
            multiprocess_mode="livesum",
        )

    def observe(self, record: RequestRecord) -> None:
        """Count one finished request."""
        self.requests.labels(
            record.route, record.method, str(record.status), record.code or ""
        ).inc()
        self.request_s.labels(record.route).observe(record.elapsed_s)
        for stage, seconds in record.stages_s.items():
            self.stage_s.labels(record.route, stage).observe(seconds)
        if record.code is not None and record.status != CLIENT_GONE:
            self.refusals.labels(record.code).inc()
        if record.key_id is not None:
            if record.charged_idr:
                labels = (record.key_id, "test" if record.is_test else "live")
                self.key_pictures.labels(*labels).inc()
                self.key_charged.labels(*labels).inc(record.charged_idr)
            if record.code is not None and record.status != CLIENT_GONE:
                self.key_refusals.labels(record.key_id, record.code).inc()
        if record.status == OK and record.usage is not None:
            self.pictures.labels(record.route, record.lora or "none").inc()

    def scraped(self) -> CollectorRegistry:
        """The registry to show: this process's own, or all processes' where they share a folder."""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return self.registry
        shared = CollectorRegistry()
        shared.register(_LivingProcesses())
        return shared


class _LivingProcesses(Collector):
    """All processes' metrics, without the gauges of those that died before they could say so."""

    def collect(self) -> Iterable[Metric]:
        folder = os.environ["PROMETHEUS_MULTIPROC_DIR"]
        for file in Path(folder).glob("gauge_live*.db"):
            pid = file.stem.rpartition("_")[2]
            if pid.isdecimal() and not Path(f"/proc/{pid}").exists() and Path("/proc").exists():
                mark_process_dead(int(pid), folder)  # type: ignore[no-untyped-call]
        collector = MultiProcessCollector(None, folder)  # type: ignore[no-untyped-call]
        return cast(Iterable[Metric], collector.collect())  # type: ignore[no-untyped-call]


@asynccontextmanager
async def serve_metrics(bind: str, metrics: Metrics) -> AsyncIterator[None]:
    """Show the metrics at http://`bind`/metrics while the context is open; "" = nowhere.

    An address that cannot be had is a warning, not the end: the pictures matter more, and of
    several processes on one host only the first gets it and speaks for all.
    """
    if not bind:
        yield
        return
    host, _, port = bind.rpartition(":")
    try:
        server, thread = start_http_server(int(port), host.strip("[]"), metrics.scraped())
    except OSError as error:
        _LOGGER.warning(
            "IRIS_METRICS_BIND=%s cannot be listened on (errno %s), so this process shows no "
            "metrics of its own; choose a free address, or leave it empty for none.",
            bind,
            error.errno,
        )
        yield
        return
    try:
        yield
    finally:
        await asyncio.to_thread(server.shutdown)
        server.server_close()
        thread.join()
