"""What a file says of itself before any pixel is decoded, and the limits it must keep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from iris.errors import InvalidImage

Format = Literal["PNG", "JPEG", "WEBP", "GIF"]

MAX_FILE_BYTES: Final = 20 * 1024 * 1024
MAX_PIXELS: Final = 50_000_000
MAX_SIDE_PX: Final = 16_384
MAX_ASPECT: Final = 16
MAX_PROFILE_BYTES: Final = 4 * 1024 * 1024  # the largest printer profiles are about 3 MB

_SHOWN: Final[dict[Format, str]] = {"PNG": "PNG", "JPEG": "JPEG", "WEBP": "WebP", "GIF": "GIF"}


class Unusable(InvalidImage):
    """An image that cannot be used; `reason` continues the sentence that begins with its name.

    The number of the image within its request is known further out: `named` puts it in.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"image {reason}", param="image")
        self.reason = reason

    def named(self, which: int | None) -> InvalidImage:
        """Return the same refusal about image `which` (1-based; None = the only image)."""
        return invalid_image(self.reason, which=which)


def invalid_image(reason: str, *, which: int | None, param: str | None = None) -> InvalidImage:
    """Build the error "image 2 <reason>"; `param` defaults to the field such an image came in."""
    if which is None:
        return InvalidImage(f"image {reason}", param=param or "image")
    return InvalidImage(f"image {which} {reason}", param=param or "images")


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What the prescan read from a container; set by the walker of its format.

    width_px, height_px: as stored, before the orientation is applied.
    body: the file cut down to what makes up its first frame. Text, thumbnails, later frames,
        colour profile and whatever hangs behind the picture are gone, so that no decoder ever
        meets them.
    orientation: EXIF orientation 1..8; 1 where there is none or it is corrupt.
    icc: the embedded colour profile, unchecked; None where there is none or it cannot be read.
    frame_px: left, top, width and height of what `body` holds, where that is not the whole
        picture (GIF); the rest is transparent.
    """

    format: Format
    width_px: int
    height_px: int
    body: bytes
    orientation: int = 1
    icc: bytes | None = None
    frame_px: tuple[int, int, int, int] | None = None

    @property
    def upright_px(self) -> tuple[int, int]:
        """Width and height once the orientation is applied."""
        if self.orientation >= 5:
            return self.height_px, self.width_px
        return self.width_px, self.height_px


def check_size(width_px: int, height_px: int) -> None:
    """Hold stored dimensions against the limits.

    Raises:
        Unusable: a side is 0 or over 16,384, the area over 50 megapixels, the aspect over 16:1.
    """
    size = f"is {width_px}x{height_px} px"
    if width_px < 1 or height_px < 1:
        raise Unusable(f"{size}; it has no pixels. Send an image with a width and a height.")
    if max(width_px, height_px) > MAX_SIDE_PX:
        raise Unusable(f"{size}; a side may be at most {MAX_SIDE_PX} px. Send a smaller copy.")
    if width_px * height_px > MAX_PIXELS:
        raise Unusable(f"{size}; at most 50 megapixels are read. Send a smaller copy.")
    if max(width_px, height_px) > MAX_ASPECT * min(width_px, height_px):
        raise Unusable(f"{size}; the aspect may be at most {MAX_ASPECT}:1. Crop it.")


def truncated(fmt: Format) -> Unusable:
    """The file ends before its picture does."""
    return Unusable(f"is a truncated {_SHOWN[fmt]} file; it ends too early. Send the whole file.")


def corrupt(fmt: Format, what: str) -> Unusable:
    """The file breaks the rules of its format; `what` says which, in our words."""
    return Unusable(f"is a corrupt {_SHOWN[fmt]} file ({what}). Save it again and send that.")


def overloaded(fmt: Format, what: str) -> Unusable:
    """The file holds more of something than any picture needs."""
    return Unusable(f"is a {_SHOWN[fmt]} file with {what}. Save a plain copy and send that.")


def undecodable(fmt: Format) -> Unusable:
    """The container is sound but the decoder refused what is in it."""
    return Unusable(
        f"cannot be decoded as {_SHOWN[fmt]}; its data is corrupt or of a rare kind."
        " Save it again and send that."
    )
