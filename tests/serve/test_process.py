"""The service as processes: what it shows, what it hides, how it fails and how it ends."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import psutil
import pytest

from tests.serve.conftest import body, picture

pytestmark = pytest.mark.serve

IRIS = Path(sys.executable).with_name("iris")


@pytest.mark.parametrize(
    "path", ["/docs.json", "/schema.json", "/metrics", "/assets/x", "/nothing", "/v1/images"]
)
def test_every_unknown_path_is_ours_and_in_the_envelope(path, server):
    reply = httpx.get(server.url + path)
    assert reply.status_code == 404
    assert reply.json()["error"]["code"] == "not_found"
    assert reply.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize("path", ["/admit_generate", "/collect", "/iris_engine/admit_edit"])
def test_the_engine_cannot_be_reached_from_outside(path, server):
    headers = {"content-type": "application/vnd.bentoml+pickle"}
    reply = httpx.post(server.url + path, content=b"cos\nsystem\n(S'true'\ntR.", headers=headers)
    assert reply.status_code == 404
    listening = {
        c.laddr.port
        for p in server.processes()
        for c in p.net_connections(kind="inet")
        if c.status == psutil.CONN_LISTEN
    }
    urls = (server.url, server.metrics_url)
    assert listening >= {httpx.URL(url).port for url in urls}
    assert not [
        c
        for c in server.engine().net_connections(kind="inet")
        if c.status == psutil.CONN_LISTEN and c.laddr.port not in {httpx.URL(u).port for u in urls}
    ]


def test_wrong_methods_and_media_types_are_in_the_envelope(server):
    with server.client() as client:
        wrong_method = client.get("/v1/images/generations")
        wrong_type = client.post(
            "/v1/images/generations",
            content=b"x",
            headers={"content-type": "application/vnd.bentoml+pickle"},
        )
    assert wrong_method.status_code == 405
    assert wrong_method.headers["allow"]
    assert wrong_method.json()["error"]["code"] == "method_not_allowed"
    assert wrong_type.status_code == 415
    assert wrong_type.json()["error"]["code"] == "unsupported_media_type"


def test_head_and_options_answer_without_a_body(server):
    got, head = (httpx.request(method, server.url + "/v1/models") for method in ("GET", "HEAD"))
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(got.content))
    options = httpx.options(server.url + "/v1/images/edits")
    assert (options.status_code, options.content) == (204, b"")
    assert options.headers["allow"] == "OPTIONS, POST"


@pytest.mark.parametrize("has_length", [True, False])
def test_a_body_of_50_mb_is_read_and_one_byte_more_is_a_413(has_length, server):
    def post(client, size):
        good = json.dumps(body()).encode()
        content = good[:-1] + b" " * (size - len(good)) + b"}"
        pieces = (content[at : at + 1_000_000] for at in range(0, size, 1_000_000))
        return client.post("/v1/images/generations", content=content if has_length else pieces)

    with server.client(headers={"content-type": "application/json"}) as client:
        too_large = post(client, 50 * 1024 * 1024 + 1)
        assert too_large.status_code == 413
        assert too_large.json()["error"]["code"] == "request_too_large"
        assert post(client, 50 * 1024 * 1024).status_code == 200


def test_slow_headers_and_slow_bodies_hold_no_engine_slot(server):
    url = httpx.URL(server.url)
    start = b"POST /v1/images/generations HTTP/1.1\r\nhost: x\r\n"
    rest = f"authorization: Bearer {server.key}\r\ncontent-type: application/json\r\n".encode()
    with ExitStack() as stack:
        for sent in [start, start + rest + b"content-length: 1000\r\n\r\n{"] * 20:
            line = stack.enter_context(socket.create_connection((url.host, url.port), timeout=10))
            line.sendall(sent)
        with server.client() as client:
            assert client.post("/v1/images/generations", json=body()).status_code == 200
        assert server.metric("iris_engine_running_pictures") == 0
        assert server.metric("iris_engine_waiting_pictures") == 0


def test_an_engine_that_never_comes_up_is_a_503_long_before_the_deadline(start):
    server = start(ready=False, IRIS_DEVICE="cuda", CUDA_VISIBLE_DEVICES="")
    deadline = time.monotonic() + 60
    while not (server.home / "first-key").exists() or not answers(server):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    begun = time.monotonic()
    with server.client() as client:
        reply = client.post("/v1/images/generations", json=body())
    assert reply.status_code == 503
    assert reply.json()["error"]["code"] == "backend_unavailable"
    assert time.monotonic() - begun < 30  # of a deadline of 300


def answers(server):
    try:
        return httpx.get(f"{server.url}/v1/models").status_code == 200
    except httpx.HTTPError:
        return False


def test_the_home_page_loads_nothing_from_elsewhere(server):
    page = httpx.get(server.url + "/").text
    assert "epithre-iris" in page
    assert "src=" not in page


def raw(server, data, timeout=10):
    """Send bytes, return what comes back until the server closes."""
    url = httpx.URL(server.url)
    with socket.create_connection((url.host, url.port), timeout=timeout) as sock:
        sock.sendall(data)
        received = b""
        while chunk := sock.recv(65536):
            received += chunk
    return received


def test_bytes_that_are_not_http_are_answered_in_the_envelope(server):
    reply = raw(server, b"EHLO mail\r\n\r\n")
    assert reply.startswith(b"HTTP/1.1 400 ")
    assert b'"code": "invalid_request"' in reply or b'"code":"invalid_request"' in reply


def test_headers_of_100_kb_are_refused_in_the_envelope(server):
    reply = raw(server, b"GET / HTTP/1.1\r\nhost: x\r\nx-long: " + b"a" * 100_000 + b"\r\n\r\n")
    assert reply.startswith(b"HTTP/1.1 400 ")
    assert b"invalid_request" in reply


def test_the_first_key_is_printed_once_and_only_its_owner_can_read_it(server):
    assert server.log.count(server.key) == 1
    assert stat.S_IMODE((server.home / "first-key").stat().st_mode) == 0o600
    assert server.key.startswith("esk_test_")


def test_the_printed_curl_writes_a_picture(server, tmp_path):
    lines = server.log.split("A first picture, written to picture.png:\n")[1]
    command = lines.strip().split("\n\n")[0]
    subprocess.run(["bash", "-ec", command], cwd=tmp_path, check=True, timeout=60)
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_keys_made_and_revoked_by_hand_take_effect_within_seconds(server):
    env = {**os.environ, "IRIS_HOME": str(server.home)}

    def iris(*arguments):
        return subprocess.run(
            [IRIS, *arguments], env=env, capture_output=True, text=True, check=True
        ).stdout

    made = iris("keys", "create", "--name", "shop", "--test")
    secret = next(word for word in made.split() if word.startswith("esk_test_"))
    key_id = next(word for word in made.split() if word.startswith("key_"))
    headers = {"authorization": f"Bearer {secret}"}
    url = f"{server.url}/v1/images/generations"
    assert httpx.post(url, json=body(), headers=headers, timeout=60).status_code == 200
    iris("keys", "revoke", key_id)
    deadline = time.monotonic() + 5
    while httpx.post(url, json=body(), headers=headers, timeout=60).status_code != 401:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_nothing_private_is_logged(server):
    secret_prompt = "an island that only I know"
    with server.client() as client:
        client.post("/v1/images/generations", json=body(prompt=secret_prompt))
        client.post("/v1/images/generations", json=body(prompt=secret_prompt, n=3))
        client.post(f"/v1/images/generations?key={server.key}", json=body(prompt=secret_prompt))
        client.get(f"/nothing/{server.key}")
    time.sleep(0.5)
    assert secret_prompt not in server.log
    assert server.log.count(server.key) == 1  # the line that shows the first key
    metrics = httpx.get(server.metrics_url).text
    assert secret_prompt not in metrics
    assert server.key not in metrics


def test_a_killed_engine_is_told_at_once_and_comes_back(start):
    server = start()
    assert httpx.get(server.url + "/readyz").status_code == 200
    server.engine().kill()
    deadline = time.monotonic() + 5
    while server.is_ready():
        assert time.monotonic() < deadline
    with server.client() as client:
        reply = client.post("/v1/images/generations", json=body())
    assert reply.status_code in (200, 503)  # 200: it is back already
    if reply.status_code == 503:
        assert reply.json()["error"]["code"] == "backend_unavailable"
    assert httpx.get(server.url + "/livez").status_code in (200, 503)
    server.wait_until_ready()
    with server.client() as client:
        assert client.post("/v1/images/generations", json=body()).status_code == 200


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_every_process(how, start):
    server = start()
    processes = server.processes()
    assert len(processes) >= 5  # arbiter, front, engine, two decoders
    server.process.send_signal(how)
    server.process.wait(30)
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert not alive
    assert "Traceback" not in server.log


def test_ctrl_c_in_a_terminal_ends_every_process(start):
    """A terminal sends SIGINT to the whole group, not only to the first process."""
    server = start()
    processes = server.processes()
    os.killpg(server.process.pid, signal.SIGINT)
    server.process.wait(30)
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert not alive
    assert "Traceback" not in server.log


def test_two_engines_share_the_pictures_and_one_that_is_killed_costs_nobody_theirs(start):
    server = start(IRIS_ENGINES="2")
    engines = {p.pid: p for p in server.processes() if is_engine(p)}
    assert len(engines) == 2
    wait_for(lambda: server.metric("iris_engines_ready") == 2)
    idle_s = {pid: engine.cpu_times().user for pid, engine in engines.items()}
    request = body(size="640x640", num_steps=25)
    with server.client() as client, ThreadPoolExecutor(8) as pool:
        running = [
            pool.submit(client.post, "/v1/images/generations", json=request | {"seed": seed})
            for seed in range(8)
        ]
        here = ("iris_engine_running_pictures", "iris_engine_waiting_pictures")
        wait_for(lambda: sum(map(server.metric, here)) >= 6)
        wait_for(lambda: all(p.cpu_times().user > idle_s[pid] + 0.3 for pid, p in engines.items()))
        next(iter(engines.values())).kill()
        wait_for(lambda: server.metric("iris_engines_ready") == 1)
        pictures = [reply.result() for reply in running]
        assert [reply.status_code for reply in pictures] == [200] * 8
        assert server.is_ready()
        # the same seed is the same picture, whoever made it
        for seed in (0, 7):
            again = client.post("/v1/images/generations", json=request | {"seed": seed})
            assert again.json()["data"] == pictures[seed].json()["data"]
        wait_for(lambda: server.metric("iris_engines_ready") == 2)  # the arbiter starts it again


def wait_for(condition, timeout_s=60):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_engine(process):
    return any(word.startswith("iris_engine") for word in process.cmdline())


HANG = """
import os, sys, threading, time

