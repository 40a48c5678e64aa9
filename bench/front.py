"""What the front adds to a picture, and how many requests a second it can take.

    python bench/front.py [--pictures 20]

Added: the time over HTTP less the time in the engine, for a 768x768 picture of 4 steps. Requests a
second: the same front over an engine that answers with a picture at once, eight clients.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
from machine import facts
from PIL import Image
from server import CHECKOUT, NO_LIMITS, RESULTS, Server

from iris.images.encode import encode_picture
from iris.jobs import Pixels

BODY = {"model": "epithre-iris", "prompt": "a red house on the beach, sunset", "size": "768x768"}
PORT = 3987
NO_OP = """
import os, sys
from pathlib import Path
import uvicorn
from PIL import Image
from iris.accounts.db import Database
from iris.accounts.first_key import ensure_first_key
from iris.accounts.keys import KeyRing
from iris.accounts.ledger import Ledger
from iris.accounts.limits import Limits
from iris.api.app import create_app
from iris.config import Settings
from iris.images.decode import Decoder
from iris.jobs import EngineHealth, Picture, Pixels, Usage
from iris.store.registry import load_registry

image = Image.open(sys.argv[1]).convert("RGB")
pixels = Pixels(image.width, image.height, image.tobytes())

class NoOp:
    async def run(self, job):
        return Picture(pixels, job.seed, Usage(1, 0, 144), 0.0, 0.0)
    async def health(self):
        return EngineHealth(True, True, 0, 0, "Ready.")

settings = Settings.from_env()
database = Database(settings.database_url)
ensure_first_key(database, settings.home, Limits.of_new_keys(settings))
app = create_app(
    settings, load_registry(settings.registry).catalog(), keys=KeyRing(database),
    decoder=Decoder(settings), dispatcher_source=NoOp,
)
app.state.ledger = Ledger(database, settings.home)
uvicorn.run(app, port=int(sys.argv[2]), log_level="warning", access_log=False)
"""


def percentiles(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        "p50_ms": round(1000 * statistics.median(ordered), 1),
        "p95_ms": round(1000 * ordered[int(0.95 * (len(ordered) - 1))], 1),
    }


def added(server: Server, count: int) -> tuple[dict[str, float], bytes]:
    """Milliseconds beside the engine's, and the last picture."""
    seconds, png = [], b""
    for seed in range(count + 2):
        begun = time.perf_counter()
        reply = server.client.post("/v1/images/generations", json=BODY | {"seed": seed})
        took = time.perf_counter() - begun
        reply.raise_for_status()
        if seed > 1:
            engine_s = sum(
                float(reply.headers[f"x-iris-{part}-s"]) for part in ("queue", "inference")
            )
            seconds.append(took - engine_s)
        png = reply.content
    return percentiles(seconds), png


async def rate(url: str, key: str, body: dict[str, object], seconds: float) -> dict[str, float]:
    """Requests a second with eight clients."""
    took: list[float] = []
    async with httpx.AsyncClient(
        base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=60
    ) as client:
        end = time.perf_counter() + seconds

        async def one() -> None:
            while time.perf_counter() < end:
                begun = time.perf_counter()
                (await client.post("/v1/images/generations", json=body)).raise_for_status()
                took.append(time.perf_counter() - begun)

        await asyncio.gather(*(one() for _ in range(8)))
    return {"requests/s": round(len(took) / seconds, 1), **percentiles(took)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--out", type=Path, default=RESULTS / "front.json")
    options = parser.parse_args()
    result: dict[str, object] = {"machine": facts()}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        server = Server(home)
        result["added to 768x768"], reply = added(server, options.pictures)
        server.stop()
        png = base64.b64decode(json.loads(reply)["data"][0]["b64_json"])
        (home / "picture.png").write_bytes(png)
        image = Image.open(io.BytesIO(png)).convert("RGB")
        pixels = Pixels(image.width, image.height, image.tobytes())
        times = []
        for _ in range(20):
            begun = time.perf_counter()
            encode_picture(pixels, format="png", compression=None, text={})
            times.append(time.perf_counter() - begun)
        result["of it PNG"] = percentiles(times)
        env = {**os.environ, **NO_LIMITS, "IRIS_HOME": str(home / "noop"), "IRIS_METRICS_BIND": ""}
        (home / "noop").mkdir()
        no_op = subprocess.Popen(  # noqa: S603
            [sys.executable, "-c", NO_OP, str(home / "picture.png"), str(PORT)],
            cwd=CHECKOUT,
            env=env | {"PYTHONPATH": str(CHECKOUT)},
        )
        url = f"http://127.0.0.1:{PORT}"
        for _ in range(200):
            try:
                httpx.get(f"{url}/readyz", timeout=1).raise_for_status()
                break
            except httpx.HTTPError:
                time.sleep(0.1)
        key = (home / "noop" / "first-key").read_text().strip()
        result["over a no-op engine, 768x768"] = asyncio.run(rate(url, key, BODY, options.seconds))
        no_op.terminate()
        no_op.wait(30)
    print(json.dumps(result, indent=2))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
