"""The images of an edit: from what was sent to pixels in the sizes the job wants."""

from __future__ import annotations

import asyncio
from typing import Protocol

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

    which: an image's 1-based number in its request, None = the only one.
    """

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def decode(self, data: bytes, *, which: int | None, fit: Fit) -> Pixels:
        """Raises InvalidImage."""
        ...

    async def size(
        self, data: bytes, *, which: int | None, fit: Fit | None = None
    ) -> tuple[int, int]:
        """Width and height of the upright image as `fit` would make it. Raises InvalidImage."""
        ...


async def decode_sources(
    fields: EditBody, decoder: Decoder
) -> tuple[tuple[int, int], tuple[Pixels, ...]]:
    """The size of the picture and the images of the job.

    A single `image` gets exactly the picture's size, references keep their own within a cap.

    Raises:
        InvalidImage: the first one, in the order of the request, that cannot be used.
    """
    files = await asyncio.to_thread(_files, fields)
    size_px = fields.size_px
    if size_px is None:
        try:
            size_px = await decoder.size(files[0], which=_number(fields, 0), fit=_PICTURE)
        except InvalidImage as error:
            raise _placed(error, fields, 0) from None
    fit = Exact(*size_px) if fields.is_single else _REFERENCE
    results = await asyncio.gather(
        *(
            decoder.decode(data, which=_number(fields, index), fit=fit)
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
    return size_px, tuple(images)


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
