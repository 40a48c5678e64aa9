"""What stands around the front in its tests: keys, an engine, a client, good bodies."""

from __future__ import annotations

import asyncio
import base64
import io
import os
import re
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from PIL import Image
from sqlalchemy import text, update
from starlette.applications import Starlette

from iris.accounts.accounts import show_account, top_up
from iris.accounts.db import Database
from iris.accounts.keys import KeyRow, insert_key
from iris.accounts.ledger import Ledger
from iris.accounts.limits import CounterRow, Limits
from iris.accounts.verify import verify
from iris.api.app import create_app
from iris.catalog import Catalog, Style
from iris.config import Settings
from iris.errors import Unauthenticated
from iris.images.decode import Decoder
from iris.jobs import EngineHealth, Job, Picture, Pixels, Usage

T = TypeVar("T")

LIVE_KEY = "esk_live_" + "a1B2c3D4" * 4
TEST_KEY = "esk_test_" + "z9Y8x7W6" * 4
BODY_TIMEOUT_S = 3.0
HEALTHY = EngineHealth(ready=True, alive=True, waiting=0, running=0, detail="Ready.")


@dataclass(frozen=True)
class FakeKey:
    id: str
    name: str
    is_test: bool
    account_id: str = "acc_0000000000000000"


class FakeKeys:
    """Knows two keys."""

    def __init__(self) -> None:
        self.known = {
            LIVE_KEY: FakeKey("key_live", "live", False),
            TEST_KEY: FakeKey("key_test", "test", True),
        }
        self.asked: list[str] = []

    async def authenticate(self, token: str) -> FakeKey:
        self.asked.append(token)
        if token not in self.known:
            raise Unauthenticated("some other words")
        return self.known[token]


def make_ledger(home: Path, money_idr: int = 10**9, **limits: int) -> Ledger:
    """A real ledger that knows the keys of `FakeKeys`, with money and, unless told, no limits."""
    database = Database(f"sqlite:///{home / 'iris.db'}")
    unlimited = {"rpm": 10**6, "rpd": 10**6, "max_in_flight": 10**6, "monthly_cap_idr": 0}
    with database.write() as session:
        for kind in ("live", "test"):
            key, _ = insert_key(
                session, kind, is_test=kind == "test", limits=Limits(**(unlimited | limits))
            )
            for row in (CounterRow, KeyRow):
                name = "id" if row is KeyRow else "key_id"
                session.execute(text("PRAGMA defer_foreign_keys = ON"))
                session.execute(
                    update(row).where(getattr(row, name) == key.id).values({name: f"key_{kind}"})
                )
    top_up(database, "default", money_idr)
    return Ledger(database, home)


class FakeDispatcher:
    """Makes grey pictures at once; a test may make it fail or hang instead."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.jobs: list[Job] = []
        self.error: Exception | None = None
        self.hangs = False
        self.noise = False  # pictures that cannot be compressed
        self.started = threading.Event()
        self.cancelled = threading.Event()
        self.health_answer: EngineHealth | Exception | None = HEALTHY

    async def run(self, job: Job) -> Picture:
        self.jobs.append(job)
        self.started.set()
        if self.error is not None:
            raise self.error
        if self.hangs:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        num_bytes = job.width_px * job.height_px * 3
        rgb = os.urandom(num_bytes) if self.noise else bytes([120]) * num_bytes
        return Picture(
            Pixels(job.width_px, job.height_px, rgb), job.seed, Usage(11, 22, 33), 0.25, 1.5
        )

    async def health(self) -> EngineHealth:
        if isinstance(self.health_answer, Exception):
            raise self.health_answer
        if self.health_answer is None:
            await asyncio.Event().wait()
        assert self.health_answer is not None
        return self.health_answer


def make_settings(home: Path, **changes: Any) -> Settings:
    values: dict[str, Any] = {
        "home": home,
        "database_url": "sqlite://",
        "registry": home / "registry.toml",
        "decode_workers": 1,
        "body_timeout_s": BODY_TIMEOUT_S,
        "metrics_bind": "",
    }
    return Settings(**(values | changes))


def make_catalog() -> Catalog:
    return Catalog(
        "iris-mini",
        "1.2.3",
        "A small model.",
        (Style("dark", "1.0.0", "Moody, cinematic."), Style("anime", "2.0.0", "Drawn.")),
    )


class Loop:
    """An event loop in a thread of its own, for tests that are plain functions."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Front:
    """An app whose lifespan runs, called in memory. No exception may come out of it."""

    def __init__(self, app: Starlette, loop: Loop) -> None:
        self.app = app
        self._loop = loop
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=True)
        self._client = httpx.AsyncClient(transport=transport, base_url="http://iris.test")
        self._lifespan = app.router.lifespan_context(app)
        self._loop.run(self._lifespan.__aenter__())

    def request(self, method: str, path: str, *, key: str | None = LIVE_KEY, **kw: Any) -> Any:
        headers = httpx.Headers(kw.pop("headers", None))
        if key is not None and "authorization" not in headers:
            headers["authorization"] = f"Bearer {key}"
        return self._loop.run(self._client.request(method, path, headers=headers, **kw))

    def get(self, path: str, **kw: Any) -> httpx.Response:
        response: httpx.Response = self.request("GET", path, **kw)
        return response

    def post(self, path: str, **kw: Any) -> httpx.Response:
        response: httpx.Response = self.request("POST", path, **kw)
        return response

    def close(self) -> None:
        self._loop.run(self._client.aclose())
        self._loop.run(self._lifespan.__aexit__(None, None, None))