def spoil():
    while not hasattr(sys.modules.get("iris.engine.denoiser"), "Denoiser"):
        time.sleep(0.05)
    denoiser = sys.modules["iris.engine.denoiser"].Denoiser
    step = denoiser.step
    def held(self, rows):
        while os.path.exists(os.environ["HANG_WHILE"]):
            time.sleep(0.05)
        return step(self, rows)
    denoiser.step = held

threading.Thread(target=spoil, daemon=True).start()
"""


def test_a_device_that_hangs_is_given_up_and_a_new_engine_takes_over(start, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(HANG)
    hanging = tmp_path / "hanging"
    server = start(IRIS_STALL_S="3", PYTHONPATH=str(tmp_path), HANG_WHILE=str(hanging))
    before = server.engine()
    hanging.touch()
    with server.client() as client:
        reply = client.post("/v1/images/generations", json=body())
        assert reply.status_code == 504
        assert reply.json()["error"]["code"] == "backend_timeout"
        assert not server.is_ready()
        hanging.unlink()
        psutil.wait_procs([before], timeout=15)
        server.wait_until_ready()
        assert server.engine().pid != before.pid
        assert client.post("/v1/images/generations", json=body()).status_code == 200


def test_told_to_end_under_load_it_delivers_what_it_admitted_and_refuses_what_comes(start):
    server = start()
    with server.client() as client, ThreadPoolExecutor(16) as pool:
        # A few seconds of work: a slow machine has to be done with it in the 25 s it is given.
        request = body(size="640x640", num_steps=10)
        running = [
            pool.submit(client.post, "/v1/images/generations", json=request | {"seed": seed})
            for seed in range(6)
        ]
        here = ("iris_engine_running_pictures", "iris_engine_waiting_pictures")
        wait_for(lambda: sum(map(server.metric, here)) >= 6)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        assert not server.is_ready()
        late = httpx.post(
            f"{server.url}/v1/images/generations", json=body(), headers=client.headers, timeout=5
        )
        assert late.status_code == 503
        assert late.json()["error"]["code"] == "backend_unavailable"
        assert not all(reply.done() for reply in running)
        for reply in running:
            assert reply.result().status_code == 200, reply.result().text
            assert picture(reply.result().json()).size == (640, 640)
    server.process.wait(30)
    assert "Traceback" not in server.log


def test_a_bad_setting_stops_the_start_and_names_it(start):
    server = start(ready=False, IRIS_MAX_RUNNING="many")
    assert server.process.wait(60) != 0
    assert "IRIS_MAX_RUNNING" in server.log
    assert "many" in server.log
