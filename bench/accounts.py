"""What money costs: a picture reserved and paid, and paid requests a second through the front.

    PYTHONPATH=. python bench/accounts.py [--seconds 10]

Alone: one picture after the other, on SQLite, beside the bare commit of one row in such a file.
Through the front: two processes of the front over an engine that answers at once, on PostgreSQL and
on SQLite, each beside the same front without a ledger to write.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import secrets
import signal
import socket
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.machine import facts
from bench.money_front import BODY, serve, serve_free
from iris.accounts.accounts import create_account, top_up
from iris.accounts.db import Database
from iris.accounts.holds import Hold
from iris.accounts.keys import create_key
from iris.accounts.ledger import Ledger
from iris.accounts.limits import Limits
from iris.accounts.usage import Delivery
from iris.accounts.verify import verify
from tests.accounts.postgres import running_postgres

NO_LIMITS = Limits(rpm=10**6, rpd=10**6, max_in_flight=10**6, monthly_cap_idr=0)
DELIVERY = Delivery(
    route="generation",
    style="none",
    size="768x768",
    num_steps=4,
    input_text_tokens=9,
    input_image_tokens=0,
    output_image_tokens=2304,
    user_tag=None,
)
FRONTS = 2
CLIENTS = 32
RESULTS = Path(__file__).resolve().parent / "results"


def percentiles(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {
        "p50_ms": round(1000 * statistics.median(ordered), 2),
        "p95_ms": round(1000 * ordered[int(0.95 * (len(ordered) - 1))], 2),
    }


def customer(database: Database) -> tuple[str, str]:
    """The id and the secret of a key without limits."""
    account = create_account(database, f"bench {secrets.token_hex(4)}")
    top_up(database, account.id, 10**11)
    key, secret = create_key(database, "bench", is_test=False, account=account.id, limits=NO_LIMITS)
    return key.id, secret


def alone(url: str, home: Path, count: int) -> dict[str, object]:
    """One picture after the other; and a bare commit of one row after each, on the same disk."""
    database = Database(url)
    key_id, _ = customer(database)
    ledger = Ledger(database, home)
    reserved, captured, both, bare = [], [], [], []
    beside = sqlite3.connect(home / "bare.db", isolation_level=None)
    for statement in ("journal_mode=WAL", "synchronous=FULL"):
        beside.execute(f"PRAGMA {statement}")
    beside.execute("CREATE TABLE t (x INTEGER)")

    async def work() -> None:
        for _ in range(count):
            begun = time.perf_counter()
            hold = await ledger.reserve(key_id)
            held = time.perf_counter()
            if not isinstance(hold, Hold):
                raise hold.error
            ledger.note_delivered(hold, DELIVERY)
            await ledger.capture(hold, DELIVERY)
            done = time.perf_counter()
            beside.execute("BEGIN IMMEDIATE")
            beside.execute("INSERT INTO t VALUES (1)")
            beside.execute("COMMIT")
            bare.append(time.perf_counter() - done)
            reserved.append(held - begun)
            captured.append(done - held)
            both.append(done - begun)

    asyncio.run(work())
    ledger.close()
    beside.close()
    verdict = verify(database)
    database.close()
    if verdict.breaches:
        sys.exit(f"The ledger does not verify: {verdict.breaches}")
    return {
        "reserve": percentiles(reserved),
        "capture": percentiles(captured),
        "reserve + capture": percentiles(both),
        "a bare commit": percentiles(bare),
    }


@contextlib.contextmanager
def fronts(url: str, home: Path, is_free: bool) -> Iterator[int]:
    """Two processes of the front behind one port."""
    context = multiprocessing.get_context("spawn")
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        target = serve_free if is_free else serve
        processes = [
            context.Process(target=target, args=(listener, url, home, 0.0)) for _ in range(FRONTS)
        ]
        for process in processes:
            process.start()
        try:
            yield listener.getsockname()[1]
        finally:
            for process in processes:
                os.kill(process.pid or 0, signal.SIGTERM)
            for process in processes:
                process.join()


async def load(port: int, secret: str, seconds: float) -> dict[str, object]:
    """Requests a second with 32 clients that keep their connections."""
    body = json.dumps(BODY).encode()
    request = (
        "POST /v1/images/generations HTTP/1.1\r\nhost: bench\r\n"
        f"authorization: Bearer {secret}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    ).encode() + body
    took: list[float] = []

    async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(head.decode())
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n", 1)[0])
        await reader.readexactly(length)

    async def client(until: float) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await ask(reader, writer)
        while time.perf_counter() < until:
            begun = time.perf_counter()
            await ask(reader, writer)
            took.append(time.perf_counter() - begun)
        writer.close()

    for _ in range(300):
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await asyncio.wait_for(client(0), 30)
            break
        await asyncio.sleep(0.1)
    took.clear()
    begun = time.perf_counter()
    await asyncio.gather(*(client(begun + seconds) for _ in range(CLIENTS)))
    return {
        "requests/s": round(len(took) / (time.perf_counter() - begun), 1),
        **percentiles(took),
    }


def through_the_front(url: str, home: Path, seconds: float) -> dict[str, object]:
    """With the ledger and without, twice in turn, the better of each."""
    database = Database(url)
    _, secret = customer(database)
    results: dict[str, object] = {}
    for is_free in (False, True, False, True):
        with fronts(url, home, is_free) as port:
            result = asyncio.run(load(port, secret, seconds))
        name = "nothing paid" if is_free else "paid"
        best = results.get(name)
        if not isinstance(best, dict) or best["requests/s"] < result["requests/s"]:
            results[name] = result
    verdict = verify(database)
    database.close()
    if verdict.breaches or verdict.open_holds:
        sys.exit(f"The ledger does not verify: {verdict}")
    return {**results, "pictures paid": verdict.captured_live_idr // 750}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pictures", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--out", type=Path, default=RESULTS / "accounts.json")
    options = parser.parse_args()
    result: dict[str, object] = {"machine": facts()}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        url = f"sqlite:///{home / 'iris.db'}"
        result["alone, SQLite"] = alone(url, home, options.pictures)
        with running_postgres(durable=True) as server:
            result["front x2, PostgreSQL"] = through_the_front(server.url(), home, options.seconds)
        result["front x2, SQLite"] = through_the_front(url, home, options.seconds)
    print(json.dumps(result, indent=2))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
