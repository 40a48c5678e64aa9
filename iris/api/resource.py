"""One path and its methods, answered in full: HEAD, OPTIONS and 405 included."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from iris.api.errors import NO_CONTENT, error_response
from iris.api.record import record_of
from iris.errors import MethodNotAllowed, RouteNotFound


class Reply(Protocol):
    """An answer that sends itself: a Response, or something that does more when it is sent."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...


Handler = Callable[[Request], Awaitable[Reply]]


class Resource:
    """The endpoint of a path: {"GET": handler, ...}. HEAD follows GET, OPTIONS names them all."""

    def __init__(self, path: str, handlers: Mapping[str, Handler]) -> None:
        self._path = path
        self._handlers = dict(handlers)
        if "GET" in self._handlers:
            self._handlers["HEAD"] = self._handlers["GET"]
        self._allow = ", ".join(sorted({*self._handlers, "OPTIONS"}))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        record = record_of(scope)
        record.route = self._path
        request = Request(scope, receive, send)
        handler = self._handlers.get(request.method)
        response: Reply
        if handler is not None:
            response = await handler(request)
        elif request.method == "OPTIONS":
            response = Response(status_code=NO_CONTENT, headers={"allow": self._allow})
        else:
            error = MethodNotAllowed(f"This path takes {self._allow}.")
            record.code = error.code
            refusal = error_response(error)
            refusal.headers["allow"] = self._allow
            response = refusal
        await response(scope, receive, send)


class NothingHere:
    """The endpoint of every path that is none of ours."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise RouteNotFound("There is nothing at this path. /docs lists what there is.")


def route(path: str, **handlers: Handler) -> Route:
    """A route whose methods are given by name: route("/x", GET=show)."""
    # a Route given a class instance leaves the methods to it
    return Route(path, endpoint=Resource(path, handlers))
