from __future__ import annotations

import base64
import io
import json
import logging
import sys
from typing import Any

import pytest

from iris.api.log import JsonFormatter, configure_logging
from iris.errors import BackendBusy
from tests.api.fakes import (
    LIVE_KEY,
    FakeDispatcher,
    Front,
    edit,
    generation,
    picture_base64,
    picture_bytes,
)

SECRET = "Operation Nightfall"
USER = "someone@example.com"


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    formatter = JsonFormatter()
    return [json.loads(formatter.format(r)) for r in caplog.records if r.name == "iris"]


def test_a_picture_leaves_one_line_with_its_facts(
    front: Front, dispatcher: FakeDispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="iris"):
        response = front.post(
            "/v1/images/generations?x=1", json=generation(lora="dark", num_steps=3)
        )
    (line,) = lines(caplog)
    assert line.pop("ms") >= 0
    assert line.pop("ts").endswith("+00:00")
    assert line == {
        "level": "INFO",
        "logger": "iris",
        "event": "request",
        "request_id": response.headers["x-request-id"],
        "method": "POST",
        "route": "/v1/images/generations",
        "status": 200,
        "code": None,
        "key_id": "key_live",
        "size": "64x64",
        "steps": 3,
        "lora": "dark",
        "charged_idr": 750,
    }


@pytest.mark.parametrize(
    ("method", "path", "route", "status", "code"),
    [
        ("GET", "/v1/models/x-secret", "/v1/models/{model}", 404, "model_not_found"),
        ("GET", "/x-secret", "unmatched", 404, "not_found"),
        ("GET", "/v1/images/edits?x-secret", "/v1/images/edits", 405, "method_not_allowed"),
        ("POST", "/v1/images/edits", "/v1/images/edits", 415, "unsupported_media_type"),
        ("GET", "/docs", "/docs", 200, None),
    ],
)
def test_a_line_names_the_route_and_never_the_path(
    front: Front,
    dispatcher: FakeDispatcher,
    caplog: pytest.LogCaptureFixture,
    method: str,
    path: str,
    route: str,
    status: int,
    code: str | None,
) -> None:
    with caplog.at_level(logging.INFO, logger="iris"):
        front.request(method, path)
    (line,) = lines(caplog)
    assert (line["route"], line["status"], line["code"]) == (route, status, code)
    assert "secret" not in json.dumps(line)


def test_a_method_of_the_clients_own_is_not_written_down(
    front: Front, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="iris"):
        for method in (LIVE_KEY, "BREW", "PATCH"):
            front.request(method, "/v1/models")
    assert [line["method"] for line in lines(caplog)] == ["other", "other", "PATCH"]


