"""A finished picture as the answer a client reads."""

from __future__ import annotations

import json
import time

from starlette.responses import Response

from iris.api.schemas import NO_LORA, EditBody, ImageFields
from iris.catalog import Catalog
from iris.images.encode import encode_picture, to_base64
from iris.jobs import Picture, Usage


def render_reply(
    picture: Picture, fields: ImageFields, catalog: Catalog, cost_idr: int
) -> Response:
    """Encode the picture and build the whole answer. Slow: meant for a thread."""
    encoded = encode_picture(
        picture.pixels,
        format=fields.output_format,
        compression=fields.output_compression,
        text=_facts(picture, fields, catalog),
    )
    body = {
        "created": int(time.time()),
        "data": [{"b64_json": to_base64(encoded)}],
        "output_format": fields.output_format,
        "size": f"{picture.pixels.width_px}x{picture.pixels.height_px}",
        "usage": _usage(picture.usage),
    }
    headers = {
        "x-iris-seed": str(picture.seed),
        "x-iris-queue-s": f"{picture.queue_s:.3f}",
        "x-iris-inference-s": f"{picture.inference_s:.3f}",
        "x-iris-cost-idr": str(cost_idr),
    }
    content = json.dumps(body, separators=(",", ":")).encode()
    return Response(content, media_type="application/json", headers=headers)


def _facts(picture: Picture, fields: ImageFields, catalog: Catalog) -> dict[str, str]:
    """What is written into the file so that the picture can be made again; never the prompt."""
    facts = {
        "seed": str(picture.seed),
        "model": f"{catalog.base} {catalog.base_version}",
        "num_steps": str(fields.steps),
        "guidance_scale": repr(fields.guidance_scale),
        "lora": fields.style or NO_LORA,
    }
    if fields.style is not None:
        facts["lora_strength"] = repr(fields.lora_strength)
    if isinstance(fields, EditBody) and fields.is_single:
        facts["strength"] = repr(fields.strength)
    return facts


def _usage(usage: Usage) -> dict[str, object]:
    """The usage in the shape of OpenAI's ImagesResponse."""
    sent = usage.input_text_tokens + usage.input_image_tokens
    return {
        "input_tokens": sent,
        "input_tokens_details": {
            "image_tokens": usage.input_image_tokens,
            "text_tokens": usage.input_text_tokens,
        },
        "output_tokens": usage.output_image_tokens,
        "total_tokens": sent + usage.output_image_tokens,
    }
