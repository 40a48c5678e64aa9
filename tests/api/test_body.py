from __future__ import annotations

import http.client
import json
import logging
import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx
import pytest

from iris.api.body import MAX_BODY_BYTES
from tests.api.fakes import (
    BODY_TIMEOUT_S,
    LIVE_KEY,
    FakeDispatcher,
    Front,
    assert_envelope,
    assert_refused,
    generation,
    wait_for_line,
)

Address = tuple[str, int]

PATH = "/v1/images/generations"
GOOD = json.dumps(generation()).encode()
JSON = {"content-type": "application/json"}


def head(*, key: str | None = LIVE_KEY, path: str = PATH, **headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "host: iris.test"]
    if key is not None:
        lines.append(f"authorization: Bearer {key}")
    fields = {"content_type": "application/json"} | headers
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


@contextmanager
def connected(address: Address) -> Iterator[socket.socket]:
    with socket.create_connection(address, timeout=20) as line:
        yield line


def answer(line: socket.socket) -> httpx.Response:
    """Read one answer off the line."""
    response = http.client.HTTPResponse(line)
    response.begin()
    content = response.read()
    response.close()
    return httpx.Response(response.status, headers=response.getheaders(), content=content)


def is_closed(line: socket.socket) -> bool:
    try:
        return line.recv(1) == b""
    except ConnectionResetError:
        return True


def bad_request(line: socket.socket) -> None:
    """What is no valid HTTP is answered in the envelope and ends the line."""
    assert_envelope(answer(line), 400, "invalid_request")
    assert is_closed(line)


def works(address: Address) -> bool:
    with connected(address) as line:
        line.sendall(head(content_length=str(len(GOOD))) + GOOD)
        return answer(line).status_code == 200


def padded(size: int) -> bytes:
    """A good body of exactly this size."""
    return GOOD[:-1] + b" " * (size - len(GOOD)) + b"}"


def test_a_body_of_exactly_50_mb_is_read(server: Address, dispatcher: FakeDispatcher) -> None:
    with connected(server) as line:
        line.sendall(head(content_length=str(MAX_BODY_BYTES)) + padded(MAX_BODY_BYTES))
        assert answer(line).status_code == 200
    assert len(dispatcher.jobs) == 1


def test_a_body_of_exactly_50_mb_without_a_length_is_read(
    server: Address, dispatcher: FakeDispatcher
) -> None:
    with connected(server) as line:
        line.sendall(head(transfer_encoding="chunked"))
        line.sendall(b"%x\r\n" % MAX_BODY_BYTES + padded(MAX_BODY_BYTES) + b"\r\n0\r\n\r\n")
        assert answer(line).status_code == 200


@pytest.mark.parametrize("length", [MAX_BODY_BYTES + 1, 10**12, 10**19])
def test_a_body_announced_over_50_mb_is_refused_without_reading_any_of_it(
    server: Address, dispatcher: FakeDispatcher, length: int
) -> None:
    with connected(server) as line:
        line.sendall(head(content_length=str(length)))
        assert_envelope(answer(line), 413, "request_too_large")
        assert is_closed(line)
    assert dispatcher.jobs == []
    assert works(server)


def test_a_length_of_400_digits_is_no_length(server: Address, dispatcher: FakeDispatcher) -> None:
    with connected(server) as line:
        line.sendall(head(content_length=str(10**400)))
        bad_request(line)
    assert dispatcher.jobs == []
    assert works(server)


@pytest.mark.parametrize("digits", [16, 400, 5_000])
def test_a_length_of_any_digits_that_a_server_lets_through_is_a_413(
    front: Front, dispatcher: FakeDispatcher, digits: int
) -> None:
    headers = JSON | {"content-length": "9" * digits}
    response = front.post(PATH, content=GOOD, headers=headers)
    assert_refused(front, dispatcher, response, 413, "request_too_large")


@pytest.mark.parametrize("path", [PATH, "/v1/images/edits"])
@pytest.mark.parametrize("has_length", [True, False])
def test_a_client_that_sends_all_of_too_large_a_body_still_reads_its_413(
    server: Address, dispatcher: FakeDispatcher, path: str, has_length: bool
) -> None:
    body = padded(MAX_BODY_BYTES + 1)
    pieces = (body[at : at + 65_536] for at in range(0, len(body), 65_536))
    response = httpx.post(
        f"http://{server[0]}:{server[1]}{path}",
        content=body if has_length else pieces,
        headers={**JSON, "authorization": f"Bearer {LIVE_KEY}"},
        timeout=20,
    )
    assert_envelope(response, 413, "request_too_large")
    assert dispatcher.jobs == []
    assert works(server)


def test_a_body_without_a_length_is_refused_at_its_first_byte_over_50_mb(
    server: Address, dispatcher: FakeDispatcher
) -> None:
    with connected(server) as line:
        line.sendall(head(transfer_encoding="chunked"))
        line.sendall(b"%x\r\n" % (MAX_BODY_BYTES + 1) + padded(MAX_BODY_BYTES + 1))
        # no end of the chunk and none of the body: the answer does not wait for either
        assert_envelope(answer(line), 413, "request_too_large")
        assert is_closed(line)
    assert dispatcher.jobs == []
    assert works(server)