@contextmanager
def opened(
    loop: Loop,
    home: Path,
    dispatcher: FakeDispatcher | None = None,
    *,
    catalog: Catalog | None = None,
    decoder: type[Decoder] = Decoder,
    **changes: Any,
) -> Iterator[Front]:
    """A front of one test alone. Without a dispatcher, as long as it has none of its own."""
    settings = make_settings(home, **changes)
    app = create_app(
        settings,
        catalog or make_catalog(),
        keys=FakeKeys(),
        decoder=decoder(settings),
        dispatcher_source=None if dispatcher is None else lambda: dispatcher,
    )
    app.state.ledger = make_ledger(settings.home)
    front = Front(app, loop)
    try:
        yield front
    finally:
        front.close()


def picture_bytes(
    width: int = 64,
    height: int = 48,
    colour: tuple[int, int, int] = (10, 200, 30),
    kind: str = "PNG",
) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(file, kind)
    return file.getvalue()


def picture_base64(width: int = 64, height: int = 48) -> str:
    return base64.b64encode(picture_bytes(width, height)).decode()


def generation(**fields: Any) -> dict[str, Any]:
    """A good body for /v1/images/generations, with changes; small, to be quick."""
    return {"model": "epithre-iris", "prompt": "a red fox", "size": "64x64"} | fields


def edit(**fields: Any) -> dict[str, Any]:
    """A good body for /v1/images/edits but for its images, with changes."""
    return {"model": "epithre-iris", "prompt": "make it night", "size": "64x64"} | fields


def assert_envelope(
    response: httpx.Response, status: int, code: str, param: str | None = None
) -> dict[str, Any]:
    """The answer is this error, in the one envelope, with an id. Returns what is inside."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert re.fullmatch(r"req_[0-9a-f]{32}", response.headers["x-request-id"])
    body = response.json()
    assert list(body) == ["error"]
    error: dict[str, Any] = body["error"]
    assert list(error) == ["message", "type", "code", "param"]
    assert (error["code"], error["param"]) == (code, param), error
    assert error["message"]
    assert error["message"].isprintable()
    return error


def assert_refused(
    front: Front,
    dispatcher: FakeDispatcher,
    response: httpx.Response,
    status: int,
    code: str,
    param: str | None = None,
) -> dict[str, Any]:
    """Refused in the envelope, the engine never asked, and the next good request works."""
    error = assert_envelope(response, status, code, param)
    assert dispatcher.jobs == []
    assert front.post("/v1/images/generations", json=generation()).status_code == 200
    assert len(dispatcher.jobs) == 1
    return error


def wait_for_line(caplog: pytest.LogCaptureFixture, code: str) -> dict[str, Any]:
    """The fields of the log line with this code; it is written a moment after the answer."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        for record in list(caplog.records):
            fields: dict[str, Any] = getattr(record, "fields", {})
            if fields.get("code") == code:
                return fields
        time.sleep(0.01)
    raise AssertionError(f"no log line with the code {code}")


class Shop:
    """A front with a ledger of its own."""

    def __init__(self, front: Front, ledger: Ledger, dispatcher: FakeDispatcher) -> None:
        self.front = front
        self.ledger = ledger
        self.dispatcher = dispatcher
        self.began_idr = self.left_idr()

    def post(
        self, path: str = "/v1/images/generations", key: str | None = None, **kw: Any
    ) -> httpx.Response:
        more = {} if key is None else {"key": key}
        return self.front.post(path, json=kw.pop("json", generation()), **more, **kw)

    def replace_ledger(self, ledger: Ledger) -> None:
        """The same front, as after a restart."""
        self.ledger = self.front.app.state.ledger = ledger

    def left_idr(self) -> tuple[int, int]:
        live = show_account(self.ledger.database, "default").live
        return live.available_idr, live.held_idr

    def spent_idr(self) -> int:
        """Of the live ledger. Nothing may be held between requests."""
        deadline = time.monotonic() + 5
        while (left := self.left_idr())[1] and time.monotonic() < deadline:
            time.sleep(0.01)
        assert left[1] == 0
        assert verify(self.ledger.database).breaches == ()
        return self.began_idr[0] - left[0]
