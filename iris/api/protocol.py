"""HTTP/1.1 on the wire: requests whose headers never end are ended, so are answers that nobody
takes, and what is not HTTP at all is answered in the same envelope as everything else.

uvicorn bounds neither the time a request line may take, nor that of an answer, nor the shape of
its own 400.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import h11
from starlette.types import Message, Receive, Scope
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from iris.api.errors import answer_for, envelope
from iris.api.line import Line
from iris.api.log import log_request
from iris.api.record import RequestRecord
from iris.errors import InvalidRequest

HEADER_TIMEOUT_S = 20.0
TAKING_TIMEOUT_S = 60.0  # in which a client takes nothing of its answer, though some is left
LAST_WORDS_S = 1.0  # for what is still on its way when the server ends
_LAST_WORDS_TLS_S = 5.0  # there, what is on its way counts as taken before it is
_HANDED_OVER = "iris.handed_over"
_KEEP_BACK = "iris.keep_back"


class BoundedH11Protocol(H11Protocol):
    """uvicorn's protocol with time limits for the headers of a request and for taking answers."""

    header_timeout_s = HEADER_TIMEOUT_S
    taking_timeout_s = TAKING_TIMEOUT_S
    last_words_s = LAST_WORDS_S
    _header_timer: asyncio.TimerHandle | None = None
    _taking_timer: asyncio.TimerHandle | None = None
    _end_timer: asyncio.TimerHandle | None = None
    _is_broken = False
    _line: Line | None = None  # while the end of a reply is kept back
    _is_next_due = False
    _is_malformed = False  # the body of the request under way; nothing after it can be read

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._plain_app = self.app
        self.app = self._app_that_can_ask

    async def _app_that_can_ask(self, scope: Any, receive: Any, send: Any) -> None:
        scope[_HANDED_OVER] = partial(self._hand_over, self.cycle)
        scope[_KEEP_BACK] = partial(self._keep_back, self.cycle)
        await self._plain_app(scope, partial(self._receive, self.cycle, receive), send)

    async def _receive(self, cycle: Any, receive: Receive) -> Message:
        """
        Raises:
            InvalidRequest: the body is malformed, and no answer is under way.
        """
        message = None if self._is_malformed else await receive()
        if message is not None and not self._is_malformed:
            return message
        if cycle.response_started:
            return {"type": "http.disconnect"}
        raise InvalidRequest("The body is not valid HTTP/1.1: a chunk of it is malformed.")

    @contextmanager
    def _keep_back(self, cycle: Any) -> Iterator[Line | None]:
        if _has_tls(self.transport):
            yield None  # a byte is no byte on the line
            return
        below = self.transport
        line: Any = Line(below, self.taking_timeout_s)
        self._line = cycle.transport = self.transport = line
        try:
            yield line
        finally:
            self._line, self.transport = None, below
            line.release()
            if self._is_next_due:
                self._is_next_due = False
                self.on_response_complete()

    def on_response_complete(self) -> None:
        """Go on to what is asked for next, but not while the end of the last reply is here."""
        if self._line is not None:
            self._is_next_due = True
            return
        super().on_response_complete()
        if not self._is_between_requests():
            self._headers_are_here()

    async def _hand_over(self, cycle: Any) -> bool:
        """Wait until the system has the whole answer of this cycle; whether it took it."""
        while not self._is_broken and self.transport.get_write_buffer_size():
            await self.flow.drain()
        if self.transport.is_closing():
            await asyncio.sleep(0)  # a broken connection is told in the next turn of the loop
        return cycle.response_complete and not cycle.disconnected and not self._is_broken

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # So that a drained one is empty. TLS counts as full what has as much as its limit.
        transport.set_write_buffer_limits(high=1 if _has_tls(transport) else 0, low=0)
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_broken = self._is_broken or exc is not None
        self._headers_are_here()
        self._is_taken()
        if self._end_timer is not None:
            self._end_timer.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The system does not take more of an answer at once: the client has to read."""
        super().pause_writing()
        self._await_taking()

    def resume_writing(self) -> None:
        self._is_taken()
        super().resume_writing()

    def shutdown(self) -> None:
        """End when the answer under way is taken, or a moment later in any case."""
        super().shutdown()
        wait_s = _LAST_WORDS_TLS_S if _has_tls(self.transport) else self.last_words_s
        self._end_timer = self.loop.call_later(wait_s, self._hang_up)

    def data_received(self, data: bytes) -> None:
        if self._header_timer is None and self._is_between_requests():
            self._await_headers()  # a kept-alive connection starts its next request
        if not self._is_malformed:
            super().data_received(data)
        if not self._is_between_requests():
            self._headers_are_here()

    def _should_upgrade(self) -> bool:
        """Never: an `Upgrade` that a server does not know is ignored, and the request answered."""
        return False

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that are no HTTP request, or headers over 64 KiB.

        A request whose body turns out to be none has its answer from the app, as any other.
        """
        if self.conn.our_state is h11.SEND_RESPONSE:
            cycle: Any = self.cycle
            self._is_malformed = True
            cycle.message_event.set()  # it may be waiting for more of it
            return
        if self.conn.our_state is not h11.IDLE:
            self.transport.close()  # an answer is already under way
            return
        error = InvalidRequest(
            "This is not a valid HTTP/1.1 request, or its headers are over 64 KiB."
        )
        status = answer_for(InvalidRequest).status
        record = RequestRecord(method="", status=status, code=error.code)
        log_request(record)
        body = json.dumps(envelope(error)).encode()
        headers = [
            ("content-type", "application/json"),
            ("content-length", str(len(body))),
            ("x-request-id", record.request_id),
            ("connection", "close"),
        ]
        for event in (
            h11.Response(status_code=status, headers=headers, reason=STATUS_PHRASES[status]),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _is_between_requests(self) -> bool:
        cycle: Any = self.cycle  # None before the first request
        return cycle is None or cycle.response_complete

    def _await_headers(self) -> None:
        self._header_timer = self.loop.call_later(self.header_timeout_s, self.transport.close)

    def _headers_are_here(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _await_taking(self) -> None:
        left = self.transport.get_write_buffer_size()
        self._taking_timer = self.loop.call_later(self.taking_timeout_s, self._look_at, left)

    def _look_at(self, left_before: int) -> None:
        """Go on waiting for a client that has taken something meanwhile."""
        if self.transport.get_write_buffer_size() < left_before:
            self._await_taking()
        else:
            self._hang_up()

    def _is_taken(self) -> None:
        if self._taking_timer is not None:
            self._taking_timer.cancel()
            self._taking_timer = None

    def _hang_up(self) -> None:
        """Leave a client with whatever it has of its answer."""
        self._is_broken = True
        self.transport.abort()


def _has_tls(transport: asyncio.BaseTransport) -> bool:
    return transport.get_extra_info("ssl_object") is not None


async def was_handed_over(scope: Scope) -> bool:
    """Wait until the system has the whole answer that was sent; False: the client was gone.

    Under a server that does not speak through this protocol, what was sent counts as handed over.
    """
    ask: Callable[[], Awaitable[bool]] | None = scope.get(_HANDED_OVER)
    return ask is None or await ask()


@contextmanager
def keeping_back(scope: Scope) -> Iterator[Line | None]:
    """Keep back the end of the answer until the block ends; None under a server that cannot."""
    keep: Callable[[], AbstractContextManager[Line | None]] = scope.get(_KEEP_BACK, nullcontext)
    with keep() as line:
        yield line
