"""The OpenAPI 3.1 document, made from the same models and the same table that do the work."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import models_json_schema

from iris import __version__
from iris.api.errors import TABLE
from iris.api.schemas import MAX_IMAGES, MODEL, NO_LORA, NULLABLE, EditBody, GenerateBody
from iris.catalog import Catalog

Json = dict[str, Any]

_SCHEMAS = "#/components/schemas/"
# Their default means "not given", it is no value.
_FIELD_DEFAULTS_OF_NOTHING = ("image", "images", "mask")
_RESPONSE_HEADERS = {
    "x-request-id": "Names this request in our log.",
    "x-iris-seed": "The seed of the picture, drawn or given.",
    "x-iris-queue-s": "Seconds from admission to the first step.",
    "x-iris-inference-s": "Seconds from the first step to the picture.",
    "x-iris-cost-idr": "The price of the picture in rupiah, taken when it was handed over.",
    "x-iris-replayed": "`true` where an `Idempotency-Key` brought an earlier reply again.",
    "x-ratelimit-limit-requests": "What the key may make in any 60 seconds.",
    "x-ratelimit-remaining-requests": "What it may still make now.",
    "x-ratelimit-reset-requests": "When it may make all of them again, such as `12.5s`.",
}


def build_openapi(catalog: Catalog) -> Json:
    """The whole document for this catalog's styles."""
    generation, edit = _body_schemas(catalog)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": MODEL,
            "version": __version__,
            "description": "Text-to-image and image editing. The routes are shaped like OpenAI's, "
            "so its SDKs work when pointed here.",
        },
        "paths": {
            "/v1/images/generations": {
                "post": _picture_route(
                    "Make a picture from a prompt",
                    "createImage",
                    {"application/json": "ImageGeneration"},
                )
            },
            "/v1/images/edits": {
                "post": _picture_route(
                    "Make a picture from a prompt and 1 to 5 images",
                    "editImage",
                    {"application/json": "ImageEdit", "multipart/form-data": "ImageEditForm"},
                )
            },
            "/v1/usage": {"get": _usage_route()},
            "/v1/models": {"get": _model_route("List the models", "listModels", "ModelList", [])},
            "/v1/models/{model}": {
                "get": _model_route("Show a model", "showModel", "Model", [_MODEL_PARAMETER])
            },
        },
        "components": {
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "`esk_live_` or `esk_test_` and 32 letters and digits.",
                }
            },
            "schemas": {
                "ImageGeneration": _with_nulls(generation),
                "ImageEdit": _with_nulls(edit),
                "ImageEditForm": _form_schema(edit),
                **_REPLY_SCHEMAS,
            },
        },
    }


def _body_schemas(catalog: Catalog) -> tuple[Json, Json]:
    _, document = models_json_schema(
        [(GenerateBody, "validation"), (EditBody, "validation")],
        ref_template=_SCHEMAS + "{model}",
    )
    bodies = (document["$defs"]["GenerateBody"], document["$defs"]["EditBody"])
    styles = {
        style.name: f"`{style.name}` ({style.description.rstrip('.')})" for style in catalog.styles
    }
    for body in bodies:
        for name, field in body["properties"].items():
            field.pop("title", None)
            if name in _FIELD_DEFAULTS_OF_NOTHING:
                field.pop("default", None)
        lora = body["properties"]["lora"]
        lora["enum"] = [NO_LORA, *styles]
        lora["description"] = (
            f"A registered style: {', '.join((f'`{NO_LORA}`', *styles.values()))}."
        )
    generation, edit = bodies
    edit["oneOf"] = [{"required": ["image"]}, {"required": ["images"]}]
    return generation, edit


def _with_nulls(body: Json) -> Json:
    """The schema of a JSON body, in which some fields may be null and are then not given."""
    properties = {}
    for name, field in body["properties"].items():
        if name in NULLABLE:
            field = {**field, "type": [field["type"], "null"]}
            if "const" in field:
                field["enum"] = [field.pop("const")]
            if "enum" in field:
                field["enum"] = [*field["enum"], None]
        properties[name] = field
    return {**body, "properties": properties}


def _form_schema(edit: Json) -> Json:
    """The form of an edit: the same scalars, and files instead of base64."""
    file = {"type": "string", "contentMediaType": "application/octet-stream"}
    scalars = {
        name: field
        for name, field in edit["properties"].items()
        if name not in _FIELD_DEFAULTS_OF_NOTHING
    }
    files = {
        "image": {
            **file,
            "description": "A file: PNG, JPEG, WebP or GIF, up to 20 MB. One file is the same as "
            "`image` in JSON, several parts of this name are the same as `images`.",
        },
        "image[]": {
            "type": "array",
            "items": file,
            "maxItems": MAX_IMAGES,
            "description": "1 to 5 files; the same as several parts named `image`.",
        },
        "mask": {**file, "description": edit["properties"]["mask"]["description"]},
    }
    return {
        **{key: value for key, value in edit.items() if key not in ("properties", "oneOf")},
        "title": "EditForm",
        "description": "POST /v1/images/edits as a form. Numbers are as in JSON, booleans "
        "`true` or `false`.",
        "properties": {**scalars, **files},
        "anyOf": [{"required": ["image"]}, {"required": ["image[]"]}],
    }


