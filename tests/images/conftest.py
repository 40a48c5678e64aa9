"""Image files built byte by byte, good and hostile; nothing is read from disk."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from iris.config import Settings

MB = 1024 * 1024


class Files:
    """Builders of files. Every method returns the bytes of one file or of one part of it."""

    def saved(self, image: Image.Image, format: str, **options: Any) -> bytes:
        file = io.BytesIO()
        image.save(file, format, **options)
        return file.getvalue()

    def flat(self, format: str, mode: str = "RGB", size: tuple[int, int] = (64, 48)) -> bytes:
        colours = {"RGB": (200, 30, 40), "RGBA": (200, 30, 40, 255), "P": 0, "L": 90}
        return self.saved(Image.new(mode, size, colours[mode]), format)

    def noise(self, width: int = 64, height: int = 48) -> Image.Image:
        seeded = random.Random(7).randbytes(width * height * 3)
        return Image.frombytes("RGB", (width, height), seeded)

    # PNG

    def chunk(self, kind: bytes, payload: bytes = b"") -> bytes:
        body = kind + payload
        return struct.pack(">I", len(payload)) + body + struct.pack(">I", zlib.crc32(body))

    def png(
        self,
        width: int,
        height: int,
        depth: int,
        colour: int,
        rows: bytes,
        *extra: bytes,
        tail: bytes = b"",
    ) -> bytes:
        """A PNG from raw filtered rows; `extra` chunks go between IHDR and IDAT."""
        header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
        return (
            b"\x89PNG\r\n\x1a\n"
            + self.chunk(b"IHDR", header)
            + b"".join(extra)
            + self.chunk(b"IDAT", zlib.compress(rows, 1))
            + tail
            + self.chunk(b"IEND")
        )

    def grey_png(self, value: int, depth: int, *extra: bytes, side: int = 16) -> bytes:
        """A flat grey PNG of 8 or 16 bits."""
        row = b"\x00" + value.to_bytes(depth // 8, "big") * side
        return self.png(side, side, depth, 0, row * side, *extra)

    def small_png(self, *extra: bytes, tail: bytes = b"") -> bytes:
        return self.png(16, 16, 8, 2, (b"\x00" + b"\xc8\x1e\x28" * 16) * 16, *extra, tail=tail)

    # JPEG

    def jpeg(self, **options: Any) -> bytes:
        return self.saved(self.noise(), "JPEG", **options)

    def after_soi(self, inserted: bytes) -> bytes:
        jpeg = self.jpeg()
        return jpeg[:2] + inserted + jpeg[2:]

    def segment(self, code: int, payload: bytes) -> bytes:
        return bytes([0xFF, code]) + struct.pack(">H", len(payload) + 2) + payload

    def exif(self, orientation: int, order: str = "<") -> bytes:
        start = b"II*\x00" if order == "<" else b"MM\x00*"
        entry = struct.pack(f"{order}HHIHH", 0x0112, 3, 1, orientation, 0)
        tiff = start + struct.pack(f"{order}IH", 8, 1) + entry + bytes(4)
        return b"Exif\x00\x00" + tiff

    # WebP

    def riff(self, *chunks: bytes) -> bytes:
        body = b"WEBP" + b"".join(chunks)
        return b"RIFF" + struct.pack("<I", len(body)) + body

    def part(self, kind: bytes, payload: bytes) -> bytes:
        return kind + struct.pack("<I", len(payload)) + payload + b"\x00" * (len(payload) & 1)

    def webp_bomb(self, side: int) -> bytes:
        """A lossless WebP that says how big it is and hardly more."""
        size = side - 1 | side - 1 << 14
        return self.riff(self.part(b"VP8L", b"\x2f" + struct.pack("<I", size) + bytes(9)))

    # GIF

    def gif(self, frame: bytes, *, count: int = 1, screen: tuple[int, int] = (16, 16)) -> bytes:
        """A GIF of a two-colour palette, index 0 red and 1 blue."""
        head = b"GIF89a" + struct.pack("<HHBBB", *screen, 0x80, 0, 0)
        return head + b"\xff\x00\x00\x00\x00\xff" + frame * count + b";"

    def gif_frame(self, width: int, height: int, left: int = 0, top: int = 0) -> bytes:
        """A flat blue frame."""
        image = Image.new("P", (width, height), 1)
        image.putpalette([255, 0, 0, 0, 0, 255])
        file = self.saved(image, "GIF", optimize=False)
        at = 13 + (3 << (file[10] & 7) + 1)
        assert file[at] == 0x2C
        return b"\x2c" + struct.pack("<HHHHB", left, top, width, height, 0) + file[at + 10 : -1]

    # Colour

    def profile(self) -> bytes:
        """An ICC v4 matrix profile: Display P3's primaries with the sRGB curve."""
        primaries = {
            b"rXYZ": (0.515102, 0.241182, -0.001050),
            b"gXYZ": (0.291965, 0.692236, 0.041882),
            b"bXYZ": (0.157153, 0.066582, 0.784378),
            b"wtpt": (0.964203, 1.0, 0.824905),
        }
        text = "P3".encode("utf-16-be")
        words = b"mluc" + struct.pack(">IIIHHII", 0, 1, 12, 0x656E, 0x5553, len(text), 28) + text
        curve = b"para" + struct.pack(
            ">IHH5i",
            0,
            3,
            0,
            *(round(v * 65536) for v in (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)),
        )
        tags = {
            name: b"XYZ " + struct.pack(">I3i", 0, *(round(v * 65536) for v in xyz))
            for name, xyz in primaries.items()
        }
        tags |= {b"desc": words, b"cprt": words, b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}
        index, body = b"", b""
        start = 128 + 4 + 12 * len(tags)
        for name, value in tags.items():
            value += bytes(-len(value) % 4)
            index += name + struct.pack(">II", start + len(body), len(value))
            body += value
        total = start + len(body)
        head = struct.pack(">I4sI4s4s4s", total, b"lcms", 0x04200000, b"mntr", b"RGB ", b"XYZ ")
        head += bytes(12) + b"acsp" + bytes(28)
        head += struct.pack(">3i", *(round(v * 65536) for v in primaries[b"wtpt"]))
        return head.ljust(128, b"\x00") + struct.pack(">I", len(tags)) + index + body


@pytest.fixture(scope="session")
def files() -> Files:
    return Files()


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., Settings]:
    def build(**values: Any) -> Settings:
        return Settings(
            home=tmp_path, database_url="sqlite://", registry=tmp_path / "registry.toml", **values
        )

    return build
