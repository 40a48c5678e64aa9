"""What a style's products are scaled by: alpha over the rank, as PEFT's settings have it.

PEFT's patterns are regular expressions, and those of a stranger may run without end. In files they
are names of layers, or little more; that much is matched here as PEFT does, by hand.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iris.errors import StoreError
from iris.store.lora_names import shown

_MAX_PATTERNS_CHARACTERS = 1 << 15  # more than twice what names every layer of the largest FLUX.2
# What of regular expressions is read, in any alternative: a name's pieces between its ends.
_PATTERN = re.compile(r"\^?(?:\\d\+?|\\\.|[\w.])+\$?", re.ASCII)
_PIECE = re.compile(r"\\d\+?|\\\.|[\w.]", re.ASCII)


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
            if any(_is_end(part, module) for part in pattern.split("|")):
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
    characters = sum(map(len, patterns))
    if characters > _MAX_PATTERNS_CHARACTERS:
        raise ValueError(
            f"the names in alpha_pattern have {characters} characters, at most "
            f"{_MAX_PATTERNS_CHARACTERS} are read"
        )
    for pattern in patterns:
        if not all(_PATTERN.fullmatch(part) for part in pattern.split("|")):
            raise ValueError(
                f"alpha_pattern has {shown(pattern)}, which is not the name of a layer; use "
                "letters, digits, _ and ., and of regular expressions \\. \\d \\d+ ^ $ and | alone"
            )
    return Scaling(
        None if alpha is None else _number("lora_alpha", alpha),
        {key: _number(f"alpha_pattern of {shown(key)}", value) for key, value in patterns.items()},
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


def _is_end(pattern: str, module: str) -> bool:
    """Whether the pattern is the module's name or its end, from a dot on.

    Read from the end: there is one place to begin at, so the work is as long as the pattern.
    Source: peft.utils.other.get_pattern_key, which matches (.*\\.)?(PATTERN)$.
    """
    places = {len(module)}
    for piece in reversed(_PIECE.findall(pattern)):
        places = _before(piece, module, places)
        if not places:
            return False
    if pattern.startswith("^"):
        return 0 in places
    return any(place == 0 or module[place - 1] == "." for place in places)


def _before(piece: str, module: str, places: set[int]) -> set[int]:
    """Where in the name the piece may begin that ends at one of the places."""
    found = set()
    for end in places:
        place = end
        while place > 0 and _is_one(piece, module[place - 1]):
            place -= 1
            found.add(place)
            if piece != r"\d+":
                break
    return found


def _is_one(piece: str, character: str) -> bool:
    if piece.startswith(r"\d"):
        return character.isdecimal()
    return piece in (".", character) or piece == f"\\{character}"


def _number(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{name} is {value!a:.60}, no finite number")
    return number
