"""JSON, read strictly: what two parsers could understand differently is an error here."""

from __future__ import annotations

import json
from typing import NoReturn

from iris.errors import InvalidRequest

# Far more than a request needs, far less than it takes to fill the memory with empty lists.
MAX_STRUCTURE = 10_000
_MAX_DIGITS = 30
_HUGE = int("1" + "0" * _MAX_DIGITS)


def parse_json(data: bytes) -> dict[str, object]:
    """Parse a body that must be one JSON object in UTF-8.

    Refused: a BOM, bad UTF-8, NaN and Infinity, a repeated key, NUL and lone surrogates in any
    string, more than 10,000 commas and brackets, anything after the object. An integer of more
    than 30 digits comes back as one of 31, which is as far outside every range.

    Raises:
        InvalidRequest: with the field where it is known.
    """
    if sum(data.count(mark) for mark in (b",", b"[", b"{")) > MAX_STRUCTURE:
        raise InvalidRequest(
            "The body holds too many JSON values; a request is one flat object with its fields."
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"The body is not UTF-8 (byte {error.start + 1}); JSON must be sent as UTF-8."
        ) from None
    try:
        parsed = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_int=_parse_int,
            parse_constant=_refuse_constant,
        )
    except json.JSONDecodeError as error:
        raise InvalidRequest(
            f"The body is not valid JSON (line {error.lineno}, column {error.colno})."
        ) from None
    except RecursionError:
        raise InvalidRequest("The body is nested too deeply to be a request.") from None
    if not isinstance(parsed, dict):
        raise InvalidRequest("The body must be a JSON object: {...}.")
    if "\\u" in text:  # only an escape can make either, the decoding above saw to the rest
        _refuse_odd_characters(parsed)
    return parsed


def short_name(name: str) -> str:
    """A field name of the client's, fit to be shown: it can be anything, of any length."""
    return name if len(name) <= 64 else name[:64] + "…"


def has_odd_character(text: str) -> bool:
    """Whether there is a NUL or half a surrogate pair in it."""
    if "\0" in text:
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values: dict[str, object] = {}
    for name, value in pairs:
        if has_odd_character(name):
            raise InvalidRequest("A field name holds a NUL or half a surrogate pair.")
        if name in values:
            shown = short_name(name)
            raise InvalidRequest(f"`{shown}` is given twice; give it once.", param=shown)
        values[name] = value
    return values


def _parse_int(text: str) -> int:
    if len(text) <= _MAX_DIGITS:
        return int(text)
    return -_HUGE if text.startswith("-") else _HUGE


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidRequest(f"{name} is not a JSON number; send a finite one.")


def _refuse_odd_characters(values: dict[str, object]) -> None:
    for name, top in values.items():
        left = [top]
        while left:
            value = left.pop()
            if isinstance(value, str) and has_odd_character(value):
                raise InvalidRequest(
                    f"`{short_name(name)}` holds a NUL or half a surrogate pair; send plain text.",
                    param=short_name(name),
                )
            if isinstance(value, dict):
                left.extend(value.values())
            elif isinstance(value, list):
                left.extend(value)
