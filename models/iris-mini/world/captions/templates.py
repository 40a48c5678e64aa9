"""Templates of captions: sentences with slots, and the notation of the files they lie in."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# What the slots of a template say of a new picture: O objects, B that there are two of them, P the
# position of a lone one apart from it, S the scene, T the time. Slots that are not here are always
# at hand.
SAYS = {
    "O": "O",
    "o": "O",
    "both": "BO",
    "thing": "OP",
    "pos": "P",
    "S": "S",
    "s": "S",
    "p": "S",
    "pw": "ST",
    "w": "T",
    "w_noun": "T",
    "t": "T",
    "sky": "T",
}
# Instructions have one template list each; only a position of its own needs to be asked for.
SAYS_IN_EDITS = {"pos": "P"}
DRAWN = ("paint", "compose")
SLOT = re.compile(r"\{(\w+)\}")
WEIGHT = re.compile(r" \*(\d+)$")


def weighted(lines: Sequence[str]) -> list[str]:
    """Each line as often as its weight says."""
    found: list[str] = []
    for line in lines:
        weight = WEIGHT.search(line)
        text = line[: weight.start()] if weight else line
        found += [text] * (int(weight[1]) if weight else 1)
    return found


def bare(lines: Sequence[str]) -> list[str]:
    """Each line once, without its weight."""
    return [WEIGHT.sub("", line) for line in lines]


@dataclass(frozen=True, slots=True)
class Template:
    """A sentence taken apart: literals with slots between them, and the letters of what it says."""

    text: str
    literals: tuple[str, ...]  # one more than slots
    slots: tuple[str, ...]
    says: str

    @classmethod
    def parse(cls, text: str, says: Mapping[str, str]) -> Template:
        pieces = SLOT.split(text)
        slots = tuple(pieces[1::2])
        letters = "".join(sorted(set("".join(says.get(slot, "") for slot in slots))))
        return cls(text, tuple(pieces[::2]), slots, letters)
