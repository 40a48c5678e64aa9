"""A real `bentoml serve` of this checkout, with a model store and a home of its own."""

from __future__ import annotations

import base64
import io
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
from PIL import Image

CHECKOUT = Path(__file__).resolve().parents[1]
BENTOML = Path(sys.executable).with_name("bentoml")
# of the first key: what is measured is the service, not what a key may do
NO_LIMITS = {
    "IRIS_KEY_RPM": "1000000",
    "IRIS_KEY_RPD": "1000000",
    "IRIS_KEY_IN_FLIGHT": "1000000",
    "IRIS_KEY_MONTHLY_CAP_IDR": "0",
}
RESULTS = CHECKOUT / "bench" / "results"


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Server:
    """One run of a service; `ready_s` is the time from the command to ready."""

    def __init__(self, home: Path, target: str = "service:EpithreIris", **settings: str) -> None:
        port = free_port()
        env = {key: value for key, value in os.environ.items() if not key.startswith("IRIS_")}
        env |= {"BENTOML_HOME": str(home), "IRIS_HOME": str(home), "IRIS_METRICS_BIND": ""}
        env |= NO_LIMITS | {"PYTHONPATH": str(CHECKOUT), "BENTOML_DO_NOT_TRACK": "True"} | settings
        self.url = f"http://127.0.0.1:{port}"
        begun = time.perf_counter()
        with (home / "serve.log").open("wb") as log:
            self.process = subprocess.Popen(  # noqa: S603
                [BENTOML, "serve", target, "--host", "127.0.0.1", f"--port={port}"],
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
        key_file = home / "first-key"
        key = key_file.read_text().strip() if key_file.exists() else "none"
        self.headers = {"Authorization": f"Bearer {key}"}
        self.client = httpx.Client(base_url=self.url, headers=self.headers, timeout=600)

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", timeout=1).status_code == 200
        except httpx.HTTPError:
            return False

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.stop()

    def stop(self) -> float:
        """Seconds from the signal to the end of all processes."""
        begun = time.perf_counter()
        self.process.send_signal(signal.SIGINT)
        self.process.wait(60)
        return time.perf_counter() - begun


def a_photo(width: int, height: int, number: int = 0) -> str:
    """A smooth picture as base64 PNG; another one for each number below 256."""
    across = Image.linear_gradient("L").rotate(90).resize((width, height))
    across = across.point(lambda level: (level + number) % 256)
    down = Image.linear_gradient("L").resize((width, height))
    out = io.BytesIO()
    Image.merge("RGB", (across, down, across)).save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()
