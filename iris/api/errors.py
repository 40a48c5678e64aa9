"""From the tree of errors to an HTTP answer: one table, one envelope.

Nothing else in the house knows a status code.
"""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass

from starlette.responses import JSONResponse, Response

from iris import errors

OK = 200
NO_CONTENT = 204
INTERNAL = 500
CLIENT_GONE = 499  # never sent: what the log and the metrics call a request nobody waited for

INTERNAL_MESSAGE = "Something broke on our side. Nothing was charged; please try again."


@dataclass(frozen=True, slots=True)
class Answer:
    """What a class of errors looks like from outside."""

    status: int
    type: str
    when: str  # for the API description

    @property
    def is_ours(self) -> bool:
        """Whether it is our fault, and so worth a look by us and no word to the client."""
        return self.status == INTERNAL


# A class that is not in the table answers as its nearest base that is.
TABLE: dict[type[errors.IrisError], Answer] = {
    errors.InvalidRequest: Answer(
        400,
        "invalid_request_error",
        "Bad parameters; or `missing_prompt`, `model_not_found`, `invalid_image`.",
    ),
    errors.Unauthenticated: Answer(
        401, "authentication_error", "No key, a malformed, an unknown or a revoked one."
    ),
    errors.InsufficientQuota: Answer(
        402,
        "insufficient_quota",
        "The account's balance cannot pay the picture; or `monthly_cap_exceeded`, the key's own "
        "cap.",
    ),
    errors.AccountSuspended: Answer(403, "permission_error", "The account is suspended."),
    errors.RouteNotFound: Answer(404, "invalid_request_error", "There is nothing at this path."),
    errors.MethodNotAllowed: Answer(
        405, "invalid_request_error", "Not for this method; `Allow` names those that work."
    ),
    errors.BodyTooLarge: Answer(
        413, "request_too_large", "The body is over 50 MB (52,428,800 bytes)."
    ),
    errors.UnsupportedMediaType: Answer(
        415, "invalid_request_error", "The body is in a format or encoding that is not read here."
    ),
    errors.RateLimited: Answer(
        429,
        "rate_limit_error",
        "The key is over a limit: `rpm_exceeded`, `rpd_exceeded` or `concurrency_exceeded`; "
        "`Retry-After` says when to come back.",
    ),
    errors.BackendBusy: Answer(
        429, "rate_limit_error", "Too much waits already; `Retry-After` says when to come back."
    ),
    errors.IrisError: Answer(
        INTERNAL,
        "backend_error",
        "Something broke inside; the message tells nothing of the inside.",
    ),
    errors.BackendUnavailable: Answer(
        503, "backend_unavailable", "The engine is starting, stopping or gone."
    ),
    errors.BackendTimeout: Answer(
        504, "backend_timeout", "The picture was not finished before its deadline."
    ),
}


class ModelNotFound(errors.RouteNotFound):
    """There is no model of this name under /v1/models."""

    code = "model_not_found"


def new_request_id() -> str:
    """`req_` and 128 random bits: names one request in the answer and in the log."""
    return f"req_{secrets.token_hex(16)}"


def answer_for(kind: type[errors.IrisError]) -> Answer:
    """The row of the nearest class in the tree that has one."""
    return next(TABLE[base] for base in kind.__mro__ if base in TABLE)


def envelope(error: errors.IrisError) -> dict[str, object]:
    """The body of every error. What broke inside keeps its message to itself."""
    answer = answer_for(type(error))
    return {
        "error": {
            "message": INTERNAL_MESSAGE if answer.is_ours else error.message,
            "type": answer.type,
            "code": errors.IrisError.code if answer.is_ours else error.code,
            "param": None if answer.is_ours else error.param,
        }
    }


def error_response(error: errors.IrisError) -> Response:
    """The whole answer to an error, with the headers its status calls for."""
    answer = answer_for(type(error))
    headers: dict[str, str] = {}
    if answer is TABLE[errors.Unauthenticated]:
        headers["www-authenticate"] = "Bearer"
    retry_after_s = error.retry_after_s
    if retry_after_s is None and answer is TABLE[errors.BackendBusy]:
        retry_after_s = 1.0
    if retry_after_s is not None:
        headers["retry-after"] = str(max(1, math.ceil(retry_after_s)))
    return JSONResponse(envelope(error), status_code=answer.status, headers=headers)
