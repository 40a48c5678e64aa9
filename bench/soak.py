"""Kills the service at random moments under load, again and again, and checks the money.

    PYTHONPATH=. python bench/soak.py [--kills 1000] [--fronts 1] [--postgresql]

Half of the clients send an Idempotency-Key and ask again until they have their picture, as a client
does that wants one picture and to pay for one. The others send each request once and count what
arrived. For both the sum must be exact: what they have is what was taken, whenever it died.

Every fourth process is killed without waiting for a picture of it: while it starts, and while it
resolves what the one before left open. With several fronts the others go on meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

import httpx
from sqlalchemy import func, select

from bench.money_front import BODY, serve
from iris.accounts.accounts import create_account, top_up
from iris.accounts.db import Database
from iris.accounts.journal import PRICE_IDR
from iris.accounts.keys import create_key
from iris.accounts.ledger import Ledger
from iris.accounts.limits import Limits
from iris.accounts.usage import UsageRow
from iris.accounts.verify import verify
from tests.accounts.postgres import running_postgres

NO_LIMITS = Limits(rpm=10**6, rpd=10**6, max_in_flight=10**6, monthly_cap_idr=0)
CLIENTS = 8
SIZES = ("64x64", "64x64", "320x320")  # replies of 17 kB, and of 410 kB: more than a socket holds
ENGINE_S = 0.03  # a picture takes up to this long
LIFE_S = 0.2  # a process lives up to this long after its first picture
EARLY = 0.25  # of the processes do not live to make one


@dataclass
class Buyer:
    """One key and what its clients have."""

    key_id: str
    secret: str
    has_tokens: bool
    delivered: int = 0
    broken: int = 0  # connections that ended without an answer
    replayed: int = 0
    has_come: asyncio.Event = field(default_factory=asyncio.Event)  # a picture since the last kill


@dataclass
class Report:
    kills: int = 0
    fronts: int = 1
    seconds: float = 0.0
    exact_delivered: int = 0
    exact_paid: int = 0
    replayed: int = 0
    plain_delivered: int = 0
    plain_paid: int = 0
    broken: int = 0
    rows: int = 0
    open_holds: int = 0
    breaches: list[str] = field(default_factory=list)

    @property
    def is_right(self) -> bool:
        """No rupiah too much anywhere, and none too little."""
        return (
            self.exact_paid == self.exact_delivered
            and self.plain_paid == self.plain_delivered
            and self.open_holds == 0
            and not self.breaches
        )


class Soak:
    def __init__(self, home: Path, database_url: str, fronts: int) -> None:
        self._home = home
        self._fronts = fronts
        self._url = database_url
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["__main__", "bench.money_front"])
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._is_over = False
        database = Database(database_url)
        account = create_account(database, f"soak {secrets.token_hex(4)}")
        top_up(database, account.id, 10**9)
        self._buyers = []
        for has_tokens in (True, False):
            key, secret = create_key(
                database, "soak", is_test=False, account=account.id, limits=NO_LIMITS
            )
            self._buyers.append(Buyer(key.id, secret, has_tokens))
        database.close()

    async def run(self, kills: int) -> Report:
        begun = time.monotonic()
        clients = [asyncio.create_task(self._client(self._buyers[n % 2])) for n in range(CLIENTS)]
        waited_for = (*self._buyers, self._buyers[1])  # those with tokens take longer to come
        processes = [self._start() for _ in range(self._fronts)]
        for done in range(kills):
            if random.random() > EARLY:  # noqa: S311
                await self._first_picture(processes, random.choice(waited_for))  # noqa: S311
            await asyncio.sleep(random.uniform(0, LIFE_S))  # noqa: S311
            _kill(processes.pop(random.randrange(self._fronts)))  # noqa: S311
            for buyer in self._buyers:
                buyer.has_come.clear()
            processes.append(self._start())
            if (done + 1) % 100 == 0:
                print(f"{done + 1} kills, {self._sum()}", file=sys.stderr, flush=True)
        self._is_over = True
        await asyncio.gather(*clients)  # the last processes let all of them finish
        for process in processes:
            _kill(process)
        return self._report(kills, time.monotonic() - begun)

    def _start(self) -> BaseProcess:
        process = self._context.Process(
            target=serve, args=(self._listener, self._url, self._home, ENGINE_S)
        )
        process.start()
        return process

    async def _first_picture(self, processes: list[BaseProcess], buyer: Buyer) -> None:
        deadline = time.monotonic() + 60
        while not buyer.has_come.is_set():
            await asyncio.sleep(0.005)
            alive = all(process.is_alive() for process in processes)
            if not alive or time.monotonic() > deadline:
                raise RuntimeError("the service did not come up")

    async def _client(self, buyer: Buyer) -> None:
        """One picture after the other."""
        headers = {"authorization": f"Bearer {buyer.secret}"}
        no_reuse = httpx.Limits(max_keepalive_connections=0)  # the process behind it will be gone
        async with httpx.AsyncClient(
            base_url=self._address, headers=headers, timeout=10, limits=no_reuse
        ) as client:
            while not self._is_over:
                token = secrets.token_hex(8)
                size = random.choice(SIZES)  # noqa: S311
                body = json.dumps({**BODY, "size": size, "user": token}).encode()
                more = {"idempotency-key": token} if buyer.has_tokens else {}
                while not await self._ask(client, buyer, body, more):
                    if not buyer.has_tokens:
                        break

    async def _ask(
        self, client: httpx.AsyncClient, buyer: Buyer, body: bytes, headers: dict[str, str]
    ) -> bool:
        """Whether the picture arrived whole."""
        try:
            reply = await client.post(
                "/v1/images/generations",
                content=body,
                headers={**headers, "content-type": "application/json"},
            )
        except httpx.HTTPError:
            buyer.broken += 1
            await asyncio.sleep(0.01)
            return False
        if reply.status_code != 200 or not reply.json()["data"]:
            await asyncio.sleep(0.01)
            return False
        buyer.delivered += 1
        buyer.replayed += "x-iris-replayed" in reply.headers
        buyer.has_come.set()
        return True

    def _sum(self) -> str:
        exact, plain = self._buyers
        return f"{exact.delivered} and {plain.delivered} pictures delivered"

    def _report(self, kills: int, seconds: float) -> Report:
        database = Database(self._url)
        Ledger(database, self._home).close()  # the next start: it recovers
        paid = {}
        with database.read() as session:
            for buyer in self._buyers:
                taken = select(func.sum(UsageRow.amount_idr)).where(UsageRow.key_id == buyer.key_id)
                paid[buyer.has_tokens] = int(session.scalar(taken) or 0) // PRICE_IDR
        verdict = verify(database)
        database.close()
        self._listener.close()
        exact, plain = self._buyers
        return Report(
            kills=kills,
            fronts=self._fronts,
            seconds=round(seconds, 1),
            exact_delivered=exact.delivered,
            exact_paid=paid[True],
            replayed=exact.replayed,
            plain_delivered=plain.delivered,
            plain_paid=paid[False],
            broken=exact.broken + plain.broken,
            rows=verdict.rows,
            open_holds=verdict.open_holds,
            breaches=[f"{breach.invariant}: {breach.row}" for breach in verdict.breaches],
        )


def _kill(process: BaseProcess) -> None:
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()


def soak(home: Path, database_url: str, kills: int, fronts: int = 1) -> Report:
    """Kill so many times; home: for the leases of the processes."""
    return asyncio.run(Soak(home, database_url, fronts).run(kills))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--fronts", type=int, default=1, help="processes that serve at once")
    parser.add_argument("--postgresql", action="store_true", help="instead of SQLite")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="iris-soak-") as folder, ExitStack() as stack:
        home = Path(folder)
        url = f"sqlite:///{home / 'iris.db'}"
        if options.postgresql:
            url = stack.enter_context(running_postgres()).url()
        report = soak(home, url, options.kills, options.fronts)
        print(json.dumps(vars(report), indent=2), flush=True)
        verified = _verify(home, url)
    sys.exit(0 if report.is_right and verified else 1)


def _verify(home: Path, url: str) -> bool:
    """What an operator's `iris ledger verify` says; it is printed."""
    command = [Path(sys.executable).with_name("iris"), "ledger", "verify"]
    env = {**os.environ, "IRIS_HOME": str(home), "IRIS_DATABASE_URL": url}
    return subprocess.run(command, env=env, check=False).returncode == 0  # noqa: S603


if __name__ == "__main__":
    main()
