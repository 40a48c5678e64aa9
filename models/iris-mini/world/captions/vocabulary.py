"""All the words that captions are made of, for a tokenizer to learn from."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from typing import Any

from world.captions import caption
from world.captions.templates import SLOT, WEIGHT
from world.captions.words import WORDS
from world.spec import OPERATIONS, Intent

_WORD = re.compile(r"[^\W\d_]+")


def _in_order(texts: Sequence[str]) -> list[str]:
    """The different words of the texts, in order of appearance."""
    return list(dict.fromkeys(word for text in texts for word in _WORD.findall(text)))


def _texts(data: Any) -> list[str]:
    if isinstance(data, str):
        return [WEIGHT.sub("", SLOT.sub("", data)).replace("_", " ")]
    return [
        text for one in (data.values() if isinstance(data, dict) else data) for text in _texts(one)
    ]


def world_words(language: str) -> list[str]:
    """The words that mean something in the world, and those they come with."""
    data = WORDS[language].data
    names = ("scenes", "times", "kinds", "colours", "sizes", "positions", "counts", "places")
    texts = [text for name in names for text in _texts(data[name])]
    if language == "en":
        texts += [other for forms in WORDS["en"].kinds.values() for _, other in forms]
    return _in_order(texts)


def vocabulary() -> Iterator[str]:
    """The corpus a tokenizer learns its merges from: always the same lines.

    The more often a word is repeated the sooner it becomes one token: the words of the world with
    the space before them, those of the templates, both at the start of a caption, the harmless and
    the unknown ones.
    """
    shared = ("generic", "relations", "joins", "images", "commands", *OPERATIONS)
    for language, words in WORDS.items():
        data = words.data
        for word in world_words(language):
            yield f" {word}" * 600
            yield "\n".join([word.lower()] * 4)
            yield "\n".join([word.capitalize()] * 2)
        for word in _in_order(_texts([data[name] for name in shared])):
            yield f" {word}" * 200
            yield "\n".join([word.lower()] * 4)
            yield "\n".join([word.capitalize()] * 2)
        for word in _in_order(_texts(data["filler"])):
            yield f" {word}" * 30
        for word in _in_order(_texts(data["unknown"])):
            yield f" {word}" * 3
        rng = random.Random(language)
        plain = (Intent("paint", "beach", "sunset"), Intent("scene", "desert"))
        for number in range(40):
            yield caption(plain[number % 2], language, rng)
    for nouns in WORDS["id"].kinds.values():
        # With "nya" ("its", "the") a noun would fall into odd pieces: each is a token of its own.
        yield from (f" {noun}nya" * 40 for noun in dict.fromkeys(noun for noun, _ in nouns))
    for _ in range(100):
        yield "0 1 2 3 4 5 6 7 8 9, 10. 4k 8k: ; ! ? ' \" ( ) - 's\n"
