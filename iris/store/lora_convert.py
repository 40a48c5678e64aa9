"""A LoRA file as somebody trained it, brought to the one form in which styles are stored.

That form is diffusers': transformer.<module>.lora_A.weight and .lora_B.weight, and what each is
scaled by in the file's metadata. Numbers are moved, never changed. Nothing is left out silently:
a tensor that cannot be honoured makes the whole file refused, with the reason.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, TensorSpec, serialize_file

from iris.errors import StoreError
from iris.store.lora_names import LayerNames, Target, shown
from iris.store.lora_scaling import Scaling, with_metadata
from iris.store.registry import MAX_RANK
from iris.store.tensors import TensorInfo, is_finite, read_header, read_metadata

MAX_FILE_BYTES = 4 << 30
_MAX_HEADER_BYTES = 4 << 20  # a LoRA of every layer of the largest FLUX.2 needs a tenth of it
_MAX_NAME_CHARACTERS = 300  # the longest that is known has a hundred
_MAX_SCALE = 1e4  # alpha / rank; trainers use 1 or 2, and a far smaller up matrix may need more
_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_DOWN = re.compile(
    r"(.+?)\.(?:lora_A|lora_down|lora\.down|lora_linear_layer\.down)(?:\.[^.]+)?\.weight"
)
_UP = re.compile(r"(.+?)\.(?:lora_B|lora_up|lora\.up|lora_linear_layer\.up)(?:\.[^.]+)?\.weight")
_ALPHA = re.compile(r"(.+?)\.alpha")
_REASONS = (
    (r"lokr_", "it is a LoKr (Kronecker products), which is not a LoRA"),
    (r"hada_", "it is a LoHa (Hadamard products), which is not a LoRA"),
    (r"dora_scale|magnitude_vector", "it is a DoRA, which also rescales the base's weights"),
    (r"oft_|boft_|vera_|glora|\.a1\.|\.b1\.", "it is of a kind that is not a LoRA"),
    (r"lora_mid", "it has a third matrix in between (Tucker form)"),
    (r"lora_(B|up)\.bias", "it adds biases, which are not loaded"),
    (r"\.diff(_b)?$|\.set_weight$", "it holds whole weights beside the LoRA"),
    (r"lora_te|text_encoder|text_model|qwen", "it changes the text encoder too"),
    (r"^vae\.|first_stage_model", "it changes the autoencoder too"),
)
_PICKLES = (b"PK\x03\x04", b"\x80")
_CONVERT = "Convert it with the tool that made it, or train it again as a plain LoRA."

Array = np.ndarray[Any, np.dtype[np.uint8]]


@dataclass(frozen=True, slots=True)
class Converted:
    """What was found in a file."""

    rank: int  # the largest
    num_modules: int


@dataclass(frozen=True, slots=True)
class _Matrix:
    info: TensorInfo
    rows: Array  # (rows, bytes of a row)

    @property
    def width(self) -> int:
        return self.info.shape[1]


def convert(
    source: Path, target: Path, base_weights: Mapping[str, TensorInfo], scaling: Scaling
) -> Converted:
    """Read a LoRA of any known key format and write it to `target` in the stored one.

    base_weights: the tensors of the base's transformer.

    Raises:
        StoreError: not a safetensors file, not a LoRA, or one that is not for this base; says what
            it is as far as that can be told.
    """
    _check_kind(source)
    tensors = read_header(source, max_header_bytes=_MAX_HEADER_BYTES)
    layers = _layers(source, tensors)
    names = LayerNames(
        key.removesuffix(".weight")
        for key, info in base_weights.items()
        if key.endswith(".weight") and len(info.shape) == 2
    )
    scaling = with_metadata(source, scaling, read_metadata(source))
    matrices: dict[str, tuple[Array, TensorInfo, tuple[int, ...]]] = {}
    alphas: dict[str, float] = {}
    ranks: dict[str, int] = {}
    for layer, parts in layers.items():
        targets = names.find(layer)
        if targets is None:
            raise _unknown_layer(source, layer, layers, names)
        down, up = (_matrix(source, parts[side], tensors) for side in ("down", "up"))
        rank = down.info.shape[0]
        _check_rank(source, layer, rank, up.width)
        alpha = _alpha(source, layer, parts.get("alpha"), tensors, scaling, rank)
        for goal in targets:
            if goal.module in ranks:
                raise StoreError(
                    f"{source} has two LoRAs for {goal.module}; one is by {shown(layer)}."
                )
            rows = _rows_of(source, layer, up, goal)
            _check_shape(source, goal.module, (len(rows), down.width), base_weights)
            key = f"transformer.{goal.module}"
            matrices[f"{key}.lora_A.weight"] = (down.rows, down.info, (rank, down.width))
            matrices[f"{key}.lora_B.weight"] = (rows, up.info, (len(rows), rank))
            ranks[goal.module], alphas[goal.module] = rank, alpha
    if not any(rows.any() for key, (rows, _, _) in matrices.items() if "lora_B" in key):
        raise StoreError(
            f"{source} changes nothing: every up matrix is zero. It was never trained."
        )
    _write(target, matrices, ranks, alphas)
    return Converted(max(ranks.values()), len(ranks))


def _check_kind(source: Path) -> None:
    try:
        size = source.stat().st_size
        with source.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise StoreError(f"{source} cannot be read ({error.strerror}).") from error
    if start.startswith(_PICKLES) and not start.endswith(b"{"):  # where a header would begin
        raise StoreError(
            f"{source} is a pickle, which can run code when it is loaded, and is not opened here. "
            "Get it as a safetensors file."
        )
    if size > MAX_FILE_BYTES:
        raise StoreError(
            f"{source} is {size / 1e9:.1f} GB large; a LoRA has at most "
            f"{MAX_FILE_BYTES / 1e9:.1f}. A whole model is added with `iris models import`."
        )


def _layers(source: Path, names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Layer as the file spells it -> the names of its down, up and, if there is one, alpha."""
    layers: dict[str, dict[str, str]] = {}
    strange = []
    for name in names:
        if len(name) > _MAX_NAME_CHARACTERS:
            raise StoreError(
                f"{source} cannot be a style: the name of a tensor has {len(name)} characters, at "
                f"most {_MAX_NAME_CHARACTERS} are read ({shown(name)}). {_CONVERT}"
            )
        for side, form in (("down", _DOWN), ("up", _UP), ("alpha", _ALPHA)):
            found = form.fullmatch(name)
            if found is not None:
                parts = layers.setdefault(found[1], {})
                if side in parts:
                    raise StoreError(
                        f"{source} holds {shown(parts[side])} and {shown(name)}: one is too many."
                    )
                parts[side] = name
                break
        else:
            strange.append(name)
    for name in (*strange, *layers):  # a kind of its own may look like a LoRA in part
        for pattern, reason in _REASONS:
            if re.search(pattern, name):
                raise StoreError(
                    f"{source} cannot be a style: {reason} ({shown(name)}). {_CONVERT}"
                )
    if strange:
        raise StoreError(
            f"{source} holds {len(strange)} tensors that are no part of a LoRA, such as "
            f"{shown(min(strange))}. {_CONVERT}"
        )
    if not layers:
        raise StoreError(f"{source} holds no tensor at all.")
    halves = [layer for layer, parts in layers.items() if not {"down", "up"} <= parts.keys()]
    if halves:
        raise StoreError(f"{source} holds only one half of the pair for {shown(min(halves))}.")
    return layers