def test_a_slow_body_is_told_so_and_holds_no_engine_slot(
    server: Address, dispatcher: FakeDispatcher
) -> None:
    with connected(server) as line:
        line.sendall(head(content_length="1000") + GOOD[:10])
        began = time.monotonic()
        assert works(server)
        error = assert_envelope(answer(line), 400, "invalid_request")
        assert time.monotonic() - began < BODY_TIMEOUT_S + 5
        assert is_closed(line)
    assert "did not arrive within 3 seconds" in error["message"]
    assert len(dispatcher.jobs) == 1


def test_headers_that_do_not_end_hold_no_engine_slot(
    server: Address, dispatcher: FakeDispatcher
) -> None:
    with ExitStack() as stack:
        lines = [stack.enter_context(connected(server)) for _ in range(20)]
        for line in lines:
            line.sendall(head(content_length=str(len(GOOD)))[:-2])  # all but the empty line
        assert works(server)
        assert len(dispatcher.jobs) == 1
        for line in lines:
            line.sendall(b"\r\n" + GOOD)
            assert answer(line).status_code == 200


def test_the_time_limit_is_for_the_whole_body_and_not_for_each_piece(
    server: Address, dispatcher: FakeDispatcher
) -> None:
    with connected(server) as line:
        line.sendall(head(content_length="100000"))
        line.settimeout(0.1)
        deadline = time.monotonic() + BODY_TIMEOUT_S + 5
        while time.monotonic() < deadline:
            line.sendall(b" ")
            try:
                if line.recv(1, socket.MSG_PEEK):
                    break
            except TimeoutError:
                continue
        line.settimeout(5)
        assert_envelope(answer(line), 400, "invalid_request")
    assert dispatcher.jobs == []


def test_a_length_shorter_than_the_body_is_a_400_for_the_part_that_counts(
    server: Address, dispatcher: FakeDispatcher
) -> None:
    with connected(server) as line:
        line.sendall(head(content_length=str(len(GOOD) - 5), connection="close") + GOOD)
        assert_envelope(answer(line), 400, "invalid_request")
    assert dispatcher.jobs == []
    assert works(server)


def test_what_follows_a_body_of_the_announced_length_is_no_part_of_it(
    server: Address, dispatcher: FakeDispatcher
) -> None:
    with connected(server) as line:
        line.sendall(head(content_length=str(len(GOOD))) + GOOD + b'{"prompt":"b"}\r\n\r\n')
        received = b""
        while piece := line.recv(65_536):
            received += piece
    assert re.findall(rb"HTTP/1\.1 ([0-9]{3}) ", received) == [b"200", b"400"]
    assert len(dispatcher.jobs) == 1


def test_a_body_shorter_than_its_length_ends_in_a_400_that_says_so(
    server: Address, dispatcher: FakeDispatcher
) -> None:
    with connected(server) as line:
        line.sendall(head(content_length=str(len(GOOD) + 1)) + GOOD)
        error = assert_envelope(answer(line), 400, "invalid_request")
        assert is_closed(line)
    assert f"{len(GOOD)} bytes came" in error["message"]
    assert dispatcher.jobs == []
    assert works(server)


def test_a_client_that_leaves_in_the_middle_of_its_body_ends_quietly(
    server: Address, dispatcher: FakeDispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO), connected(server) as line:
        line.sendall(head(content_length="5000") + GOOD)
        line.close()
        assert wait_for_line(caplog, "client_gone")["status"] == 499
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert dispatcher.jobs == []
    assert works(server)


def test_a_header_of_100_kb_is_refused_and_the_next_request_works(
    server: Address, dispatcher: FakeDispatcher
) -> None:
    with connected(server) as line:
        line.sendall(head(x_padding="y" * 100_000, content_length=str(len(GOOD))) + GOOD)
        assert_envelope(answer(line), 400, "invalid_request")
    assert dispatcher.jobs == []
    assert works(server)


@pytest.mark.parametrize("protocol", ["websocket", "h2c"])
def test_an_upgrade_is_ignored_and_the_request_answered_as_any_other(
    server: Address, dispatcher: FakeDispatcher, protocol: str
) -> None:
    upgrade = {
        "connection": "upgrade",
        "upgrade": protocol,
        "sec_websocket_key": "dGhlIHNhbXBsZSBub25jZQ==",
        "sec_websocket_version": "13",
        "content_length": str(len(GOOD)),
    }
    with connected(server) as line:
        line.sendall(head(path="/nothing", **upgrade) + GOOD)
        assert_envelope(answer(line), 404, "not_found")
    with connected(server) as line:
        line.sendall(head(**upgrade) + GOOD)
        assert answer(line).status_code == 200


