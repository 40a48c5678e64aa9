"""Walk the blocks of a GIF up to the end of its first frame."""

from __future__ import annotations

import struct
from typing import Final

from iris.images.header import Header, check_size, corrupt, overloaded, truncated

_MAX_BLOCKS: Final = 131_072  # 20 MB in full blocks of 255 bytes are 82,241
_EXTENSION, _IMAGE, _TRAILER = 0x21, 0x2C, 0x3B
_CONTROL: Final = 0xF9
_TABLE: Final = 0x80


def read_gif(data: bytes) -> Header:
    """Walk to the end of the first frame; later frames are not looked at, however many there are.

    Raises:
        Unusable: truncated, corrupt, over the limits, no frame, or too many blocks before its end.
    """
    if len(data) < 13:
        raise truncated("GIF")
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    check_size(width, height)
    pos = head_end = 13 + _table_bytes(flags)
    control = b""
    blocks = 0
    while True:
        if pos + 2 > len(data) and data[pos:] != bytes([_TRAILER]):
            raise truncated("GIF")
        kind = data[pos]
        if kind == _IMAGE:
            break
        if kind == _TRAILER:
            raise corrupt("GIF", "it has no picture data")
        if kind != _EXTENSION:
            raise corrupt("GIF", "an unknown block comes before the picture")
        end, blocks = _skip(data, pos + 2, blocks + 1)
        if data[pos + 1] == _CONTROL:
            control = data[pos:end]
        pos = end
    if pos + 11 > len(data):
        raise truncated("GIF")
    left, top, frame_width, frame_height, flags = struct.unpack_from("<HHHHB", data, pos + 1)
    if not frame_width or not frame_height:
        check_size(frame_width, frame_height)
    # A frame may reach beyond the screen, and then the picture does.
    width, height = max(width, left + frame_width), max(height, top + frame_height)
    check_size(width, height)
    end, _ = _skip(data, pos + 11 + _table_bytes(flags), blocks)
    if end >= len(data):
        raise truncated("GIF")
    # The decoder is shown the frame alone: around a frame smaller than the picture it would lay
    # some colour of the palette, where there is nothing.
    screen = data[:6] + struct.pack("<HH", frame_width, frame_height) + data[10:head_end]
    picture = data[pos : pos + 1] + bytes(4) + data[pos + 5 : end]
    covers = (frame_width, frame_height) == (width, height)
    return Header(
        format="GIF",
        width_px=width,
        height_px=height,
        body=screen + control + picture + bytes([_TRAILER]),
        frame_px=None if covers else (left, top, frame_width, frame_height),
    )


def _table_bytes(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & _TABLE else 0


def _skip(data: bytes, pos: int, blocks: int) -> tuple[int, int]:
    """Step over a chain of sub-blocks; returns the position behind it and the blocks so far."""
    while True:
        if pos >= len(data):
            raise truncated("GIF")
        length = data[pos]
        pos += 1 + length
        blocks += 1
        if blocks > _MAX_BLOCKS:
            raise overloaded("GIF", f"more than {_MAX_BLOCKS} blocks")
        if not length:
            return pos, blocks
