"""Walk the segments and scans of a JPEG."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
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

_MAX_SEGMENTS: Final = 2_048  # a phone's depth map takes about 150
_MAX_SCANS: Final = 64  # a progressive photo has about 10
_MAX_PADDING_BYTES: Final = 4_096

_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
_ALONE: Final = frozenset({0x01, *range(0xD0, 0xD8)})  # markers without a length: TEM, restarts
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_TABLES: Final = frozenset({0xC4, 0xCC, 0xDB, 0xDD})  # Huffman, arithmetic, quantisation, restarts
_APP0, _APP1, _APP2, _APP14 = 0xE0, 0xE1, 0xE2, 0xEE

_FILL: Final = re.compile(rb"\xff+")
# The end of a scan: a marker that is neither a stuffed zero nor a restart, or a run of fill bytes
# so long that searching on, byte by byte, would be the attack.
_SCAN_END: Final = re.compile(rb"\xff(?:\xff{8}|[\x01-\xcf\xd8-\xfe])")


def read_jpeg(data: bytes) -> Header:
    """Walk to EOI, past every scan; see `Header` for what remains.

    Raises:
        Unusable: truncated, corrupt, over the limits, too many segments or scans, or padding
            instead of a picture.
    """
    view = memoryview(data)
    kept: list[memoryview] = [view[:2]]
    size: tuple[int, int] | None = None
    exif: bytes | None = None
    profile: list[bytes] = []
    scanned = False
    for code, start, end in _segments(data):
        payload = view[start + 4 : end]
        if code in _FRAMES:
            if size is not None:
                raise corrupt("JPEG", "it has two frame headers")
            size = _dimensions(payload)
            kept.append(view[start:end])
        elif code in _TABLES or _starts(code, payload, (_APP0, b"JFIF"), (_APP14, b"Adobe")):
            kept.append(view[start:end])
        elif exif is None and _starts(code, payload, (_APP1, b"Exif\x00\x00")):
            exif = bytes(payload)
        elif _starts(code, payload, (_APP2, b"ICC_PROFILE\x00")):
            profile.append(bytes(payload[12:]))
        elif code == _SOS:
            if size is None:
                raise corrupt("JPEG", "a scan comes before the frame header")
            scanned = True
            kept.append(view[start:end])
        elif code == _EOI:
            kept.append(view[start:end])
    if size is None or not scanned:
        raise corrupt("JPEG", "it has no picture data")
    return Header(
        format="JPEG",
        width_px=size[0],
        height_px=size[1],
        body=b"".join(kept),
        orientation=orientation_of(exif),
        icc=_join(profile),
    )


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield marker, start and end of each segment up to EOI; a scan reaches to its last byte."""
    pos = 2
    segments = scans = padding = 0
    while True:
        fill = _FILL.search(data, pos)
        if fill is None or fill.end() >= len(data):
            raise truncated("JPEG")
        code, start = data[fill.end()], fill.end() - 1
        alone = code == 0x00 or code in _ALONE
        padding += start - pos + 2 * alone
        if padding > _MAX_PADDING_BYTES:
            raise overloaded("JPEG", f"more than {_MAX_PADDING_BYTES} bytes of padding")
        pos = start + 2
        if alone:
            continue
        if code == _EOI:
            yield code, start, pos
            return
        if code == _SOI or code < 0xC0:
            raise corrupt("JPEG", "a marker is out of place")
        segments += 1
        if segments > _MAX_SEGMENTS:
            raise overloaded("JPEG", f"more than {_MAX_SEGMENTS} segments")
        length = int.from_bytes(data[pos : pos + 2], "big")
        pos += length
        if pos > len(data):
            raise truncated("JPEG")
        if length < 2:
            raise corrupt("JPEG", "a segment has no valid length")
        if code == _SOS:
            scans += 1
            if scans > _MAX_SCANS:
                raise overloaded("JPEG", f"more than {_MAX_SCANS} scans")
            scan_end = _SCAN_END.search(data, pos)
            if scan_end is None:
                raise truncated("JPEG")
            pos = scan_end.start()
        yield code, start, pos


def _starts(code: int, payload: memoryview, *kinds: tuple[int, bytes]) -> bool:
    return any(code == marker and bytes(payload[: len(name)]) == name for marker, name in kinds)


def _dimensions(payload: memoryview) -> tuple[int, int]:
    if len(payload) < 6:
        raise corrupt("JPEG", "its frame header is too short")
    height, width = struct.unpack_from(">HH", payload, 1)
    check_size(width, height)
    return width, height


def _join(parts: list[bytes]) -> bytes | None:
    """Put a profile together from its numbered parts; None unless each part is there once."""
    numbered = sorted((part[0], part[1], part[2:]) for part in parts if len(part) > 2)
    count = len(numbered)
    if not count or [(n, total) for n, total, _ in numbered] != [
        (n, count) for n in range(1, count + 1)
    ]:
        return None
    profile = b"".join(part for _, _, part in numbered)
    return profile if len(profile) <= MAX_PROFILE_BYTES else None
