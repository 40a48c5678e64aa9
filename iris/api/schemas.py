"""The two request bodies, field by field, and the way from them to a job.

The description of a field is its rule: it is what the API description shows and what the error
says when a value breaks it. The same models read JSON and forms, and make the OpenAPI document.
"""

from __future__ import annotations

import dataclasses
import re
import secrets
from typing import Annotated, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, field_validator
from pydantic_core import PydanticCustomError

from iris.catalog import DEFAULT_STRENGTH, Catalog
from iris.jobs import EditJob, GenerateJob, Job, Pixels

MODEL = "epithre-iris"
MAX_PROMPT_CHARACTERS = 2_000
MAX_SEED = 2**63 - 1
MAX_STEPS = 50
DEFAULT_STEPS = 4
MAX_GUIDANCE = 20.0
MAX_LORA_STRENGTH = 1.5
MAX_USER_CHARACTERS = 255
MAX_IMAGES = 5
GRID_PX = 16  # every side of a picture is a multiple of it
NO_LORA = "none"

# Fields that OpenAI's SDKs may send as null in JSON, which there means "not given".
NULLABLE = frozenset(
    {
        "background",
        "mask",
        "moderation",
        "n",
        "output_compression",
        "output_format",
        "quality",
        "response_format",
        "size",
        "stream",
    }
)

_SIZE = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})", re.ASCII)
_SIZE_PATTERN = r"^(auto|[1-9][0-9]{0,4}x[1-9][0-9]{0,4})$"

Fields = TypeVar("Fields", bound="ImageFields")

# base64 text in JSON, the bytes of a file in a form
Source = Annotated[
    str | bytes, WithJsonSchema({"type": "string", "contentEncoding": "base64"}, mode="validation")
]


class ImageFields(BaseModel):
    """The fields both routes share."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, hide_input_in_errors=True, allow_inf_nan=False
    )
    max_side_px: ClassVar[int]
    steps_alias: ClassVar[str]  # which of the two names of the step count is the second one

    model: Literal["epithre-iris"] = Field(description="Always `epithre-iris`.")
    prompt: str = Field(
        description="Text of 1 to 2000 characters, English or Indonesian; outer spaces are cut.",
        json_schema_extra={"minLength": 1, "maxLength": MAX_PROMPT_CHARACTERS},
    )
    size: str = Field(default="auto", pattern=_SIZE_PATTERN)
    n: int = Field(default=1, ge=1, le=1, description="Always 1: one picture a request.")
    response_format: Literal["b64_json"] = Field(
        default="b64_json", description="Always `b64_json`."
    )
    num_steps: int = Field(
        default=DEFAULT_STEPS,
        ge=1,
        le=MAX_STEPS,
        description="Denoising steps, an integer from 1 to 50. The same as `num_inference_steps`.",
    )
    num_inference_steps: int = Field(
        default=DEFAULT_STEPS,
        ge=1,
        le=MAX_STEPS,
        description="Denoising steps, an integer from 1 to 50. The same as `num_steps`.",
    )
    seed: int = Field(
        default=-1,
        ge=-1,
        le=MAX_SEED,
        description="An integer from 0 to 9223372036854775807 makes the same picture again; "
        "-1 draws one, which `x-iris-seed` reports. Seeds equal modulo 2^32 are one and the same.",
    )
    guidance_scale: float = Field(
        default=1.0,
        ge=1.0,
        le=MAX_GUIDANCE,
        description="A number from 1.0 to 20.0. 1.0 runs no guidance pass; higher follows the "
        "prompt more literally and takes twice the time.",
    )
    lora: str = Field(default=NO_LORA, description="The name of a registered style, or `none`.")
    lora_strength: float = Field(
        default=DEFAULT_STRENGTH,
        ge=0.0,
        le=MAX_LORA_STRENGTH,
        description="A number from 0.0 to 1.5; no effect when `lora` is `none`. A style may have a "
        "default of its own, see `GET /v1/models`.",
    )
    output_format: Literal["png", "jpeg", "webp"] = Field(
        default="png", description="`png`, `jpeg` or `webp`."
    )
    output_compression: int = Field(
        default=100,
        ge=0,
        le=100,
        description="Quality of a jpeg or webp, an integer from 0 to 100. A png is always whole.",
    )
    background: Literal["auto", "opaque"] = Field(
        default="auto", description="`auto` or `opaque`: every picture is opaque."
    )
    quality: Literal["auto"] = Field(
        default="auto", description="Always `auto`; `num_steps` is what changes the quality."
    )
    moderation: Literal["auto"] = Field(default="auto", description="Always `auto`.")
    stream: bool = Field(
        default=False,
        description="Always false: the picture comes whole.",
        json_schema_extra={"const": False},
    )
    user: str = Field(
        default="",
        max_length=MAX_USER_CHARACTERS,
        description="Your own label of your end user, up to 255 characters; kept with the usage "
        "record.",
    )

    @field_validator("prompt")
    @classmethod
    def _strip_prompt(cls, prompt: str) -> str:
        prompt = prompt.strip()
        if not prompt:
            raise PydanticCustomError("missing_prompt", "blank")
        if len(prompt) > MAX_PROMPT_CHARACTERS:
            raise PydanticCustomError("prompt_too_long", "too long")
        return prompt

    @field_validator("size")
    @classmethod
    def _check_size(cls, size: str) -> str:
        sides = _sides(size)
        if sides is not None and not all(GRID_PX <= side <= cls.max_side_px for side in sides):
            raise PydanticCustomError("size", "out of range")
        return size

    @field_validator("stream")
    @classmethod
    def _check_stream(cls, stream: bool) -> bool:
        if stream:
            raise PydanticCustomError("stream", "not supported")
        return stream

    @property
    def size_px(self) -> tuple[int, int] | None:
        """Width and height, floored to the grid; None = the route's default."""
        sides = _sides(self.size)
        if sides is None:
            return None
        return sides[0] // GRID_PX * GRID_PX, sides[1] // GRID_PX * GRID_PX

    @property
    def steps(self) -> int:
        """The step count, whichever of its names was used."""
        alias = self.steps_alias
        name = {"num_steps": "num_inference_steps", "num_inference_steps": "num_steps"}[alias]
        return int(getattr(self, alias if alias in self.model_fields_set else name))

    @property
    def style(self) -> str | None:
        return None if self.lora == NO_LORA else self.lora

    def without_sources(self) -> ImageFields:
        """The same request without the megabytes of its images, once they are decoded."""
        return self


