from __future__ import annotations

import pytest

from iris.images import wire
from iris.images.fit import Exact, Fit, Within


@pytest.mark.parametrize("fit", [None, Exact(3, 4), Within(704, 495_616, 16)])
def test_a_wanted_size_crosses_unchanged(fit: Fit | None) -> None:
    assert wire.fit_from_json(wire.fit_to_json(fit)) == fit


@pytest.mark.parametrize("value", [None, [1], ["1", "2"], [1, 2, 3, 4], {}])
def test_a_wanted_size_that_is_none_breaks_the_frame(value: object) -> None:
    with pytest.raises(wire.BrokenFrame):
        wire.fit_from_json(value)


def test_a_frame_says_its_lengths_before_anything_is_read() -> None:
    frame = wire.pack({"want": "size"}, 12)
    head_bytes, blob_bytes = wire.lengths(frame[:8], max_blob_bytes=12)
    assert blob_bytes == 12
    assert wire.unpack_head(frame[8:]) == {"want": "size"}
    assert len(frame) == 8 + head_bytes


def test_a_frame_over_its_limits_is_not_read() -> None:
    with pytest.raises(wire.BrokenFrame, match="over the limit"):
        wire.lengths(wire.LENGTHS.pack(2, 13), max_blob_bytes=12)
    with pytest.raises(wire.BrokenFrame, match="over the limit"):
        wire.lengths(wire.LENGTHS.pack(1 << 30, 0), max_blob_bytes=12)


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff", b"[]", b"1"])
def test_a_head_that_is_no_object_breaks_the_frame(raw: bytes) -> None:
    with pytest.raises(wire.BrokenFrame):
        wire.unpack_head(raw)
