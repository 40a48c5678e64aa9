"""Who asks: one bearer key in one header, and one answer to everything else."""

from __future__ import annotations

import re
from typing import Protocol

from starlette.requests import Request

from iris.errors import Unauthenticated

REFUSAL = "Missing or invalid API key. Send it as `Authorization: Bearer <key>`."

_HEADER = re.compile(r"[Bb][Ee][Aa][Rr][Ee][Rr] +(esk_(?:live|test)_[A-Za-z0-9]{32})", re.ASCII)


class Key(Protocol):
    """What a request needs to know of the key that sent it."""

    @property
    def id(self) -> str: ...

    @property
    def is_test(self) -> bool: ...

    @property
    def account_id(self) -> str: ...


class KeyRing(Protocol):
    """Knows the keys."""

    async def authenticate(self, token: str) -> Key:
        """The key of a token. Raises Unauthenticated, or AccountSuspended."""
        ...


async def authenticate(request: Request, keys: KeyRing) -> Key:
    """The key of a request, from its one Authorization header and from nowhere else.

    Raises:
        Unauthenticated: always with the same words, so that nothing can be learned from them.
        AccountSuspended: the key is good, its account is closed for now.
    """
    given = request.headers.getlist("authorization")
    match = _HEADER.fullmatch(given[0].strip(" \t")) if len(given) == 1 else None
    if match is None:
        raise Unauthenticated(REFUSAL)
    try:
        return await keys.authenticate(match[1])
    except Unauthenticated:
        raise Unauthenticated(REFUSAL) from None
