"""The words of each language, as they lie beside this file in words_en.toml and words_id.toml."""

from __future__ import annotations

import tomllib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from world.captions.templates import DRAWN, SAYS, SAYS_IN_EDITS, Template, bare, weighted
from world.spec import OPERATIONS


@dataclass(frozen=True, slots=True)
class Place:
    """A noun for a scene, with the prepositions and articles that may stand before it."""

    prepositions: tuple[str, ...]
    articles: tuple[str, ...]  # "" is none
    noun: str

    @classmethod
    def parse(cls, text: str, articles: bool) -> Place:
        first, rest = text.split(" ", 1)
        choices = [""]
        if articles:
            second, rest = rest.split(" ", 1)
            choices = ["" if one == "-" else f"{one} " for one in second.split("/")]
        prepositions = tuple(one.replace("_", " ") for one in first.split("/"))
        return cls(prepositions, tuple(choices), rest)


class Words(ABC):
    """The data of one language, ready to choose from."""

    def __init__(self, language: str) -> None:
        path = Path(__file__).with_name(f"words_{language}.toml")
        data: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        self.data = data
        articles = language == "en"
        self.scenes = {
            name: [Place.parse(line, articles) for line in weighted(lines)]
            for name, lines in data["scenes"].items()
        }
        self.places = {name: weighted(lines) for name, lines in data["places"].items()}
        self.times = {
            name: {form: weighted(lines) for form, lines in forms.items()}
            for name, forms in data["times"].items()
        }
        self.kinds: dict[str, list[tuple[str, str]]] = {}
        for name, lines in data["kinds"].items():
            pairs = [line.partition("|") for line in weighted(lines)]
            self.kinds[name] = [(noun, other or self.other(noun)) for noun, _, other in pairs]
        for name in (
            "generic",
            "colours",
            "sizes",
            "positions",
            "relations",
            "counts",
            "joins",
            "images",
            "commands",
            "filler",
            "unknown",
        ):
            table = {key: weighted(lines) for key, lines in data[name].items()}
            setattr(self, name, table)
        self.templates: dict[tuple[str, bool], dict[str, list[Template]]] = {}
        for operation in OPERATIONS:
            says = SAYS if operation in DRAWN else SAYS_IN_EDITS
            for held, part in ((False, "train"), (True, "held")):
                by_says: dict[str, list[Template]] = {}
                for text in weighted(data[operation][part]):
                    template = Template.parse(text, says)
                    by_says.setdefault(template.says, []).append(template)
                self.templates[operation, held] = by_says

    generic: dict[str, list[str]]
    colours: dict[str, list[str]]
    sizes: dict[str, list[str]]
    positions: dict[str, list[str]]
    relations: dict[str, list[str]]
    counts: dict[str, list[str]]
    joins: dict[str, list[str]]
    images: dict[str, list[str]]
    commands: dict[str, list[str]]
    filler: dict[str, list[str]]
    unknown: dict[str, list[str]]

    @abstractmethod
    def other(self, noun: str) -> str:
        """The second form of a noun: an English plural, an Indonesian classifier."""


class EnglishWords(Words):
    def other(self, noun: str) -> str:
        return noun + ("es" if noun.endswith(("s", "sh", "ch", "x")) else "s")


class IndonesianWords(Words):
    def other(self, noun: str) -> str:
        return "buah"


WORDS: dict[str, Words] = {"en": EnglishWords("en"), "id": IndonesianWords("id")}

# Words an instruction starts with that may follow "please".
VERBS = frozenset(
    text.split(" ", 1)[0]
    for words in WORDS.values()
    for operation in OPERATIONS
    if operation not in DRAWN
    for part in ("train", "held")
    for text in bare(words.data[operation][part])
) - frozenset(
    {"I", "there", "the", "what", "same", "with", "only", "instead", "background:", "in", "let"}
    | {"saya", "harus", "seharusnya", "gambar", "pemandangan", "latar", "bukan", "sebagai"}
    | {"warna", "jumlah", "it"}
)
