"""The images of an edit: from what was sent to pixels in the sizes the job wants."""

from __future__ import annotations

import asyncio
from typing import NamedTuple, Protocol

from iris.api.schemas import GRID_PX, EditBody
from iris.errors import InvalidImage
from iris.images.base64 import decode_base64
from iris.images.fit import Exact, Fit, Within
from iris.jobs import Pixels

# A picture has at most this side; a reference at most the same area, whatever its aspect.
_PICTURE = Within(EditBody.max_side_px, EditBody.max_side_px**2, GRID_PX)
_REFERENCE = Within(16_384, EditBody.max_side_px**2, GRID_PX)


class Decoder(Protocol):
    """Makes pixels of untrusted bytes. Started and stopped with the app.

    which: an image's 1-based number in its request, None = the only one. owner: whose image it is;
    owners take turns.
    """

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def decode(self, data: bytes, *, which: int | None, fit: Fit, owner: str) -> Pixels:
        """Raises InvalidImage."""
        ...

    async def size(
        self, data: bytes, *, which: int | None, fit: Fit | None = None, owner: str
    ) -> tuple[int, int]:
        """Width and height of the upright image as `fit` would make it. Raises InvalidImage."""
        ...

    async def holes(self, data: bytes, *, fit: Fit, owner: str) -> bytes:
        """Where a mask is transparent, a byte a pixel: 255 there, 0 elsewhere. InvalidImage."""
        ...


class Sources(NamedTuple):
    """What an edit is made from, decoded."""

    size_px: tuple[int, int]  # of the picture
    images: tuple[Pixels, ...]
    mask: bytes | None  # as EditJob has it


async def decode_sources(fields: EditBody, decoder: Decoder, owner: str) -> Sources:
    """The size of the picture, the images of the job and its mask.

    A single `image` gets exactly the picture's size, and so does the first of several where a mask
    keeps parts of it; other references keep their own size within a cap.

    Raises:
        InvalidImage: the first one, in the order of the request, that cannot be used.
    """
    files = await asyncio.to_thread(_files, fields)
    mask = await asyncio.to_thread(_mask_file, fields)
    size_px = fields.size_px
    if size_px is None:
        try:
            size_px = await decoder.size(
                files[0], which=_number(fields, 0), fit=_PICTURE, owner=owner
            )
        except InvalidImage as error:
            raise _placed(error, fields, 0) from None
    exact = Exact(*size_px)
    is_first_exact = fields.is_single or mask is not None
    results = await asyncio.gather(
        *(
            decoder.decode(
                data,
                which=_number(fields, index),
                fit=exact if index == 0 and is_first_exact else _REFERENCE,
                owner=owner,
            )
            for index, data in enumerate(files)
        ),
        return_exceptions=True,
    )
    images = []
    for index, result in enumerate(results):
        if isinstance(result, InvalidImage):
            raise _placed(result, fields, index)
        if isinstance(result, BaseException):
            raise result
        images.append(result)
    holes = None if mask is None else await _holes(mask, files[0], exact, decoder, owner)
    return Sources(size_px, tuple(images), holes)


async def _holes(mask: bytes, image: bytes, fit: Exact, decoder: Decoder, owner: str) -> bytes:
    """The mask at the picture's size.

    Raises:
        InvalidImage: it is no such PNG, or not of the image's size.
    """
    try:
        own = await decoder.size(mask, which=None, owner=owner)
        holes = await decoder.holes(mask, fit=fit, owner=owner)
    except InvalidImage as error:
        raise _of_mask(error) from None
    wanted = await decoder.size(image, which=None, owner=owner)
    if own != wanted:
        raise InvalidImage(
            f"mask is {own[0]}x{own[1]} px and the image is {wanted[0]}x{wanted[1]}; both must "
            "have the same size.",
            param="mask",
        )
    return holes


def _mask_file(fields: EditBody) -> bytes | None:
    if not fields.mask:
        return None
    if isinstance(fields.mask, bytes):
        return fields.mask
    try:
        return decode_base64(fields.mask, which=None, param="mask")
    except InvalidImage as error:
        raise _of_mask(error) from None


def _of_mask(error: InvalidImage) -> InvalidImage:
    return InvalidImage(f"mask {error.message.removeprefix('image ')}", param="mask")


def _files(fields: EditBody) -> list[bytes]:
    """The bytes of every image; those of a form are there already."""
    return [
        source
        if isinstance(source, bytes)
        else decode_base64(source, which=_number(fields, index), param=_param(fields, index))
        for index, source in enumerate(fields.sources)
    ]


def _number(fields: EditBody, index: int) -> int | None:
    return None if fields.is_single else index + 1


def _param(fields: EditBody, index: int) -> str:
    return "image" if fields.is_single else f"images[{index}]"


def _placed(error: InvalidImage, fields: EditBody, index: int) -> InvalidImage:
    """The same refusal, about this field of the request."""
    error.param = _param(fields, index)
    return error
