"""Two engines behind a round-robin proxy, front and engines each started alone, as a cloud does."""

import itertools
import os
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from tests.serve.conftest import CHECKOUT, START_S, Server, body, free_port, picture

pytestmark = pytest.mark.serve

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host"}


class RoundRobin:
    """Sends every request to the next backend; one that is not there is an error of the proxy."""

    def __init__(self, ports):
        self.num_calls = dict.fromkeys(ports, 0)  # whole pictures
        turns = itertools.cycle(ports)
        lock = threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                with lock:
                    port = next(turns)
                    proxy.num_calls[port] += self.path == "/run"
                sent = self.rfile.read(int(self.headers.get("content-length", 0)))
                backend = HTTPConnection("127.0.0.1", port, timeout=120)
                try:
                    headers = {k: v for k, v in self.headers.items() if k.lower() not in HOP_BY_HOP}
                    backend.request(self.command, self.path, sent, headers)
                    reply = backend.getresponse()
                    status, got, content = reply.status, reply.getheaders(), reply.read()
                except OSError:
                    status, got, content = 502, [], b""
                finally:
                    backend.close()
                self.send_response(status)
                for name, value in got:
                    if name.lower() not in HOP_BY_HOP:
                        self.send_header(name, value)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST

            def log_message(self, *_):
                """Tests are quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    @contextmanager
    def serving(self):
        thread = threading.Thread(target=self.server.serve_forever)
        thread.start()
        try:
            yield self
        finally:
            self.server.shutdown()
            thread.join()
            self.server.server_close()


def start_alone(service, port, folder, *options, **settings):
    """One service of the bento in a process of its own, by the command a cloud starts it with."""
    home = folder / f"{service}-{port}"
    home.mkdir()
    env = {key: value for key, value in os.environ.items() if not key.startswith("IRIS_")}
    env |= {
        "BENTOML_HOME": str(folder / "bentoml"),
        "IRIS_HOME": str(home),
        "IRIS_METRICS_BIND": "",
        "IRIS_CPU_THREADS": "1",
        **settings,
    }
    log_file = home / "serve.log"
    command = [sys.executable, "-m", "bentoml_cli._internal.start", "start-http-server"]
    command += ["service:EpithreIris", "--service-name", service, "--port", str(port), *options]
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--working-dir", "."],
            cwd=CHECKOUT,
            env=env,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Server(process, f"http://127.0.0.1:{port}", "", home, log_file)


@pytest.fixture(scope="module")
def balanced(tmp_path_factory):
    """(front, engines, proxy), all of them ready."""
    folder = tmp_path_factory.mktemp("balanced")
    with ExitStack() as stack:
        ports = [free_port(), free_port()]
        engines = [start_alone("iris_engine", port, folder) for port in ports]
        for engine in engines:
            stack.callback(engine.stop)
        for engine in engines:  # first: together they have the machine to themselves
            engine.wait_until_ready()
        proxy = stack.enter_context(RoundRobin(ports).serving())
        depends = ("--depends", f"iris_engine={proxy.url}")
        front = start_alone("epithre_iris", free_port(), folder, *depends)
        stack.callback(front.stop)
        front.wait_until_ready()
        yield front, engines, proxy


def ask(front, seed):
    with front.client() as client:
        return client.post("/v1/images/generations", json=body(seed=seed, size="192x192"))


def test_every_picture_comes_and_both_engines_paint(balanced):
    front, _, proxy = balanced
    with ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(lambda seed: ask(front, seed), range(8)))
    assert [reply.status_code for reply in replies] == [200] * 8, front.log
    assert all(picture(reply.json()).size == (192, 192) for reply in replies)
    assert min(proxy.num_calls.values()) >= 2
    # the same seed is the same picture, whichever engine the proxy chose
    assert ask(front, 3).json()["data"] == replies[3].json()["data"]
    assert ask(front, 3).json()["data"] == replies[3].json()["data"]


def test_an_engine_has_as_many_threads_as_it_is_told(balanced):
    _, engines, _ = balanced
    for engine in engines:
        assert re.search(r"loaded on cpu in (float32|bfloat16), CPU threads: 1\b", engine.log)


def test_an_edit_and_its_image_go_through_as_well(balanced):
    front, _, _ = balanced
    source = ask(front, 1).json()["data"][0]["b64_json"]
    with front.client() as client:
        edit = body(image=source, prompt="make it night")
        reply = client.post("/v1/images/edits", json=edit)
    assert picture(reply.json()).size == (128, 128)


def test_an_engine_that_is_gone_costs_no_picture(balanced):
    front, engines, _ = balanced
    engines[1].stop()
    deadline = time.monotonic() + START_S
    while httpx.get(f"{front.url}/livez").status_code != 200:
        assert time.monotonic() < deadline
    assert [ask(front, seed).status_code for seed in range(4)] == [200] * 4
