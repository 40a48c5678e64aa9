"""A real `bentoml serve` of this checkout, on the embedded model, with a home of its own."""

import base64
import io
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest
from openai import OpenAI
from PIL import Image

CHECKOUT = Path(__file__).parents[2]
BENTOML = Path(sys.executable).with_name("bentoml")
START_S = 300
# The first key makes more pictures here than a key may that pays.
NO_LIMITS = {
    "IRIS_KEY_RPM": "1000000",
    "IRIS_KEY_RPD": "1000000",
    "IRIS_KEY_IN_FLIGHT": "1000000",
    "IRIS_KEY_MONTHLY_CAP_IDR": "0",
}


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@dataclass
class Server:
    process: subprocess.Popen
    url: str
    metrics_url: str
    home: Path
    log_file: Path
    is_told: bool = False

    @property
    def key(self):
        return (self.home / "first-key").read_text().strip()

    @property
    def log(self):
        return self.log_file.read_text(errors="replace")

    def client(self, headers=None, **kwargs):
        return httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {self.key}"} | (headers or {}),
            timeout=60,
            **kwargs,
        )

    def openai(self, api_key=None):
        return OpenAI(base_url=f"{self.url}/v1", api_key=api_key or self.key, max_retries=0)

    def is_ready(self):
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def wait_until_ready(self):
        deadline = time.monotonic() + START_S
        while not self.is_ready():
            assert self.process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.2)

    def metric(self, name, **labels):
        """The sum of a metric's samples that have these labels."""
        total = 0.0
        for line in httpx.get(self.metrics_url).text.splitlines():
            found = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
            if found and found[1] == name:
                has = dict(re.findall(r'(\w+)="([^"]*)"', found[2] or ""))
                if all(has.get(key) == value for key, value in labels.items()):
                    total += float(found[3])
        return total

    def processes(self):
        """The server's process and all below it, alive now."""
        top = psutil.Process(self.process.pid)
        return [top, *top.children(recursive=True)]

    def engine(self):
        """The process of the engine."""
        return self._serving("iris_engine")

    def front(self):
        """The process of the front."""
        return self._serving("epithre_iris")

    def _serving(self, service):
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):  # it ended after it was listed
                if service in process.cmdline():
                    return process
        raise AssertionError(f"no process serves {service}:\n{self.log}")

    def kill(self):
        """End all of it with SIGKILL, and wait until none is left."""
        processes = self.processes()
        for process in processes:
            with suppress(psutil.NoSuchProcess):  # a decoder ends by itself once its front has
                process.kill()
        self.process.wait()
        _, alive = psutil.wait_procs(processes, timeout=10)
        assert not alive

    def tell_to_end(self):
        if self.process.poll() is None and not self.is_told:
            self.process.send_signal(signal.SIGINT)
            self.is_told = True  # told twice, it would not wait for anybody

    def stop(self):
        if self.process.poll() is None:
            self.tell_to_end()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError(f"did not end within 30 s of SIGINT:\n{self.log}") from None


@pytest.fixture(scope="session")
def start(tmp_path_factory):
    """start(IRIS_...=...) -> a running Server that is ready; all end with the session."""
    stack = ExitStack()
    started = []
    store = tmp_path_factory.mktemp("bentoml")

    def start_server(
        target="service:EpithreIris", bentoml_home=store, ready=True, home=None, **settings
    ):
        home = home or tmp_path_factory.mktemp("home")
        port, metrics_port = free_port(), free_port()
        log_file = home / "serve.log"
        env = {key: value for key, value in os.environ.items() if not key.startswith("IRIS_")}
        env |= {
            "BENTOML_HOME": str(bentoml_home),
            "IRIS_HOME": str(home),
            "IRIS_METRICS_BIND": f"127.0.0.1:{metrics_port}",
            **NO_LIMITS,
            **settings,
        }
        with log_file.open("ab") as log:
            process = subprocess.Popen(
                [BENTOML, "serve", target, "--host", "127.0.0.1", "--port", str(port)],
                cwd=CHECKOUT,
                env=env,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        url, metrics_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{metrics_port}/metrics"
        server = Server(process, url, metrics_url, home, log_file)
        started.append(server)
        stack.callback(server.stop)
        if ready:
            server.wait_until_ready()
        return server

    with stack:  # the others are stopped even when one does not end
        yield start_server
        for server in started:  # all at once; each is waited for
            server.tell_to_end()


@pytest.fixture(scope="session")
def server(start):
    """The server that most tests share; none of them may leave it changed."""
    return start()


def body(**changes):
    """A small generation request."""
    return {
        "model": "epithre-iris",
        "prompt": "a red boat on a calm sea",
        "size": "128x128",
        "seed": 1,
    } | changes


def picture(reply):
    """The decoded picture of a reply in wire form, checked to be a PNG."""
    data = base64.b64decode(reply["data"][0]["b64_json"], validate=True)
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    image = Image.open(io.BytesIO(data), formats=["PNG"])
    image.load()
    return image


def png(image):
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def a_photo(width, height):
    """A smooth source picture."""
    across = Image.linear_gradient("L").rotate(90).resize((width, height))
    down = Image.linear_gradient("L").resize((width, height))
    return Image.merge("RGB", (across, down, Image.new("L", (width, height), 90)))
