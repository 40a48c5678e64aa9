"""The tree of errors every layer raises.

No HTTP here: `iris.api.errors` holds the one table from these classes to a status.
`message` is written for the client who caused the error, so it never carries a prompt, a key,
a path of the host or the text of a foreign exception.
"""

from __future__ import annotations


class IrisError(Exception):
    """An error with a stable `code`, a `message` a client may read, and the field it is about."""

    code: str = "backend_error"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code
        self.param = param
        self.retry_after_s = retry_after_s


class InvalidRequest(IrisError):
    """The client sent something the contract does not allow."""

    code = "invalid_request"


class InvalidImage(InvalidRequest):
    """A source or reference image cannot be used; the message says which one (1-based) and why."""

    code = "invalid_image"


class Unauthenticated(IrisError):
    """No key, a malformed key, an unknown or a revoked one: all look the same from outside."""

    code = "authentication_error"


class InsufficientQuota(IrisError):
    """The balance, or what the key may spend this month, does not pay the picture."""

    code = "insufficient_quota"


class AccountSuspended(IrisError):
    """The key is good; its account is closed for now."""

    code = "account_suspended"


class RateLimited(IrisError):
    """The key is over a limit; the code says which, `retry_after_s` when to come back."""

    code = "rpm_exceeded"


class RouteNotFound(InvalidRequest):
    """There is nothing at this path."""

    code = "not_found"


class MethodNotAllowed(InvalidRequest):
    """There is something at this path, but not for this method."""

    code = "method_not_allowed"


class BodyTooLarge(IrisError):
    """The request body is over its limit."""

    code = "request_too_large"


class UnsupportedMediaType(InvalidRequest):
    """The body is in a format or an encoding that is not read here."""

    code = "unsupported_media_type"


class BackendBusy(IrisError):
    """More work waits than can be finished in time; `retry_after_s` says when to come back."""

    code = "backend_busy"


class BackendUnavailable(IrisError):
    """The engine is starting, stopping or gone."""

    code = "backend_unavailable"


class BackendTimeout(IrisError):
    """The picture was not finished before its deadline."""

    code = "backend_timeout"


class BackendFailure(IrisError):
    """Something broke inside; the message tells nothing of the inside."""

    code = "backend_error"


class ConfigError(IrisError):
    """A setting is wrong; the message names the key, the value and what is allowed."""

    code = "config_error"


class StoreError(IrisError):
    """A model cannot be found, read or trusted; the message says which one and what to do."""

    code = "store_error"
