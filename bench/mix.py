"""Unlike pictures at once, over HTTP: this service beside a pipeline behind a lock.

    python bench/mix.py [--rounds 2] [--only throughput loads overload]

Three fifths previews, one fifth finals, one fifth edits, three styles; no prompt and no image comes
twice. Throughput is measured with eight clients that each send their next request when they have an
answer; what the baseline gets done then is the unit of load. Arrivals are Poisson and do not wait
for answers. Both servers are up all the time and get the same requests at the same times, one
server after the other, in each round the other one first.

Last, a short deadline at 1.2 of what the engine gets done: who is refused comes back once, when it
was told to, and what was promised at admission is held against what came of it.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import re
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from machine import facts
from mix_requests import STYLES, Request, Requests
from server import RESULTS, Server, free_port

SECONDS = {0.5: 30.0, 0.8: 180.0, 1.2: 30.0}  # of arrivals in a round: a queue takes long to grow
CLIENTS = 8
DEADLINE_S = 30.0
FOUND = tuple[str, int, float]  # kind, status, seconds


class Clients:
    """Sends requests to one server and notes what became of each."""

    def __init__(self, server: Server) -> None:
        # No connection is kept: a server may close one just as it is used again.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        self._client = httpx.AsyncClient(
            base_url=server.url, headers=server.headers, timeout=900, limits=limits
        )
        self.found: list[FOUND] = []
        self.returns: list[tuple[float, int]] = []  # seconds told, status then

    async def send(self, request: Request) -> None:
        reply = await self._post(request)
        if reply.status_code == 429:
            told_s = float(reply.headers["retry-after"])
            await asyncio.sleep(told_s)
            self.returns.append((told_s, (await self._post(request)).status_code))

    async def _post(self, request: Request) -> httpx.Response:
        begun = time.perf_counter()
        reply = await self._client.post(f"/v1/images/{request.route}", json=request.body)
        self.found.append((request.kind, reply.status_code, time.perf_counter() - begun))
        return reply

    async def open_loop(self, requests: Sequence[Request], rate: float, seed: int) -> float:
        """Send at random times, `rate` a second; seconds until the last answer."""
        rng = random.Random(seed)  # noqa: S311
        begun, at, sent = time.perf_counter(), 0.0, []
        for request in requests:
            at += rng.expovariate(rate)
            await asyncio.sleep(max(0.0, begun + at - time.perf_counter()))
            sent.append(asyncio.ensure_future(self.send(request)))
        await asyncio.gather(*sent)
        return time.perf_counter() - begun

    async def closed_loop(self, requests: Sequence[Request], clients: int) -> float:
        """Send with so many at a time; seconds until the last answer."""
        left = iter(requests)

        async def one() -> None:
            for request in left:
                await self.send(request)

        begun = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(clients)))
        return time.perf_counter() - begun


def summary(found: Sequence[FOUND]) -> dict[str, Any]:
    result: dict[str, Any] = {"answers": dict(sorted(Counter(s for _, s, _ in found).items()))}
    for kind in ("preview", "final", "edit"):
        times = sorted(seconds for k, status, seconds in found if k == kind and status == 200)
        if times:
            result[kind] = {
                "delivered": len(times),
                "p50_s": round(statistics.median(times), 3),
                "p95_s": round(times[min(len(times) - 1, int(0.95 * len(times)))], 3),
            }
    refused = sorted(seconds for _, status, seconds in found if status == 429)
    if refused:
        result["refused_p95_s"] = round(refused[int(0.95 * (len(refused) - 1))], 3)
    return result


def told(returns: list[tuple[float, int]]) -> dict[str, Any]:
    """What came of those who were refused and came back when they were told to."""
    if not returns:
        return {}
    waits = sorted(seconds for seconds, _ in returns)
    delivered = sum(status == 200 for _, status in returns)
    return {
        "returns": len(returns),
        "let_in_at_the_first_return": round(delivered / len(returns), 3),
        "retry_after_p50_s": round(statistics.median(waits), 1),
        "retry_after_max_s": round(waits[-1], 1),
    }


def promises(metrics: str) -> dict[str, float]:
    """Time taken divided by time predicted at admission, over all delivered pictures."""
    name = "iris_engine_promise_ratio"
    lines = dict(re.findall(rf"^({name}\S*) (\S+)$", metrics, re.MULTILINE))
    count = float(lines[f"{name}_count"])
    below = {
        float(bound): float(value) / count
        for key, value in lines.items()
        if (bound := key.partition('le="')[2].rstrip('"}'))
    }
    return {
        "mean": round(float(lines[f"{name}_sum"]) / count, 2),
        "share within a tenth above": round(below[1.1], 3),
        "share within a half above": round(below[1.5], 3),
        "share below a half": round(below[0.5], 3),
    }


def closed(server: Server, requests: Sequence[Request], clients: int) -> float:
    """Pictures a second."""

    async def run() -> float:
        sender = Clients(server)
        seconds = await sender.closed_loop(requests, clients)
        failed = Counter(status for _, status, _ in sender.found if status != 200)
        if failed:
            raise SystemExit(f"not all pictures were delivered: {dict(failed)}")
        return len(requests) / seconds

    return asyncio.run(run())


def opened(server: Server, requests: Sequence[Request], rate: float, seed: int) -> Clients:
    """After all have been answered."""

    async def run() -> Clients:
        sender = Clients(server)
        await sender.open_loop(requests, rate, seed)
        return sender

    return asyncio.run(run())


class Results:
    """What was measured, in a file from the first figure on."""

    def __init__(self, path: Path, values: dict[str, Any]) -> None:
        self._path = path
        self._values = values

    def __getitem__(self, name: str) -> float:
        return float(self._values[name])

    def keep(self, name: str, value: Any) -> None:
        self._values[name] = value
        print(f"{name}: {json.dumps(value)}", flush=True)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps(self._values, indent=2) + "\n")


@contextmanager
def both(folder: Path) -> Iterator[dict[str, Server]]:
    """The servers by name, warm."""
    homes = [folder / name for name in ("baseline", "engine")]
    for home in homes:
        home.mkdir(exist_ok=True)
    with (
        Server(homes[0], "bench.baseline.service:Baseline") as baseline,
        Server(homes[1], IRIS_DEADLINE_S="300") as engine,
    ):
        servers = {"baseline": baseline, "engine": engine}
        for server in servers.values():
            closed(server, Requests(0).draw(8), 1)
        yield servers


def throughput(servers: dict[str, Server], options: argparse.Namespace, result: Results) -> None:
    drawn = Requests(1)
    requests = drawn.draw(options.pictures)
    for name, server in servers.items():
        result.keep(f"{name} pictures/s", round(closed(server, requests, CLIENTS), 3))
    engine = servers["engine"]
    for name, styles in (("no style", ("none",)), ("one style", ("dark",)), ("three", STYLES)):
        # of the same kinds and sizes each time
        plain = Requests(2).draw(options.pictures, styles)
        fresh = [
            Request(one.kind, one.route, one.body | {"prompt": f"{one.body['prompt']}, {name}"})
            for one in plain
        ]
        result.keep(f"engine pictures/s, {name}", round(closed(engine, fresh, CLIENTS), 3))


def loads(servers: dict[str, Server], options: argparse.Namespace, result: Results) -> None:
    drawn = Requests(3)
    found: dict[tuple[str, float], list[list[FOUND]]] = {
        (name, load): [] for name in servers for load in SECONDS
    }
    for number in range(options.rounds):
        for load, seconds in SECONDS.items():
            rate = load * result["baseline pictures/s"]
            requests = drawn.draw(max(8, round(rate * seconds)))
            for name in sorted(servers, reverse=bool(number % 2)):
                sender = opened(servers[name], requests, rate, number)
                found[name, load].append(sender.found)
                whole = list(itertools.chain.from_iterable(found[name, load]))
                rounds = len(found[name, load])
                result.keep(
                    f"{name} at {load}", {"seconds": seconds, "rounds": rounds} | summary(whole)
                )
    for load in SECONDS:
        pairs = zip(found["baseline", load], found["engine", load], strict=True)
        result.keep(f"previews' p95 ratio at {load}, by round", [_ratio(*pair) for pair in pairs])


def _ratio(baseline: Sequence[FOUND], engine: Sequence[FOUND]) -> float:
    slow, fast = (float(summary(found)["preview"]["p95_s"]) for found in (baseline, engine))
    return round(slow / fast, 1)


def overload(folder: Path, options: argparse.Namespace, result: Results) -> None:
    home = folder / "overload"
    home.mkdir()
    metrics = f"127.0.0.1:{free_port()}"
    with Server(home, IRIS_DEADLINE_S=str(DEADLINE_S), IRIS_METRICS_BIND=metrics) as ours:
        closed(ours, Requests(0).draw(8), 1)
        rate = 1.2 * result["engine pictures/s"]
        seconds = options.overload_seconds
        sender = opened(ours, Requests(4).draw(round(rate * seconds)), rate, 7)
        result.keep(
            f"engine at 1.2 of its own, deadline {DEADLINE_S:g} s",
            {"seconds": seconds} | summary(sender.found) | told(sender.returns),
        )
        result.keep("time taken / promised", promises(httpx.get(f"http://{metrics}/metrics").text))


PARTS = ("throughput", "loads", "overload")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2, help="of all loads")
    parser.add_argument("--overload-seconds", type=float, default=150.0)
    parser.add_argument("--pictures", type=int, default=48, help="for throughput")
    parser.add_argument("--out", type=Path, default=RESULTS / "mix.json")
    parser.add_argument(
        "--only", choices=PARTS, nargs="+", help="the rest stays as the file has it"
    )
    options = parser.parse_args()
    measured: dict[str, Any] = {"machine": facts()}
    if options.only:
        measured = json.loads(options.out.read_text()) | measured
    result = Results(options.out, measured)
    parts = options.only or PARTS
    with tempfile.TemporaryDirectory() as folder:
        if "throughput" in parts or "loads" in parts:
            with both(Path(folder)) as servers:
                if "throughput" in parts:
                    throughput(servers, options, result)
                if "loads" in parts:
                    loads(servers, options, result)
        if "overload" in parts:
            overload(Path(folder), options, result)


if __name__ == "__main__":
    main()
