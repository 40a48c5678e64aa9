"""Unlike pictures at once, over HTTP: this service beside a pipeline behind a lock.

    python bench/mix.py [--seconds 60] [--seed 1] [--only overload]

Three fifths previews, one fifth finals, one fifth edits, three styles. Arrivals are Poisson and do
not wait for answers. The unit of load is what the baseline gets done when it always has work; both
servers get the same requests at the same times. Throughput is measured with eight clients that each
send their next request when they have an answer.

Last, a short deadline at 1.2 of what the engine gets done: who is refused comes back once, when it
was told to, and what was promised at admission is held against what came of it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from machine import facts
from server import RESULTS, Server, a_photo, free_port

LOADS = (0.5, 0.8, 1.2)
STYLES = ("none", "dark", "anime")
CLIENTS = 8
DEADLINE_S = 30.0
PROMPTS = (
    "a red house on the beach, sunset",
    "a blue cat in the city at night",
    "sebuah balon kuning di pegunungan",
    "a green car in the desert",
)


@dataclass(frozen=True)
class Request:
    kind: str
    route: str
    body: dict[str, Any]


def a_request(rng: random.Random, photos: Sequence[str], styles: Sequence[str]) -> Request:
    kind = rng.choices(("preview", "final", "edit"), (0.6, 0.2, 0.2))[0]
    side = {"preview": (512, 640, 768), "final": (768, 960), "edit": (512, 704)}[kind]
    width = rng.choice(side)
    body: dict[str, Any] = {
        "model": "epithre-iris",
        "prompt": rng.choice(PROMPTS),
        "size": f"{width}x{width}",
        "num_steps": rng.randint(20, 30) if kind == "final" else 4,
        "seed": rng.randrange(2**32),
        "lora": rng.choice(styles),
        "lora_strength": 0.8,
    }
    if kind == "edit":
        body["images"] = rng.sample(photos, rng.randint(1, 3))
    return Request(kind, "edits" if kind == "edit" else "generations", body)


def some_requests(seed: int, count: int, styles: Sequence[str] = STYLES) -> list[Request]:
    rng = random.Random(seed)  # noqa: S311
    photos = [a_photo(512, 512, number) for number in range(200)]  # few come twice
    return [a_request(rng, photos, styles) for _ in range(count)]


class Clients:
    """Sends requests to one server and notes what became of each."""

    def __init__(self, server: Server) -> None:
        # No connection is kept: a server may close one just as it is used again.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        self._client = httpx.AsyncClient(
            base_url=server.url, headers=server.headers, timeout=900, limits=limits
        )
        self.found: list[tuple[str, int, float]] = []  # kind, status, seconds
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


def summary(found: list[tuple[str, int, float]]) -> dict[str, Any]:
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


def opened(server: Server, rate: float, seconds: float, seed: int) -> dict[str, Any]:
    async def run() -> dict[str, Any]:
        sender = Clients(server)
        await sender.open_loop(some_requests(seed, max(8, round(rate * seconds))), rate, seed)
        return {"seconds": seconds} | summary(sender.found) | told(sender.returns)

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


def ask_baseline(home: Path, options: argparse.Namespace, result: Results) -> None:
    with Server(home, "bench.baseline.service:Baseline") as server:
        requests = some_requests(options.seed, options.pictures)
        closed(server, requests[:8], 1)
        if not options.loads_only:
            result.keep("baseline pictures/s", round(closed(server, requests, CLIENTS), 3))
        for load in options.loads:
            rate = load * result["baseline pictures/s"]
            result.keep(f"baseline at {load}", opened(server, rate, options.seconds, 7))


def ask_engine(home: Path, options: argparse.Namespace, result: Results) -> None:
    with Server(home, IRIS_DEADLINE_S="300") as ours:
        requests = some_requests(options.seed, options.pictures)
        closed(ours, requests[:8], 1)
        if not options.loads_only:
            result.keep("engine pictures/s", round(closed(ours, requests, CLIENTS), 3))
            for name, styles in (
                ("no style", ("none",)),
                ("one style", ("dark",)),
                ("three", STYLES),
            ):
                plain = some_requests(options.seed + 1, options.pictures, styles)
                result.keep(f"engine pictures/s, {name}", round(closed(ours, plain, CLIENTS), 3))
        for load in options.loads:
            rate = load * result["baseline pictures/s"]
            result.keep(f"engine at {load}", opened(ours, rate, options.seconds, 7))


def overload(home: Path, options: argparse.Namespace, result: Results) -> None:
    metrics = f"127.0.0.1:{free_port()}"
    with Server(home, IRIS_DEADLINE_S=str(DEADLINE_S), IRIS_METRICS_BIND=metrics) as ours:
        closed(ours, some_requests(options.seed, 8), 1)
        name = f"engine at 1.2 of its own, deadline {DEADLINE_S:g} s"
        rate = 1.2 * result["engine pictures/s"]
        result.keep(name, opened(ours, rate, options.overload_seconds, 7))
        result.keep("time taken / promised", promises(httpx.get(f"http://{metrics}/metrics").text))


PARTS = {"baseline": ask_baseline, "engine": ask_engine, "overload": overload}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="of arrivals at each load")
    parser.add_argument("--overload-seconds", type=float, default=180.0)
    parser.add_argument("--pictures", type=int, default=60, help="for throughput")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS / "mix.json")
    parser.add_argument("--loads", type=float, nargs="*", default=LOADS)
    parser.add_argument(
        "--only", choices=PARTS, nargs="+", help="the rest stays as the file has it"
    )
    parser.add_argument("--loads-only", action="store_true", help="throughput, too, is the file's")
    options = parser.parse_args()
    measured: dict[str, Any] = {"machine": facts()}
    if options.only or options.loads_only:
        measured = json.loads(options.out.read_text()) | measured
    result = Results(options.out, measured)
    with tempfile.TemporaryDirectory() as folder:
        for part in options.only or PARTS:
            PARTS[part](Path(folder), options, result)


if __name__ == "__main__":
    main()
