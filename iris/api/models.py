"""GET /v1/models: what is served, open to everybody."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from iris.api.body import MAX_BODY_BYTES
from iris.api.errors import ModelNotFound
from iris.api.schemas import (
    GRID_PX,
    MAX_GUIDANCE,
    MAX_IMAGES,
    MAX_LORA_STRENGTH,
    MAX_PROMPT_CHARACTERS,
    MAX_STEPS,
    MODEL,
    EditBody,
    GenerateBody,
)
from iris.catalog import Catalog, Offer
from iris.images.header import MAX_ASPECT, MAX_FILE_BYTES, MAX_PIXELS, MAX_SIDE_PX

CREATED = 1_793_491_200  # 1 November 2026: OpenAI's shape wants a date, and it must not change


class Models:
    """The list of the one model, and the model itself."""

    def __init__(self, offer: Offer) -> None:
        self._offer = offer

    async def list(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [describe_model(self._offer.catalog)]})

    async def show(self, request: Request) -> Response:
        if request.path_params["model"] != MODEL:
            raise ModelNotFound(f"The only model here is `{MODEL}`.", param="model")
        return JSONResponse(describe_model(self._offer.catalog))


def describe_model(catalog: Catalog) -> dict[str, object]:
    """The model in OpenAI's shape, with what it can do, its limits and its styles."""
    return {
        "id": MODEL,
        "object": "model",
        "created": CREATED,
        "owned_by": "epithre",
        "modalities": {"input": ["text", "image"], "output": ["image"]},
        "capabilities": {
            "generations": True,
            "edits": True,
            "multi_reference": True,
            "guidance": True,
            "styles": True,
            "inpainting": True,
            "streaming": False,
        },
        "pricing_model": "per_image",
        "limits": {
            "prompt_characters": MAX_PROMPT_CHARACTERS,
            "n": 1,
            "generation_side_px": GenerateBody.max_side_px,
            "edit_side_px": EditBody.max_side_px,
            "side_multiple_px": GRID_PX,
            "num_steps": MAX_STEPS,
            "guidance_scale": MAX_GUIDANCE,
            "lora_strength": MAX_LORA_STRENGTH,
            "images": MAX_IMAGES,
            "image_bytes": MAX_FILE_BYTES,
            "image_pixels": MAX_PIXELS,
            "image_side_px": MAX_SIDE_PX,
            "image_aspect": MAX_ASPECT,
            "body_bytes": MAX_BODY_BYTES,
        },
        "styles": [
            {
                "name": style.name,
                "version": style.version,
                "description": style.description,
                "default_strength": style.default_strength,
                "trigger": style.trigger,
            }
            for style in catalog.styles
        ],
        "base": {
            "name": catalog.base,
            "version": catalog.base_version,
            "description": catalog.description,
        },
    }
