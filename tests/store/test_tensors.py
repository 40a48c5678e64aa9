from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from iris.errors import StoreError
from iris.store.tensors import is_finite, read_header, read_headers

Write = Callable[[Path, object, bytes], None]


def test_names_types_and_shapes_are_read_as_the_library_wrote_them(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    arrays = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.zeros((0, 4), np.float16),
        "c": np.array(7, np.int64),
    }
    save_file(arrays, path, metadata={"format": "pt"})
    header = read_header(path)
    assert {name: info.shape for name, info in header.items()} == {
        "a": (2, 3),
        "b": (0, 4),
        "c": (),
    }
    assert {name: info.dtype for name, info in header.items()} == {
        "a": "F32",
        "b": "F16",
        "c": "I64",
    }
    raw = path.read_bytes()
    for name, info in header.items():
        assert raw[info.start : info.end] == arrays[name].tobytes()


def _one(dtype: str = "F32", shape: object = (2,), offsets: object = (0, 8)) -> dict[str, object]:
    return {"a": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


@pytest.mark.parametrize(
    ("header", "data"),
    [
        (_one(), b"1234567"),  # cut short
        (_one(), b"123456789"),  # added to
        (_one(shape=(3,)), b"12345678"),
        (_one(shape=(-2,)), b"12345678"),
        (_one(shape=(2.0,)), b"12345678"),
        (_one(shape=(True, 2)), b"12345678"),
        (_one(offsets=(8, 16)), b"x" * 16),  # a hole
        (_one(offsets=(0, 8, 9)), b"12345678"),
        (_one(dtype="PICKLE"), b"12345678"),
        ({"a": {"dtype": "F32"}}, b""),
        ({"a": 1}, b""),
        ({**_one(), "b": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, b"12345678"),
        ([], b""),
        (b"{", b""),
        (b"[" * 100_000, b""),
        (b"\xff\xfe", b""),
    ],
)
def test_a_broken_file_is_refused_by_its_path(
    tmp_path: Path, write_raw: Write, header: object, data: bytes
) -> None:
    path = tmp_path / "w.safetensors"
    write_raw(path, header, data)
    with pytest.raises(StoreError, match=r"w\.safetensors"):
        read_header(path)


@pytest.mark.parametrize("content", [b"", b"\x00" * 7, b"\xff" * 64, b"PK\x03\x04" * 40])
def test_a_header_longer_than_its_file_is_never_read(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(StoreError, match="not a whole safetensors file"):
        read_header(path)


def test_shards_are_read_as_one_and_may_not_overlap(tmp_path: Path) -> None:
    save_file({"a": np.ones(1, np.float32)}, tmp_path / "1.safetensors")
    save_file({"b": np.ones(1, np.float32)}, tmp_path / "2.safetensors")
    assert set(read_headers(tmp_path)) == {"a", "b"}
    save_file({"b": np.ones(1, np.float32)}, tmp_path / "3.safetensors")
    with pytest.raises(StoreError, match="holds b, which another file"):
        read_headers(tmp_path)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="holds no weights"):
        read_headers(tmp_path)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_one_number_that_is_not_finite_is_found(tmp_path: Path, bad: float, dtype: type) -> None:
    path = tmp_path / "w.safetensors"
    poisoned = np.ones((3, 5), dtype)
    poisoned[2, 4] = bad
    save_file({"before": np.ones(7, dtype), "poisoned": poisoned}, path)
    header = read_header(path)
    assert is_finite(path, header["before"])
    assert not is_finite(path, header["poisoned"])


@pytest.mark.parametrize(
    ("bits", "finite"),
    [
        (0x3F80, True),  # 1.0
        (0x7F7F, True),  # the largest
        (0xFF7F, True),
        (0x0001, True),  # the smallest
        (0x7F80, False),  # infinity
        (0xFF80, False),
        (0x7FC0, False),  # NaN
        (0xFF81, False),
    ],
)
def test_bfloat16_is_judged_by_its_bits(
    tmp_path: Path, write_raw: Write, bits: int, finite: bool
) -> None:
    path = tmp_path / "w.safetensors"
    header = {"a": {"dtype": "BF16", "shape": [3], "data_offsets": [0, 6]}}
    write_raw(path, header, np.array([0x3F80, bits, 0], "<u2").tobytes())
    assert is_finite(path, read_header(path)["a"]) is finite


def test_numbers_of_another_type_are_refused_by_type(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"a": np.ones(1, np.int32)}, path)
    with pytest.raises(StoreError, match="I32"):
        is_finite(path, read_header(path)["a"])


def test_the_header_alone_is_read_of_a_large_file(tmp_path: Path, write_raw: Write) -> None:
    path = tmp_path / "w.safetensors"
    size = 64 * 2**30
    header = json.dumps({"a": {"dtype": "I8", "shape": [size], "data_offsets": [0, size]}}).encode()
    write_raw(path, header, b"")
    with path.open("r+b") as file:
        file.truncate(8 + len(header) + size)  # sparse: takes no room
    assert read_header(path)["a"].shape == (size,)
