"""The pictures a style is learnt from, and what is said of each."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from iris.errors import StoreError
from iris.images.fit import Exact, Within, fitted_size
from iris.images.header import MAX_SIDE_PX, Unusable, undecodable
from iris.images.prescan import prescan, sniff
from iris.images.raster import render
from iris.jobs import Pixels

KINDS = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True, slots=True)
class Example:
    """A picture's file and its caption."""

    file: Path
    caption: str


def find_examples(folder: Path, captions: Path | None, trigger: str) -> list[Example]:
    """Every picture of the folder, sorted by name.

    captions: lines of JSON, {"file": NAME, "text": CAPTION}. Left out, the caption of dog.png is in
    dog.txt beside it; where that is missing too, it is the trigger. The trigger stands before every
    caption that lacks it.

    Raises:
        StoreError: there is no picture, a caption is missing, or a file cannot be read.
    """
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix.lower() in KINDS)
    except OSError as error:
        raise StoreError(
            f"{folder} is not a folder that can be read ({error.strerror}). Name the one with the "
            "pictures."
        ) from error
    if not files:
        raise StoreError(f"{folder} holds no picture ({', '.join(KINDS)}).")
    said = {} if captions is None else _read(captions)
    examples = []
    for file in files:
        text = said.get(file.name) if captions is not None else _beside(file)
        caption = text or trigger
        if not caption:
            where = file.with_suffix(".txt").name if captions is None else captions
            raise StoreError(
                f"Nothing is said of {file.name} in {where}. Write a caption there, or give "
                "--trigger words."
            )
        if trigger and trigger.casefold() not in caption.casefold():
            caption = f"{trigger}, {caption}"
        examples.append(Example(file, caption))
    return examples


def read_pixels(file: Path, side_px: int, multiple_px: int) -> Pixels:
    """The picture as the service reads one: upright, in sRGB, what is transparent on white.

    It has the area of a square of side_px at most, and its sides are cut to a multiple.

    Raises:
        StoreError: it cannot be read, or is smaller than one multiple.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise StoreError(
            f"{file} cannot be read ({error.strerror}). Let this user read it, or take it away."
        ) from error
    try:
        header = prescan(data)
        whole = header.upright_px
        width, height = _fitted(whole, side_px, multiple_px)
        # the smallest that covers it, so that nothing is squeezed
        scale = max(width / whole[0], height / whole[1])
        covering = (max(width, round(whole[0] * scale)), max(height, round(whole[1] * scale)))
        pixels = render(header, Exact(*covering))
    except Unusable as error:
        raise StoreError(f"{file} {error.reason}") from error
    except Exception as error:  # decoders raise anything at data they cannot read
        raise StoreError(f"{file} {undecodable(sniff(data)).reason}") from error
    left, top = (covering[0] - width) // 2, (covering[1] - height) // 2
    image = Image.frombytes("RGB", covering, pixels.rgb)
    cut = image.crop((left, top, left + width, top + height))
    return Pixels(width, height, cut.tobytes())


def _fitted(whole: tuple[int, int], side_px: int, multiple_px: int) -> tuple[int, int]:
    """The size of a picture as it is learnt. Raises Unusable."""
    try:
        return fitted_size(*whole, Within(MAX_SIDE_PX, side_px**2, multiple_px))
    except Unusable:
        if min(whole) < multiple_px:
            raise
        raise Unusable(
            f"is {whole[0]}x{whole[1]} px, too long for --size {side_px}. Crop it, or give a "
            "larger --size."
        ) from None


def _beside(file: Path) -> str:
    return _text(file.with_suffix(".txt"), absent="").strip()


def _text(path: Path, *, absent: str | None = None) -> str:
    """absent: what a file that is not there says; left out, there must be one."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        if absent is not None and isinstance(error, FileNotFoundError):
            return absent
        raise StoreError(
            f"{path} cannot be read ({error.strerror}). It is to hold what is said of the pictures."
        ) from error
    except ValueError as error:
        raise StoreError(f"{path} is no text in UTF-8. Save it as such.") from error


def _read(path: Path) -> dict[str, str]:
    found = {}
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            found[str(entry["file"])] = str(entry["text"]).strip()
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f'{path}, line {number} is not like {{"file": "a.png", "text": "a dog"}}.'
            ) from error
    return found
