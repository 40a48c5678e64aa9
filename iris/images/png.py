"""Walk the chunks of a PNG."""

from __future__ import annotations

import struct
import zlib
from typing import Final

from iris.images.exif import orientation_of
from iris.images.header import (
    MAX_PROFILE_BYTES,
    Header,
    Unusable,
    check_size,
    corrupt,
    overloaded,
    truncated,
)

_MAX_CHUNKS: Final = 32_768  # 20 MB in the smallest usual IDAT chunks of 1 kB are 20,480
_MAX_INFLATED_BYTES: Final = 8 * 1024 * 1024  # all compressed text and profiles together
_KEPT: Final = (b"PLTE", b"IDAT")
_GREY: Final = 0
_RGB: Final = 2


def read_png(data: bytes) -> Header:
    """Walk to IEND, checking every chunk's length and CRC; see `Header` for what remains.

    Raises:
        Unusable: truncated, corrupt, over the limits, too many chunks, or text or a colour
            profile that inflates beyond reason.
    """
    view = memoryview(data)
    kept: list[bytes | memoryview] = [view[:8]]
    exif: bytes | None = None
    icc: bytes | None = None
    budget = _MAX_INFLATED_BYTES
    seen: set[bytes] = set()
    width, height, depth, colour = _dimensions(data)
    pos = 8
    for _ in range(_MAX_CHUNKS):
        if pos + 12 > len(data):
            raise truncated("PNG")
        length, kind = struct.unpack_from(">I4s", data, pos)
        end = pos + 12 + length
        if end > len(data):
            raise truncated("PNG")
        if zlib.crc32(view[pos + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            raise corrupt("PNG", "the checksum of a chunk is wrong")
        payload = view[pos + 8 : end - 4]
        first = kind not in seen
        seen.add(kind)
        if kind in _KEPT:
            kept.append(view[pos:end])
        elif kind == b"IHDR":
            if not first:
                raise corrupt("PNG", "it has two headers")
            kept.append(view[pos:end])
        elif kind == b"IEND":
            if b"IDAT" not in seen:
                raise corrupt("PNG", "it has no picture data")
            kept.append(view[pos:end])
            return Header(
                format="PNG",
                width_px=width,
                height_px=height,
                body=b"".join(kept),
                orientation=orientation_of(exif),
                icc=icc,
            )
        elif kind == b"tRNS" and first:
            kept.append(_transparency(bytes(payload), depth, colour, view[pos:end]))
        elif kind == b"eXIf" and first:
            exif = bytes(payload)
        elif kind in (b"zTXt", b"iTXt", b"iCCP"):
            packed = _packed(kind, bytes(payload))
            inflated = _inflate(packed, budget) if packed else b""
            budget -= len(inflated)
            if kind == b"iCCP" and first:
                if len(inflated) > MAX_PROFILE_BYTES:
                    raise overloaded("PNG", "a colour profile over 4 MB")
                icc = inflated or None
        elif not kind.isalpha():
            raise corrupt("PNG", "a chunk has no valid name")
        elif not kind[0] & 0x20:
            raise Unusable(
                "is a PNG file with an extension that is not read here."
                " Save it as a standard PNG and send that."
            )
        pos = end
    raise overloaded("PNG", f"more than {_MAX_CHUNKS} chunks")


def _dimensions(data: bytes) -> tuple[int, int, int, int]:
    if len(data) < 33:
        raise truncated("PNG")
    length, kind, width, height, depth, colour = struct.unpack_from(">I4sIIBB", data, 8)
    if kind != b"IHDR" or length != 13:
        raise corrupt("PNG", "it does not begin with a header")
    check_size(width, height)
    return width, height, depth, colour


def _transparency(payload: bytes, depth: int, colour: int, chunk: memoryview) -> bytes | memoryview:
    """Express the transparent colour in the 8-bit samples the decoder compares it with.

    The decoder widens 2- and 4-bit grey to 0..255 and keeps the high byte of 16-bit RGB, but takes
    the colour as it stands in the file.
    """
    if colour == _GREY and depth in (2, 4) and len(payload) == 2:
        (grey,) = struct.unpack(">H", payload)
        return _chunk(b"tRNS", struct.pack(">H", grey * 255 // (2**depth - 1) & 0xFFFF))
    if colour == _RGB and depth == 16 and len(payload) == 6:
        return _chunk(b"tRNS", struct.pack(">3H", *(v >> 8 for v in struct.unpack(">3H", payload))))
    return chunk


def _chunk(kind: bytes, payload: bytes) -> bytes:
    body = kind + payload
    return struct.pack(">I", len(payload)) + body + struct.pack(">I", zlib.crc32(body))


def _packed(kind: bytes, payload: bytes) -> bytes:
    """Return the compressed part of a text or profile chunk; empty where nothing is compressed."""
    _, _, rest = payload.partition(b"\x00")
    if kind == b"iTXt":
        if rest[:1] != b"\x01":
            return b""
        _, _, rest = rest[2:].partition(b"\x00")  # language
        _, _, rest = rest.partition(b"\x00")  # translated keyword
        return rest
    return rest[1:]


def _inflate(packed: bytes, budget: int) -> bytes:
    """Inflate at most `budget` bytes; what is no zlib stream is empty: it is not the picture."""
    try:
        inflated = zlib.decompressobj().decompress(packed, budget + 1)
    except zlib.error:
        return b""
    if len(inflated) > budget:
        raise overloaded("PNG", "compressed text or a colour profile that inflates over 8 MB")
    return inflated
