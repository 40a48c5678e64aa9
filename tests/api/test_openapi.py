from __future__ import annotations

from typing import Any

import pytest

from iris.api.errors import TABLE
from iris.api.openapi import build_openapi
from iris.api.schemas import NULLABLE, EditBody, GenerateBody
from tests.api.fakes import Front, make_catalog


@pytest.fixture(scope="module")
def spec() -> dict[str, Any]:
    return build_openapi(make_catalog())


def body(spec: dict[str, Any], path: str, media_type: str = "application/json") -> dict[str, Any]:
    content = spec["paths"][path]["post"]["requestBody"]["content"]
    name = content[media_type]["schema"]["$ref"].removeprefix("#/components/schemas/")
    schema: dict[str, Any] = spec["components"]["schemas"][name]
    return schema


def test_the_document_is_served_as_it_is_built(front: Front, spec: dict[str, Any]) -> None:
    assert front.get("/openapi.json", key=None).json() == spec
    assert spec["openapi"] == "3.1.0"


def test_every_reference_leads_somewhere(spec: dict[str, Any]) -> None:
    left: list[Any] = [spec]
    found = 0
    while left:
        value = left.pop()
        if isinstance(value, dict):
            if "$ref" in value:
                name = value["$ref"].removeprefix("#/components/schemas/")
                assert name in spec["components"]["schemas"]
                found += 1
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)
    assert found > 10


@pytest.mark.parametrize(
    ("path", "model"),
    [("/v1/images/generations", GenerateBody), ("/v1/images/edits", EditBody)],
)
def test_every_field_that_is_read_is_described_and_no_other(
    spec: dict[str, Any], path: str, model: type[GenerateBody | EditBody]
) -> None:
    schema = body(spec, path)
    assert set(schema["properties"]) == set(model.model_fields)
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["model", "prompt"]
    for name, field in schema["properties"].items():
        assert field["description"], name


def test_limits_and_defaults_are_those_of_the_contract(spec: dict[str, Any]) -> None:
    for path in ("/v1/images/generations", "/v1/images/edits"):
        fields = body(spec, path)["properties"]
        assert (fields["prompt"]["minLength"], fields["prompt"]["maxLength"]) == (1, 2000)
        for name in ("num_steps", "num_inference_steps"):
            limits = fields[name]
            assert (limits["minimum"], limits["maximum"], limits["default"]) == (1, 50, 4)
        assert fields["seed"]["maximum"] == 2**63 - 1
        assert fields["seed"]["default"] == -1
        guidance = fields["guidance_scale"]
        assert (guidance["minimum"], guidance["maximum"], guidance["default"]) == (1, 20, 1)
        assert fields["lora"]["enum"] == ["none", "dark", "anime"]
        strength = fields["lora_strength"]
        assert (strength["minimum"], strength["maximum"], strength["default"]) == (0, 1.5, 0.6)
        assert fields["user"]["maxLength"] == 255
        assert fields["model"]["const"] == "epithre-iris"
    assert "960" in body(spec, "/v1/images/generations")["properties"]["size"]["description"]
    edits = body(spec, "/v1/images/edits")["properties"]
    assert "704" in edits["size"]["description"]
    assert (edits["images"]["minItems"], edits["images"]["maxItems"]) == (1, 5)
    assert "default" not in edits["image"]
    strength = edits["strength"]
    assert (strength["minimum"], strength["maximum"], strength["default"]) == (0, 1, 0.75)


def test_an_edit_can_be_sent_as_a_form_with_files(spec: dict[str, Any]) -> None:
    form = body(spec, "/v1/images/edits", "multipart/form-data")["properties"]
    scalars = set(EditBody.model_fields) - {"image", "images"}
    assert set(form) == scalars | {"image", "image[]"}
    assert list(spec["paths"]["/v1/images/generations"]["post"]["requestBody"]["content"]) == [
        "application/json"
    ]


def test_every_error_of_the_table_is_described(spec: dict[str, Any]) -> None:
    for path in ("/v1/images/generations", "/v1/images/edits"):
        responses = spec["paths"][path]["post"]["responses"]
        assert set(responses) == {"200", *(str(answer.status) for answer in TABLE.values())}
        assert "retry-after" in responses["429"]["headers"]
        for kind, answer in TABLE.items():
            assert kind.code in responses[str(answer.status)]["description"]


def test_pictures_need_a_key_and_models_do_not(spec: dict[str, Any]) -> None:
    for path, methods in spec["paths"].items():
        for operation in methods.values():
            assert operation["security"] == ([] if "models" in path else [{"key": []}])
    assert spec["components"]["securitySchemes"]["key"]["scheme"] == "bearer"


def test_null_is_in_the_schema_exactly_where_it_is_taken() -> None:
    schemas = build_openapi(make_catalog())["components"]["schemas"]
    for name in ("ImageGeneration", "ImageEdit", "ImageEditForm"):
        takes_null = set()
        for field, schema in schemas[name]["properties"].items():
            if "null" in schema["type"]:
                takes_null.add(field)
                assert None in schema.get("enum", [None])
                assert "const" not in schema
        own = NULLABLE & schemas[name]["properties"].keys()
        assert takes_null == (set() if name == "ImageEditForm" else own)


def test_a_model_that_is_not_there_has_its_own_code(front: Front, spec: dict[str, Any]) -> None:
    described = spec["paths"]["/v1/models/{model}"]["get"]["responses"]["404"]["description"]
    assert front.get("/v1/models/other").json()["error"]["code"] in described


def test_a_field_of_one_value_says_which(spec: dict[str, Any]) -> None:
    schemas = spec["components"]["schemas"]
    assert schemas["ImageGeneration"]["properties"]["stream"]["enum"] == [False, None]
    assert schemas["ImageEditForm"]["properties"]["stream"]["const"] is False
