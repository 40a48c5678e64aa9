"""What is remembered of one request: the source of its log line, its metrics and its usage row."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from starlette.types import Scope

from iris.accounts.limits import Quota
from iris.api.errors import new_request_id
from iris.jobs import Usage

UNMATCHED = "unmatched"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Open(Protocol):
    """Something that has to be ended with its request."""

    def void(self) -> None: ...


@dataclass(slots=True)
class RequestRecord:
    """Plain facts of one request. Never a prompt, a key's secret or pixels.

    The middleware makes it and finishes it; the stage that learns a fact sets it.
    """

    method: str  # one of METHODS, or `other`: people put keys there, too
    request_id: str = field(default_factory=new_request_id)
    started_s: float = field(default_factory=time.perf_counter)
    route: str = UNMATCHED  # the template, never the raw path; set by the resource
    key_id: str | None = None  # set by authentication
    is_test: bool | None = None  # a test key's pictures go to the test ledger
    user: str | None = None  # the client's own label of its end user; for the usage row only
    size: str | None = None  # WIDTHxHEIGHT of the picture
    num_steps: int | None = None
    lora: str | None = None
    num_images: int | None = None  # source images sent
    seed: int | None = None
    usage: Usage | None = None  # set when the picture is there
    quota: Quota | None = None  # where the key stands in its minute; set by the reservation
    charge: Open | None = None  # the price that is set aside; set by the reservation
    charged_idr: int = 0  # set when the price was taken
    is_kept: bool = False  # the reply is being kept for its Idempotency-Key, whatever comes now
    client_left: bool = False  # set by whoever finds that the answer did not reach the client
    status: int | None = None  # set when the answer starts; None = nobody was there to read it
    code: str | None = None  # of the error, if it was one
    stages_s: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            self.method = "other"

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time one stage of the request, also when it fails."""
        began_s = time.perf_counter()
        try:
            yield
        finally:
            self.stages_s[name] = time.perf_counter() - began_s

    @property
    def elapsed_s(self) -> float:
        return time.perf_counter() - self.started_s


_SCOPE_KEY = "iris.record"


def attach(scope: Scope, record: RequestRecord) -> None:
    """Make the record findable by everything that serves this request."""
    scope[_SCOPE_KEY] = record


def record_of(scope: Scope) -> RequestRecord:
    """The record of the request being served."""
    record: RequestRecord = scope[_SCOPE_KEY]
    return record