class GenerateBody(ImageFields):
    """POST /v1/images/generations."""

    max_side_px = 960
    steps_alias = "num_inference_steps"
    default_size_px: ClassVar[tuple[int, int]] = (768, 768)

    size: str = Field(
        default="auto",
        pattern=_SIZE_PATTERN,
        description="`WIDTHxHEIGHT` in pixels, each side from 16 to 960 and rounded down to a "
        "multiple of 16, or `auto` for 768x768.",
    )


class EditBody(ImageFields):
    """POST /v1/images/edits."""

    max_side_px = 704
    steps_alias = "num_steps"

    size: str = Field(
        default="auto",
        pattern=_SIZE_PATTERN,
        description="`WIDTHxHEIGHT` in pixels, each side from 16 to 704 and rounded down to a "
        "multiple of 16, or `auto` for the size of the (first) image, scaled down to fit 704.",
    )
    image: Source = Field(
        default="",
        description="One source image: PNG, JPEG, WebP or GIF as raw base64, up to 20 MB. "
        "Either `image` or `images`.",
    )
    images: list[Source] = Field(
        default=[],
        min_length=1,
        max_length=MAX_IMAGES,
        description="1 to 5 reference images as raw base64, in order: `image 1` of the prompt is "
        "the first. Either `image` or `images`.",
    )
    strength: float = Field(
        default=0.75,
        ge=0.0,
        le=1.0,
        description="A number from 0.0 (the source as it is) to 1.0 (the prompt may change "
        "everything); only with `image`.",
    )

    mask: Source = Field(
        default="",
        description="A PNG with an alpha channel, of the (first) image's width and height: what is "
        "transparent in it is edited, everything else comes back as it was. As raw base64.",
    )

    @property
    def is_single(self) -> bool:
        """Whether one source is edited, and not references composed."""
        return "images" not in self.model_fields_set

    @property
    def sources(self) -> list[str | bytes]:
        """The images as sent, in order."""
        return [self.image] if self.is_single else self.images

    def without_sources(self) -> EditBody:
        images: dict[str, object] = {"image": ""} if self.is_single else {"images": []}
        return self.model_copy(update={**images, "mask": ""})


def in_style(fields: Fields, catalog: Catalog) -> Fields:
    """The same request with what its style brings along: its strength where none was given."""
    style = catalog.style(fields.style)
    if style is None or "lora_strength" in fields.model_fields_set:
        return fields
    return fields.model_copy(update={"lora_strength": style.default_strength})


def draw_seed(fields: ImageFields) -> int:
    """The seed of the request, or a random one from 0 to 2**63-1 where it is -1."""
    return fields.seed if fields.seed >= 0 else secrets.randbelow(MAX_SEED + 1)


def build_job(
    fields: ImageFields,
    *,
    request_id: str,
    owner: str,
    size_px: tuple[int, int],
    seed: int,
    prompt: str,
    images: tuple[Pixels, ...],
    deadline_s: float,
    mask: bytes | None = None,
) -> Job:
    """The job of a validated request.

    size_px: width and height of the picture, multiples of 16. prompt: as the model is to read it.
    images, mask: decoded, empty for a
    generation. deadline_s: seconds left.
    """
    plain = GenerateJob(
        request_id=request_id,
        owner=owner,
        prompt=prompt,
        width_px=size_px[0],
        height_px=size_px[1],
        num_inference_steps=fields.steps,
        seed=seed,
        guidance_scale=float(fields.guidance_scale),
        lora=fields.style,
        lora_strength=float(fields.lora_strength),
        deadline_s=deadline_s,
    )
    if not isinstance(fields, EditBody):
        return plain
    return EditJob(
        **{f.name: getattr(plain, f.name) for f in dataclasses.fields(plain)},
        images=images,
        mask=mask,
        strength=float(fields.strength) if fields.is_single else None,
    )


def _sides(size: str) -> tuple[int, int] | None:
    match = _SIZE.fullmatch(size)
    return (int(match[1]), int(match[2])) if match else None
