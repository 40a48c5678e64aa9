"""The pictures a style is learnt from, and what is said of each."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from iris.errors import StoreError
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
    if not folder.is_dir():
        raise StoreError(f"{folder} is not a folder. Name the one with the pictures.")
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in KINDS)
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
    """The picture upright, with the area of a square of side_px at most, sides cut to a multiple.

    Raises:
        StoreError: it cannot be read, or is smaller than one multiple.
    """
    try:
        with Image.open(file) as opened:
            image = ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise StoreError(f"{file} cannot be read as a picture ({type(error).__name__}).") from error
    scale = min(1.0, side_px / math.sqrt(image.width * image.height))
    width, height = (int(side * scale) // multiple_px * multiple_px for side in image.size)
    if not width or not height:
        raise StoreError(f"{file} is {image.width}x{image.height} px: too small to learn from.")
    fitted = ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
    return Pixels(width, height, fitted.tobytes())


def _beside(file: Path) -> str:
    text = file.with_suffix(".txt")
    return text.read_text(encoding="utf-8").strip() if text.is_file() else ""


def _read(path: Path) -> dict[str, str]:
    found = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read as UTF-8 text.") from error
    for number, line in enumerate(lines, start=1):
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
