from __future__ import annotations

import pytest

from iris.api.record import RequestRecord, attach, record_of


def test_a_stage_that_fails_is_timed_too() -> None:
    record = RequestRecord("POST")
    with pytest.raises(ValueError, match="x"), record.stage("body"):
        raise ValueError("x")
    assert record.stages_s["body"] >= 0


def test_a_record_is_found_by_whoever_serves_its_request() -> None:
    one, two = RequestRecord("GET"), RequestRecord("GET")
    scope_one: dict[str, object] = {}
    scope_two: dict[str, object] = {}
    attach(scope_one, one)
    attach(scope_two, two)
    assert record_of(scope_one) is one
    assert record_of(scope_two) is two
    assert one.request_id != two.request_id
