from __future__ import annotations

import gc
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from PIL import Image

from iris.images.header import MAX_FILE_BYTES, Unusable
from iris.images.prescan import prescan, sniff

MB = 1024 * 1024


@pytest.fixture(autouse=True)
def no_collection() -> Iterator[None]:
    """A full garbage collection after thousands of tests takes longer than what is bounded here."""
    gc.disable()
    yield
    gc.enable()


Build = Callable[[Any], bytes]


def _cut(data: bytes, share: float) -> bytes:
    return data[: int(len(data) * share)]


def _zeros(mb: int) -> bytes:
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(MB)) for _ in range(mb)) + packer.flush()


def _scans(files: Any, count: int) -> bytes:
    jpeg = files.saved(Image.new("RGB", (64, 48), "red"), "JPEG", progressive=True)
    last = jpeg.rindex(b"\xff\xda")
    return jpeg[:-2] + jpeg[last:-2] * count + jpeg[-2:]


def _webp_frames(files: Any, count: int, *more: bytes) -> bytes:
    still = files.flat("WEBP")
    frame = struct.pack("<6s3s3s3sB", bytes(6), b"\x3f\0\0", b"\x2f\0\0", bytes(3), 0)
    canvas = files.part(b"VP8X", b"\x02\0\0\0" + b"\x3f\0\0" + b"\x2f\0\0")
    one = files.part(b"ANMF", frame + still[12:])
    return files.riff(canvas, files.part(b"ANIM", bytes(6)), one * count, *more)


