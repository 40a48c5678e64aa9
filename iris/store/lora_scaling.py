"""What a style's products are scaled by: alpha over the rank, as PEFT's settings have it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iris.errors import StoreError


@dataclass(frozen=True, slots=True)
class Scaling:
    """What a style's products are scaled by where the file has no alpha of its own."""

    alpha: float | None = None  # None: as large as the rank, so that the scale is 1
    of_module: Mapping[str, float] | None = None  # by PEFT's patterns; the first that matches
    by_root: bool = False  # alpha / sqrt(rank): rsLoRA

    def alpha_of(self, layer: str, rank: int) -> float:
        """The alpha of a layer, by its name in the file."""
        alpha = self.alpha
        # PEFT matches a layer's name in the model, before it or diffusers put theirs before it
        module = re.sub(r"^(base_model\.model|transformer)\.", "", layer)
        for pattern, value in (self.of_module or {}).items():
            if re.match(_whole_or_end(pattern), module):
                alpha = value
                break
        alpha = float(rank) if alpha is None else alpha
        return alpha * math.sqrt(rank) if self.by_root else alpha


def scaling_of(settings: object) -> Scaling:
    """The scale in PEFT's settings of an adapter. Raises ValueError, which says what is wrong."""
    if not isinstance(settings, dict):
        raise ValueError("it is no JSON object")
    alpha = settings.get("lora_alpha")
    patterns = settings.get("alpha_pattern") or {}
    if not isinstance(patterns, dict):
        raise ValueError("alpha_pattern is no JSON object")
    for pattern in patterns:
        try:
            re.compile(_whole_or_end(pattern))
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"alpha_pattern has {pattern!r:.60}, no regular expression") from error
    return Scaling(
        None if alpha is None else _number("lora_alpha", alpha),
        {key: _number(f"alpha_pattern of {key}", value) for key, value in patterns.items()},
        bool(settings.get("use_rslora", False)),
    )


def with_metadata(source: Path, scaling: Scaling, metadata: Mapping[str, str]) -> Scaling:
    """What diffusers' own metadata says of the scale, where nothing else did."""
    if scaling != Scaling() or "lora_adapter_metadata" not in metadata:
        return scaling
    try:
        found = json.loads(metadata["lora_adapter_metadata"])
        if isinstance(found, dict):
            found = {key.removeprefix("transformer."): value for key, value in found.items()}
        return scaling_of(found)
    except (ValueError, RecursionError) as error:
        raise StoreError(
            f"{source} cannot be scaled: the lora_adapter_metadata in its header is not usable "
            f"({error}). Save it again with the tool that made it."
        ) from error


def _whole_or_end(pattern: str) -> str:
    """What PEFT makes of a pattern. Source: peft.utils.other.get_pattern_key."""
    return rf"(.*\.)?({pattern})$"


def _number(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{name} is {value!r:.60}, no finite number")
    return number
