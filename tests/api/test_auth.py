from __future__ import annotations

import logging

import httpx
import pytest

from tests.api.fakes import (
    LIVE_KEY,
    TEST_KEY,
    FakeDispatcher,
    Front,
    assert_envelope,
    generation,
)

PATH = "/v1/images/generations"

BAD_HEADERS: dict[str, list[tuple[str, str]]] = {
    "none": [],
    "empty": [("authorization", "")],
    "Basic": [("authorization", "Basic dXNlcjpwYXNz")],
    "Basic with a key": [("authorization", f"Basic {LIVE_KEY}")],
    "only the key": [("authorization", LIVE_KEY)],
    "only the scheme": [("authorization", "Bearer ")],
    "wrong prefix": [("authorization", f"Bearer sk_live_{LIVE_KEY[9:]}")],
    "other kind": [("authorization", f"Bearer esk_prod_{LIVE_KEY[9:]}")],
    "too short": [("authorization", f"Bearer {LIVE_KEY[:-1]}")],
    "too long": [("authorization", f"Bearer {LIVE_KEY}a")],
    "very long": [("authorization", f"Bearer {LIVE_KEY * 100}")],
    "other characters": [("authorization", f"Bearer {LIVE_KEY[:-1]}!")],
    "unknown": [("authorization", "Bearer esk_live_" + "0" * 32)],
    "live as test": [("authorization", "Bearer esk_test_" + LIVE_KEY[9:])],
    "two headers": [("authorization", f"Bearer {LIVE_KEY}")] * 2,
    "two keys": [("authorization", f"Bearer {LIVE_KEY}, Bearer {LIVE_KEY}")],
    "trailing words": [("authorization", f"Bearer {LIVE_KEY} please")],
    "another header": [("x-api-key", LIVE_KEY)],
    "no space": [("authorization", f"Bearer{LIVE_KEY}")],
}


def call(front: Front, headers: list[tuple[str, str]], path: str = PATH) -> httpx.Response:
    return front.post(path, key=None, headers=headers, json=generation())


@pytest.mark.parametrize("headers", BAD_HEADERS.values(), ids=BAD_HEADERS.keys())
@pytest.mark.parametrize("path", [PATH, "/v1/images/edits"])
def test_every_bad_key_gets_one_identical_401(
    front: Front, dispatcher: FakeDispatcher, path: str, headers: list[tuple[str, str]]
) -> None:
    response = call(front, headers, path)
    assert_envelope(response, 401, "authentication_error")
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.content == call(front, []).content
    assert dispatcher.jobs == []


@pytest.mark.parametrize("key", [LIVE_KEY, TEST_KEY])
@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_a_known_key_of_either_kind_is_let_in(
    front: Front, dispatcher: FakeDispatcher, key: str, scheme: str
) -> None:
    assert call(front, [("authorization", f"{scheme} {key}")]).status_code == 200
    assert dispatcher.jobs[0].owner == ("key_live" if key == LIVE_KEY else "key_test")


def test_a_key_in_the_query_is_neither_taken_nor_logged(
    front: Front, dispatcher: FakeDispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, logger="iris"):
        for name in ("key", "api_key", "access_token", "authorization"):
            response = call(front, [], f"{PATH}?{name}={LIVE_KEY}")
            assert_envelope(response, 401, "authentication_error")
    assert caplog.records
    assert not any(LIVE_KEY in str(record.__dict__) for record in caplog.records)


def test_the_key_is_asked_for_before_anything_is_said_of_the_body(
    front: Front, dispatcher: FakeDispatcher
) -> None:
    response = front.post(PATH, key=None, content=b"\x80garbage", headers={"content-type": "x/y"})
    assert_envelope(response, 401, "authentication_error")
