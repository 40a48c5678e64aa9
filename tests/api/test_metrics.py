from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from iris.api.metrics import Metrics, serve_metrics
from iris.api.record import RequestRecord
from tests.api.fakes import (
    LIVE_KEY,
    FakeDispatcher,
    Loop,
    generation,
    opened,
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def fetch(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
        text: str = response.read().decode()
        return text


def test_requests_are_counted_where_only_the_metrics_listener_shows_them(
    loop: Loop, tmp_path: Path
) -> None:
    port = free_port()
    with opened(loop, tmp_path, FakeDispatcher(), metrics_bind=f"127.0.0.1:{port}") as front:
        front.post("/v1/images/generations", json=generation(lora="dark", prompt="Nightfall"))
        front.post("/v1/images/generations", json=generation(n=2))
        front.request("BREW", "/x-secret")
        text = fetch(port)
    route = 'route="/v1/images/generations"'
    for line in (
        f'iris_requests_total{{code="",method="POST",{route},status="200"}} 1.0',
        f'iris_requests_total{{code="invalid_request",method="POST",{route},status="400"}} 1.0',
        'iris_requests_total{code="not_found",method="other",route="unmatched",status="404"} 1.0',
        'iris_refusals_total{code="invalid_request"} 1.0',
        f'iris_pictures_delivered_total{{lora="dark",{route}}} 1.0',
        'iris_key_pictures_total{key_id="key_live",ledger="live"} 1.0',
        'iris_key_charged_idr_total{key_id="key_live",ledger="live"} 750.0',
        'iris_key_refusals_total{code="invalid_request",key_id="key_live"} 1.0',
        f"iris_request_duration_seconds_count{{{route}}} 2.0",
        "iris_requests_in_flight 0.0",
    ):
        assert line in text
    for stage in ("authenticate", "body", "validate", "decode", "dispatch", "encode"):
        assert f'iris_stage_duration_seconds_count{{{route},stage="{stage}"}}' in text
    for secret in ("Nightfall", LIVE_KEY, "secret", "BREW"):
        assert secret not in text
    with pytest.raises(OSError, match="refused"):
        fetch(port)


def test_an_address_in_use_is_a_warning_that_names_the_setting_and_not_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def both() -> bool:
        bind = f"127.0.0.1:{free_port()}"
        async with serve_metrics(bind, Metrics()), serve_metrics(bind, Metrics()):
            return True

    with caplog.at_level(logging.WARNING, logger="iris"):
        assert asyncio.run(both())
    (record,) = caplog.records
    assert "IRIS_METRICS_BIND=127.0.0.1:" in record.getMessage()


@pytest.mark.parametrize("bind", ["no-such-host.invalid:3001", "192.0.2.1:3001"])
def test_an_address_of_another_host_is_a_warning_too(
    bind: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def enter() -> None:
        async with serve_metrics(bind, Metrics()):
            return

    asyncio.run(enter())
    assert bind in caplog.text


def test_no_address_means_no_listener(caplog: pytest.LogCaptureFixture) -> None:
    async def enter() -> None:
        async with serve_metrics("", Metrics()):
            return

    asyncio.run(enter())
    assert caplog.records == []


def test_two_apps_never_share_their_counts() -> None:
    one, two = Metrics(), Metrics()
    record = RequestRecord("GET")
    record.status = 200
    one.observe(record)
    assert b'status="200"' in generate_latest(one.registry)
    assert b'status="200"' not in generate_latest(two.registry)


CHILD = """
import sys
from prometheus_client import generate_latest
from iris.api.metrics import Metrics
from iris.api.record import RequestRecord
metrics = Metrics()
record = RequestRecord("GET")
record.status = 200
metrics.observe(record)
if sys.argv[1] == "show":
    sys.stdout.write(generate_latest(metrics.scraped()).decode())
"""


def test_several_processes_are_shown_as_one(tmp_path: Path) -> None:
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    for argument in ("count", "show"):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", CHILD, argument],
            env=environment,
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        )
    line = 'iris_requests_total{code="",method="GET",route="unmatched",status="200"} 2.0'
    assert line in done.stdout


def test_a_dead_process_leaves_no_gauge_behind(tmp_path: Path) -> None:
    """In processes of their own, as prometheus_client looks at its folder only when imported."""
    env = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    dead = "from iris.api.metrics import Metrics; m = Metrics(); m.in_flight.inc(3)"
    alive = (
        "from prometheus_client import generate_latest; from iris.api.metrics import Metrics; "
        "m = Metrics(); m.in_flight.inc(2); print(generate_latest(m.scraped()).decode())"
    )
    subprocess.run([sys.executable, "-c", dead], env=env, check=True)
    assert list(tmp_path.glob("gauge_livesum_*.db"))
    shown = subprocess.run([sys.executable, "-c", alive], env=env, check=True, capture_output=True)
    assert b"iris_requests_in_flight 2.0" in shown.stdout
