from __future__ import annotations

import base64
import io
import json

import pytest
from openai.types import ImagesResponse
from PIL import Image

from iris.api.reply import render_reply
from iris.api.schemas import GenerateBody
from iris.jobs import Picture, Pixels, Usage
from tests.api.fakes import make_catalog

PICTURE = Picture(Pixels(2, 1, bytes([255, 0, 0, 0, 0, 255])), 2**63 - 1, Usage(1, 2, 4), 0.0, 2.0)


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_the_reply_is_what_openai_calls_an_images_response(output_format: str) -> None:
    fields = GenerateBody.model_validate(
        {"model": "epithre-iris", "prompt": "x", "output_format": output_format}
    )
    response = render_reply(PICTURE, fields, make_catalog(), 750)
    parsed = ImagesResponse.model_validate(json.loads(response.body), strict=True)
    assert parsed.usage is not None
    assert (parsed.usage.input_tokens, parsed.usage.total_tokens) == (3, 7)
    assert parsed.size == "2x1"
    assert parsed.data is not None
    with Image.open(io.BytesIO(base64.b64decode(parsed.data[0].b64_json or ""))) as image:
        assert (image.format or "").lower() == output_format == parsed.output_format
        assert image.size == (2, 1)


def test_a_seed_of_63_bits_is_told_without_rounding() -> None:
    fields = GenerateBody.model_validate({"model": "epithre-iris", "prompt": "x"})
    response = render_reply(PICTURE, fields, make_catalog(), 750)
    assert response.headers["x-iris-seed"] == "9223372036854775807"
