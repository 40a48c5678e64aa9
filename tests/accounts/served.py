"""The front as processes of their own, with the real ledger over an engine that only waits."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import httpx

from bench.money_front import BODY, serve

PATH = "/v1/images/generations"


@dataclass(frozen=True)
class Fronts:
    """Processes behind one address."""

    address: str
    processes: list[BaseProcess]

    def client(self, secret: str) -> httpx.AsyncClient:
        """Of as many connections as are asked for at once."""
        return httpx.AsyncClient(
            base_url=self.address,
            headers={"authorization": f"Bearer {secret}"},
            timeout=60,
            limits=httpx.Limits(max_connections=None),
        )


async def buy(client: httpx.AsyncClient, size: str = "64x64") -> httpx.Response:
    return await client.post(PATH, json={**BODY, "size": size})


@contextmanager
def serving(url: str, home: Path, count: int = 1, engine_s: float = 0.001) -> Iterator[Fronts]:
    """So many processes, ended in good order with the block."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["bench.money_front"])
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        processes: list[BaseProcess] = [
            context.Process(target=serve, args=(listener, url, home, engine_s))
            for _ in range(count)
        ]
        for process in processes:
            process.start()
        try:
            yield Fronts(f"http://127.0.0.1:{listener.getsockname()[1]}", processes)
        finally:
            for process in processes:
                os.kill(process.pid or 0, signal.SIGTERM)
            for process in processes:
                process.join()
