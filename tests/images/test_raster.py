from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
import pytest
from PIL import Image

from iris.images.fit import Exact, Within
from iris.images.header import Unusable
from iris.images.prescan import prescan
from iris.images.raster import forbid_bombs, render, render_holes

RED = (200, 30, 40)


def _pixels(data: bytes, width: int | None = None, height: int | None = None) -> Any:
    """Decode at full size, or at the given one, as an array (height, width, 3)."""
    header = prescan(data)
    w, h = header.upright_px
    pixels = render(header, Exact(width or w, height or h))
    assert len(pixels.rgb) == 3 * pixels.width_px * pixels.height_px
    return np.frombuffer(pixels.rgb, np.uint8).reshape(pixels.height_px, pixels.width_px, 3)


def _is(array: Any, colour: tuple[int, int, int], *, within: int = 0) -> bool:
    return bool((np.abs(array.astype(int) - np.array(colour)) <= within).all())


@pytest.mark.parametrize("format", ["PNG", "WEBP", "JPEG"])
def test_an_opaque_picture_keeps_its_colours(format: str, files: Any) -> None:
    options = {"PNG": {}, "WEBP": {"lossless": True}, "JPEG": {"quality": 95}}[format]
    data = files.saved(Image.new("RGB", (40, 30), RED), format, **options)
    assert _is(_pixels(data), RED, within=1 if format == "JPEG" else 0)


def test_a_lossless_picture_comes_out_pixel_for_pixel(files: Any) -> None:
    noise = files.noise()
    assert (_pixels(files.saved(noise, "PNG")) == np.asarray(noise)).all()
    assert (_pixels(files.saved(noise, "WEBP", lossless=True)) == np.asarray(noise)).all()


@pytest.mark.parametrize(
    ("value", "grey"),
    [(0, 0), (0x0080, 0), (0x0081, 1), (0x8000, 128), (0x1234, 18), (0xFF00, 254), (0xFFFF, 255)],
)
def test_16_bit_grey_is_scaled_and_not_clipped(value: int, grey: int, files: Any) -> None:
    assert _is(_pixels(files.grey_png(value, 16)), (grey, grey, grey))


def test_16_bit_colour_is_scaled(files: Any) -> None:
    row = b"\x00" + bytes.fromhex("80004000ffff") * 16
    assert _is(_pixels(files.png(16, 16, 16, 2, row * 16)), (128, 64, 255))


def test_16_bit_colour_with_alpha_is_flattened(files: Any) -> None:
    row = b"\x00" + bytes.fromhex("0000 0000 ffff 8000") * 16
    assert _is(_pixels(files.png(16, 16, 16, 6, row * 16)), (127, 127, 255), within=1)


def test_alpha_is_flattened_on_white(files: Any) -> None:
    half = Image.new("RGBA", (16, 16), (0, 0, 0, 128))
    gone = Image.new("RGBA", (16, 16), (9, 9, 9, 0))
    grey = Image.new("LA", (16, 16), (0, 51))
    for format in ("PNG", "WEBP"):
        options = {"lossless": True, "exact": True} if format == "WEBP" else {}
        assert _is(_pixels(files.saved(half, format, **options)), (127, 127, 127), within=1)
        assert _is(_pixels(files.saved(gone, format, **options)), (255, 255, 255))
    assert _is(_pixels(files.saved(grey, "PNG")), (204, 204, 204))


def test_hidden_colour_never_bleeds_into_an_edge(files: Any) -> None:
    image = Image.new("RGBA", (64, 64), (0, 255, 0, 0))
    image.paste((255, 255, 255, 255), (32, 0, 64, 64))
    assert _is(_pixels(files.saved(image, "PNG"), 16, 16), (255, 255, 255))


def test_a_transparent_palette_is_flattened_on_white(files: Any) -> None:
    image = Image.new("P", (16, 16), 0)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(1, (8, 0, 16, 16))
    for format in ("PNG", "GIF"):
        array = _pixels(files.saved(image, format, transparency=0))
        assert _is(array[:, :8], (255, 255, 255)), format
        assert _is(array[:, 8:], (0, 0, 255)), format
    partly = _pixels(files.saved(image, "PNG", transparency=bytes([102, 255])))
    assert _is(partly[:, :8], (255, 153, 153))