@pytest.mark.parametrize("path", ["/livez", "/healthz", "/readyz"])
def test_health_checks_are_logged_for_debugging_only(
    front: Front, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    with caplog.at_level(logging.INFO, logger="iris"):
        front.get(path, key=None)
    assert lines(caplog) == []
    with caplog.at_level(logging.DEBUG, logger="iris"):
        front.get(path, key=None)
    (line,) = lines(caplog)
    assert (line["level"], line["route"]) == ("DEBUG", path)


def leaky_requests() -> list[tuple[str, dict[str, Any]]]:
    good = generation(prompt=SECRET, user=USER)
    sources = edit(prompt=SECRET, user=USER)
    raw = json.dumps(good).encode()
    as_json = {"content-type": "application/json"}
    generations, edits = "/v1/images/generations", "/v1/images/edits"
    return [
        (generations, {"json": good}),
        (generations, {"json": good | {"n": 2}}),
        (generations, {"json": good | {"size": SECRET}}),
        (generations, {"json": good | {"prompt": SECRET * 200}}),
        (generations, {"json": good | {"model": SECRET}}),
        (generations, {"json": good | {"lora": SECRET}}),
        (generations, {"json": good | {SECRET: 1}}),
        (generations, {"json": [good]}),
        (generations, {"content": raw[:-1], "headers": as_json}),
        (generations, {"content": raw + b"x", "headers": as_json}),
        (generations, {"content": raw.replace(b" ", b"\xff"), "headers": as_json}),
        (generations, {"content": raw, "headers": {"content-type": SECRET}}),
        (generations, {"content": raw, "headers": as_json | {"content-encoding": SECRET}}),
        (generations, {"content": raw, "headers": as_json | {"content-length": "x"}}),
        (f"{generations}?key={LIVE_KEY}&prompt={SECRET}", {"json": good, "key": None}),
        (generations, {"json": good, "key": "esk_live_" + "0" * 32}),
        (f"/{LIVE_KEY}/{SECRET}", {"json": good}),
        (edits, {"json": sources | {"image": picture_base64()}}),
        (edits, {"json": sources | {"image": SECRET}}),
        (edits, {"json": sources | {"images": [picture_base64(), picture_base64()[:-9]]}}),
        (edits, {"json": sources | {"image": base64.b64encode(picture_bytes()[:80]).decode()}}),
        (edits, {"data": sources, "files": {"image": (SECRET, picture_bytes())}}),
        (edits, {"data": sources, "files": {SECRET: (SECRET, picture_bytes())}}),
        (edits, {"data": sources | {"n": SECRET}, "files": {"image": ("a", b"GIF89a")}}),
    ]


@pytest.mark.parametrize(
    "error", [None, ValueError(f"{SECRET} {LIVE_KEY}"), BackendBusy("x"), KeyError(SECRET)]
)
def test_no_prompt_key_user_or_picture_ever_reaches_a_log(
    front: Front,
    dispatcher: FakeDispatcher,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    error: Exception | None,
) -> None:
    dispatcher.error = error
    wire = picture_base64()
    with caplog.at_level(logging.DEBUG):
        caplog.handler.setFormatter(JsonFormatter())
        for path, request in leaky_requests():
            front.post(path, **request)
    # httpx, the client of these tests, writes the URLs it calls
    ours = [r for r in caplog.records if not r.name.startswith(("httpx", "httpcore"))]
    assert len(ours) >= len(leaky_requests())
    written = "\n".join(
        [JsonFormatter().format(r) + r.getMessage() + str(r.__dict__) for r in ours]
        + list(capfd.readouterr())
    )
    for secret in (SECRET, "Nightfall", LIVE_KEY, LIVE_KEY[9:], USER, wire, wire[:40], "iVBORw0K"):
        assert secret not in written
    assert r"\x89PNG" not in written


def test_a_crash_is_logged_by_its_class_and_places_and_the_id_of_its_request(
    front: Front, dispatcher: FakeDispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    dispatcher.error = ValueError(SECRET)
    with caplog.at_level(logging.INFO, logger="iris"):
        response = front.post("/v1/images/generations", json=generation())
    crash, request = lines(caplog)
    assert crash["level"] == "ERROR"
    assert crash["exception"] == "builtins.ValueError"
    assert crash["request_id"] == request["request_id"] == response.headers["x-request-id"]
    assert any(place.startswith("iris.api.images:") for place in crash["at"])
    assert (request["status"], request["code"]) == (500, "backend_error")


def test_an_exception_anybody_logs_under_iris_is_rendered_without_its_text() -> None:
    try:
        try:
            raise KeyError(SECRET)
        except KeyError as error:
            raise RuntimeError(SECRET) from error
    except RuntimeError:
        record = logging.getLogger("iris.x").makeRecord(
            "iris.x", logging.ERROR, "f", 1, "it broke: %s", ("here",), sys.exc_info()
        )
    line = json.loads(JsonFormatter().format(record))
    assert line["event"] == "it broke: here"
    assert (line["exception"], line["cause"]) == ("builtins.RuntimeError", "builtins.KeyError")
    assert SECRET not in json.dumps(line)


def test_a_configured_log_is_one_json_object_a_line_at_its_level(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logger = logging.getLogger("iris")
    before = (logger.handlers, logger.level, logger.propagate)
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    try:
        configure_logging("WARNING")
        configure_logging("WARNING")  # twice is once
        logger.info("not shown")
        logging.getLogger("iris.engine").warning("two\nlines")
    finally:
        logger.handlers, logger.level, logger.propagate = before
        logger.setLevel(before[1])
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["event"] == "two\nlines"
