"""One line of a diagnosis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "stop"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one thing. `stop`: the service will not start, or not as it is set."""

    level: Level
    subject: str
    found: str
    advice: str = ""  # what to change, if anything
