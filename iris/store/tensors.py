"""What a safetensors file says of itself: names, types and shapes, read without torch."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from iris.errors import StoreError

_MAX_HEADER_BYTES = 100_000_000  # the format's own limit
_BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8}
_BITS |= {f"{sign}{bits}": bits for sign in "IU" for bits in (8, 16, 32, 64)} | {"BOOL": 8}


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor of a safetensors file; `start` and `end` are byte offsets in the file."""

    dtype: str  # as the file spells it: F32, BF16, ...
    shape: tuple[int, ...]
    start: int
    end: int


def read_header(path: Path, *, max_header_bytes: int = _MAX_HEADER_BYTES) -> dict[str, TensorInfo]:
    """Every tensor of the file, by name. Reads the header alone, whatever the size of the file.

    Raises:
        StoreError: not a safetensors file, one that was cut short, or one with a larger header.
    """
    raw, size = _read_raw(path, max_header_bytes)
    length = len(raw)
    try:
        header = json.loads(raw)
        header.pop("__metadata__", None)
        tensors = {name: _tensor(fields, 8 + length) for name, fields in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StoreError(f"{path} has no readable safetensors header. Fetch it again.") from error
    position = 8 + length
    for tensor in sorted(tensors.values(), key=lambda tensor: (tensor.start, tensor.end)):
        if tensor.start != position:
            raise StoreError(f"{path} has holes or overlaps between its tensors. Fetch it again.")
        position = tensor.end
    if position != size:
        raise StoreError(
            f"{path} is {size} bytes, its header says {position}: it was cut short or added to. "
            "Fetch it again."
        )
    return tensors


def read_metadata(path: Path) -> dict[str, str]:
    """What the makers of the file wrote into its header, as far as it is texts.

    Raises:
        StoreError: not a safetensors file.
    """
    raw, _ = _read_raw(path, _MAX_HEADER_BYTES)
    try:
        metadata = json.loads(raw).get("__metadata__") or {}
        return {key: value for key, value in metadata.items() if isinstance(value, str)}
    except (ValueError, AttributeError, RecursionError) as error:
        raise StoreError(f"{path} has no readable safetensors header. Fetch it again.") from error


def read_headers(folder: Path) -> dict[str, TensorInfo]:
    """The tensors of all safetensors files right in the folder (the shards of one model).

    Raises:
        StoreError: there is no such file, one is broken, or two hold the same name.
    """
    tensors: dict[str, TensorInfo] = {}
    for path in sorted(folder.glob("*.safetensors")):
        for name, tensor in read_header(path).items():
            if name in tensors:
                raise StoreError(f"{path} holds {name}, which another file of {folder} holds too.")
            tensors[name] = tensor
    if not tensors:
        raise StoreError(f"{folder} holds no weights. It needs at least one .safetensors file.")
    return tensors


def is_finite(path: Path, tensor: TensorInfo) -> bool:
    """Whether every number of the tensor is finite.

    Raises:
        StoreError: the type is none of F64, F32, F16 and BF16.
    """
    kinds: Mapping[str, Any] = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
    if tensor.dtype not in kinds:
        raise StoreError(f"{path} holds {tensor.dtype} numbers. Use {', '.join(kinds)}.")
    values = np.fromfile(
        path, dtype=kinds[tensor.dtype], count=math.prod(tensor.shape), offset=tensor.start
    )
    if tensor.dtype == "BF16":  # numpy has no such type: infinite or NaN = all exponent bits set
        return not bool(np.any((values & 0x7F80) == 0x7F80))
    return bool(np.all(np.isfinite(values)))


def _read_raw(path: Path, max_header_bytes: int) -> tuple[bytes, int]:
    """The header as bytes, and the size of the file."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > size - 8:
                raise StoreError(f"{path} is not a whole safetensors file. Fetch it again.")
            if length > max_header_bytes:
                raise StoreError(
                    f"{path} has a header of {length} bytes; {max_header_bytes} are allowed here. "
                    "It is not what it says it is."
                )
            return file.read(length), size
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror}).") from error


def _tensor(fields: Any, data_start: int) -> TensorInfo:
    start, end = fields["data_offsets"]
    shape = tuple(fields["shape"])
    if not all(type(number) is int and number >= 0 for number in (*shape, start, end)):
        raise ValueError("offsets and shapes are whole numbers")
    if (end - start) * 8 != math.prod(shape) * _BITS[fields["dtype"]]:
        raise ValueError("the shape does not fit the bytes")
    return TensorInfo(fields["dtype"], shape, data_start + start, data_start + end)
