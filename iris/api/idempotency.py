"""Idempotency-Key: the same request twice is one picture and one price."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response

from iris.accounts.ledger import Ledger
from iris.accounts.outcomes import MAX_TOKEN_CHARACTERS, Claim, InTheMaking, Mine, Replay
from iris.api.body import INLINE_BYTES
from iris.errors import BackendTimeout, InvalidRequest

HEADER = "Idempotency-Key"
POLL_S = 0.2  # how often somebody who waits for the first of two looks again


def read_token(request: Request) -> str | None:
    """The value of the header, or None.

    Raises:
        InvalidRequest: it is empty, too long, given twice, or not printable ASCII.
    """
    given = request.headers.getlist(HEADER)
    if not given:
        return None
    token = given[0]
    is_plain = token.isascii() and token.isprintable()
    if len(given) > 1 or not (0 < len(token) <= MAX_TOKEN_CHARACTERS and is_plain):
        raise InvalidRequest(
            f"`{HEADER}` must be given once, with 1 to {MAX_TOKEN_CHARACTERS} printable ASCII "
            "characters.",
            param=HEADER,
        )
    return token


async def fingerprint(route: str, values: Mapping[str, object]) -> str:
    """A hash of what is asked for: the route, and every field as it was sent, in any order."""
    if sum(len(value) for value in _leaves(values)) <= INLINE_BYTES:
        return _hash(route, values)
    return await asyncio.to_thread(_hash, route, values)


async def claim_or_replay(ledger: Ledger, claim: Claim, patience_s: float) -> Replay | Mine:
    """`Mine` where the caller has to make the picture; waits while somebody else makes it.

    Raises:
        InvalidRequest: the token belongs to another request, or its picture is not kept any more.
        BackendTimeout: the other one took too long.
        BackendUnavailable: the database cannot be written.
    """
    deadline_s = time.monotonic() + patience_s
    while True:
        standing = await ledger.claim(claim)
        if not isinstance(standing, InTheMaking):
            return standing
        if time.monotonic() > deadline_s:
            raise BackendTimeout(
                f"Another request with this `{HEADER}` has not been finished within "
                f"{patience_s:g} seconds. Ask again later."
            )
        await asyncio.sleep(POLL_S)


def replay(outcome: Replay) -> Response:
    """The reply as it was given, and that it is a copy."""
    headers = {name: value for name, value in outcome.headers.items() if name.startswith("x-iris-")}
    return Response(
        outcome.body,
        media_type="application/json",
        headers=headers | {"x-iris-replayed": "true"},
    )


def _leaves(values: Mapping[str, object]) -> list[str | bytes]:
    """The long things of a body: its images."""
    found: list[str | bytes] = []
    for value in values.values():
        items = value if isinstance(value, list | tuple) else (value,)
        found.extend(item for item in items if isinstance(item, str | bytes))
    return found


def _hash(route: str, values: Mapping[str, object]) -> str:
    digest = hashlib.sha256()

    def add(value: object) -> None:
        if isinstance(value, Mapping):
            digest.update(b"{%d" % len(value))
            for name in sorted(value):
                add(name)
                add(value[name])
            return
        if isinstance(value, list | tuple):
            digest.update(b"[%d" % len(value))
            for item in value:
                add(item)
            return
        # with its type and its length, no two contents have the same sequence of bytes
        data = value if isinstance(value, bytes) else str(value).encode()
        digest.update(f"{type(value).__name__}:{len(data)}:".encode())
        digest.update(data)

    add(route)
    add(values)
    return digest.hexdigest()
