"""The outermost layer: an id, a log line, metrics and an error envelope for every request."""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from iris.accounts.limits import Quota
from iris.api.errors import CLIENT_GONE, answer_for, error_response
from iris.api.log import log_crash, log_request
from iris.api.metrics import Metrics
from iris.api.query import take_query
from iris.api.record import RequestRecord, attach
from iris.api.requests import Requests
from iris.errors import BackendFailure, InvalidRequest, IrisError

MAX_HEADER_BYTES = 65_536  # servers differ in when they stop reading headers; this one does not
LINGER_S = 2.0  # how long the rest of a refused body is read and thrown away
SMALL_REST_BYTES = 65_536  # a body this small is let in after an early answer; the line stays open


class Observed:
    """Wraps the whole app. No exception passes it, so no server ever logs or shows one."""

    def __init__(self, app: ASGIApp, metrics: Metrics, requests: Requests) -> None:
        self._app = app
        self._metrics = metrics
        self._requests = requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # A server's access log may write the query, and people put keys there. The scope is the
        # server's own, so what is taken out here is not logged there.
        take_query(scope)
        if scope["path"].startswith(("http://", "https://")):
            # An absolute target, which RFC 9112 asks every server to take.
            scope["path"] = "/" + scope["path"].partition("://")[2].partition("/")[2]
        record = RequestRecord(method=scope["method"])
        attach(scope, record)
        exchange = _Exchange(scope, receive, send, record)
        with self._requests.one(), self._metrics.in_flight.track_inprogress():
            try:
                await self._serve(scope, exchange, record)
            finally:
                if record.charge is not None:
                    record.charge.void()  # whatever became of the request, unless it was paid
                client_left = exchange.client_left or record.client_left
                if record.status is None or client_left:
                    record.status = CLIENT_GONE
                    record.code = "client_gone" if client_left else "cancelled"
                self._metrics.observe(record)
                log_request(record)

    async def _serve(self, scope: Scope, exchange: _Exchange, record: RequestRecord) -> None:
        try:
            _check_headers(scope)
            await self._app(scope, exchange.receive, exchange.send)
            return
        except ClientDisconnect:
            return
        except IrisError as error:
            refusal = error
            if answer_for(type(error)).is_ours:
                log_crash(record, error)
        except Exception as error:
            log_crash(record, error)
            refusal = BackendFailure("unexpected")
        record.code = refusal.code
        if (
            record.status is None
        ):  # else half an answer is out: ending here makes the server hang up
            await error_response(refusal)(scope, exchange.receive, exchange.send)


class _Exchange:
    """The two channels of one request, watched."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, record: RequestRecord) -> None:
        self._receive = receive
        self._send = send
        self._record = record
        self._is_head = scope["method"] == "HEAD"
        self._http_1 = scope["http_version"] in ("1.0", "1.1")
        self._length = _rest_bytes(scope)
        self._body_began = False
        self._body_ended = False
        self._answered = False
        self._lingers = False
        self._expects_continue = any(name == b"expect" for name, _ in scope["headers"])
        self.client_left = False

    async def receive(self) -> Message:
        self._body_began = True
        message = await self._receive()
        if message["type"] == "http.request":
            self._body_ended = not message.get("more_body", False)
        elif not self._answered:
            self.client_left = True
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._record.status = message["status"]
            headers = list(message.get("headers", []))
            headers.append((b"x-request-id", self._record.request_id.encode()))
            headers.extend(_quota_headers(self._record.quota))
            if self._http_1 and self._must_hang_up():
                headers.append((b"connection", b"close"))
                self._lingers = not self._expects_continue  # that client writes nothing unasked
            message = {**message, "headers": headers}
        elif message["type"] == "http.response.body":
            self._answered = not message.get("more_body", False)
            if self._is_head:
                message = {**message, "body": b""}
            if self._answered and self._lingers:
                await self._send({**message, "more_body": True})
                await self._discard_rest()
                message = {"type": "http.response.body"}
        await self._send(message)

    async def _discard_rest(self) -> None:
        """Read on for a moment: a client that only writes would see a reset and not the answer."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while (await self._receive()).get("more_body", False):
                    continue

    def _must_hang_up(self) -> bool:
        """Whether the rest of the body must not be waited for before the next request."""
        if self._body_ended:
            return False
        return self._body_began or self._length > SMALL_REST_BYTES


def _quota_headers(quota: Quota | None) -> list[tuple[bytes, bytes]]:
    """Where the key stands in its minute, as OpenAI's clients read it."""
    if quota is None:
        return []
    reset_ms = math.ceil(quota.reset_s * 1000)
    reset = f"{reset_ms}ms" if reset_ms < 1000 else f"{reset_ms / 1000:g}s"
    return [
        (b"x-ratelimit-limit-requests", str(quota.limit).encode()),
        (b"x-ratelimit-remaining-requests", str(quota.remaining).encode()),
        (b"x-ratelimit-reset-requests", reset.encode()),
    ]


def _check_headers(scope: Scope) -> None:
    if sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEADER_BYTES:
        raise InvalidRequest(f"The headers are over {MAX_HEADER_BYTES:,} bytes; send fewer.")


def _rest_bytes(scope: Scope) -> float:
    """How much body is announced; unknown counts as endless."""
    length = b"0"
    for name, value in scope["headers"]:
        if name == b"transfer-encoding":
            return float("inf")
        if name == b"content-length":
            length = value
    return int(length) if length.isdigit() and len(length) < 16 else float("inf")
