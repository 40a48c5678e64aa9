from __future__ import annotations

import inspect
import pickle

import pytest

from iris import errors
from iris.errors import IrisError

ALL = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, IrisError)]


def test_every_error_has_a_code_of_its_own_or_its_parents() -> None:
    assert len(ALL) > 10
    codes = [cls.__dict__.get("code") for cls in ALL]
    assert all(codes)
    shared = {code for code in codes if codes.count(code) > 1}
    assert shared == {"backend_error"}  # the root and BackendFailure: what is not known is inside


@pytest.mark.parametrize("cls", ALL)
def test_what_an_error_was_made_with_can_be_read(cls: type[IrisError]) -> None:
    plain = cls("What was wrong.")
    assert (plain.message, str(plain)) == ("What was wrong.", "What was wrong.")
    assert (plain.code, plain.param, plain.retry_after_s) == (cls.code, None, None)
    full = cls("What was wrong.", code="special", param="size", retry_after_s=1.5)
    assert (full.code, full.param, full.retry_after_s) == ("special", "size", 1.5)


def test_a_code_given_to_one_error_never_reaches_the_next() -> None:
    errors.InvalidRequest("first", code="missing_prompt")
    assert errors.InvalidRequest("second").code == "invalid_request"
    assert errors.InvalidRequest.code == "invalid_request"


def test_everything_a_client_can_get_wrong_is_an_invalid_request() -> None:
    for cls in (errors.InvalidImage, errors.RouteNotFound, errors.MethodNotAllowed):
        assert issubclass(cls, errors.InvalidRequest)
    for cls in (errors.Unauthenticated, errors.BackendFailure, errors.ConfigError):
        assert not issubclass(cls, errors.InvalidRequest)


@pytest.mark.parametrize("cls", ALL)
def test_an_error_survives_the_way_between_processes(cls: type[IrisError]) -> None:
    sent = cls("What was wrong.", code="special", param="size", retry_after_s=1.5)
    received = pickle.loads(pickle.dumps(sent))  # noqa: S301
    assert type(received) is cls
    assert vars(received) == vars(sent)


def test_the_errors_know_no_status() -> None:
    for cls in ALL:
        assert not any("status" in name for name in dir(cls))
