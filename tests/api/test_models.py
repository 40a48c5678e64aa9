from __future__ import annotations

import pytest

from tests.api.fakes import Front, assert_envelope


def test_the_model_is_public_and_tells_its_limits_and_styles(front: Front) -> None:
    listed = front.get("/v1/models", key=None).json()
    assert listed["object"] == "list"
    (model,) = listed["data"]
    assert model == front.get("/v1/models/epithre-iris", key=None).json()
    assert (model["id"], model["object"]) == ("epithre-iris", "model")
    assert isinstance(model["created"], int)
    assert model["modalities"] == {"input": ["text", "image"], "output": ["image"]}
    assert model["pricing_model"] == "per_image"
    plain = {"default_strength": 0.6, "trigger": ""}
    assert model["styles"] == [
        {"name": "dark", "version": "1.0.0", "description": "Moody, cinematic."} | plain,
        {"name": "anime", "version": "2.0.0", "description": "Drawn."} | plain,
    ]
    assert model["base"] == {
        "name": "iris-mini",
        "version": "1.2.3",
        "description": "A small model.",
    }
    limits = model["limits"]
    assert (limits["generation_side_px"], limits["edit_side_px"]) == (960, 704)
    assert (limits["prompt_characters"], limits["num_steps"], limits["images"]) == (2000, 50, 5)
    assert (limits["image_bytes"], limits["body_bytes"]) == (20_971_520, 52_428_800)
    assert limits["image_pixels"] == 50_000_000
    assert model["capabilities"]["inpainting"] is True


@pytest.mark.parametrize("name", ["gpt-image-1", "iris-mini", "Epithre-Iris", "epithre-iris%20"])
def test_any_other_model_is_not_found(front: Front, name: str) -> None:
    response = front.get(f"/v1/models/{name}", key=None)
    assert_envelope(response, 404, "model_not_found", "model")
