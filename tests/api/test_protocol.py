"""The wire: headers have a time limit, and what is no HTTP is answered in the envelope."""

import asyncio
import contextlib
import json
import logging
import queue
import socket
import threading
import time

import pytest
import uvicorn

from iris.api.protocol import BoundedH11Protocol, was_handed_over
from tests.api.fakes import LIVE_KEY, wait_for_line

HEADER_TIMEOUT_S = 1.0


class Quick(BoundedH11Protocol):
    header_timeout_s = HEADER_TIMEOUT_S


async def slow_app(scope, receive, send):
    """Reads the body, then takes longer than headers may."""
    while (await receive()).get("more_body"):
        pass
    await asyncio.sleep(2 * HEADER_TIMEOUT_S)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"done"})


@pytest.fixture(scope="module")
def port():
    config = uvicorn.Config(slow_app, port=0, http=Quick, lifespan="off", log_level="critical")
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield listener.getsockname()[1]
    server.should_exit = True
    thread.join(10)
    listener.close()


def connect(port):
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def read_all(sock):
    received = b""
    with contextlib.suppress(ConnectionResetError):  # an end, too
        while chunk := sock.recv(65536):
            received += chunk
    return received


def test_headers_that_never_end_are_ended(port):
    with connect(port) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n")
        assert read_all(sock) == b""


def test_headers_that_trickle_are_ended_all_the_same(port):
    with connect(port) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n")
        ended = threading.Event()

        def trickle():
            while not ended.wait(HEADER_TIMEOUT_S / 6):
                with contextlib.suppress(OSError):
                    sock.sendall(b"x: 1\r\n")

        thread = threading.Thread(target=trickle)
        thread.start()
        assert read_all(sock) == b""  # ten seconds without an end would be a TimeoutError
        ended.set()
        thread.join()


def test_a_connection_that_sends_nothing_is_ended(port):
    with connect(port) as sock:
        assert sock.recv(1) == b""


def test_a_request_may_take_longer_than_its_headers(port):
    with connect(port) as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n")
        time.sleep(2 * HEADER_TIMEOUT_S)  # a slow body is the front's business
        sock.sendall(b"ab")
        assert b"200 OK" in sock.recv(65536)


def test_the_next_request_of_a_kept_connection_has_its_own_limit(port):
    with connect(port) as sock:
        for _ in range(2):
            sock.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            answer = b""
            while not answer.endswith(b"done\r\n0\r\n\r\n"):
                answer += sock.recv(65536)
        sock.sendall(b"GET / HTTP/1.1\r\nhost")
        assert read_all(sock) == b""


@pytest.mark.parametrize(
    "sent",
    [
        b"EHLO mail\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nbroken header\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nx: " + b"a" * 100_000,
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
    ids=["no http", "header", "100 kB without end", "two lengths", "tls"],
)
def test_what_is_no_request_is_answered_in_the_envelope(sent, port):
    with connect(port) as sock:
        sock.sendall(sent)
        if b"\n" not in sent:
            sock.sendall(b"\r\n\r\n")
        answer = read_all(sock)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request")
    assert b"x-request-id: req_" in head
    error = json.loads(body)["error"]
    assert error["code"] == "invalid_request"
    assert error["type"] == "invalid_request_error"


def test_an_upgrade_is_ignored_and_the_request_answered(port):
    handshake = (
        b"GET / HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
        b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    with connect(port) as sock:
        sock.sendall(handshake)
        assert b"200 OK" in sock.recv(65536)


def test_a_broken_body_after_the_request_began_ends_the_connection(port):
    with connect(port) as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n")
        assert b"200 OK" not in read_all(sock)


@pytest.mark.parametrize(
    ("key", "status", "code"),
    [("", 401, "authentication_error"), (LIVE_KEY, 400, "invalid_request")],
)
@pytest.mark.parametrize("wait_s", [0.0, 0.3], ids=["at once", "while the body is read"])
def test_a_broken_body_has_one_answer_and_one_line_of_the_log(
    server, caplog, key, status, code, wait_s
):
    request = (
        "POST /v1/images/edits HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n"
        f"content-type: application/json\r\nauthorization: Bearer {key}\r\n\r\n"
    )
    with caplog.at_level(logging.INFO), connect(server[1]) as sock:
        begun, rest = request.encode(), b"zz\r\n" + b"x" * 1_000
        with contextlib.suppress(ConnectionError):  # answered already where there is no key
            if wait_s:
                sock.sendall(begun + b"1\r\n{\r\n")
                time.sleep(wait_s)
                begun = b""
            sock.sendall(begun + rest)
        answer = read_all(sock)
        wait_for_line(caplog, code)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert answer.count(b"HTTP/1.1 4") == 1
    assert json.loads(body)["error"]["code"] == code
    lines = [record.fields for record in caplog.records if record.getMessage() == "request"]
    assert [(line["status"], line["route"]) for line in lines] == [(status, "/v1/images/edits")]
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


LARGE = b"x" * (16 << 20)  # more than the system takes for a client that does not read


async def large_app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": LARGE})
    ENDED.put(await was_handed_over(scope))


ENDED = queue.SimpleQueue()  # whether each answer of `large_app` was handed over


class Impatient(BoundedH11Protocol):
    taking_timeout_s = 1.0
    last_words_s = 1.0


class Patient(BoundedH11Protocol):
    taking_timeout_s = 2.0
    last_words_s = 1.0


class Ending(BoundedH11Protocol):
    last_words_s = 0.5


@contextlib.contextmanager
def answering_at_length(protocol):
    """A server of large answers; on the way out it is told to end, and has to."""
    config = uvicorn.Config(large_app, port=0, http=protocol, lifespan="off", log_level="critical")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)  # little is on its way
            sock.settimeout(10)
            sock.connect(listener.getsockname())
            sock.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            try:
                yield sock
            finally:
                server.should_exit = True
                thread.join(20)
            assert not thread.is_alive()


def test_a_client_that_takes_nothing_of_its_answer_is_left():
    with answering_at_length(Impatient) as sock:
        assert ENDED.get(timeout=20) is False
        assert len(read_all(sock)) < len(LARGE)


def test_a_client_that_takes_its_answer_slowly_gets_all_of_it():
    with answering_at_length(Patient) as sock:
        taken = 0
        for _ in range(22):  # twice as long as one may take nothing
            time.sleep(0.2)
            for _ in range(8):
                taken += len(sock.recv(65536))
        sock.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert taken + len(read_all(sock)) > 2 * len(LARGE)
        assert [ENDED.get(timeout=20) for _ in range(2)] == [True, True]


def test_nobody_keeps_a_server_up_by_not_reading():
    with answering_at_length(Ending) as sock:
        assert sock.recv(1) == b"H"
    assert ENDED.get(timeout=20) is False
