"""Finished pixels into the file and the base64 a client gets."""

from __future__ import annotations

import binascii
import io
import json
import struct
import zlib
from collections.abc import Mapping
from typing import Final, Literal

import numpy as np
from PIL import Image

from iris.errors import InvalidRequest
from iris.jobs import Pixels

OutputFormat = Literal["png", "jpeg", "webp"]

_DEFAULT_QUALITY: Final = 95
_PNG_LEVEL: Final = 1
_UP: Final = 2  # filter type: each byte is the difference to the one above it
_IMAGE_DESCRIPTION: Final = 0x010E


def quality_of(format: OutputFormat, compression: int | None) -> int | None:
    """Return the quality 0..100 an `output_compression` asks for; None for PNG, which has none.

    Raises:
        InvalidRequest: `compression` is not 0..100, or under 100 for a PNG, which loses nothing.
    """
    if compression is not None and not 0 <= compression <= 100:
        raise InvalidRequest(
            f"output_compression is {compression}; it must be from 0 to 100.",
            param="output_compression",
        )
    if format == "png":
        if compression not in (None, 100):
            raise InvalidRequest(
                "output_compression works with output_format jpeg or webp; a PNG is lossless."
                " Leave it out, or choose another output_format.",
                param="output_compression",
            )
        return None
    return _DEFAULT_QUALITY if compression is None else compression


def encode_picture(
    pixels: Pixels,
    *,
    format: OutputFormat,
    compression: int | None,
    text: Mapping[str, str],
) -> bytes:
    """Encode a picture; the same arguments give the same bytes.

    compression: 0..100, the quality of JPEG and WebP; None = 95.
    text: goes into the file, e.g. the seed: one text chunk an entry in a PNG; in JPEG and WebP,
        which have no such thing, all of it as one JSON object in EXIF's ImageDescription.

    Raises:
        InvalidRequest: `compression` does not fit the format; see `quality_of`.
    """
    quality = quality_of(format, compression)
    if quality is None:
        return _png(pixels, text)
    image = Image.frombytes("RGB", (pixels.width_px, pixels.height_px), pixels.rgb)
    file = io.BytesIO()
    exif = Image.Exif()
    if text:
        exif[_IMAGE_DESCRIPTION] = json.dumps(dict(text))
    if format == "jpeg":
        # Whole colour resolution: the default halves it, which shows on red edges and lettering.
        image.save(file, "JPEG", quality=quality, subsampling=0, exif=exif)
    else:
        image.save(file, "WEBP", quality=quality, method=4, exif=exif)
    return file.getvalue()


def to_base64(data: bytes) -> str:
    """Return the standard base64 of a file, in one unbroken string."""
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def _png(pixels: Pixels, text: Mapping[str, str]) -> bytes:
    """Write a PNG with one filter and no search for repeats.

    Trying five filters a row and searching, as libraries do, takes more than ten times as long on
    a picture with any noise in it, to save a ninth: noise does not repeat. A plain area is packed
    to an eighth.
    """
    rows = np.frombuffer(pixels.rgb, np.uint8).reshape(pixels.height_px, -1)
    filtered = np.empty((pixels.height_px, rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = _UP
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    packer = zlib.compressobj(_PNG_LEVEL, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_HUFFMAN_ONLY)
    packed = packer.compress(filtered.data) + packer.flush()
    header = struct.pack(">IIBBBBB", pixels.width_px, pixels.height_px, 8, 2, 0, 0, 0)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", header),
            *(_text_chunk(key, value) for key, value in text.items()),
            _chunk(b"IDAT", packed),
            _chunk(b"IEND", b""),
        )
    )


def _text_chunk(key: str, value: str) -> bytes:
    """A tEXt chunk where Latin-1 can say it, else an iTXt chunk."""
    name = key.encode("latin-1")
    if not 1 <= len(name) <= 79 or b"\x00" in name or "\x00" in value:
        raise ValueError("PNG text needs a key of 1 to 79 characters and no NUL")
    try:
        return _chunk(b"tEXt", name + b"\x00" + value.encode("latin-1"))
    except UnicodeEncodeError:
        return _chunk(b"iTXt", name + b"\x00" * 5 + value.encode("utf-8"))


def _chunk(kind: bytes, payload: bytes) -> bytes:
    body = kind + payload
    return struct.pack(">I", len(payload)) + body + struct.pack(">I", zlib.crc32(body))
