"""A prescanned file into 8-bit sRGB pixels, with Pillow.

What strangers send is rendered in a decode process only.
"""

from __future__ import annotations

import io
import warnings
from typing import Final

from PIL import Image, ImageCms

from iris.images.fit import Fit, fitted_size
from iris.images.header import MAX_PIXELS, Header, Unusable, corrupt
from iris.jobs import Pixels

_TURNS: Final[dict[int, Image.Transpose]] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What the first pass may leave for the last one: at three times the size nobody sees the
# difference to a single LANCZOS pass, and a 50-megapixel photo takes a third of the time.
_GAP: Final = 3
_TO_8_BIT: Final = [(value + 128) // 257 for value in range(65_536)]


def forbid_bombs() -> None:
    """Make Pillow refuse what the prescan should already have refused. Once a process."""
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    warnings.simplefilter("ignore")
    warnings.simplefilter("error", Image.DecompressionBombWarning)


def render(header: Header, fit: Fit) -> Pixels:
    """Decode the first frame, upright, flattened on white, in sRGB, at the size of `fit`.

    Colour is converted after the resize, on few pixels; alpha is flattened before it, so that no
    hidden colour bleeds into an edge.

    Raises:
        Unusable: too small for `fit`, or the picture is not of the size its header says.
        Exception: whatever Pillow raises at data it cannot read.
    """
    width, height = fitted_size(*header.upright_px, fit)
    stored = (height, width) if header.orientation >= 5 else (width, height)
    colour, alpha = _layers(header, stored)
    image = colour if alpha is None else _on_white(colour, alpha)
    if header.frame_px is not None:
        canvas = Image.new(image.mode, (header.width_px, header.height_px), "white")
        canvas.paste(image, header.frame_px[:2])
        image = canvas
    if image.size != stored:
        image = image.resize(stored, Image.Resampling.LANCZOS, reducing_gap=float(_GAP))
    if header.orientation != 1:
        image = image.transpose(_TURNS[header.orientation])
    return Pixels(width, height, _in_srgb(image, header.icc).tobytes())


def render_holes(header: Header, fit: Fit) -> Pixels:
    """Where a mask is transparent, at the size of `fit`: white there, black elsewhere.

    A pixel counts as transparent when at least half of it is.

    Raises:
        Unusable: not a PNG, or one without a transparent pixel.
        Exception: whatever Pillow raises at data it cannot read.
    """
    if header.format != "PNG":
        raise Unusable(f"is a {header.format} file. Send a PNG with an alpha channel.")
    width, height = fitted_size(*header.upright_px, fit)
    stored = (height, width) if header.orientation >= 5 else (width, height)
    _, alpha = _layers(header, stored)
    if alpha is None:
        raise Unusable("has no alpha channel. Make transparent what is to be edited.")
    if alpha.size != stored:
        alpha = alpha.resize(stored, Image.Resampling.BOX)
    if header.orientation != 1:
        alpha = alpha.transpose(_TURNS[header.orientation])
    holes = alpha.point([255 if value < 128 else 0 for value in range(256)])
    if holes.getbbox() is None:
        raise Unusable("has no transparent pixel. Make transparent what is to be edited.")
    return Pixels(width, height, holes.convert("RGB").tobytes())


def _layers(header: Header, stored: tuple[int, int]) -> tuple[Image.Image, Image.Image | None]:
    """Decode to colour (L, RGB or CMYK, 8 bits) and alpha (L; None where nothing is transparent).

    The decoder goes with this call: that of a WebP keeps three copies of the picture until then.
    """
    with Image.open(io.BytesIO(header.body), formats=[header.format]) as opened:
        _, _, *size = header.frame_px or (0, 0, header.width_px, header.height_px)
        if opened.size != tuple(size):
            raise corrupt(header.format, "its picture is not of the size in its header")
        if header.format == "JPEG":
            opened.draft(None, (stored[0] * _GAP, stored[1] * _GAP))
        opened.load()
        if opened.mode.startswith("I"):
            return _from_16_bit(opened)
        if opened.mode == "LA":
            return opened.getchannel("L"), opened.getchannel("A")
        if opened.has_transparency_data:
            image = opened if opened.mode == "RGBA" else opened.convert("RGBA")
            return image.convert("RGB"), image.getchannel("A")
        if opened.mode in ("L", "RGB", "CMYK"):
            return opened.copy(), None
        return opened.convert("L" if opened.mode == "1" else "RGB"), None


def _from_16_bit(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Scale 16-bit grey by 257; Pillow's own conversion clips it to white."""
    wide = image.convert("I")
    grey = wide.point(_TO_8_BIT, "L")
    hidden = image.info.get("transparency")
    if hidden is None:
        return grey, None
    return grey, wide.point([255 * (value != hidden) for value in range(65_536)], "L")


def _on_white(colour: Image.Image, alpha: Image.Image) -> Image.Image:
    white = Image.new(colour.mode, colour.size, "white")
    white.paste(colour, mask=alpha)
    return white


def _in_srgb(image: Image.Image, icc: bytes | None) -> Image.Image:
    """Convert to RGB through the embedded profile; a broken or foreign one is left aside."""
    if icc is not None:
        try:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
            converted = ImageCms.profileToProfile(
                image,
                profile,
                ImageCms.createProfile("sRGB"),
                renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
                outputMode="RGB",
                flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
            )
        except (ImageCms.PyCMSError, OSError, ValueError):
            converted = None
        if converted is not None:
            return converted
    return image.convert("RGB")
