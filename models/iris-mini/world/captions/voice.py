"""What every part of a caption speaks with: chance, words, harmless adjectives, image numbers."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TypeVar

from world.captions.templates import DRAWN
from world.captions.words import Words
from world.spec import Intent, Wanted

_T = TypeVar("_T")
_LIVING = frozenset({"cat", "samurai", "bird", "fish"})


class Voice(ABC):
    """One caption in the making."""

    words: Words

    def __init__(self, intent: Intent, rng: random.Random) -> None:
        self.intent = intent
        self.random = rng.random
        self.objects = list(intent.objects)
        placed = [one.position for one in self.objects]
        # Two objects with positions may be named in either order.
        if len(placed) == 2 and None not in placed and self.chance(0.4):
            self.objects.reverse()
        drawn = intent.operation in DRAWN
        self.adjectives: list[str] = []
        self.tags: list[str] = []
        self.clauses: list[str] = []
        if self.chance(0.42 if drawn else 0.1):
            for _ in range(1 + int(self.random() * 3)):
                (self.adjectives if self.chance(0.4) else self.tags).append("filler")
        if self.chance(0.25):
            for _ in range(1 + self.chance(0.25)):
                self.pick((self.adjectives, self.adjectives, self.tags, self.clauses)).append(
                    "unknown"
                )
            if not drawn and self.tags:
                # "remove the cat, trending" is nobody's instruction.
                self.clauses += self.tags
                self.tags = []
        self.leading = False
        self.digits = True

    def pick(self, items: Sequence[_T]) -> _T:
        return items[int(self.random() * len(items))]

    def chance(self, share: float) -> bool:
        return self.random() < share

    # ---- adjectives

    def adjective(self, scenic: bool, wanted: Wanted | None = None) -> str:
        """The next harmless adjective, if one is due; "" otherwise."""
        if not self.adjectives or self.chance(0.3):
            return ""
        if self.adjectives.pop() == "unknown":
            return self.pick(self.words.unknown["adjectives"])
        table = self.words.filler
        if scenic and self.chance(0.7):
            return self.pick(table["scenic"])
        if wanted is not None and wanted.kind in _LIVING and self.chance(0.5):
            return self.living(wanted)
        return self.pick(table["adjectives"])

    def living(self, wanted: Wanted) -> str:
        return self.pick(self.words.filler["living"])

    def two(self, first: str, second: str) -> str:
        return f"{first} {second}"

    @abstractmethod
    def with_adjective(self, noun: str, adjective: str) -> str: ...

    @abstractmethod
    def definite(self, noun: str) -> str: ...

    # ---- images

    def image(self, number: int) -> str:
        words = self.words.images
        text: str = self.pick(words["name"])
        if "{nth}" in text:
            return text.replace("{nth}", words["nth"][number - 1])
        return text.replace("{n}", str(number))

    def of_image(self, form: str, number: int) -> str:
        return f"{self.pick(self.words.images[form])} {self.image(number)}"
