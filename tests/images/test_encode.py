from __future__ import annotations

import base64
import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from iris.errors import InvalidRequest
from iris.images.encode import OutputFormat, encode_picture, quality_of, to_base64
from iris.jobs import Pixels

TEXT = {"seed": "1234567890", "model": "epithre-iris"}


@pytest.fixture
def picture(files: Any) -> Pixels:
    smooth = files.noise(8, 6).resize((64, 48), Image.Resampling.BICUBIC)
    return Pixels(64, 48, smooth.tobytes())


def _opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


@pytest.mark.parametrize("size", [(64, 48), (16, 16), (1, 1), (1, 7), (960, 16)])
def test_a_png_gives_every_pixel_back(size: tuple[int, int], files: Any) -> None:
    noise = files.noise(*size)
    pixels = Pixels(*size, noise.tobytes())
    image = _opened(encode_picture(pixels, format="png", compression=None, text=TEXT))
    assert (image.format, image.mode, image.size) == ("PNG", "RGB", size)
    assert image.tobytes() == pixels.rgb
    assert image.info == TEXT


def test_png_text_beyond_latin_1_is_kept(picture: Pixels) -> None:
    text = {"seed": "7", "note": "雨 é"}
    image = _opened(encode_picture(picture, format="png", compression=100, text=text))
    assert image.info == text


@pytest.mark.parametrize("text", [{"": "1"}, {"k" * 80: "1"}, {"seed": "1\x002"}])
def test_png_text_that_would_break_the_file_is_not_written(
    text: dict[str, str], picture: Pixels
) -> None:
    with pytest.raises(ValueError, match="PNG text"):
        encode_picture(picture, format="png", compression=None, text=text)


@pytest.mark.parametrize("format", ["jpeg", "webp"])
def test_a_lossy_picture_looks_like_itself_and_carries_its_text(
    format: OutputFormat, picture: Pixels
) -> None:
    image = _opened(encode_picture(picture, format=format, compression=None, text=TEXT))
    assert (image.format, image.mode, image.size) == (format.upper(), "RGB", (64, 48))
    shown = np.frombuffer(image.tobytes(), np.uint8).astype(int)
    assert np.abs(shown - np.frombuffer(picture.rgb, np.uint8)).mean() < 4
    assert json.loads(image.getexif()[0x010E]) == TEXT


@pytest.mark.parametrize("format", ["jpeg", "webp"])
def test_output_compression_is_the_quality(format: OutputFormat, picture: Pixels) -> None:
    lengths = [
        len(encode_picture(picture, format=format, compression=quality, text={}))
        for quality in (0, 30, 60, 80, 100)
    ]
    assert lengths == sorted(set(lengths))


@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
def test_the_same_picture_gives_the_same_bytes(format: OutputFormat, picture: Pixels) -> None:
    first, second = (
        encode_picture(picture, format=format, compression=None, text=TEXT) for _ in range(2)
    )
    assert first == second


@pytest.mark.parametrize(
    ("format", "compression"), [("png", 50), ("png", 0), ("jpeg", 101), ("webp", -1)]
)
def test_a_compression_that_cannot_work_is_refused(
    format: OutputFormat, compression: int, picture: Pixels
) -> None:
    with pytest.raises(InvalidRequest, match="output_compression") as refusal:
        encode_picture(picture, format=format, compression=compression, text={})
    assert refusal.value.param == "output_compression"


def test_the_quality_has_a_default_where_there_is_one() -> None:
    assert quality_of("png", None) is None
    assert quality_of("png", 100) is None
    assert quality_of("jpeg", None) == quality_of("webp", None) == 95
    assert quality_of("webp", 0) == 0


def test_base64_is_one_unbroken_standard_string() -> None:
    data = bytes(range(256)) * 40
    text = to_base64(data)
    assert "\n" not in text
    assert base64.b64decode(text, validate=True) == data
