from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from iris.api.metrics import Metrics
from iris.api.observe import MAX_HEADER_BYTES, Observed
from iris.api.requests import Requests
from tests.api.fakes import FakeDispatcher, Front, assert_envelope, assert_refused, generation


def test_every_answer_has_an_id_of_ours_whatever_the_client_sends(front: Front) -> None:
    seen = set()
    for path in ("/v1/models", "/nothing", "/v1/images/edits"):
        given = front.post(path, headers={"x-request-id": "req_mine"}).headers.get_list(
            "x-request-id"
        )
        assert len(given) == 1
        seen.add(given[0])
    assert len(seen) == 3
    assert "req_mine" not in seen


def test_headers_over_their_limit_are_a_400(front: Front, dispatcher: FakeDispatcher) -> None:
    response = front.post(
        "/v1/images/generations", json=generation(), headers={"x-pad": "y" * MAX_HEADER_BYTES}
    )
    assert_refused(front, dispatcher, response, 400, "invalid_request")


async def exchange(app: Any, scope: dict[str, Any]) -> list[Message]:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    whole = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "http_version": "1.1",
        "headers": [],
    } | scope
    await Observed(app, Metrics(), Requests())(whole, receive, send)
    return sent


def test_a_crash_after_the_answer_began_sends_nothing_more_and_does_not_escape(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def half(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("a red fox")

    sent = asyncio.run(exchange(half, {}))
    assert [message["type"] for message in sent] == ["http.response.start"]
    (crash,) = [record for record in caplog.records if record.getMessage() == "crash"]
    assert crash.__dict__["fields"]["exception"] == "builtins.RuntimeError"
    assert "fox" not in str(crash.__dict__)


def test_a_cancelled_request_is_logged_as_such_and_stays_cancelled(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def cancelled(scope: Scope, receive: Receive, send: Send) -> None:
        raise asyncio.CancelledError

    with caplog.at_level(logging.INFO, logger="iris"), pytest.raises(asyncio.CancelledError):
        asyncio.run(exchange(cancelled, {}))
    (line,) = [record for record in caplog.records if record.getMessage() == "request"]
    assert (line.__dict__["fields"]["status"], line.__dict__["fields"]["code"]) == (
        499,
        "cancelled",
    )


def test_the_query_is_gone_from_what_the_server_may_log() -> None:
    scope = {"query_string": b"key=esk_live_x"}
    whole: dict[str, Any] = {}

    async def look(scope: Scope, receive: Receive, send: Send) -> None:
        whole.update(scope)

    asyncio.run(exchange(look, scope))
    assert whole["query_string"] == b""


def test_what_is_not_http_is_passed_on_untouched() -> None:
    seen: list[Scope] = []

    async def note(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)

    asyncio.run(exchange(note, {"type": "lifespan"}))
    assert [scope["type"] for scope in seen] == ["lifespan"]


@pytest.mark.parametrize(
    ("headers", "reads", "closes"),
    [
        ([], False, False),
        ([(b"content-length", b"100")], False, False),
        ([(b"content-length", b"65536")], False, False),
        ([(b"content-length", b"65537")], False, True),
        ([(b"content-length", b"9" * 500)], False, True),
        ([(b"content-length", b"x")], False, True),
        ([(b"transfer-encoding", b"chunked")], False, True),
        ([(b"content-length", b"100000")], True, False),
    ],
)
def test_the_line_is_closed_only_where_a_large_body_was_left_unread(
    headers: list[tuple[bytes, bytes]], reads: bool, closes: bool
) -> None:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if reads:
            await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    for version in ("1.1", "2"):
        start, *_ = asyncio.run(exchange(answer, {"headers": headers, "http_version": version}))
        expected = closes and version == "1.1"
        assert ((b"connection", b"close") in start["headers"]) is expected


def test_the_answer_to_head_keeps_its_length_and_loses_its_body() -> None:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"5")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"hello"})

    for method, body in (("GET", b"hello"), ("HEAD", b"")):
        start, rest = asyncio.run(exchange(answer, {"method": method}))
        assert (b"content-length", b"5") in start["headers"]
        assert rest["body"] == body


def test_an_unexpected_crash_is_a_500_that_tells_nothing(
    front: Front, dispatcher: FakeDispatcher
) -> None:
    dispatcher.error = KeyError("/opt/secret")
    response = front.post("/v1/images/generations", json=generation())
    error = assert_envelope(response, 500, "backend_error")
    for word in ("secret", "KeyError", "iris", "Traceback", ".py"):
        assert word not in error["message"]


def test_an_absolute_target_is_the_path_in_it(front: Front) -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["path"])
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    for path in ("http://iris.test/v1/models", "https://x:1/", "http://x", "*", "/a://b"):
        asyncio.run(exchange(app, {"path": path}))
    assert seen == ["/v1/models", "/", "/", "*", "/a://b"]


def test_a_client_that_only_writes_still_gets_its_answer(front: Front) -> None:
    """What is left of a refused body is read on, or the refusal would be lost in a reset."""
    rest = [b"x" * 1000] * 5

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 413, "headers": []})
        await send({"type": "http.response.body", "body": b"too large"})

    sent: list[Message] = []

    async def receive() -> Message:
        chunk = rest.pop()
        return {"type": "http.request", "body": chunk, "more_body": bool(rest)}

    async def send(message: Message) -> None:
        sent.append({**message, "rest": len(rest)})

    scope = {"type": "http", "method": "POST", "path": "/", "http_version": "1.1"}
    scope["headers"] = [(b"content-length", b"99999999")]
    asyncio.run(Observed(refuse, Metrics(), Requests())(scope, receive, send))
    assert [message["rest"] for message in sent] == [5, 5, 0]
    assert sent[1]["body"] == b"too large"
    assert sent[1]["more_body"]
    assert not sent[2].get("more_body", False)
