"""The query of a request, kept where only the routes that read one find it."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl

from starlette.types import Scope

from iris.errors import InvalidRequest

_SCOPE_KEY = "iris.query"
_MAX_BYTES = 4_096


def take_query(scope: Scope) -> None:
    """Move the query out of the place where servers look for it when they log."""
    scope[_SCOPE_KEY] = scope.get("query_string", b"")
    scope["query_string"] = b""


def read_query(scope: Scope, known: tuple[str, ...]) -> Mapping[str, str]:
    """The parameters of a request.

    Raises:
        InvalidRequest: one is not known, is given twice or is not printable, or the query is no
            such list at all.
    """
    raw: bytes = scope.get(_SCOPE_KEY, b"")
    values: dict[str, str] = {}
    try:
        if len(raw) > _MAX_BYTES:
            raise ValueError("too long")
        pairs = parse_qsl(
            raw.decode("ascii"), keep_blank_values=True, strict_parsing=bool(raw), errors="strict"
        )
    except ValueError:
        raise InvalidRequest("The query of this address is not well-formed.") from None
    for name, value in pairs:
        if name not in known:  # its name is not repeated: it may be a key
            raise InvalidRequest(f"The query may hold {', '.join(known)}, and nothing else.")
        if name in values:
            raise InvalidRequest(f"`{name}` is given twice; give it once.", param=name)
        if not value.isprintable():  # not every database takes a NUL
            raise InvalidRequest(f"`{name}` must be printable characters.", param=name)
        values[name] = value
    return values