@pytest.mark.parametrize(
    ("depth", "colour", "rows", "hidden"),
    [
        pytest.param(8, 0, b"\x00" + b"\x07" * 8 + b"\x60" * 8, "0007", id="grey 8"),
        pytest.param(4, 0, b"\x00" + b"\x77" * 4 + b"\x66" * 4, "0007", id="grey 4"),
        pytest.param(2, 0, b"\x00" + b"\x55" * 2 + b"\x00" * 2, "0001", id="grey 2"),
        pytest.param(1, 0, b"\x00" + b"\x00" + b"\xff", "0000", id="grey 1"),
        pytest.param(16, 0, b"\x00" + b"\x07\x01" * 8 + b"\x07\x02" * 8, "0701", id="grey 16"),
        pytest.param(
            8, 2, b"\x00" + b"\x01\x02\x03" * 8 + b"\x01\x02\x04" * 8, "000100020003", id="RGB 8"
        ),
        pytest.param(
            16,
            2,
            b"\x00" + bytes.fromhex("a00020003000") * 8 + bytes.fromhex("a00020004000") * 8,
            "a00020003000",
            id="RGB 16",
        ),
    ],
)
def test_the_one_transparent_colour_of_a_png_becomes_white(
    depth: int, colour: int, rows: bytes, hidden: str, files: Any
) -> None:
    chunk = files.chunk(b"tRNS", bytes.fromhex(hidden))
    shown = _pixels(files.png(16, 16, depth, colour, rows * 16))
    array = _pixels(files.png(16, 16, depth, colour, rows * 16, chunk))
    assert _is(array[:, :8], (255, 255, 255))
    assert not _is(shown[:, :8], (255, 255, 255))
    assert (array[:, 8:] == shown[:, 8:]).all()


def test_one_bit_becomes_black_and_white(files: Any) -> None:
    image = Image.new("1", (16, 16), 0)
    image.paste(1, (8, 0, 16, 16))
    array = _pixels(files.saved(image, "PNG"))
    assert _is(array[:, :8], (0, 0, 0))
    assert _is(array[:, 8:], (255, 255, 255))


def test_cmyk_red_is_red(files: Any) -> None:
    data = files.saved(Image.new("CMYK", (32, 32), (0, 255, 255, 0)), "JPEG", quality=95)
    assert _is(_pixels(data), (255, 0, 0), within=3)


def test_ycck_red_is_red(files: Any) -> None:
    # Adobe stores YCCK inverted: its luma and chroma are those of the ink amounts taken as RGB.
    y, cb, cr = Image.new("RGB", (1, 1), (0, 255, 255)).convert("YCbCr").getpixel((0, 0))
    stored = (255 - y, 255 - cb, 255 - cr, 0)
    data = files.saved(Image.new("CMYK", (32, 32), stored), "JPEG", quality=95)
    adobe = data.index(b"Adobe") + 11
    assert data[adobe] == 0
    assert _is(_pixels(data[:adobe] + b"\x02" + data[adobe + 1 :]), (255, 0, 0), within=4)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_each_orientation_puts_the_marked_corners_in_place(orientation: int, files: Any) -> None:
    upright = Image.new("RGB", (64, 32), (128, 128, 128))
    corners = {(0, 0): (255, 0, 0), (48, 0): (0, 255, 0), (0, 16): (0, 0, 255)}
    for (x, y), colour in corners.items():
        upright.paste(colour, (x, y, x + 16, y + 16))
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
    for format in ("PNG", "JPEG", "WEBP"):
        quality = {} if format == "PNG" else {"quality": 95}
        data = files.saved(stored, format, exif=exif, **quality)
        array = _pixels(data)
        assert array.shape == (32, 64, 3), format
        for (x, y), colour in corners.items():
            assert _is(array[y + 6 : y + 10, x + 6 : x + 10], colour, within=12), (format, x, y)
        assert _pixels(data, 32, 16).shape == (16, 32, 3)


def test_a_wide_gamut_profile_is_converted_to_srgb(files: Any) -> None:
    stored = (200, 120, 60)
    linear = np.array(stored) / 255
    linear = np.where(linear <= 0.04045, linear / 12.92, ((linear + 0.055) / 1.055) ** 2.4)
    p3 = np.array(
        [
            [0.515102, 0.291965, 0.157153],
            [0.241182, 0.692236, 0.066582],
            [-0.001050, 0.041882, 0.784378],
        ]
    )
    srgb = np.array(
        [
            [0.436066, 0.385147, 0.143066],
            [0.222488, 0.716873, 0.060608],
            [0.013916, 0.097076, 0.714096],
        ]
    )
    light = np.linalg.inv(srgb) @ p3 @ linear
    coded = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    expected = tuple(int(v) for v in np.round(coded * 255))
    assert expected[0] > 208
    profile = files.profile()
    image = Image.new("RGB", (32, 32), stored)
    clear = Image.new("RGBA", (32, 32), (*stored, 255))
    for data in (
        files.saved(image, "PNG", icc_profile=profile),
        files.saved(clear, "PNG", icc_profile=profile),
        files.saved(image, "JPEG", icc_profile=profile, quality=98),
        files.saved(image, "WEBP", icc_profile=profile, lossless=True),
    ):
        assert _is(_pixels(data), expected, within=2)
    assert _is(_pixels(files.saved(image, "PNG")), stored)


