"""Tell a file's format by its magic bytes and walk its container before any decoder sees it.

The walk is pure Python, counts what it passes and stops at the first thing no honest file has,
so that a small file that would cost a decoder seconds or gigabytes is refused in milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from iris.images.gif import read_gif
from iris.images.header import MAX_FILE_BYTES, Format, Header, Unusable
from iris.images.jpeg import read_jpeg
from iris.images.png import read_png
from iris.images.webp import read_webp

_WALKERS: Final[dict[Format, Callable[[bytes], Header]]] = {
    "PNG": read_png,
    "JPEG": read_jpeg,
    "WEBP": read_webp,
    "GIF": read_gif,
}
_AVIF_BRANDS: Final = (b"avif", b"avis", b"mif1", b"heic", b"heix")


def sniff(data: bytes) -> Format:
    """Tell the format by magic bytes alone, whatever the client claims.

    Raises:
        Unusable: it is none of PNG, JPEG, WebP, GIF.
    """
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if not data:
        raise Unusable("is empty. Send a PNG, JPEG, WebP or GIF file.")
    other = _other(data)
    seen = f" (it looks like {other})" if other else ""
    raise Unusable(
        f"is not a PNG, JPEG, WebP or GIF file{seen}. Convert it to one of these and send that."
    )


def check_file(data: bytes) -> Format:
    """Hold a file against what its length and first bytes already tell; returns its format.

    Raises:
        Unusable: over 20 MB, or none of the four formats.
    """
    if len(data) > MAX_FILE_BYTES:
        raise Unusable(f"is {len(data)} bytes; at most 20 MB ({MAX_FILE_BYTES} bytes) are read.")
    return sniff(data)


def prescan(data: bytes) -> Header:
    """Walk the container and return what it says of its first frame.

    Raises:
        Unusable: not an image we read, truncated, corrupt, over a limit, or a bomb.
    """
    return _WALKERS[check_file(data)](data)


def _other(data: bytes) -> str | None:
    start = data[:256].lstrip().lower()
    if start.startswith((b"<svg", b"<?xml", b"<!doctype svg")):
        return "SVG"
    if data.startswith(b"BM"):
        return "BMP"
    if data.startswith((b"II*\x00", b"MM\x00*")):
        return "TIFF"
    if data.startswith(b"%PDF"):
        return "PDF"
    if data[4:8] == b"ftyp" and data[8:12] in _AVIF_BRANDS:
        return "AVIF or HEIC"
    return None
