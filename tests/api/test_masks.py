"""`mask`, in JSON and as a file: OpenAI's meaning of it, and what is refused."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from iris.jobs import EditJob
from tests.api.fakes import (
    FakeDispatcher,
    Front,
    assert_refused,
    edit,
    picture_base64,
    picture_bytes,
)

EDITS = "/v1/images/edits"


def mask_bytes(width: int = 64, height: int = 48, kind: str = "PNG") -> bytes:
    """The left half is transparent."""
    image = Image.new("RGBA", (width, height), (0, 0, 0, 255))
    image.paste((0, 0, 0, 0), (0, 0, width // 2, height))
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def mask_base64(width: int = 64, height: int = 48) -> str:
    return base64.b64encode(mask_bytes(width, height)).decode()


def job_of(dispatcher: FakeDispatcher) -> EditJob:
    (job,) = dispatcher.jobs
    assert isinstance(job, EditJob)
    return job


def holes_of(job: EditJob) -> Any:
    assert job.mask is not None
    return np.frombuffer(job.mask, np.uint8).reshape(job.height_px, job.width_px)


def test_what_is_transparent_is_edited(front: Front, dispatcher: FakeDispatcher) -> None:
    response = front.post(EDITS, json=edit(image=picture_base64(), mask=mask_base64()))
    assert response.status_code == 200
    job = job_of(dispatcher)
    holes = holes_of(job)
    assert (holes[:, :32] == 255).all()
    assert (holes[:, 32:] == 0).all()
    assert job.strength == 0.75


def test_a_mask_is_scaled_with_the_picture(front: Front, dispatcher: FakeDispatcher) -> None:
    response = front.post(
        EDITS,
        json=edit(image=picture_base64(320, 240), mask=mask_base64(320, 240), size="160x96"),
    )
    assert response.status_code == 200
    job = job_of(dispatcher)
    assert holes_of(job).shape == (96, 160)
    assert (job.images[0].width_px, job.images[0].height_px) == (160, 96)


def test_with_several_images_the_mask_is_of_the_first(
    front: Front, dispatcher: FakeDispatcher
) -> None:
    images = [picture_base64(64, 48), picture_base64(128, 96)]
    body = edit(images=images, mask=mask_base64(64, 48), size="96x80")
    body.pop("image", None)
    assert front.post(EDITS, json=body).status_code == 200
    job = job_of(dispatcher)
    assert [(i.width_px, i.height_px) for i in job.images] == [(96, 80), (128, 96)]
    assert holes_of(job).shape == (80, 96)


def test_a_mask_comes_as_a_file_too(front: Front, dispatcher: FakeDispatcher) -> None:
    files = {
        "image": ("a.png", picture_bytes(), "image/png"),
        "mask": ("m.png", mask_bytes(), "image/png"),
    }
    data = {"model": "epithre-iris", "prompt": "a cat there"}
    assert front.post(EDITS, data=data, files=files).status_code == 200
    job = job_of(dispatcher)
    assert (holes_of(job)[:, :32] == 255).all()
    assert (job.width_px, job.height_px) == (64, 48)


def test_no_mask_is_none(front: Front, dispatcher: FakeDispatcher) -> None:
    assert front.post(EDITS, json=edit(image=picture_base64(), mask=None)).status_code == 200
    assert job_of(dispatcher).mask is None


@pytest.mark.parametrize(
    ("mask", "says"),
    [
        (mask_base64(64, 64), "same size"),
        (picture_base64(), "no alpha channel"),
        (base64.b64encode(mask_bytes(kind="WEBP")).decode(), "Send a PNG"),
        ("data:image/png;base64,AAAA", "data: URI"),
        (base64.b64encode(b"no image at all, whatever").decode(), "mask "),
        ("%%%", "not base64"),
    ],
)
def test_what_is_no_mask_of_the_image_is_refused(
    mask: str, says: str, front: Front, dispatcher: FakeDispatcher
) -> None:
    response = front.post(EDITS, json=edit(image=picture_base64(), mask=mask))
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["code"], error["param"]) == ("invalid_image", "mask")
    assert says in error["message"]
    assert dispatcher.jobs == []


def test_a_generation_has_no_mask(front: Front, dispatcher: FakeDispatcher) -> None:
    body = {"model": "epithre-iris", "prompt": "a cat", "mask": mask_base64()}
    response = front.post("/v1/images/generations", json=body)
    assert_refused(front, dispatcher, response, 400, "invalid_request", "mask")
