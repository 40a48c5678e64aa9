from __future__ import annotations

import re

import pytest

from iris import errors
from iris.api.errors import ModelNotFound, answer_for, envelope, error_response, new_request_id


def every_error() -> list[type[errors.IrisError]]:
    found = [errors.IrisError]
    for kind in found:
        found.extend(kind.__subclasses__())
    return [kind for kind in found if kind.__module__.startswith("iris.errors")]


CONTRACT = {
    errors.InvalidRequest: (400, "invalid_request_error", "invalid_request"),
    errors.InvalidImage: (400, "invalid_request_error", "invalid_image"),
    errors.Unauthenticated: (401, "authentication_error", "authentication_error"),
    errors.InsufficientQuota: (402, "insufficient_quota", "insufficient_quota"),
    errors.AccountSuspended: (403, "permission_error", "account_suspended"),
    errors.RouteNotFound: (404, "invalid_request_error", "not_found"),
    ModelNotFound: (404, "invalid_request_error", "model_not_found"),
    errors.MethodNotAllowed: (405, "invalid_request_error", "method_not_allowed"),
    errors.BodyTooLarge: (413, "request_too_large", "request_too_large"),
    errors.UnsupportedMediaType: (415, "invalid_request_error", "unsupported_media_type"),
    errors.RateLimited: (429, "rate_limit_error", "rpm_exceeded"),
    errors.BackendBusy: (429, "rate_limit_error", "backend_busy"),
    errors.BackendFailure: (500, "backend_error", "backend_error"),
    errors.BackendUnavailable: (503, "backend_unavailable", "backend_unavailable"),
    errors.BackendTimeout: (504, "backend_timeout", "backend_timeout"),
}


@pytest.mark.parametrize("kind", CONTRACT)
def test_every_error_has_the_status_type_and_code_of_the_contract(
    kind: type[errors.IrisError],
) -> None:
    status, type_, code = CONTRACT[kind]
    error = kind("What was wrong.", param="size")
    assert error_response(error).status_code == status
    inside = status == 500
    message = envelope(error)["error"]["message"]  # type: ignore[index]
    assert (message == "What was wrong.") is not inside
    assert envelope(error) == {
        "error": {
            "message": message,
            "type": type_,
            "code": code,
            "param": None if inside else "size",
        }
    }


@pytest.mark.parametrize(
    "kind", [k for k in every_error() if k not in CONTRACT or k is errors.BackendFailure]
)
def test_an_error_that_is_not_for_clients_never_tells_its_message(
    kind: type[errors.IrisError],
) -> None:
    error = kind("IRIS_HOME=/root/x is wrong", code="config_error")
    assert answer_for(kind).status == 500
    assert b"/root" not in error_response(error).body
    assert b"config_error" not in error_response(error).body


def test_a_code_of_its_own_is_kept() -> None:
    error = errors.InvalidRequest("No such model.", code="model_not_found", param="model")
    assert envelope(error)["error"]["code"] == "model_not_found"  # type: ignore[index]


def test_request_ids_never_repeat() -> None:
    ids = {new_request_id() for _ in range(1_000)}
    assert len(ids) == 1_000
    assert all(re.fullmatch(r"req_[0-9a-f]{32}", name) for name in ids)
