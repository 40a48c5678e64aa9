"""Walk the RIFF chunks of a WebP."""

from __future__ import annotations

import struct
from typing import Final

from iris.images.exif import orientation_of
from iris.images.header import (
    MAX_PROFILE_BYTES,
    Header,
    check_size,
    corrupt,
    overloaded,
    truncated,
)

_MAX_CHUNKS: Final = 32_768
_ANIMATION: Final = 0x02
_ALPHA: Final = 0x10
_PICTURES: Final = (b"VP8 ", b"VP8L", b"ANMF")


def read_webp(data: bytes) -> Header:
    """Walk every chunk and keep the first frame; see `Header` for what remains.

    Raises:
        Unusable: truncated, corrupt, over the limits, or too many chunks.
    """
    if len(data) < 20:
        raise truncated("WEBP")
    (riff_bytes,) = struct.unpack_from("<I", data, 4)
    stop = 8 + riff_bytes
    # Some writers count the padding byte of the last chunk and then leave it out.
    if stop > len(data) + 1:
        raise truncated("WEBP")
    stop = min(stop, len(data))
    if data[12:16] in (b"VP8 ", b"VP8L"):
        end = _end(data, 12, stop)
        width, height = _dimensions(data[12:16], data[20:end])
        return Header(format="WEBP", width_px=width, height_px=height, body=_riff([data[12:end]]))
    if data[12:16] != b"VP8X":
        raise corrupt("WEBP", "it does not begin with a picture")
    return _extended(data, stop)


def _extended(data: bytes, stop: int) -> Header:
    end = _end(data, 12, stop)
    if end - 20 < 10:
        raise corrupt("WEBP", "its header is too short")
    flags = data[20] & (_ANIMATION | _ALPHA)
    width = 1 + int.from_bytes(data[24:27], "little")
    height = 1 + int.from_bytes(data[27:30], "little")
    check_size(width, height)
    head = data[12:20] + bytes([flags]) + data[21:end]
    kept = [head]
    exif: bytes | None = None
    icc: bytes | None = None
    pictured = False
    for _ in range(_MAX_CHUNKS):
        pos = end + (end & 1)
        if pos + 8 > stop:
            break
        kind = data[pos : pos + 4]
        end = _end(data, pos, stop)
        if kind in _PICTURES:
            if not pictured:
                kept.append(data[pos:end])
            pictured = True
        elif kind in (b"ALPH", b"ANIM") and not pictured:
            kept.append(data[pos:end])
        elif kind == b"EXIF" and exif is None:
            exif = data[pos + 8 : end]
        elif kind == b"ICCP" and icc is None and end - pos - 8 <= MAX_PROFILE_BYTES:
            icc = data[pos + 8 : end]
    else:
        raise overloaded("WEBP", f"more than {_MAX_CHUNKS} chunks")
    if not pictured:
        raise corrupt("WEBP", "it has no picture data")
    return Header(
        format="WEBP",
        width_px=width,
        height_px=height,
        body=_riff(kept),
        orientation=orientation_of(exif),
        icc=icc,
    )


def _end(data: bytes, pos: int, stop: int) -> int:
    (length,) = struct.unpack_from("<I", data, pos + 4)
    end: int = pos + 8 + length
    if end > stop:
        raise truncated("WEBP")
    return end


def _dimensions(kind: bytes, payload: bytes) -> tuple[int, int]:
    if kind == b"VP8L":
        if len(payload) < 5 or payload[0] != 0x2F:
            raise corrupt("WEBP", "its lossless picture has no valid header")
        bits = int.from_bytes(payload[1:5], "little")
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    else:
        if len(payload) < 10 or payload[0] & 1 or payload[3:6] != b"\x9d\x01\x2a":
            raise corrupt("WEBP", "its picture has no valid header")
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", payload, 6))
    check_size(width, height)
    return width, height


def _riff(chunks: list[bytes]) -> bytes:
    body = b"WEBP" + b"".join(chunk + b"\x00" * (len(chunk) & 1) for chunk in chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body