def _picture_route(summary: str, operation: str, bodies: dict[str, str]) -> Json:
    """bodies: media type -> name of its schema."""
    return {
        "summary": summary,
        "operationId": operation,
        "security": [{"key": []}],
        "parameters": [_IDEMPOTENCY_KEY],
        "requestBody": {
            "required": True,
            "content": {
                media_type: {"schema": {"$ref": _SCHEMAS + name}}
                for media_type, name in bodies.items()
            },
        },
        "responses": {
            "200": {
                "description": "The picture.",
                "headers": {
                    name: {"description": text, "schema": {"type": "string"}}
                    for name, text in _RESPONSE_HEADERS.items()
                },
                "content": {"application/json": {"schema": {"$ref": _SCHEMAS + "ImagesReply"}}},
            },
            **_error_responses(),
        },
    }


def _usage_route() -> Json:
    day = {"type": "string", "format": "date"}
    parameters = {
        "from": (day, "The first UTC day; left out, 29 days before `to`."),
        "to": (day, "The last UTC day, included; left out, today."),
        "group_by": (
            {"type": "string", "enum": ["day", "key", "style"], "default": "day"},
            "What the sums are of.",
        ),
        "format": (
            {"type": "string", "enum": ["json", "csv"], "default": "json"},
            "`csv` has a line for every picture instead of sums.",
        ),
    }
    return {
        "summary": "What the key's account used, on the key's ledger",
        "operationId": "getUsage",
        "security": [{"key": []}],
        "parameters": [
            {"name": name, "in": "query", "required": False, "schema": schema, "description": text}
            for name, (schema, text) in parameters.items()
        ],
        "responses": {
            "200": {
                "description": "The sums.",
                "content": {
                    "application/json": {"schema": {"$ref": _SCHEMAS + "Usage"}},
                    "text/csv": {"schema": {"type": "string"}},
                },
            },
            **{
                status: response
                for status, response in _error_responses().items()
                if status in ("400", "401", "403", "503")
            },
        },
    }


def _model_route(summary: str, operation: str, reply: str, parameters: list[Json]) -> Json:
    errors = _error_responses()
    errors["404"] |= {"description": "There is no such model: code `model_not_found`."}
    return {
        "summary": summary,
        "operationId": operation,
        "security": [],
        "parameters": parameters,
        "responses": {
            "200": {
                "description": "What is served here.",
                "content": {"application/json": {"schema": {"$ref": _SCHEMAS + reply}}},
            },
            **{
                status: errors[status] for status in ("404", "405") if status != "404" or parameters
            },
        },
    }


def _error_responses() -> Json:
    """Every row of the error table."""
    responses: Json = {}
    for kind, answer in TABLE.items():
        described = f"`{answer.type}`, code `{kind.code}`: {answer.when}"
        status = str(answer.status)
        if status in responses:  # two rows, one status
            responses[status]["description"] += f" Or {described}"
            continue
        response: Json = {
            "description": described,
            "content": {"application/json": {"schema": {"$ref": _SCHEMAS + "Error"}}},
        }
        if answer.type == "rate_limit_error":
            response["headers"] = {
                "retry-after": {"description": "Whole seconds.", "schema": {"type": "integer"}}
            }
        responses[status] = response
    return responses


_MODEL_PARAMETER: Json = {
    "name": "model",
    "in": "path",
    "required": True,
    "description": f"Always `{MODEL}`.",
    "schema": {"type": "string", "enum": [MODEL]},
}


_IDEMPOTENCY_KEY: Json = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Any text of your own, new for every picture. The same request with the same "
    "key within 24 hours gets the same reply and is charged once, whatever was lost in between; "
    "another request with it is a 400 `idempotency_mismatch`.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
}


def _object(**properties: Json) -> Json:
    return {"type": "object", "required": list(properties), "properties": properties}


def _list_of(item: Json) -> Json:
    return {"type": "array", "items": item}


_STRING: Json = {"type": "string"}
_COUNT: Json = {"type": "integer", "minimum": 0}
_OBJECT: Json = {"type": "object"}

_REPLY_SCHEMAS: Json = {
    "ImagesReply": _object(
        created={"type": "integer", "description": "Unix seconds."},
        data=_list_of(_object(b64_json={"type": "string", "contentEncoding": "base64"})),
        output_format={"type": "string", "enum": ["png", "jpeg", "webp"]},
        size={"type": "string", "description": "`WIDTHxHEIGHT` in pixels."},
        usage=_object(
            input_tokens=_COUNT,
            input_tokens_details=_object(image_tokens=_COUNT, text_tokens=_COUNT),
            output_tokens=_COUNT,
            total_tokens=_COUNT,
        ),
    ),
    "Usage": _object(
        object=_STRING,
        ledger={"type": "string", "enum": ["live", "test"]},
        **{"from": _STRING, "to": _STRING},
        group_by=_STRING,
        data=_list_of(
            {
                "type": "object",
                "description": "A sum, with the day, key or style it is of.",
                "required": ["pictures", "cost_idr", "input_tokens", "output_tokens"],
                "properties": dict.fromkeys(
                    ("pictures", "cost_idr", "input_tokens", "output_tokens"), _COUNT
                ),
            }
        ),
        total=_object(pictures=_COUNT, cost_idr=_COUNT),
    ),
    "Model": _object(
        id=_STRING,
        object=_STRING,
        created=_COUNT,
        owned_by=_STRING,
        modalities=_OBJECT,
        capabilities=_OBJECT,
        pricing_model=_STRING,
        limits=_OBJECT,
        styles=_list_of(_object(name=_STRING, version=_STRING, description=_STRING)),
        base=_object(name=_STRING, version=_STRING, description=_STRING),
    ),
    "ModelList": _object(object=_STRING, data=_list_of({"$ref": _SCHEMAS + "Model"})),
    "Error": _object(
        error=_object(
            message=_STRING,
            type=_STRING,
            code=_STRING,
            param={"type": ["string", "null"], "description": "The field it is about."},
        )
    ),
}
