"""How long the service takes: to start, and per picture over HTTP, one at a time.

    python bench/serve.py [--pictures 5] [--out bench/results/serve.json]

Starts a real `bentoml serve` of this checkout with a model store and a home of its own.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
from PIL import Image

CHECKOUT = Path(__file__).resolve().parents[1]
BENTOML = Path(sys.executable).with_name("bentoml")


class Server:
    """One run of the service; `ready_s` is the time from the command to ready."""

    def __init__(self, home: Path) -> None:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
        env = {key: value for key, value in os.environ.items() if not key.startswith("IRIS_")}
        env |= {"BENTOML_HOME": str(home), "IRIS_HOME": str(home), "IRIS_METRICS_BIND": ""}
        self.url = f"http://127.0.0.1:{port}"
        begun = time.perf_counter()
        with (home / "serve.log").open("wb") as log:
            self.process = subprocess.Popen(  # noqa: S603
                [BENTOML, "serve", "service:EpithreIris", "--host", "127.0.0.1", f"--port={port}"],
                cwd=CHECKOUT,
                env=env,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        while not self._is_ready():
            if self.process.poll() is not None:
                sys.exit((home / "serve.log").read_text())
            time.sleep(0.05)
        self.ready_s = time.perf_counter() - begun
        key = (home / "first-key").read_text().strip()
        headers = {"Authorization": f"Bearer {key}"}
        self.client = httpx.Client(base_url=self.url, headers=headers, timeout=600)

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", timeout=1).status_code == 200
        except httpx.HTTPError:
            return False

    def stop(self) -> float:
        begun = time.perf_counter()
        self.process.send_signal(signal.SIGINT)
        self.process.wait(60)
        return time.perf_counter() - begun


def timed(server: Server, route: str, body: dict[str, object], pictures: int) -> dict[str, float]:
    """Seconds per picture: over HTTP, and of it in the engine."""
    seconds, engine = [], []
    for seed in range(pictures):
        begun = time.perf_counter()
        reply = server.client.post(route, json=body | {"seed": seed})
        seconds.append(time.perf_counter() - begun)
        reply.raise_for_status()
        engine.append(float(reply.headers["x-iris-inference-s"]))
    return {
        "median_s": round(statistics.median(seconds), 3),
        "min_s": round(min(seconds), 3),
        "max_s": round(max(seconds), 3),
        "engine_median_s": round(statistics.median(engine), 3),
    }


def a_photo(width: int, height: int) -> str:
    """A smooth picture as base64 PNG."""
    across = Image.linear_gradient("L").rotate(90).resize((width, height))
    down = Image.linear_gradient("L").resize((width, height))
    out = io.BytesIO()
    Image.merge("RGB", (across, down, across)).save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=5)
    parser.add_argument("--out", type=Path, default=CHECKOUT / "bench" / "results" / "serve.json")
    args = parser.parse_args()
    base = {"model": "epithre-iris", "prompt": "a red boat on a calm sea"}
    photo = a_photo(704, 704)
    generations, edits = "/v1/images/generations", "/v1/images/edits"
    cases: dict[str, tuple[str, dict[str, object]]] = {
        "768x768, 4 steps": (generations, base),
        "768x768, 4 steps, guidance 2": (generations, base | {"guidance_scale": 2.0}),
        "768x768, 4 steps, style": (generations, base | {"lora": "dark"}),
        "960x960, 4 steps": (generations, base | {"size": "960x960"}),
        "edit 704x704, strength 0.75": (edits, base | {"image": photo}),
        "edit 704x704, 3 references": (edits, base | {"images": [photo] * 3}),
    }
    with tempfile.TemporaryDirectory() as folder:
        first = Server(Path(folder))
        stop_s = first.stop()
        server = Server(Path(folder))
        result: dict[str, object] = {
            "machine": {"cpu_count": os.cpu_count(), "machine": platform.machine()},
            "python": platform.python_version(),
            "start_with_import_s": round(first.ready_s, 1),
            "start_s": round(server.ready_s, 1),
            "stop_s": round(stop_s, 1),
            "pictures_each": args.pictures,
        }
        for name, (route, body) in cases.items():
            timed(server, route, body, 1)
            result[name] = timed(server, route, body, args.pictures)
            print(f"{name}: {result[name]}", flush=True)
        server.stop()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
