from __future__ import annotations

import base64
import io
import json
import logging
import math
import socket
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.responses import Response

from iris.api.body import INLINE_BYTES
from iris.api.json_body import parse_json
from iris.api.reply import render_reply
from iris.api.room import Room
from iris.api.schemas import ImageFields
from iris.catalog import Catalog, Offer, Style
from iris.errors import (
    BackendBusy,
    BackendFailure,
    BackendTimeout,
    BackendUnavailable,
    ConfigError,
)
from iris.images.decode import Decoder
from iris.jobs import Picture
from tests.api.fakes import (
    FakeDispatcher,
    Front,
    Loop,
    assert_envelope,
    edit,
    generation,
    opened,
    picture_base64,
    picture_bytes,
    wait_for_line,
)
from tests.api.test_body import GOOD, connected, head, works

GENERATIONS = "/v1/images/generations"
EDITS = "/v1/images/edits"


def test_the_reply_has_the_shape_of_openai_and_the_facts_in_its_headers(
    front: Front, dispatcher: FakeDispatcher
) -> None:
    before = int(time.time())
    response = front.post(GENERATIONS, json=generation(size="64x48", seed=2**63 - 1))
    assert response.status_code == 200
    reply = response.json()
    assert list(reply) == ["created", "data", "output_format", "size", "usage"]
    assert before <= reply["created"] <= time.time()
    assert (reply["output_format"], reply["size"]) == ("png", "64x48")
    assert reply["usage"] == {
        "input_tokens": 33,
        "input_tokens_details": {"image_tokens": 22, "text_tokens": 11},
        "output_tokens": 33,
        "total_tokens": 66,
    }
    (data,) = reply["data"]
    assert list(data) == ["b64_json"]
    with Image.open(io.BytesIO(base64.b64decode(data["b64_json"], validate=True))) as picture:
        assert (picture.format, picture.size, picture.mode) == ("PNG", (64, 48), "RGB")
        assert picture.getpixel((0, 0)) == (120, 120, 120)
    assert response.headers["x-iris-seed"] == str(2**63 - 1)
    assert response.headers["x-iris-queue-s"] == "0.250"
    assert response.headers["x-iris-inference-s"] == "1.500"


def test_a_drawn_seed_is_reported_and_differs_every_time(
    front: Front, dispatcher: FakeDispatcher
) -> None:
    seeds = [
        front.post(GENERATIONS, json=generation(seed=-1)).headers["x-iris-seed"] for _ in range(3)
    ]
    assert seeds == [str(job.seed) for job in dispatcher.jobs]
    assert len(set(seeds)) == 3


def test_the_job_carries_the_id_of_the_request_its_owner_and_its_deadline(
    front: Front, dispatcher: FakeDispatcher
) -> None:
    response = front.post(GENERATIONS, json=generation())
    (job,) = dispatcher.jobs
    assert job.request_id == response.headers["x-request-id"]
    assert job.owner == "key_live"
    assert 0 < job.deadline_s <= 299  # the last second is for PNG and base64


ERRORS: list[tuple[Exception, int, str, str | None]] = [
    (BackendBusy("Too much waits.", retry_after_s=3.2), 429, "backend_busy", "4"),
    (BackendBusy("Too much waits.", retry_after_s=0.001), 429, "backend_busy", "1"),
    (BackendBusy("Too much waits."), 429, "backend_busy", "1"),
    (BackendUnavailable("Starting."), 503, "backend_unavailable", None),
    (BackendUnavailable("Starting.", retry_after_s=10), 503, "backend_unavailable", "10"),
    (BackendTimeout("Too late."), 504, "backend_timeout", None),
    (BackendFailure("NaN in block 7 of /opt/x"), 500, "backend_error", None),
    (ConfigError("IRIS_HOME=/root is wrong"), 500, "backend_error", None),
    (ValueError("a red fox is at /root"), 500, "backend_error", None),
    (TimeoutError("of somebody else"), 500, "backend_error", None),
    (MemoryError(), 500, "backend_error", None),
]