@pytest.mark.parametrize("lengths", [("10", "20"), ("-1",), ("1e2",), ("0x10",), ("+5",), ("",)])
def test_a_nonsense_length_is_a_400(
    server: Address, dispatcher: FakeDispatcher, lengths: tuple[str, ...]
) -> None:
    lines = "".join(f"content-length: {length}\r\n" for length in lengths).encode()
    with connected(server) as line:
        line.sendall(head()[:-2] + lines + b"\r\n" + GOOD)
        bad_request(line)
    assert dispatcher.jobs == []
    assert works(server)


@pytest.mark.parametrize(
    "headers",
    [
        [("content-length", "10"), ("content-length", "20")],
        [("content-length", "+5")],
        [("content-length", "٥")],
    ],
)
def test_a_nonsense_length_that_a_server_lets_through_is_a_400_of_ours(
    front: Front, dispatcher: FakeDispatcher, headers: list[tuple[str, str]]
) -> None:
    encoded = [(name, value.encode()) for name, value in [*headers, *JSON.items()]]
    encoded = [(n, v if isinstance(v, bytes) else v.encode()) for n, v in encoded]
    response = front.post(PATH, content=GOOD, headers=[(n.encode(), v) for n, v in encoded])
    assert_refused(front, dispatcher, response, 400, "invalid_request")


def test_a_repeated_equal_length_is_one_length(front: Front, dispatcher: FakeDispatcher) -> None:
    length = str(len(GOOD))
    headers = [("content-length", length), ("content-length", length), *JSON.items()]
    assert front.post(PATH, content=GOOD, headers=headers).status_code == 200


BAD_TYPES: list[list[tuple[str, str]]] = [
    [],
    [("content-type", "")],
    [("content-type", "text/plain")],
    [("content-type", "text/json")],
    [("content-type", "application/jsonp")],
    [("content-type", "application/problem+json")],
    [("content-type", "application/x-www-form-urlencoded")],
    [("content-type", "application/octet-stream")],
    [("content-type", "application/x-pickle")],
    [("content-type", "application/vnd.bentoml+pickle")],
    [("content-type", "application/python-pickle")],
    [("content-type", "application/json, text/plain")],
    [("content-type", "application/json"), ("content-type", "application/json")],
    [("content-type", "application/json; charset=utf-16")],
    [("content-type", "application/json; charset=latin-1")],
    [("content-type", "application/json"), ("content-encoding", "gzip")],
    [("content-type", "application/json"), ("content-encoding", "br")],
    [("content-type", "application/json"), ("content-encoding", "identity, gzip")],
    [("content-type", "application/json"), ("content-encoding", "x")],
]


@pytest.mark.parametrize("path", [PATH, "/v1/images/edits"])
@pytest.mark.parametrize("headers", BAD_TYPES, ids=str)
def test_a_type_or_encoding_that_is_not_read_here_is_a_415(
    front: Front, dispatcher: FakeDispatcher, path: str, headers: list[tuple[str, str]]
) -> None:
    response = front.post(path, content=GOOD, headers=headers)
    assert_refused(front, dispatcher, response, 415, "unsupported_media_type")


def test_a_generation_takes_no_form(front: Front, dispatcher: FakeDispatcher) -> None:
    response = front.post(PATH, data=generation(), files={"image": ("a", b"x")})
    assert_refused(front, dispatcher, response, 415, "unsupported_media_type")


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "application/json; charset=utf-8"},
        {"content-type": 'Application/JSON;charset="UTF-8"'},
        {"content-type": " application/json ; x=y"},
        {"content-type": "application/json", "content-encoding": "identity"},
        {"content-type": "application/json", "content-encoding": "IDENTITY"},
    ],
)
def test_other_ways_to_say_plain_json_are_read(
    front: Front, dispatcher: FakeDispatcher, headers: dict[str, str]
) -> None:
    assert front.post(PATH, content=GOOD, headers=headers).status_code == 200


def test_a_stranger_is_not_invited_to_upload(server: Address, dispatcher: FakeDispatcher) -> None:
    with connected(server) as line:
        line.sendall(head(key=None, content_length="40000000", expect="100-continue"))
        # a 100 would come first and fail this
        assert_envelope(answer(line), 401, "authentication_error")
        assert is_closed(line)


def test_a_guest_is_invited_to_upload(server: Address, dispatcher: FakeDispatcher) -> None:
    with connected(server) as line:
        line.sendall(head(content_length=str(len(GOOD)), expect="100-continue"))
        assert line.recv(4096).startswith(b"HTTP/1.1 100 ")
        line.sendall(GOOD)
        assert answer(line).status_code == 200


def test_a_refusal_with_a_small_body_under_way_keeps_the_line_open(
    server: Address, dispatcher: FakeDispatcher
) -> None:
    with connected(server) as line:
        line.sendall(head(key=None, content_length=str(len(GOOD))))
        first = answer(line)
        assert_envelope(first, 401, "authentication_error")
        assert "connection" not in first.headers
        line.sendall(GOOD + head(content_length=str(len(GOOD))) + GOOD)
        assert answer(line).status_code == 200
