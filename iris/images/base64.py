"""Base64 of the wire into the bytes of one image: the standard alphabet and nothing else."""

from __future__ import annotations

import binascii
import contextlib
import re

from iris.images.header import MAX_FILE_BYTES, invalid_image

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,31}://")
_SPACE = re.compile(r"[ \t\r\n\v\f]")


def decode_base64(text: str, *, which: int | None, param: str) -> bytes:
    """Decode the raw base64 of one image, strictly.

    which: the image's 1-based number in its request, for the message; None = the only one.
    param: the request's field, for the error.

    Raises:
        InvalidImage: not raw standard base64, empty, or over 20 MB once decoded; the length is
            judged before anything is decoded.
    """
    reason = _reason(text)
    if reason is not None:
        raise invalid_image(reason, which=which, param=param)
    # Padding is judged here: strict mode lets a whole group of it pass behind a full one.
    body = text.rstrip("=")
    if len(text) % 4 == 0 and len(text) - len(body) <= 2 and "=" not in body:
        with contextlib.suppress(binascii.Error):  # it has foreign characters
            return binascii.a2b_base64(text, strict_mode=True)
    raise invalid_image(_diagnosis(text), which=which, param=param)


def _reason(text: str) -> str | None:
    """Return what can be said against the text without decoding it."""
    if not text:
        return "is empty; send the bytes of a PNG, JPEG, WebP or GIF file as base64."
    start = text[:64].lstrip().lower()
    if start.startswith("data:"):
        return "is a data: URI; send only the base64 that follows its comma."
    if _URL.match(start):
        return "is a URL, and nothing is fetched from URLs; send the image itself as base64."
    if not text.isascii():
        return "is not base64: it has characters outside ASCII."
    decoded_bytes = len(text) // 4 * 3 - (text.endswith("=") + text.endswith("=="))
    if decoded_bytes > MAX_FILE_BYTES:
        return f"is over 20 MB ({MAX_FILE_BYTES} bytes) once decoded; send a smaller file."
    return None


def _diagnosis(text: str) -> str:
    """Return what makes a refused text not base64, in the words most likely to help."""
    if _SPACE.search(text):
        return "is not raw base64: it has spaces or line breaks; send it as one unbroken string."
    if "-" in text or "_" in text:
        return "is URL-safe base64; send the standard alphabet, with + and / in place of - and _."
    padding = text.find("=")
    if padding >= 0 and text[padding:].strip("="):
        return (
            "is not base64: there is padding (=) before its end;"
            " send one image a string, not several joined."
        )
    if len(text) % 4 or padding >= 0:
        return "is not base64: its padding (=) is missing or wrong, or its end was cut off."
    return "is not base64: it has characters outside A-Z, a-z, 0-9, + and /."
