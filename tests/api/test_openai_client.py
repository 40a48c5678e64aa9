"""The official client against the front on a real socket."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from PIL import Image

from iris.errors import BackendBusy, BackendTimeout, BackendUnavailable
from iris.jobs import EditJob
from tests.api.fakes import LIVE_KEY, FakeDispatcher, picture_bytes


@pytest.fixture
def client(server: tuple[str, int]) -> Iterator[openai.OpenAI]:
    host, port = server
    with openai.OpenAI(
        api_key=LIVE_KEY, base_url=f"http://{host}:{port}/v1", max_retries=0
    ) as client:
        yield client


def size_of(response: Any) -> tuple[int, int]:
    data = base64.b64decode(response.data[0].b64_json)
    with Image.open(io.BytesIO(data)) as picture:
        return picture.size


def test_generate(client: openai.OpenAI, dispatcher: FakeDispatcher) -> None:
    response = client.images.generate(
        model="epithre-iris",
        prompt="a red fox",
        size="256x128",
        n=1,
        response_format="b64_json",
        quality="auto",
        background="opaque",
        moderation="auto",
        output_format="png",
        user="someone",
        extra_body={"num_steps": 2, "seed": 7, "lora": "anime"},
    )
    assert size_of(response) == (256, 128)
    assert response.usage is not None
    assert response.usage.input_tokens_details.image_tokens == 22
    (job,) = dispatcher.jobs
    assert (job.num_inference_steps, job.seed, job.lora) == (2, 7, "anime")


def test_the_headers_of_the_raw_response(client: openai.OpenAI, dispatcher: FakeDispatcher) -> None:
    raw = client.images.with_raw_response.generate(model="epithre-iris", prompt="x", size="64x64")
    assert raw.headers["x-iris-seed"] == str(dispatcher.jobs[0].seed)
    assert raw.request_id == dispatcher.jobs[0].request_id


@pytest.mark.parametrize(
    "make",
    [
        lambda: io.BytesIO(picture_bytes(80, 64)),
        lambda: picture_bytes(80, 64),
        lambda: ("in.jpg", picture_bytes(80, 64, kind="JPEG"), "application/octet-stream"),
    ],
)
def test_edit_of_one_file(
    client: openai.OpenAI, dispatcher: FakeDispatcher, make: Callable[[], Any]
) -> None:
    response = client.images.edit(
        model="epithre-iris",
        image=make(),
        prompt="make it night",
        n=1,
        size="auto",
        extra_body={"strength": 0.5, "num_inference_steps": 6},
    )
    assert size_of(response) == (80, 64)
    (job,) = dispatcher.jobs
    assert job.strength == 0.5  # type: ignore[union-attr]
    assert job.num_inference_steps == 6


def test_edit_of_several_files(client: openai.OpenAI, dispatcher: FakeDispatcher) -> None:
    files = [io.BytesIO(picture_bytes(64, 48)), io.BytesIO(picture_bytes(32, 96))]
    client.images.edit(model="epithre-iris", image=files, prompt="image 1 in image 2")
    (job,) = dispatcher.jobs
    assert [(i.width_px, i.height_px) for i in job.images] == [  # type: ignore[union-attr]
        (64, 48),
        (32, 96),
    ]


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["epithre-iris"]
    assert client.models.retrieve("epithre-iris").owned_by == "epithre"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt-image-1")
    assert caught.value.code == "model_not_found"


def test_a_bad_request_is_openais_own_exception_with_its_field(
    client: openai.OpenAI, dispatcher: FakeDispatcher
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.generate(model="epithre-iris", prompt="x", size="1024x1024")
    error = caught.value
    assert (error.code, error.param, error.type) == (
        "invalid_request",
        "size",
        "invalid_request_error",
    )
    assert (error.request_id or "").startswith("req_")
    with pytest.raises(openai.BadRequestError, match="mask has no alpha channel"):
        client.images.edit(
            model="epithre-iris", image=picture_bytes(), mask=picture_bytes(), prompt="x"
        )
    assert dispatcher.jobs == []


def test_a_bad_key_is_openais_own_exception(
    client: openai.OpenAI, dispatcher: FakeDispatcher
) -> None:
    stranger = client.with_options(api_key="sk-wrong")
    with pytest.raises(openai.AuthenticationError):
        stranger.images.generate(model="epithre-iris", prompt="x")
    with pytest.raises(openai.AuthenticationError):
        stranger.images.edit(model="epithre-iris", image=picture_bytes(500, 500), prompt="x")


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (BackendBusy("Full.", retry_after_s=2), openai.RateLimitError, "backend_busy"),
        (BackendUnavailable("Off."), openai.InternalServerError, "backend_unavailable"),
        (BackendTimeout("Late."), openai.InternalServerError, "backend_timeout"),
        (ValueError("x"), openai.InternalServerError, "backend_error"),
    ],
)
def test_a_failure_is_openais_own_exception(
    client: openai.OpenAI,
    dispatcher: FakeDispatcher,
    error: Exception,
    kind: type[openai.APIStatusError],
    code: str,
) -> None:
    dispatcher.error = error
    with pytest.raises(kind) as caught:
        client.images.generate(model="epithre-iris", prompt="x", size="64x64")
    assert caught.value.code == code


def test_the_client_retries_a_busy_engine_by_itself_and_gets_its_picture(
    client: openai.OpenAI, dispatcher: FakeDispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = dispatcher.run
    refusals = [BackendBusy("Full.", retry_after_s=0.1)]

    async def busy_once(job: Any) -> Any:
        if refusals:
            raise refusals.pop()
        return await run(job)

    monkeypatch.setattr(dispatcher, "run", busy_once)
    patient = client.with_options(max_retries=1)
    response = patient.images.generate(model="epithre-iris", prompt="x", size="64x64")
    assert size_of(response) == (64, 64)


def test_a_mask_says_what_is_edited(client: openai.OpenAI, dispatcher: FakeDispatcher) -> None:
    mask = io.BytesIO()
    Image.new("RGBA", (64, 48), (0, 0, 0, 0)).save(mask, "PNG")
    client.images.edit(
        model="epithre-iris", image=picture_bytes(), mask=mask.getvalue(), prompt="a cat there"
    )
    (job,) = dispatcher.jobs
    assert isinstance(job, EditJob)
    assert job.mask == b"\xff" * 64 * 48
