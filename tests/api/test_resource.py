from __future__ import annotations

import pytest

from tests.api.fakes import FakeDispatcher, Front, assert_envelope, generation

ALLOWED = {
    "/": "GET, HEAD, OPTIONS",
    "/docs": "GET, HEAD, OPTIONS",
    "/openapi.json": "GET, HEAD, OPTIONS",
    "/livez": "GET, HEAD, OPTIONS",
    "/healthz": "GET, HEAD, OPTIONS",
    "/readyz": "GET, HEAD, OPTIONS",
    "/v1/models": "GET, HEAD, OPTIONS",
    "/v1/models/epithre-iris": "GET, HEAD, OPTIONS",
    "/v1/images/generations": "OPTIONS, POST",
    "/v1/images/edits": "OPTIONS, POST",
}
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "FROBNICATE"]
REFUSED = [
    (path, method)
    for path, allowed in ALLOWED.items()
    for method in METHODS
    if method not in allowed.split(", ")
]
NOT_OURS = [
    "/metrics",
    "/schema.json",
    "/docs.json",
    "/assets/x.js",
    "/static_content/x.js",
    "/v1",
    "/v1/",
    "/v1/images",
    "/v1/images/generations/",
    "/v1/images/variations",
    "/v1/chat/completions",
    "/v1/models/",
    "/v1/models/a/b",
    "/V1/models",
    "//v1/models",
    "/%2e%2e/etc/passwd",
    "/a%0Ab",
    "/a%00b",
    "/a%FFb",
    "/" + "x" * 10_000,
]


@pytest.mark.parametrize("path", ALLOWED)
def test_options_names_the_methods_of_a_path(front: Front, path: str) -> None:
    response = front.request("OPTIONS", path, key=None)
    assert (response.status_code, response.content) == (204, b"")
    assert response.headers["allow"] == ALLOWED[path]
    assert response.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize(("path", "method"), REFUSED)
def test_any_other_method_is_a_405_that_names_those_that_work(
    front: Front, dispatcher: FakeDispatcher, path: str, method: str
) -> None:
    response = front.request(method, path)
    assert response.headers["allow"] == ALLOWED[path]
    if method == "HEAD":
        assert (response.status_code, response.content) == (405, b"")
    else:
        assert_envelope(response, 405, "method_not_allowed")
    assert dispatcher.jobs == []


@pytest.mark.parametrize("path", [path for path in ALLOWED if "GET" in ALLOWED[path]])
def test_head_is_get_without_its_body(front: Front, path: str) -> None:
    got, head = front.get(path, key=None), front.request("HEAD", path, key=None)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(got.content))
    assert head.headers["content-type"] == got.headers["content-type"]


@pytest.mark.parametrize("path", NOT_OURS)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_every_other_path_is_a_404_of_ours_with_or_without_a_key(
    front: Front, dispatcher: FakeDispatcher, path: str, method: str
) -> None:
    for key in (None, "esk_live_" + "0" * 32):
        response = front.request(method, path, key=key, json=generation())
        assert_envelope(response, 404, "not_found")
    assert dispatcher.jobs == []
