from __future__ import annotations

import base64
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.api.fakes import (
    FakeDispatcher,
    Front,
    assert_refused,
    edit,
    picture_base64,
    picture_bytes,
)

EDITS = "/v1/images/edits"
PNG = picture_bytes()
B64 = base64.b64encode(PNG).decode()
# a length that is no multiple of three, so that there is padding to tamper with
PADDED = next(
    text
    for width in range(16, 64)
    if (text := base64.b64encode(picture_bytes(width, 16)).decode()).endswith("=")
)
URLSAFE = next(
    text
    for width in range(16, 512)
    if "/" in (text := base64.b64encode(picture_bytes(width, 16)).decode()) or "+" in text
)

BAD_BASE64 = {
    "data URI": f"data:image/png;base64,{B64}",
    "data URI, capitals": f"DATA:image/png;base64,{B64}",
    "http": "http://127.0.0.1:9/a.png",
    "https": "https://example.com/a.png",
    "file": "file:///etc/passwd",
    "path": "/etc/passwd",
    "urlsafe alphabet": URLSAFE.replace("+", "-").replace("/", "_"),
    "newline inside": B64[:40] + "\n" + B64[40:],
    # so many that the length is right: a decoder that skips them would read a good picture
    "four newlines inside": B64[:40] + "\r\n\r\n" + B64[40:],
    "four spaces inside": B64[:40] + "    " + B64[40:],
    "four dashes inside": B64[:40] + "----" + B64[40:],
    "four control characters inside": B64[:40] + "\u0001" * 4 + B64[40:],
    "newline at the end": B64 + "\n",
    "space inside": B64[:40] + " " + B64[40:],
    "space in front": " " + B64,
    "missing padding": PADDED.rstrip("="),
    "extra padding": B64 + "====",
    "one more pad": PADDED + "=",
    "padding in the middle": B64[:8] + "=" + B64[9:],
    "two concatenated": PADDED + PADDED,
    "non-ASCII": B64[:40] + "é" + B64[41:],
    "full width": B64[:40] + "Ａ" + B64[41:],
    "empty": "",
    "one character": "A",
    "not an image": base64.b64encode(b"hello world, I am text").decode(),
    "an SVG": base64.b64encode(b"<svg xmlns='http://www.w3.org/2000/svg'/>").decode(),
    "a pickle": base64.b64encode(b"\x80\x04N.").decode(),
    "truncated PNG": base64.b64encode(PNG[: len(PNG) // 2]).decode(),
}


@pytest.mark.parametrize("text", BAD_BASE64.values(), ids=BAD_BASE64.keys())
def test_what_is_no_image_in_raw_base64_is_refused(
    front: Front, dispatcher: FakeDispatcher, text: str
) -> None:
    response = front.post(EDITS, json=edit(image=text))
    assert_refused(front, dispatcher, response, 400, "invalid_image", "image")


@pytest.fixture(scope="module")
def picture_host() -> Iterator[tuple[str, list[str]]]:
    """Somebody else's server that has a good picture, and the paths it was asked for."""
    asked: list[str] = []

    class Host(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("content-length", str(len(PNG)))
            self.end_headers()
            self.wfile.write(PNG)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            """Keep the test's output its own."""

    host = ThreadingHTTPServer(("127.0.0.1", 0), Host)
    thread = threading.Thread(target=host.serve_forever)
    thread.start()
    yield f"127.0.0.1:{host.server_port}", asked
    host.shutdown()
    thread.join()
    host.server_close()


@pytest.mark.parametrize("scheme", ["http://", "https://", "HTTP://", "//", "ftp://", "file://"])
def test_what_a_request_points_to_is_never_fetched_or_read(
    front: Front,
    dispatcher: FakeDispatcher,
    picture_host: tuple[str, list[str]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    scheme: str,
) -> None:
    address, asked = picture_host
    file = tmp_path / "a.png"
    file.write_bytes(PNG)
    url = f"file://{file}" if scheme == "file://" else f"{scheme}{address}/a.png"
    calls: list[object] = []
    connect = socket.socket.connect

    def watched(self: socket.socket, to: Any) -> None:
        calls.append(to)
        connect(self, to)

    monkeypatch.setattr(socket.socket, "connect", watched)
    lookup = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *args, **kw: calls.append(args) or lookup(*args, **kw)
    )
    for fields in ({"image": url}, {"images": [B64, url]}):
        dispatcher.reset()
        response = front.post(EDITS, json=edit(**fields))
        param = "image" if "image" in fields else "images[1]"
        assert_refused(front, dispatcher, response, 400, "invalid_image", param)
    dispatcher.reset()
    response = front.post(EDITS, data=edit(), files={"image": ("a.png", url.encode())})
    assert_refused(front, dispatcher, response, 400, "invalid_image", "image")
    # nor where it is mere text
    response = front.post(EDITS, json=edit(image=B64, prompt=f"like {url}", user=url))
    assert response.status_code == 200
    assert (asked, calls) == ([], [])


@pytest.mark.parametrize("text", BAD_BASE64.values(), ids=BAD_BASE64.keys())
def test_one_bad_image_of_five_is_told_by_its_number(
    front: Front, dispatcher: FakeDispatcher, text: str
) -> None:
    response = front.post(EDITS, json=edit(images=[B64, B64, B64, text, B64]))
    error = assert_refused(front, dispatcher, response, 400, "invalid_image", "images[3]")
    assert "image 4" in error["message"]


def test_the_first_of_two_bad_images_is_told(front: Front, dispatcher: FakeDispatcher) -> None:
    bad = base64.b64encode(PNG[:60]).decode()
    response = front.post(EDITS, json=edit(images=[B64, bad, B64, bad]))
    error = assert_refused(front, dispatcher, response, 400, "invalid_image", "images[1]")
    assert "image 2" in error["message"]


def test_a_bad_first_image_is_told_also_where_it_gives_the_size(
    front: Front, dispatcher: FakeDispatcher
) -> None:
    bad = base64.b64encode(PNG[:20]).decode()
    response = front.post(EDITS, json=edit(images=[bad, B64], size="auto"))
    assert_refused(front, dispatcher, response, 400, "invalid_image", "images[0]")


COUNTS: dict[str, tuple[dict[str, Any], str]] = {
    "both": ({"image": B64, "images": [B64]}, "images"),
    "neither": ({}, "image"),
    "no images": ({"images": []}, "images"),
    "six": ({"images": ["not base64"] * 6}, "images"),
    "a thousand": ({"images": ["x"] * 1_000}, "images"),
    "null": ({"image": None}, "image"),
    "null images": ({"images": None}, "images"),
    "null in the list": ({"images": [None]}, "images[0]"),
    "null as the third": ({"images": [B64, B64, None]}, "images[2]"),
    "nested list": ({"images": [[B64]]}, "images[0]"),
    "number": ({"images": [1]}, "images[0]"),
    "object": ({"images": [{"b64_json": B64}]}, "images[0]"),
    "a list as the image": ({"image": [B64]}, "image"),
    "a string as the images": ({"images": B64}, "images"),
    "an object as the images": ({"images": {"0": B64}}, "images"),
    "image[]": ({"image[]": B64}, "image[]"),
}


@pytest.mark.parametrize(("fields", "param"), COUNTS.values(), ids=COUNTS.keys())
def test_a_wrong_count_or_shape_is_refused_before_anything_is_decoded(
    front: Front, dispatcher: FakeDispatcher, fields: dict[str, Any], param: str
) -> None:
    response = front.post(EDITS, json=edit(**fields))
    # invalid_request, not invalid_image: the decoder would have been the one to say the latter
    assert_refused(front, dispatcher, response, 400, "invalid_request", param)


def test_a_single_image_becomes_exactly_the_picture(
    front: Front, dispatcher: FakeDispatcher
) -> None:
    response = front.post(EDITS, json=edit(image=picture_base64(200, 100), size="96x176"))
    assert response.status_code == 200
    (job,) = dispatcher.jobs
    (image,) = job.images  # type: ignore[union-attr]
    assert (job.width_px, job.height_px) == (96, 176) == (image.width_px, image.height_px)
    assert len(image.rgb) == 96 * 176 * 3
    assert image.rgb[:3] == bytes([10, 200, 30])


@pytest.mark.parametrize(
    ("sent", "made"),
    [
        ((100, 70), (96, 64)),
        ((704, 704), (704, 704)),
        ((1408, 700), (704, 336)),
        ((16, 16), (16, 16)),
    ],
)
def test_an_edit_without_a_size_keeps_that_of_its_first_image_within_704(
    front: Front, dispatcher: FakeDispatcher, sent: tuple[int, int], made: tuple[int, int]
) -> None:
    first, second = picture_base64(*sent), picture_base64(32, 64)
    for fields in ({"image": first}, {"images": [first, second]}):
        assert front.post(EDITS, json=edit(**fields, size="auto")).status_code == 200
    assert [(job.width_px, job.height_px) for job in dispatcher.jobs] == [made, made]


def test_an_image_too_small_to_have_a_picture_of_its_size_is_refused(
    front: Front, dispatcher: FakeDispatcher
) -> None:
    response = front.post(EDITS, json=edit(image=picture_base64(15, 64), size="auto"))
    assert_refused(front, dispatcher, response, 400, "invalid_image", "image")


def test_references_keep_their_own_sizes_and_order(
    front: Front, dispatcher: FakeDispatcher
) -> None:
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0), (0, 250, 250)]
    sizes = [(64, 48), (48, 64), (33, 47), (1000, 900), (32, 32)]
    images = [
        base64.b64encode(picture_bytes(*size, colour)).decode()
        for size, colour in zip(sizes, colours, strict=True)
    ]
    assert front.post(EDITS, json=edit(images=images)).status_code == 200
    (job,) = dispatcher.jobs
    decoded = job.images  # type: ignore[union-attr]
    assert [tuple(image.rgb[:3]) for image in decoded] == colours
    assert [(image.width_px, image.height_px) for image in decoded] == [
        (64, 48),
        (48, 64),
        (32, 32),
        (736, 656),
        (32, 32),
    ]
    assert job.strength is None  # type: ignore[union-attr]


def test_one_image_in_a_list_is_a_reference_and_not_a_source(
    front: Front, dispatcher: FakeDispatcher
) -> None:
    assert front.post(EDITS, json=edit(images=[B64])).status_code == 200
    assert dispatcher.jobs[0].strength is None  # type: ignore[union-attr]


def test_a_file_over_20_mb_is_refused_in_json_and_in_a_form(
    front: Front, dispatcher: FakeDispatcher
) -> None:
    large = PNG + b"\0" * (20_971_520 - len(PNG) + 1)
    response = front.post(EDITS, json=edit(image=base64.b64encode(large).decode()))
    error = assert_refused(front, dispatcher, response, 400, "invalid_image", "image")
    assert "20 MB" in error["message"]
    dispatcher.reset()
    response = front.post(EDITS, data=edit(), files={"image": ("a.png", large)})
    error = assert_refused(front, dispatcher, response, 400, "invalid_image", "image")
    assert "20 MB" in error["message"]
