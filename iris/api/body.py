"""Reads the body of a request: counted while it comes, within its time, JSON or multipart."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from python_multipart.multipart import parse_options_header
from starlette.requests import ClientDisconnect, Request

from iris.api.form_body import parse_form
from iris.api.json_body import parse_json
from iris.api.room import Share
from iris.errors import BodyTooLarge, InvalidRequest, UnsupportedMediaType

MAX_BODY_BYTES = 52_428_800  # 50 MB
MAX_TYPE_CHARACTERS = 1_000  # of a Content-Type; its parser takes long for long ones
INLINE_BYTES = 65_536  # parsed on the event loop; anything bigger in a thread

MediaType = Literal["application/json", "multipart/form-data"]


@dataclass(frozen=True, slots=True)
class Body:
    """A parsed body, not yet validated.

    values: field name -> value as sent. From JSON whatever JSON holds; from a form str for a
    scalar field, and bytes (`image`) or a tuple of bytes (`images`) for the files.
    """

    is_form: bool
    values: dict[str, object] = field(repr=False)


async def read_body(
    request: Request,
    *,
    accepts: tuple[MediaType, ...],
    timeout_s: float,
    share: Share | None = None,
    threads: Executor | None = None,
) -> Body:
    """Check the headers, read and parse.

    share: takes what is read; None: nobody counts it. threads: parse what is not small; None: those
    of the event loop.

    Raises:
        RateLimited, BackendBusy: there is no room for it.
        UnsupportedMediaType: another Content-Type than those of `accepts`, or a Content-Encoding.
        BodyTooLarge: over 50 MB, by its Content-Length or by counting.
        InvalidRequest: too slow, or not well-formed.
        ClientDisconnect: the client left before the end.
    """
    media_type, boundary = _media_type(request, accepts)
    _check_encoding(request)
    data = await _read(request, timeout_s, share)
    is_form = media_type == "multipart/form-data"
    parse = partial(parse_form, boundary=boundary) if is_form else parse_json
    if len(data) <= INLINE_BYTES:
        return Body(is_form, parse(data))
    loop = asyncio.get_running_loop()
    return Body(is_form, await loop.run_in_executor(threads, parse, data))


def _media_type(request: Request, accepts: tuple[MediaType, ...]) -> tuple[MediaType, bytes]:
    wanted = " or ".join(accepts)
    given = request.headers.getlist("content-type")
    if len(given) != 1:
        raise UnsupportedMediaType(f"Send exactly one Content-Type header: {wanted}.")
    if len(given[0]) > MAX_TYPE_CHARACTERS:
        raise UnsupportedMediaType(
            f"The Content-Type is over {MAX_TYPE_CHARACTERS} characters; send {wanted}."
        )
    kind, options = parse_options_header(given[0])
    media_type = next((known for known in accepts if known.encode() == kind), None)
    if media_type is None:
        raise UnsupportedMediaType(
            f"The Content-Type of this body is not read here; send {wanted}."
        )
    if options.get(b"charset", b"utf-8").lower() not in (b"utf-8", b"utf8", b"us-ascii"):
        raise UnsupportedMediaType("The body must be UTF-8; leave the charset out or name utf-8.")
    boundary = options.get(b"boundary", b"")
    if media_type == "multipart/form-data" and not boundary:
        raise InvalidRequest("The Content-Type names no boundary; let your HTTP client set it.")
    return media_type, boundary


def _check_encoding(request: Request) -> None:
    for header in request.headers.getlist("content-encoding"):
        if any(coding.strip().lower() not in ("identity", "") for coding in header.split(",")):
            raise UnsupportedMediaType("The body must not be compressed: no Content-Encoding.")


async def _read(request: Request, timeout_s: float, share: Share | None) -> bytes:
    too_large = BodyTooLarge(
        f"The body is over {MAX_BODY_BYTES:,} bytes (50 MB); send fewer or smaller images."
    )
    lengths = {text.strip() for text in request.headers.getlist("content-length")}
    if len(lengths) > 1 or any(not (text.isascii() and text.isdigit()) for text in lengths):
        raise InvalidRequest("The Content-Length is not one plain number of bytes.")
    for text in lengths:
        digits = text.lstrip("0")
        # so many digits are over any limit, and int() of thousands of them is an error of its own
        if len(digits) > 15 or int(digits or "0") > MAX_BODY_BYTES:
            raise too_large
    chunks: list[bytes] = []
    received = 0
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                chunks.append(message.get("body", b""))
                count = len(chunks[-1])
                if share is not None:  # small bodies always have room, whoever fills it
                    share.take(min(count, max(0, received + count - INLINE_BYTES)))
                received += count
                if received > MAX_BODY_BYTES:
                    raise too_large
                if not message.get("more_body", False):
                    return b"".join(chunks)
    except TimeoutError:
        raise InvalidRequest(
            f"The body did not arrive within {timeout_s:g} seconds: {received:,} bytes came. "
            "Check its Content-Length, or send it faster."
        ) from None