@pytest.mark.parametrize(("error", "status", "code", "retry_after"), ERRORS)
@pytest.mark.parametrize("path", [GENERATIONS, EDITS])
def test_every_failure_of_the_engine_has_its_answer_and_the_next_picture_comes(
    front: Front,
    dispatcher: FakeDispatcher,
    path: str,
    error: Exception,
    status: int,
    code: str,
    retry_after: str | None,
) -> None:
    dispatcher.error = error
    body = generation() if path == GENERATIONS else edit(image=picture_base64())
    response = front.post(path, json=body)
    told = assert_envelope(response, status, code)
    assert response.headers.get("retry-after") == retry_after
    if status == 500:
        assert told["message"].startswith("Something broke on our side.")
    dispatcher.error = None
    assert front.post(path, json=body).status_code == 200


def test_a_front_without_an_engine_yet_says_so_before_it_decodes(
    loop: Loop, tmp_path: Path
) -> None:
    with opened(loop, tmp_path) as front:
        early = front.post(EDITS, json=edit(image="not base64"))
        assert_envelope(early, 503, "backend_unavailable")
        dispatcher = front.app.state.dispatcher = FakeDispatcher()
        assert front.post(GENERATIONS, json=generation()).status_code == 200
        assert len(dispatcher.jobs) == 1


def test_a_picture_past_its_deadline_is_a_504_and_is_cancelled(loop: Loop, tmp_path: Path) -> None:
    dispatcher = FakeDispatcher()
    with opened(loop, tmp_path, dispatcher, deadline_s=0.2) as front:
        dispatcher.hangs = True
        response = front.post(GENERATIONS, json=generation())
        assert_envelope(response, 504, "backend_timeout")
        assert dispatcher.cancelled.is_set()
        assert dispatcher.jobs[0].deadline_s <= 0.2
        dispatcher.hangs = False
        assert front.post(GENERATIONS, json=generation()).status_code == 200


@pytest.mark.parametrize("reset", [False, True])
def test_a_client_that_leaves_takes_its_picture_with_it_and_no_error_is_logged(
    server: tuple[str, int],
    dispatcher: FakeDispatcher,
    caplog: pytest.LogCaptureFixture,
    reset: bool,
) -> None:
    dispatcher.hangs = True
    with caplog.at_level(logging.INFO), connected(server) as line:
        line.sendall(head(content_length=str(len(GOOD))) + GOOD)
        assert dispatcher.started.wait(10)
        if reset:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        line.close()
        assert dispatcher.cancelled.wait(10)
        assert wait_for_line(caplog, "client_gone")["status"] == 499
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    dispatcher.reset()
    assert works(server)


def test_a_client_that_waits_is_not_taken_for_gone(
    server: tuple[str, int], dispatcher: FakeDispatcher
) -> None:
    dispatcher.hangs = True
    with connected(server) as line:
        line.sendall(head(content_length=str(len(GOOD))) + GOOD)
        assert dispatcher.started.wait(10)
        assert not dispatcher.cancelled.wait(0.3)


@pytest.mark.parametrize("output_format", ["jpeg", "webp"])
def test_another_output_format_is_really_made_and_its_quality_counts(
    front: Front, dispatcher: FakeDispatcher, output_format: str
) -> None:
    def made(**fields: Any) -> bytes:
        body = generation(output_format=output_format, **fields)
        reply = front.post(GENERATIONS, json=body | {"seed": 1}).json()
        assert reply["output_format"] == output_format
        return base64.b64decode(reply["data"][0]["b64_json"])

    with Image.open(io.BytesIO(made())) as picture:
        assert (picture.format or "").lower() == output_format
    assert made(output_compression=0) != made(output_compression=100)
    assert made() == made(output_compression=100)


def test_the_png_tells_how_it_was_made_but_never_from_which_words(
    front: Front, dispatcher: FakeDispatcher
) -> None:
    body = generation(
        prompt="Nightfall",
        lora="dark",
        lora_strength=0.4,
        num_steps=6,
        guidance_scale=3,
        seed=77,
        user="someone",
    )
    data = base64.b64decode(front.post(GENERATIONS, json=body).json()["data"][0]["b64_json"])
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.info == {
            "seed": "77",
            "model": "iris-mini 1.2.3",
            "num_steps": "6",
            "guidance_scale": "3.0",
            "lora": "dark",
            "lora_strength": "0.4",
        }
    assert b"Nightfall" not in data
    assert b"someone" not in data