def test_a_broken_or_foreign_profile_is_left_aside(files: Any) -> None:
    good = files.profile()
    grey = good.replace(b"RGB ", b"GRAY", 1)
    for profile in (b"nonsense", good[:200], b"\0" * 500, grey, good[:132] + b"\xff" * 400):
        data = files.saved(Image.new("RGB", (16, 16), RED), "PNG", icc_profile=profile)
        assert _is(_pixels(data), RED)
    unpackable = files.small_png(files.chunk(b"iCCP", b"a\0\0not zlib"))
    assert _is(_pixels(unpackable), (0xC8, 0x1E, 0x28))


def test_an_animation_gives_its_first_frame(files: Any) -> None:
    frames = [Image.new("RGB", (16, 16), c) for c in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    for format in ("GIF", "WEBP", "PNG"):
        options = {"lossless": True} if format == "WEBP" else {}
        data = files.saved(
            frames[0], format, save_all=True, append_images=frames[1:], duration=50, **options
        )
        with Image.open(io.BytesIO(data)) as opened:
            assert getattr(opened, "n_frames", 1) == 3, format
        assert _is(_pixels(data), (255, 0, 0)), format


def test_what_a_first_frame_does_not_cover_is_white(files: Any) -> None:
    array = _pixels(files.gif(files.gif_frame(4, 4, left=8, top=2)))
    assert _is(array[2:6, 8:12], (0, 0, 255))
    array = array.copy()
    array[2:6, 8:12] = 255
    assert _is(array, (255, 255, 255))


def test_a_phone_photo_of_two_pictures_gives_the_first(files: Any) -> None:
    first, second = Image.new("RGB", (32, 32), RED), Image.new("RGB", (32, 32), (0, 0, 255))
    data = files.saved(first, "MPO", save_all=True, append_images=[second], quality=95)
    with Image.open(io.BytesIO(data)) as opened:
        assert opened.format == "MPO"
    assert _is(_pixels(data), RED, within=2)


def test_a_png_with_a_zip_behind_it_is_the_png(files: Any) -> None:
    data = files.saved(Image.new("RGB", (16, 16), RED), "PNG") + b"PK\3\4" + bytes(1000)
    assert _is(_pixels(data), RED)


def test_a_resize_is_a_lanczos_resize(files: Any) -> None:
    smooth = files.noise(12, 9).resize((1200, 900), Image.Resampling.BICUBIC)
    expected = np.asarray(smooth.resize((160, 112), Image.Resampling.LANCZOS)).astype(int)
    for data in (files.saved(smooth, "PNG"), files.saved(smooth, "JPEG", quality=98)):
        difference = np.abs(_pixels(data, 160, 112).astype(int) - expected)
        assert difference.mean() < 1.5
        assert difference.max() < 12


def test_a_size_to_fit_within_is_that_of_the_upright_picture(files: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = files.saved(Image.new("RGB", (1600, 800), RED), "JPEG", exif=exif)
    pixels = render(prescan(data), Within(704, 704 * 704, 16))
    assert (pixels.width_px, pixels.height_px) == (352, 704)


def test_a_picture_that_contradicts_its_header_is_refused(files: Any) -> None:
    lie = files.riff(
        files.part(b"VP8X", bytes(4) + b"\x0f\0\0" * 2), files.saved(files.noise(), "WEBP")[12:]
    )
    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever the decoder raises
        render(prescan(lie), Exact(16, 16))
    frame = files.gif_frame(16, 16)
    header = prescan(files.gif(frame))
    moved = type(header)(format="GIF", width_px=20, height_px=16, body=header.body)
    with pytest.raises(Unusable, match="not of the size"):
        render(moved, Exact(16, 16))


def test_the_decoder_itself_opens_nothing_over_50_megapixels(
    files: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    most, over = (files.png(10_000, height, 1, 0, b"") for height in (5_000, 5_001))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)  # put back afterwards
    with warnings.catch_warnings():
        forbid_bombs()
        with Image.open(io.BytesIO(most)) as opened:
            assert opened.size == (10_000, 5_000)
        with pytest.raises(Image.DecompressionBombWarning):
            Image.open(io.BytesIO(over))


def test_picture_data_that_stops_short_is_refused_by_the_decoder(files: Any) -> None:
    whole = files.saved(files.noise(), "PNG")
    at = whole.index(b"IDAT") + 4
    short = whole[:33] + files.chunk(b"IDAT", whole[at : at + 2_000]) + files.chunk(b"IEND")
    with pytest.raises(OSError, match="truncated"):
        render(prescan(short), Exact(64, 48))


def _mask(size: tuple[int, int] = (40, 32), hole: Any = (10, 8, 30, 24), alpha: int = 0) -> Any:
    image = Image.new("RGBA", size, (0, 0, 0, 255))
    if hole is not None:
        image.paste((9, 9, 9, alpha), hole)
    return image


def _holes(data: bytes, width: int, height: int) -> Any:
    pixels = render_holes(prescan(data), Exact(width, height))
    return np.frombuffer(pixels.rgb, np.uint8).reshape(height, width, 3)[..., 0]


def test_what_is_transparent_in_a_mask_is_a_hole(files: Any) -> None:
    expected = np.zeros((32, 40), np.uint8)
    expected[8:24, 10:30] = 255
    assert (_holes(files.saved(_mask(), "PNG"), 40, 32) == expected).all()


@pytest.mark.parametrize(("alpha", "is_hole"), [(0, True), (127, True), (128, False), (254, False)])
def test_a_pixel_is_a_hole_when_half_of_it_is_transparent(
    alpha: int, is_hole: bool, files: Any
) -> None:
    mask = _mask(alpha=alpha)
    mask.putpixel((0, 0), (0, 0, 0, 0))
    assert (_holes(files.saved(mask, "PNG"), 40, 32)[10, 20] == 255) == is_hole


@pytest.mark.parametrize("scale", [0.5, 2, 3])
def test_a_mask_is_scaled_with_its_image(scale: float, files: Any) -> None:
    width, height = int(40 * scale), int(32 * scale)
    holes = _holes(files.saved(_mask(), "PNG"), width, height)
    assert holes[height // 2, width // 2] == 255
    assert holes[0, 0] == holes[-1, -1] == 0
    assert set(np.unique(holes)) == {0, 255}
    assert (holes == 255).mean() == pytest.approx(1 / 4, abs=0.03)


def test_a_mask_is_turned_upright_with_its_image(files: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = files.saved(_mask((40, 32), (0, 0, 10, 32)), "PNG", exif=exif)
    holes = _holes(data, 32, 40)
    assert (holes[:10] == 255).all()
    assert (holes[10:] == 0).all()


@pytest.mark.parametrize("mode", ["LA", "P", "RGB"])
def test_every_way_to_be_transparent_counts(mode: str, files: Any) -> None:
    if mode == "LA":
        data = files.saved(_mask().convert("LA"), "PNG")
    elif mode == "P":
        image = Image.new("P", (40, 32), 1)
        image.paste(0, (10, 8, 30, 24))
        image.putpalette([255, 0, 0, 0, 255, 0])
        data = files.saved(image, "PNG", transparency=0)
    else:
        image = Image.new("RGB", (40, 32), (5, 6, 7))
        image.paste((250, 0, 250), (10, 8, 30, 24))
        data = files.saved(image, "PNG", transparency=(250, 0, 250))
    assert (_holes(data, 40, 32) == 255).sum() == 20 * 16


@pytest.mark.parametrize(
    ("image", "kind", "reason"),
    [
        (Image.new("RGB", (40, 32)), "PNG", "no alpha channel"),
        (Image.new("L", (40, 32)), "PNG", "no alpha channel"),
        (_mask(hole=None), "PNG", "no transparent pixel"),
        (Image.new("RGB", (40, 32)), "JPEG", "Send a PNG"),
        (_mask(), "WEBP", "Send a PNG"),
    ],
)
def test_what_is_no_mask_is_refused_with_the_reason(
    image: Any, kind: str, reason: str, files: Any
) -> None:
    header = prescan(files.saved(image, kind))
    with pytest.raises(Unusable, match=reason):
        render_holes(header, Exact(40, 32))