def _matrix(source: Path, name: str, tensors: Mapping[str, TensorInfo]) -> _Matrix:
    info = tensors[name]
    if info.dtype not in _DTYPES:
        raise StoreError(
            f"{source}: {shown(name)} holds {info.dtype} numbers. Use F32, F16 or BF16."
        )
    if len(info.shape) < 2 or math.prod(info.shape[2:]) != 1:
        raise StoreError(
            f"{source}: {shown(name)} is no matrix: its shape is {list(info.shape)!s:.60}."
        )
    if 0 in info.shape:
        raise StoreError(f"{source}: {shown(name)} is empty.")
    if not is_finite(source, info):
        raise StoreError(f"{source}: {shown(name)} holds NaN or infinite numbers. Train it again.")
    raw = np.fromfile(source, np.uint8, count=info.end - info.start, offset=info.start)
    return _Matrix(info, raw.reshape(info.shape[0], -1))


def _check_rank(source: Path, layer: str, down: int, up: int) -> None:
    if down != up:
        raise StoreError(
            f"{source}: {shown(layer)} has rank {down} in its down and {up} in its up matrix."
        )
    if down > MAX_RANK:
        raise StoreError(f"{source}: {shown(layer)} has rank {down}; at most {MAX_RANK} is served.")


def _rows_of(source: Path, layer: str, up: _Matrix, goal: Target) -> Array:
    """The rows of an up matrix that are the module's own, in its order."""
    count = len(up.rows)
    if count % goal.num_parts or (goal.is_swapped and count % 2):
        raise StoreError(f"{source}: {shown(layer)} has {count} rows, which do not split evenly.")
    size = count // goal.num_parts
    rows = up.rows[goal.part * size : (goal.part + 1) * size]
    if goal.is_swapped:
        return np.concatenate([rows[size // 2 :], rows[: size // 2]])
    return np.ascontiguousarray(rows)


def _check_shape(
    source: Path, module: str, shape: tuple[int, int], base_weights: Mapping[str, TensorInfo]
) -> None:
    wanted = base_weights[f"{module}.weight"].shape
    if shape != wanted:
        raise StoreError(
            f"{source} was made for another base: {module} is {wanted[0]}x{wanted[1]} here and "
            f"{shape[0]}x{shape[1]} in the file. Get the LoRA for the base that is served."
        )


def _alpha(
    source: Path,
    layer: str,
    name: str | None,
    tensors: Mapping[str, TensorInfo],
    scaling: Scaling,
    rank: int,
) -> float:
    if name is None:
        alpha = scaling.alpha_of(layer, rank)
    else:
        info = tensors[name]
        if math.prod(info.shape) != 1 or info.dtype not in _DTYPES:
            raise StoreError(f"{source}: {shown(name)} must be one number.")
        raw = np.fromfile(source, np.uint8, count=info.end - info.start, offset=info.start)
        if info.dtype == "BF16":  # the upper half of a float32
            raw = np.concatenate([np.zeros(2, np.uint8), raw])
        alpha = float(raw.view(np.float32 if info.dtype == "BF16" else _DTYPES[info.dtype])[0])
    if not abs(alpha) <= _MAX_SCALE * rank:  # NaN neither
        raise StoreError(
            f"{source}: the alpha of {shown(layer)} is {alpha:g} at rank {rank}, which is no "
            f"scale; at most {_MAX_SCALE:g} times the rank is served. Train it again."
        )
    return alpha


def _unknown_layer(
    source: Path, layer: str, layers: Iterable[str], names: LayerNames
) -> StoreError:
    every = list(layers)
    unknown = [name for name in every if names.find(name) is None]
    text = " ".join(every)
    made_for = ""
    if "proj_mlp" in text or "img_mod" in text or "norm1_linear" in text:
        made_for = " It looks like one for FLUX.1."
    elif re.search(r"down_blocks|up_blocks|input_blocks|output_blocks", text):
        made_for = " It looks like one for Stable Diffusion."
    elif re.search(r"noise_refiner|context_refiner|layers_\d+_attention", text):
        made_for = " It looks like one for another family of models."
    return StoreError(
        f"{source} was made for another base: {len(unknown)} of its {len(every)} layers are not in "
        f"this one, such as {shown(layer)}.{made_for}"
    )


def _write(
    target: Path,
    matrices: Mapping[str, tuple[Array, TensorInfo, tuple[int, ...]]],
    ranks: Mapping[str, int],
    alphas: Mapping[str, float],
) -> None:
    rank, alpha = next(iter(ranks.values())), next(iter(alphas.values()))
    settings = {
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {module: r for module, r in ranks.items() if r != rank},
        "alpha_pattern": {module: a for module, a in alphas.items() if a != alpha},
        "target_modules": sorted(ranks),
    }
    metadata = {f"transformer.{key}": value for key, value in settings.items()}
    rows = {key: np.ascontiguousarray(array) for key, (array, _, _) in matrices.items()}
    specs = {
        key: TensorSpec(
            dtype=_DTYPES[info.dtype],
            shape=shape,
            data_ptr=rows[key].ctypes.data,
            data_len=rows[key].nbytes,
        )
        for key, (_, info, shape) in sorted(matrices.items())
    }
    # one key alone: of several the library changes the order, and so the hash, as it likes
    about = {"lora_adapter_metadata": json.dumps(metadata, sort_keys=True)}
    try:
        serialize_file(specs, target, about)
    except (OSError, SafetensorError) as error:
        raise StoreError(
            f"{target} cannot be written ({error}). Make room, or set BENTOML_HOME to a folder on "
            "a larger disk."
        ) from error