def test_a_retry_after_is_never_less_than_the_wait_it_stands_for(
    front: Front, dispatcher: FakeDispatcher
) -> None:
    for wait_s in (0.0, 0.4, 1.0, 1.01, 59.9):
        dispatcher.error = BackendBusy("Too much waits.", retry_after_s=wait_s)
        response = front.post(GENERATIONS, json=generation())
        assert int(response.headers["retry-after"]) == max(1, math.ceil(wait_s))


def test_a_reply_is_encoded_while_others_are_served(
    front: Front, dispatcher: FakeDispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, released = threading.Event(), threading.Event()

    def held(picture: Picture, fields: ImageFields, *others: Any) -> Response:
        if fields.prompt == "held":
            entered.set()
            assert released.wait(20)
        return render_reply(picture, fields, *others)

    monkeypatch.setattr("iris.api.images.render_reply", held)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(front.post, GENERATIONS, json=generation(prompt="held"))
        try:
            assert entered.wait(20)
            assert front.post(GENERATIONS, json=generation(prompt="free")).status_code == 200
            assert not first.done()
        finally:
            released.set()
        assert first.result(20).status_code == 200


def test_the_megabytes_of_a_request_are_let_go_while_its_picture_waits(
    server: tuple[str, int], dispatcher: FakeDispatcher
) -> None:
    dispatcher.hangs = True
    source = base64.b64encode(picture_bytes() + bytes(15_000_000)).decode()  # a tail is cut off
    body = json.dumps(edit(image=source)).encode()
    tracemalloc.start()
    try:
        with connected(server) as line:
            line.sendall(head(path=EDITS, content_length=str(len(body))) + body)
            assert dispatcher.started.wait(20)
            held_bytes, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most_bytes > len(source)  # it was all here
    assert held_bytes < len(source) / 4


def test_a_request_keeps_the_version_of_its_style_that_it_read_first(
    loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reload while its images are decoded changes nothing for it."""

    def ink(version: str, strength: float, trigger: str) -> Catalog:
        return Catalog("m", "1", "d", (Style("ink", version, "d", strength, trigger),))

    offer = Offer(ink("1", 0.3, "old"))

    class Reloading(Decoder):
        async def size(self, *given: Any, **options: Any) -> tuple[int, int]:
            offer.catalog = ink("2", 0.9, "new")
            return await super().size(*given, **options)

        async def decode(self, *given: Any, **options: Any) -> Any:
            offer.catalog = ink("2", 0.9, "new")
            return await super().decode(*given, **options)

    monkeypatch.setattr("iris.api.app.Offer", lambda _: offer)
    dispatcher = FakeDispatcher()
    with opened(loop, tmp_path, dispatcher, catalog=offer.catalog, decoder=Reloading) as front:
        response = front.post(EDITS, json=edit(lora="ink", image=picture_base64()))
    assert response.status_code == 200
    (job,) = dispatcher.jobs
    assert (job.lora_strength, job.prompt) == (0.3, "old, make it night")
    assert offer.catalog.styles[0].version == "2"


def test_a_body_is_parsed_in_threads_that_no_reply_waits_for(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def parse(data: bytes) -> dict[str, object]:
        seen.append(threading.current_thread().name)
        return parse_json(data)

    monkeypatch.setattr("iris.api.body.parse_json", parse)
    body = json.dumps(generation()).encode().ljust(INLINE_BYTES + 1)
    response = front.post(GENERATIONS, content=body, headers={"content-type": "application/json"})
    assert response.status_code == 200
    assert [name.startswith("iris-bodies") for name in seen] == [True]


def test_one_key_cannot_fill_the_room_of_all(
    loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("iris.api.images.Room", lambda: Room(most=3_000, most_of_one=1_000))
    with opened(loop, tmp_path, FakeDispatcher()) as front:

        def post(num_bytes: int) -> Any:
            body = json.dumps(generation()).encode().ljust(num_bytes)
            return front.post(
                GENERATIONS, content=body, headers={"content-type": "application/json"}
            )

        response = post(INLINE_BYTES + 1_001)
        assert_envelope(response, 429, "concurrency_exceeded")
        assert response.headers["retry-after"] == "1"
        for _ in range(5):  # each gives back what it took
            assert post(INLINE_BYTES + 900).status_code == 200
