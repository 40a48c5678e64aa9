"""A table that is sent while it is read, once it is known that it can be read."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from itertools import chain, islice

from starlette.responses import Response, StreamingResponse


async def csv_response(lines: Iterator[str], headers: Mapping[str, str] | None = None) -> Response:
    """Read the beginning of the table, and answer with all of it.

    A status cannot be taken back, so whatever reading raises at first is raised here. lines: the
    first is its head, which is there unread.
    """
    begun = await asyncio.to_thread(lambda: list(islice(lines, 2)))
    return StreamingResponse(chain(begun, lines), media_type="text/csv", headers=headers)
