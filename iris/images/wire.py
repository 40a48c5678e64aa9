"""The frames between the front and a decode process: a small JSON head and a blob of bytes.

No pickle: a decoder taken over by a hostile image can send numbers and text, never code.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Final

from iris.images.fit import Exact, Fit, Within

LENGTHS: Final = struct.Struct(">II")  # bytes of the head, bytes of the blob
MAX_HEAD_BYTES: Final = 4_096

Head = Mapping[str, object]


class BrokenFrame(Exception):
    """What was read is no frame of ours."""


def pack(head: Head, blob_bytes: int) -> bytes:
    """Return what goes before a blob of that length."""
    text = json.dumps(head).encode("ascii")
    return LENGTHS.pack(len(text), blob_bytes) + text


def lengths(raw: bytes, *, max_blob_bytes: int) -> tuple[int, int]:
    """Return the lengths of head and blob.

    Raises:
        BrokenFrame: one is over its limit.
    """
    head_bytes, blob_bytes = LENGTHS.unpack(raw)
    if head_bytes > MAX_HEAD_BYTES or blob_bytes > max_blob_bytes:
        raise BrokenFrame(f"a frame of {head_bytes} + {blob_bytes} bytes is over the limit")
    return head_bytes, blob_bytes


def unpack_head(raw: bytes) -> Head:
    """Return the head of a frame.

    Raises:
        BrokenFrame: it is not a JSON object.
    """
    try:
        head = json.loads(raw)
    except ValueError as error:
        raise BrokenFrame("the head of a frame is not JSON") from error
    if not isinstance(head, dict):
        raise BrokenFrame("the head of a frame is not an object")
    return head


def fit_to_json(fit: Fit | None) -> list[int]:
    """None (no size wanted), `Exact` and `Within` are lists of 0, 2 and 3 numbers."""
    match fit:
        case None:
            return []
        case Exact(width, height):
            return [width, height]
        case Within(side, area, multiple):
            return [side, area, multiple]


def fit_from_json(value: object) -> Fit | None:
    """The inverse of `fit_to_json`.

    Raises:
        BrokenFrame: it is no such list.
    """
    match value:
        case []:
            return None
        case [int(width), int(height)]:
            return Exact(width, height)
        case [int(side), int(area), int(multiple)]:
            return Within(side, area, multiple)
    raise BrokenFrame("the wanted size of a frame is not understood")
