"""The real front with the real ledger over an engine that only waits: a process that starts fast.

What is measured and killed here is the money: an engine would only make it slower.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
from pathlib import Path
from typing import Any

import uvicorn

from iris.accounts.db import Database
from iris.accounts.holds import Hold
from iris.accounts.keys import KeyRing
from iris.accounts.ledger import Ledger
from iris.accounts.limits import Quota
from iris.accounts.usage import Delivery
from iris.api.app import create_app
from iris.api.protocol import BoundedH11Protocol
from iris.catalog import Catalog
from iris.config import Settings
from iris.jobs import EngineHealth, Job, Picture, Pixels, Usage

BODY = {"model": "epithre-iris", "prompt": "a red fox", "size": "64x64", "seed": 1}


class NoDecoder:
    """Generations have no images to decode."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


class Waiting:
    """An engine that takes from 0 to `most_s` for a picture: of noise, so that its reply is long.

    One that takes no time gives black ones, which cost least to encode.
    """

    def __init__(self, most_s: float) -> None:
        self._most_s = most_s

    async def run(self, job: Job) -> Picture:
        count = job.width_px * job.height_px * 3
        if self._most_s:
            await asyncio.sleep(random.uniform(0, self._most_s))  # noqa: S311
        samples = os.urandom(count) if self._most_s else bytes(count)
        pixels = Pixels(job.width_px, job.height_px, samples)
        return Picture(pixels, job.seed, Usage(4, 0, 16), 0.0, 0.0)

    async def health(self) -> EngineHealth:
        return EngineHealth(True, True, 0, 0, "Ready.")


class FreeLedger:
    """Says yes to everything and writes nothing: what the front costs without money."""

    async def reserve(self, key_id: str) -> Hold:
        return Hold("hold_0", 0, Quota(1, 1, 0.0))

    def note_delivered(self, hold: Hold, delivery: Delivery, let_go: object = None) -> None: ...

    async def capture(self, hold: Hold, delivery: Delivery, outcome: object = None) -> bool:
        return True

    def void(self, hold: Hold) -> None: ...

    def close(self) -> None: ...


def serve(listener: socket.socket, database_url: str, home: Path, most_s: float) -> None:
    """Serve on a listening socket until the process is ended."""
    database = Database(database_url)
    _serve(listener, database, home, most_s, Ledger(database, home))


def serve_free(listener: socket.socket, database_url: str, home: Path, most_s: float) -> None:
    """The same, and nobody pays."""
    _serve(listener, Database(database_url), home, most_s, FreeLedger())


def _serve(
    listener: socket.socket, database: Database, home: Path, most_s: float, ledger: object
) -> None:
    settings = Settings(home=home, database_url="", registry=home / "none", metrics_bind="")
    decoder: Any = NoDecoder()
    engine = Waiting(most_s)
    app = create_app(
        settings,
        Catalog("none", "0", "Nothing.", ()),
        keys=KeyRing(database),
        decoder=decoder,
        dispatcher_source=lambda: engine,
    )
    app.state.ledger = ledger
    config = uvicorn.Config(
        app, http=BoundedH11Protocol, ws="none", log_config=None, access_log=False
    )
    uvicorn.Server(config).run(sockets=[listener])
