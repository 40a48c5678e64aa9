"""From a parsed body to a validated one, and from what is wrong with it to one clear sentence."""

from __future__ import annotations

import re
from typing import TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from iris.api.body import Body
from iris.api.json_body import short_name
from iris.api.schemas import (
    MAX_IMAGES,
    MODEL,
    NO_LORA,
    NULLABLE,
    EditBody,
    GenerateBody,
    ImageFields,
)
from iris.errors import InvalidRequest

# Fields that OpenAI's SDKs know and this service has no way to honour.
UNSUPPORTED = ("partial_images", "style", "input_fidelity")

_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,29})", re.ASCII)
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]{0,29})(\.[0-9]{1,30})?([eE][-+]?[0-9]{1,3})?", re.ASCII)
_FLAGS = {"true": True, "false": False}

Fields = TypeVar("Fields", bound=ImageFields)


def read_generate(body: Body, styles: tuple[str, ...]) -> GenerateBody:
    """Validate a request to make a picture. styles: the registered names. Raises InvalidRequest."""
    return _validate(GenerateBody, body, styles)


def read_edit(body: Body, styles: tuple[str, ...]) -> EditBody:
    """Validate a request to edit. styles: the registered names. Raises InvalidRequest."""
    fields = _validate(EditBody, body, styles)
    given = fields.model_fields_set
    if {"image", "images"} <= given:
        raise InvalidRequest("Send either `image` or `images`, not both.", param="images")
    if not {"image", "images"} & given:
        raise InvalidRequest("An edit needs `image` or `images`.", param="image")
    if "mask" in given and not fields.mask:
        raise InvalidRequest("`mask` is empty; leave it out, or send a PNG.", param="mask")
    if "strength" in given and not fields.is_single:
        raise InvalidRequest(
            "`strength` works only with a single `image`; leave it out with `images`.",
            param="strength",
        )
    return fields


def _validate(model: type[Fields], body: Body, styles: tuple[str, ...]) -> Fields:
    values = _typed(model, body.values) if body.is_form else body.values
    nullable = NULLABLE & model.model_fields.keys()
    values = {k: v for k, v in values.items() if v is not None or k not in nullable}
    try:
        fields = model.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        raise _explain(model, first) from None
    given = fields.model_fields_set
    if {
        "num_steps",
        "num_inference_steps",
    } <= given and fields.num_steps != fields.num_inference_steps:
        raise InvalidRequest(
            "`num_steps` and `num_inference_steps` are the same thing and differ; send one.",
            param=fields.steps_alias,
        )
    if fields.lora not in (NO_LORA, *styles):
        raise InvalidRequest(
            f"`lora` must be one of: {', '.join((NO_LORA, *styles))}.", param="lora"
        )
    if fields.output_format == "png" and fields.output_compression != 100:
        raise InvalidRequest(
            "`output_compression` works only with an `output_format` of jpeg or webp.",
            param="output_compression",
        )
    return fields


def _typed(model: type[ImageFields], values: dict[str, object]) -> dict[str, object]:
    """Give the scalars of a form their JSON type; what has no such form stays text, and fails."""
    typed: dict[str, object] = {}
    for name, value in values.items():
        field = model.model_fields.get(name)
        kind = field.annotation if field is not None else None
        if isinstance(value, str):
            if kind is int and _INTEGER.fullmatch(value):
                value = int(value)
            elif kind is float and _DECIMAL.fullmatch(value):
                value = float(value)
            elif kind is bool:
                value = _FLAGS.get(value, value)
        typed[name] = value
    return typed


def _explain(model: type[ImageFields], error: ErrorDetails) -> InvalidRequest:
    """One sentence about the first thing that is wrong. It never quotes a value."""
    name, *path = error["loc"]
    shown = short_name(str(name))
    kind = error["type"]
    if kind == "extra_forbidden":
        if name in UNSUPPORTED:
            return InvalidRequest(f"`{shown}` is not supported; leave it out.", param=shown)
        known = ", ".join(model.model_fields)
        return InvalidRequest(f"There is no field `{shown}`. There are: {known}.", param=shown)
    if name == "model":
        return InvalidRequest(
            f"`model` must be `{MODEL}`, the only model here.",
            code="model_not_found",
            param="model",
        )
    if name == "prompt" and (kind in ("missing", "missing_prompt") or error["input"] is None):
        return InvalidRequest(
            "`prompt` is missing or empty; say in words what the picture should show.",
            code="missing_prompt",
            param="prompt",
        )
    if name == "images" and path:
        index = int(path[0])
        return InvalidRequest(
            f"Image {index + 1} of `images` must be a string of base64.", param=f"images[{index}]"
        )
    if name == "images":
        return InvalidRequest(
            f"`images` must be a list of 1 to {MAX_IMAGES} images.", param="images"
        )
    rule = model.model_fields[str(name)].description
    return InvalidRequest(f"`{shown}` has a value that is not allowed. {rule}", param=shown)
