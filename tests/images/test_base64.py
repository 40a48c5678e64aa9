from __future__ import annotations

import base64
import tracemalloc

import pytest

from iris.errors import InvalidImage
from iris.images.base64 import decode_base64
from iris.images.header import MAX_FILE_BYTES

GOOD = base64.b64encode(bytes(range(256)) + b"?>").decode()


@pytest.mark.parametrize("length", [1, 2, 3, 4, 255])
def test_standard_base64_gives_its_bytes_back(length: int) -> None:
    data = bytes(range(255))[-length:]
    assert decode_base64(base64.b64encode(data).decode(), which=None, param="image") == data


@pytest.mark.parametrize(
    ("text", "word"),
    [
        pytest.param(f"data:image/png;base64,{GOOD}", "data: URI", id="data URI"),
        pytest.param(f"DATA:image/png;base64,{GOOD}", "data: URI", id="data URI in capitals"),
        pytest.param("http://example.com/a.png", "URL", id="http"),
        pytest.param("https://example.com/a.png", "URL", id="https"),
        pytest.param("file:///etc/passwd", "URL", id="file"),
        pytest.param("_-".join(["QUJD", "QUJD"]) + "QQ", "URL-safe", id="urlsafe"),
        pytest.param(GOOD[:8] + "\n" + GOOD[8:], "line breaks", id="newline inside"),
        pytest.param(GOOD + "\n", "line breaks", id="newline at the end"),
        pytest.param(GOOD[:8] + " " + GOOD[8:], "spaces", id="space inside"),
        pytest.param("    ", "spaces", id="spaces only"),
        pytest.param("QQ", "padding", id="no padding"),
        pytest.param("QQ=", "padding", id="half the padding"),
        pytest.param("QQ===", "padding", id="one = too many"),
        pytest.param("QUJD====", "padding", id="padding of a whole group"),
        pytest.param("====", "padding", id="padding only"),
        pytest.param("QU=D", "padding", id="= in the middle"),
        pytest.param("QQ==QQ==", "joined", id="two concatenated"),
        pytest.param("QQ==QUJD", "joined", id="padded and unpadded concatenated"),
        pytest.param("QUJDé===", "ASCII", id="non-ASCII"),
        pytest.param("ＱＵＪＤ", "ASCII", id="full width"),
        pytest.param("QUJ\ud800", "ASCII", id="lone surrogate"),
        pytest.param("", "empty", id="empty"),
        pytest.param("QUJ*", "outside A-Z", id="foreign character"),
        pytest.param("QUJ\x00", "outside A-Z", id="NUL"),
    ],
)
def test_what_is_not_raw_base64_is_refused_by_its_reason(text: str, word: str) -> None:
    with pytest.raises(InvalidImage, match=r"^image 2 is ") as refusal:
        decode_base64(text, which=2, param="images")
    assert word in refusal.value.message
    assert (refusal.value.code, refusal.value.param) == ("invalid_image", "images")
    assert "passwd" not in refusal.value.message


def test_the_only_image_has_no_number() -> None:
    with pytest.raises(InvalidImage, match=r"^image is empty"):
        decode_base64("", which=None, param="image")


@pytest.mark.parametrize("short", [0, 1, 2])
def test_twenty_megabytes_are_decoded_whole(short: int) -> None:
    data = bytes(MAX_FILE_BYTES - short)
    text = base64.b64encode(data).decode()
    assert len(decode_base64(text, which=None, param="image")) == len(data)


@pytest.mark.parametrize("over", [1, 2, 3, 4, 10_000_000])
def test_one_byte_over_twenty_megabytes_is_refused_before_it_is_decoded(over: int) -> None:
    text = base64.b64encode(bytes(MAX_FILE_BYTES + over)).decode()
    tracemalloc.start()
    try:
        with pytest.raises(InvalidImage, match="over 20 MB"):
            decode_base64(text, which=1, param="images")
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
