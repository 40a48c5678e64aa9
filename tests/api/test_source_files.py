"""Every kind of file an edit may come with, through the whole front and its real decoder."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.api.fakes import FakeDispatcher, Front, assert_refused, edit, picture_bytes
from tests.images.conftest import Files
from tests.images.test_prescan import BOMBS, BROKEN

EDITS = "/v1/images/edits"
FILES = Files()
GOOD = picture_bytes()
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
SIDE = 32

Colour = tuple[int, int, int]


def send_json(front: Front, *files: bytes) -> httpx.Response:
    texts = [base64.b64encode(data).decode() for data in files]
    sources = {"image": texts[0]} if len(texts) == 1 else {"images": texts}
    return front.post(EDITS, json=edit(size=f"{SIDE}x{SIDE}", **sources))


def send_form(front: Front, *files: bytes) -> httpx.Response:
    parts = [("image[]", ("a.png", data, "image/png")) for data in files]
    return front.post(EDITS, data=edit(size=f"{SIDE}x{SIDE}"), files=parts)


def animation(format: str, **options: Any) -> bytes:
    first, *rest = (Image.new("RGB", (SIDE, SIDE), colour) for colour in (RED, GREEN, BLUE))
    data = FILES.saved(first, format, save_all=True, append_images=rest, duration=50, **options)
    with Image.open(io.BytesIO(data)) as opened:
        assert getattr(opened, "n_frames", 1) == 3
    return data


def a_million_frames() -> bytes:
    """A blue frame and 999,999 of one pixel each."""
    tiny = b"\x2c" + bytes(4) + b"\1\0\1\0\0\2\2D\1\0"
    return FILES.gif(FILES.gif_frame(16, 16) + tiny * 999_999)


def palette() -> bytes:
    image = Image.new("P", (SIDE, SIDE), 0)
    image.putpalette([*RED, *BLUE])
    return FILES.saved(image, "PNG", transparency=bytes([102, 255]))


def ycck() -> bytes:
    """Red, as Adobe stores it: inverted, and its ink amounts as luma and chroma."""
    y, cb, cr = Image.new("RGB", (1, 1), (0, 255, 255)).convert("YCbCr").getpixel((0, 0))
    stored = Image.new("CMYK", (SIDE, SIDE), (255 - y, 255 - cb, 255 - cr, 0))
    data = FILES.saved(stored, "JPEG", quality=95)
    transform = data.index(b"Adobe") + 11
    assert data[transform] == 0
    return data[:transform] + b"\x02" + data[transform + 1 :]


def phone_photo() -> bytes:
    first, second = (Image.new("RGB", (SIDE, SIDE), colour) for colour in (RED, BLUE))
    data = FILES.saved(first, "MPO", save_all=True, append_images=[second], quality=95)
    assert b"MPF\0" in data
    return data


def flat(mode: str, colour: Any, format: str = "PNG", **options: Any) -> bytes:
    return FILES.saved(Image.new(mode, (SIDE, SIDE), colour), format, **options)


def corrupt_exif() -> bytes:
    exif = FILES.exif(6)
    damaged = FILES.segment(0xE1, exif[:10] + b"\xff\xff\xff\xff" + exif[14:])
    data = flat("RGB", RED, "JPEG", quality=95)
    return data[:2] + damaged + data[2:]


# what every pixel must be once decoded, and how far it may be off
TAKEN: dict[str, tuple[Callable[[], bytes], Colour, int]] = {
    "animated GIF": (lambda: animation("GIF"), RED, 0),
    "animated WebP": (lambda: animation("WEBP", lossless=True), RED, 0),
    "APNG": (lambda: animation("PNG"), RED, 0),
    "GIF of a million frames": (a_million_frames, BLUE, 0),
    "CMYK JPEG": (lambda: flat("CMYK", (0, 255, 255, 0), "JPEG", quality=95), RED, 3),
    "YCCK JPEG": (ycck, RED, 4),
    "16-bit grey": (lambda: FILES.grey_png(0x8000, 16), (128, 128, 128), 0),
    "16-bit colour": (
        lambda: FILES.png(16, 16, 16, 2, (b"\0" + bytes.fromhex("80004000ffff") * 16) * 16),
        (128, 64, 255),
        0,
    ),
    "palette with transparency": (palette, (255, 153, 153), 0),
    "LA": (lambda: flat("LA", (0, 51)), (204, 204, 204), 0),
    "RGBA": (lambda: flat("RGBA", (0, 0, 0, 128)), (127, 127, 127), 1),
    "1-bit black": (lambda: flat("1", 0), (0, 0, 0), 0),
    "1-bit white": (lambda: flat("1", 1), (255, 255, 255), 0),
    "corrupt EXIF": (corrupt_exif, RED, 3),
    "wide-gamut ICC": (
        lambda: flat("RGB", (200, 120, 60), icc_profile=FILES.profile()),
        (213, 115, 42),
        1,
    ),
    "broken ICC": (lambda: flat("RGB", RED, icc_profile=FILES.profile()[:200]), RED, 0),
    "MPO": (phone_photo, RED, 3),
    "PNG with a ZIP behind it": (lambda: flat("RGB", RED) + b"PK\3\4" + bytes(99), RED, 0),
}


@pytest.mark.parametrize("send", [send_json, send_form])
@pytest.mark.parametrize("name", TAKEN)
def test_an_unusual_but_honest_file_is_taken_for_what_it_shows(
    front: Front, dispatcher: FakeDispatcher, name: str, send: Callable[..., httpx.Response]
) -> None:
    build, colour, within = TAKEN[name]
    response = send(front, build())
    assert response.status_code == 200, response.text
    (image,) = dispatcher.jobs[0].images  # type: ignore[union-attr]
    assert (image.width_px, image.height_px) == (SIDE, SIDE)
    for channel, value in enumerate(colour):
        values = image.rgb[channel::3]
        assert value - within <= min(values) <= max(values) <= value + within


@pytest.mark.parametrize("orientation", range(1, 9))
def test_each_orientation_of_a_photo_is_upright_before_the_engine_sees_it(
    front: Front, dispatcher: FakeDispatcher, orientation: int
) -> None:
    upright = Image.new("RGB", (64, 32), (128, 128, 128))
    upright.paste(RED, (0, 0, 32, 16))
    upright.paste(BLUE, (32, 16, 64, 32))
    undo = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    stored = upright if undo is None else upright.transpose(undo)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = FILES.saved(stored, "JPEG", exif=exif, quality=95, subsampling=0)
    text = base64.b64encode(data).decode()
    response = front.post(EDITS, json=edit(image=text, size="auto"))
    assert response.json()["size"] == "64x32"
    (image,) = dispatcher.jobs[0].images  # type: ignore[union-attr]
    seen = Image.frombytes("RGB", (image.width_px, image.height_px), image.rgb)
    corners = [seen.getpixel(at) for at in ((8, 8), (56, 8), (8, 24), (56, 24))]
    grey = (128, 128, 128)
    for corner, colour in zip(corners, (RED, grey, grey, BLUE), strict=True):
        assert isinstance(corner, tuple)
        assert all(abs(a - b) <= 6 for a, b in zip(corner, colour, strict=True)), corners


def test_nothing_of_what_hangs_behind_a_picture_comes_out_again(
    front: Front, dispatcher: FakeDispatcher
) -> None:
    secret = b"secret" * 20
    for data in (GOOD + b"PK\3\4" + secret, FILES.jpeg() + secret, FILES.flat("WEBP") + secret):
        response = send_json(front, data)
        assert response.status_code == 200
        reply = base64.b64decode(response.json()["data"][0]["b64_json"])
        (image,) = dispatcher.jobs[-1].images  # type: ignore[union-attr]
        assert len(image.rgb) == SIDE * SIDE * 3
        for out in (reply, image.rgb, response.content, str(response.headers).encode()):
            assert b"secret" not in out
            assert b"PK\3\4" not in out


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_cannot_be_used_is_refused_in_json(
    front: Front, dispatcher: FakeDispatcher, name: str
) -> None:
    response = send_json(front, BROKEN[name][0](FILES))
    error = assert_refused(front, dispatcher, response, 400, "invalid_image", "image")
    assert error["message"].startswith("image is ")


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_cannot_be_used_is_refused_in_a_form_by_its_number_and_reason(
    front: Front, dispatcher: FakeDispatcher, name: str
) -> None:
    build, word = BROKEN[name]
    response = send_form(front, GOOD, build(FILES))
    error = assert_refused(front, dispatcher, response, 400, "invalid_image", "images[1]")
    assert error["message"].startswith("image 2 is ")
    assert word in error["message"]


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_a_400_at_once_and_the_next_picture_comes(
    front: Front, dispatcher: FakeDispatcher, name: str
) -> None:
    build, word = BOMBS[name]
    bomb = build(FILES)
    began = time.monotonic()
    response = send_form(front, bomb)
    assert time.monotonic() - began < 3.0  # with 20 MB on their way; a naive decoder takes 15-33 s
    error = assert_refused(front, dispatcher, response, 400, "invalid_image", "image")
    assert word in error["message"]


def test_a_size_taken_from_a_bomb_is_refused_before_anything_is_decoded(
    front: Front, dispatcher: FakeDispatcher
) -> None:
    text = base64.b64encode(FILES.webp_bomb(13_300)).decode()
    good = base64.b64encode(GOOD).decode()
    response = front.post(EDITS, json=edit(images=[text, good], size="auto"))
    error = assert_refused(front, dispatcher, response, 400, "invalid_image", "images[0]")
    assert "13300x13300 px" in error["message"]