BOMBS: dict[str, tuple[Build, str]] = {
    "WebP 13300x13300 in 34 bytes": (lambda f: f.webp_bomb(13_300), "13300x13300 px"),
    "WebP canvas 16000x16000": (
        lambda f: f.riff(f.part(b"VP8X", bytes(4) + b"\x7f\x3e\0" * 2), f.flat("WEBP")[12:]),
        "16000x16000 px",
    ),
    "PNG 13300x13300": (
        lambda f: f.png(13_300, 13_300, 8, 2, bytes(100 * MB)),
        "13300x13300 px",
    ),
    "PNG of 20 MB empty chunks": (
        lambda f: f.small_png(f.chunk(b"tEXt") * 1_747_000),
        "more than 32768 chunks",
    ),
    "PNG of 20 MB empty chunks behind the picture": (
        lambda f: f.small_png(tail=f.chunk(b"teST") * 1_747_000),
        "more than 32768 chunks",
    ),
    "PNG of 20 MB empty IDAT": (
        lambda f: f.small_png(f.chunk(b"IDAT") * 1_747_000),
        "more than 32768 chunks",
    ),
    "zTXt of 200 MB": (
        lambda f: f.small_png(f.chunk(b"zTXt", b"a\0\0" + _zeros(200))),
        "inflates over 8 MB",
    ),
    "iTXt of 200 MB": (
        lambda f: f.small_png(f.chunk(b"iTXt", b"a\0\1\0\0\0" + _zeros(200))),
        "inflates over 8 MB",
    ),
    "iCCP of 200 MB": (
        lambda f: f.small_png(f.chunk(b"iCCP", b"a\0\0" + _zeros(200))),
        "inflates over 8 MB",
    ),
    "zTXt of 1 MB two hundred times": (
        lambda f: f.small_png(f.chunk(b"zTXt", b"a\0\0" + _zeros(1)) * 200),
        "inflates over 8 MB",
    ),
    "JPEG of tiny Exif segments": (
        lambda f: f.after_soi(f.segment(0xE1, b"Exif\0\0") * 420_000),
        "more than 2048 segments",
    ),
    "JPEG of tiny comments": (
        lambda f: f.after_soi(f.segment(0xFE, b"") * 1_000_000),
        "more than 2048 segments",
    ),
    "JPEG of 19 MB fill before the picture": (
        lambda f: f.after_soi(b"\xff" * 19 * MB),
        "bytes of padding",
    ),
    "JPEG of 19 MB fill in the picture": (
        lambda f: f.jpeg()[:-2] + b"\xff" * 19 * MB + b"\xff\xd9",
        "bytes of padding",
    ),
    "JPEG of 19 MB fill in short runs": (
        lambda f: f.jpeg()[:-2] + (b"\xff" * 60 + b"\x00") * 320_000 + b"\xff\xd9",
        "bytes of padding",
    ),
    "JPEG of 19 MB zeros between segments": (
        lambda f: f.after_soi(f.segment(0xFE, b"") + bytes(19 * MB)),
        "bytes of padding",
    ),
    "JPEG of 19 MB restarts between segments": (
        lambda f: f.after_soi(f.segment(0xFE, b"") + b"\xff\xd0" * 9 * MB),
        "bytes of padding",
    ),
    "JPEG of 1,000 scans": (lambda f: _scans(f, 1_000), "more than 64 scans"),
    "JPEG 60000x60000": (
        lambda f: f.jpeg().replace(
            struct.pack(">HH", 48, 64), struct.pack(">HH", 60_000, 60_000), 1
        ),
        "60000x60000 px",
    ),
    "GIF 60000x60000": (
        lambda f: f.gif(f.gif_frame(16, 16), screen=(60_000, 60_000)),
        "60000x60000 px",
    ),
    "GIF whose frame grows the screen": (
        lambda f: f.gif(f.gif_frame(16, 16, left=60_000)),
        "60016x16 px",
    ),
    "GIF of 18 MB comments": (
        lambda f: f.gif(b"\x21\xfe" + b"\x01A" * 9_000_000 + b"\0" + f.gif_frame(16, 16)),
        "more than 131072 blocks",
    ),
    "WebP of 20 MB empty chunks": (
        lambda f: f.riff(
            f.part(b"VP8X", bytes(4) + b"\x3f\0\0" + b"\x2f\0\0"), f.part(b"teST", b"") * 2_000_000
        ),
        "more than 32768 chunks",
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_at_once_and_without_memory(name: str, files: Any) -> None:
    build, word = BOMBS[name]
    data = build(files)
    assert len(data) <= MAX_FILE_BYTES
    began = time.thread_time()
    with pytest.raises(Unusable) as refusal:
        prescan(data)
    assert time.thread_time() - began < 1.0  # tens of milliseconds; naive decoders take up to 33 s
    assert word in refusal.value.reason
    tracemalloc.start()
    try:
        with pytest.raises(Unusable):
            prescan(data)
        assert tracemalloc.get_traced_memory()[1] < 24 * MB
    finally:
        tracemalloc.stop()


BROKEN: dict[str, tuple[Build, str]] = {
    "SVG": (lambda f: b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
    "SVG behind an XML head": (lambda f: b"\n<?xml version='1.0'?><svg/>", "SVG"),
    "BMP": (lambda f: f.flat("BMP"), "BMP"),
    "TIFF": (lambda f: f.flat("TIFF"), "TIFF"),
    "AVIF": (lambda f: b"\0\0\0\x20ftypavif" + bytes(100), "AVIF"),
    "HEIC": (lambda f: b"\0\0\0\x20ftypheic" + bytes(100), "HEIC"),
    "PDF": (lambda f: b"%PDF-1.7\n" + bytes(100), "PDF"),
    "text": (lambda f: b"hello", "not a PNG, JPEG, WebP or GIF"),
    "nothing": (lambda f: b"", "empty"),
    "over 20 MB": (lambda f: f.flat("PNG") + bytes(20 * MB), "at most 20 MB"),
    "PNG magic, JPEG body": (lambda f: f.flat("PNG")[:8] + f.jpeg(), "PNG"),
    "JPEG magic, PNG body": (lambda f: b"\xff\xd8\xff" + f.flat("PNG"), "JPEG"),
    "WebP magic, PNG body": (lambda f: f.riff(f.flat("PNG") * 2), "WebP"),
    "GIF magic, PNG body": (lambda f: b"GIF89a" + f.flat("PNG"), "20617x18254 px"),
    "PNG magic alone": (lambda f: f.flat("PNG")[:8], "truncated"),
    "JPEG magic alone": (lambda f: b"\xff\xd8\xff", "truncated"),
    "WebP magic alone": (lambda f: f.riff(), "truncated"),
    "GIF magic alone": (lambda f: b"GIF89a", "truncated"),
    "PNG truncated": (lambda f: _cut(f.flat("PNG"), 0.6), "truncated"),
    "PNG without its end": (lambda f: f.flat("PNG")[:-12], "truncated"),
    "JPEG truncated": (lambda f: _cut(f.jpeg(), 0.6), "truncated"),
    "JPEG truncated in its head": (lambda f: f.jpeg()[:200], "truncated"),
    "JPEG without its end": (lambda f: f.jpeg()[:-2], "truncated"),
    "WebP truncated": (lambda f: _cut(f.flat("WEBP"), 0.6), "truncated"),
    "WebP truncated, length put right": (
        lambda f: f.riff(f.saved(f.noise(), "WEBP")[12:200]),
        "truncated",
    ),
    "GIF truncated": (lambda f: _cut(f.saved(f.noise(), "GIF"), 0.6), "truncated"),
    "GIF without its end": (lambda f: f.flat("GIF", "P")[:-1], "truncated"),
    "PNG with a bad CRC in IHDR": (
        lambda f: f.flat("PNG")[:29] + b"\0\0\0\0" + f.flat("PNG")[33:],
        "checksum",
    ),
    "PNG with a bad CRC in IDAT": (
        lambda f: f.small_png()[:-20] + b"\xaa" + f.small_png()[-19:],
        "checksum",
    ),
    "PNG of no data": (
        lambda f: f.flat("PNG")[:33] + f.chunk(b"IEND"),
        "no picture data",
    ),
    "PNG of two headers": (
        lambda f: f.flat("PNG")[:33] + f.flat("PNG")[8:],
        "two headers",
    ),
    "PNG of an unknown critical chunk": (
        lambda f: f.small_png(f.chunk(b"CgBI", b"x")),
        "extension",
    ),
    "PNG of a nameless chunk": (lambda f: f.small_png(f.chunk(b"\0\0\0\0")), "valid name"),
    "JPEG of two frame headers": (
        lambda f: f.after_soi(f.segment(0xC0, b"\x08\0\x10\0\x10\x01\x01\x11\0")),
        "two frame headers",
    ),
    "JPEG of a scan without a header": (
        lambda f: b"\xff\xd8" + f.segment(0xDA, b"\x01\0\0\0\0\0") + b"ab\xff\xd9",
        "before the frame header",
    ),
    "JPEG of no picture": (
        lambda f: b"\xff\xd8" + f.segment(0xFE, b"") + b"\xff\xd9",
        "no picture",
    ),
    "JPEG within a JPEG": (lambda f: f.after_soi(f.jpeg()), "out of place"),
    "JPEG of a segment without length": (lambda f: f.after_soi(b"\xff\xfe\0\0"), "valid length"),
    "WebP of no picture": (
        lambda f: f.riff(f.part(b"VP8X", bytes(4) + b"\x3f\0\0" + b"\x2f\0\0")),
        "no picture data",
    ),
    "WebP of a bad lossless header": (
        lambda f: f.riff(f.part(b"VP8L", bytes(20))),
        "no valid header",
    ),
    "WebP of a bad lossy header": (lambda f: f.riff(f.part(b"VP8 ", bytes(20))), "no valid header"),
    "GIF of no frame": (lambda f: f.gif(b""), "no picture data"),
    "GIF of an unknown block": (lambda f: f.gif(b"\x07" + f.gif_frame(16, 16)), "unknown block"),
    "PNG of zero width": (lambda f: f.png(0, 16, 8, 0, b""), "no pixels"),
    "PNG of zero height": (lambda f: f.png(16, 0, 8, 0, b""), "no pixels"),
    "JPEG of zero height": (
        lambda f: f.jpeg().replace(struct.pack(">HH", 48, 64), struct.pack(">HH", 0, 64), 1),
        "no pixels",
    ),
    "WebP of zero width": (
        lambda f: f.riff(f.part(b"VP8 ", bytes(3) + b"\x9d\x01\x2a" + bytes(4))),
        "no pixels",
    ),
    "GIF of an empty screen": (lambda f: f.gif(f.gif_frame(16, 16), screen=(0, 16)), "no pixels"),
    "GIF of an empty frame": (
        lambda f: f.gif(b"\x2c" + struct.pack("<HHHHB", 0, 0, 0, 4, 0) + b"\x02\x00"),
        "no pixels",
    ),
    "1xN": (lambda f: f.flat("PNG", size=(1, 17)), "aspect"),
    "Nx1": (lambda f: f.flat("PNG", size=(800, 1)), "aspect"),
    "a side of 16385": (lambda f: f.png(16_385, 2_000, 1, 0, b""), "16384"),
    "50 megapixels and one row": (lambda f: f.png(10_000, 5_001, 1, 0, b""), "50 megapixels"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_whole_image_within_the_limits_is_refused_by_its_reason(
    name: str, files: Any
) -> None:
    build, word = BROKEN[name]
    with pytest.raises(Unusable) as refusal:
        prescan(build(files))
    assert word in refusal.value.reason
    assert refusal.value.named(3).message == f"image 3 {refusal.value.reason}"
    assert refusal.value.named(None).message.startswith("image ")
    assert (refusal.value.named(3).param, refusal.value.named(None).param) == ("images", "image")


GOOD: dict[str, tuple[Build, tuple[str, int, int]]] = {
    "PNG": (lambda f: f.flat("PNG"), ("PNG", 64, 48)),
    "PNG of 50 megapixels": (lambda f: f.png(10_000, 5_000, 1, 0, b""), ("PNG", 10_000, 5_000)),
    "PNG 16:1": (lambda f: f.flat("PNG", size=(256, 16)), ("PNG", 256, 16)),
    "PNG in chunks of 1 kB": (
        lambda f: f.small_png(tail=f.chunk(b"IDAT", bytes(1024)) * 20_000),
        ("PNG", 16, 16),
    ),
    "PNG with text and a profile": (
        lambda f: f.small_png(
            f.chunk(b"zTXt", b"a\0\0" + _zeros(1)),
            f.chunk(b"iTXt", b"a\0\0\0\0\0" + b"x" * MB),
            f.chunk(b"iCCP", b"a\0\0" + zlib.compress(f.profile())),
        ),
        ("PNG", 16, 16),
    ),
    "PNG with broken text": (
        lambda f: f.small_png(f.chunk(b"zTXt", b"\xff"), f.chunk(b"iTXt", b"a\0\1\0\0\0zz")),
        ("PNG", 16, 16),
    ),
    "baseline JPEG": (lambda f: f.jpeg(), ("JPEG", 64, 48)),
    "progressive JPEG": (lambda f: f.jpeg(progressive=True), ("JPEG", 64, 48)),
    "JPEG of 40 scans": (lambda f: _scans(f, 30), ("JPEG", 64, 48)),
    "JPEG with restarts": (lambda f: f.jpeg(restart_marker_blocks=1), ("JPEG", 64, 48)),
    "JPEG with 3 MB of camera data": (
        lambda f: f.after_soi(
            f.segment(0xE1, f.exif(1) + bytes(60_000))
            + f.segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + bytes(65_000)) * 45
        ),
        ("JPEG", 64, 48),
    ),
    "JPEG padded to a sector": (lambda f: f.after_soi(b"\xff" * 511), ("JPEG", 64, 48)),
    "JPEG with a second picture behind it": (lambda f: f.jpeg() * 2, ("JPEG", 64, 48)),
    "WebP lossy": (lambda f: f.flat("WEBP"), ("WEBP", 64, 48)),
    "WebP lossless": (
        lambda f: f.saved(Image.new("RGBA", (64, 48), (1, 2, 3, 4)), "WEBP", lossless=True),
        ("WEBP", 64, 48),
    ),
    "WebP of odd length without its padding": (
        lambda f: f.riff(f.flat("WEBP")[12:], b"teST" + struct.pack("<I", 1) + b"x"),
        ("WEBP", 64, 48),
    ),
    "WebP of 20,000 frames": (lambda f: _webp_frames(f, 20_000), ("WEBP", 64, 48)),
    "GIF": (lambda f: f.flat("GIF", "P"), ("GIF", 64, 48)),
    "GIF with a comment": (
        lambda f: f.gif(b"\x21\xfe\x03abc\0" + f.gif_frame(16, 16)),
        ("GIF", 16, 16),
    ),
    "GIF of a million frames": (
        lambda f: f.gif(b"\x2c" + bytes(4) + b"\1\0\1\0\0\2\2D\1\0", count=1_000_000),
        ("GIF", 16, 16),
    ),
    "GIF cut off in its second frame": (
        lambda f: f.gif(f.gif_frame(16, 16), count=2)[:-20],
        ("GIF", 16, 16),
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_an_honest_file_passes_with_its_size(name: str, files: Any) -> None:
    build, expected = GOOD[name]
    data = build(files)
    assert sniff(data) == expected[0]
    began = time.thread_time()
    header = prescan(data)
    assert time.thread_time() - began < 1.0  # the slowest takes tens of milliseconds
    assert (header.format, header.width_px, header.height_px) == expected


def test_nothing_but_the_first_picture_reaches_a_decoder(files: Any) -> None:
    secret = b"secret" * 20
    hidden = {
        "a ZIP behind a PNG": files.small_png() + b"PK\3\4" + secret,
        "a chunk of a PNG": files.small_png(files.chunk(b"tEXt", b"a\0" + secret)),
        "data behind a JPEG": files.jpeg() + secret,
        "a comment of a JPEG": files.after_soi(files.segment(0xFE, secret)),
        "a thumbnail of a JPEG": files.after_soi(files.segment(0xE1, files.exif(1) + secret)),
        "the index of a phone's JPEG": files.after_soi(files.segment(0xE2, b"MPF\0" + secret)),
        "data behind a WebP": files.flat("WEBP") + secret,
        "a chunk of a WebP": files.riff(files.flat("WEBP")[12:], files.part(b"teST", secret)),
        "a later frame of a WebP": _webp_frames(files, 1, files.part(b"ANMF", bytes(16) + secret)),
        "a later frame of an animated PNG": files.small_png(
            files.chunk(b"acTL", b"\0\0\0\2\0\0\0\0"),
            tail=files.chunk(b"fdAT", b"\0\0\0\1" + secret),
        ),
        "a comment of a GIF": files.gif(b"\x21\xfe\x78" + secret + b"\0" + files.gif_frame(16, 16)),
        "data behind a GIF": files.gif(files.gif_frame(16, 16)) + secret,
    }
    for name, data in hidden.items():
        assert secret in data, name
        body = prescan(data).body
        assert b"secret" not in body, name
        assert sniff(body) == sniff(data), name


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_is_read_from_each_format(orientation: int, order: str, files: Any) -> None:
    exif = files.exif(orientation, order)
    canvas = files.part(b"VP8X", bytes(4) + b"\x3f\0\0" + b"\x2f\0\0")
    for data in (
        files.after_soi(files.segment(0xE1, exif)),
        files.small_png(files.chunk(b"eXIf", exif[6:])),
        files.riff(canvas, files.flat("WEBP")[12:], files.part(b"EXIF", exif[6:])),
    ):
        header = prescan(data)
        assert header.orientation == orientation
        turned = orientation >= 5
        stored = (header.width_px, header.height_px)
        assert header.upright_px == (stored[::-1] if turned else stored)


@pytest.mark.parametrize(
    "damage",
    [
        lambda exif: exif[:6],
        lambda exif: exif[:12],
        lambda exif: exif[:18],
        lambda exif: exif[:10] + b"\xff\xff\xff\xff" + exif[14:],
        lambda exif: exif.replace(b"II*\0", b"II+\0"),
        lambda exif: exif.replace(b"\x06\x00\x00\x00", b"\x09\x00\x00\x00"),
        lambda exif: exif.replace(b"\x12\x01\x03\x00", b"\x12\x01\x07\x00"),
        lambda exif: exif[:6] + bytes(50),
    ],
)
def test_corrupt_exif_means_upright_and_no_refusal(
    damage: Callable[[bytes], bytes], files: Any
) -> None:
    exif = files.exif(6)
    assert damage(exif) != exif
    assert prescan(files.after_soi(files.segment(0xE1, damage(exif)))).orientation == 1


def test_a_profile_in_numbered_parts_is_joined_in_order_or_left_aside(files: Any) -> None:
    def parts(*numbers: tuple[int, int, bytes]) -> bytes:
        return b"".join(
            files.segment(0xE2, b"ICC_PROFILE\0" + bytes([n, total]) + payload)
            for n, total, payload in numbers
        )

    assert prescan(files.after_soi(parts((2, 2, b"b"), (1, 2, b"a")))).icc == b"ab"
    for broken in (parts((1, 2, b"a")), parts((1, 2, b"a"), (1, 2, b"b")), parts((0, 0, b""))):
        assert prescan(files.after_soi(broken)).icc is None
