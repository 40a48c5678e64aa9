"""Says an intent in words, in English or Indonesian, in one of very many ways.

The words and templates lie beside this file, in words_en.toml and words_id.toml.
"""

from __future__ import annotations

import random
import re
import tomllib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from .spec import OPERATIONS, Intent, Wanted

_T = TypeVar("_T")
LANGUAGES = ("en", "id")
MOST_WORDS = 45

# What the slots of a template say of a new picture: O objects, B that there are two of them, P the
# position of a lone one apart from it, S the scene, T the time. Slots that are not here are always
# at hand.
_SAYS = {
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
_SAYS_IN_EDITS = {"pos": "P"}
_DRAWN = ("paint", "compose")
_LIVING = frozenset({"cat", "samurai", "bird", "fish"})
_SLOT = re.compile(r"\{(\w+)\}")
_WEIGHT = re.compile(r" \*(\d+)$")
# "a" before a vowel sound becomes "an".
_ARTICLE = re.compile(r"\b([Aa])(?= (?!one\b|uni|eu|use)(?:[aeiouAEIOU]|hour|honest))")


def _weighted(lines: Sequence[str]) -> list[str]:
    """Each line as often as its weight says."""
    found: list[str] = []
    for line in lines:
        weight = _WEIGHT.search(line)
        text = line[: weight.start()] if weight else line
        found += [text] * (int(weight[1]) if weight else 1)
    return found


def _bare(lines: Sequence[str]) -> list[str]:
    return [_WEIGHT.sub("", line) for line in lines]


@dataclass(frozen=True, slots=True)
class _Place:
    prepositions: tuple[str, ...]
    articles: tuple[str, ...]  # "" is none
    noun: str

    @classmethod
    def parse(cls, text: str, articles: bool) -> _Place:
        first, rest = text.split(" ", 1)
        choices = [""]
        if articles:
            second, rest = rest.split(" ", 1)
            choices = ["" if one == "-" else f"{one} " for one in second.split("/")]
        prepositions = tuple(one.replace("_", " ") for one in first.split("/"))
        return cls(prepositions, tuple(choices), rest)


@dataclass(frozen=True, slots=True)
class _Template:
    text: str
    literals: tuple[str, ...]  # one more than slots
    slots: tuple[str, ...]
    says: str

    @classmethod
    def parse(cls, text: str, says: Mapping[str, str]) -> _Template:
        pieces = _SLOT.split(text)
        slots = tuple(pieces[1::2])
        letters = "".join(sorted(set("".join(says.get(slot, "") for slot in slots))))
        return cls(text, tuple(pieces[::2]), slots, letters)


class _Words(ABC):
    """The data of one language, ready to choose from."""

    def __init__(self, language: str) -> None:
        path = Path(__file__).with_name(f"words_{language}.toml")
        data: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        self.data = data
        articles = language == "en"
        self.scenes = {
            name: [_Place.parse(line, articles) for line in _weighted(lines)]
            for name, lines in data["scenes"].items()
        }
        self.places = {name: _weighted(lines) for name, lines in data["places"].items()}
        self.times = {
            name: {form: _weighted(lines) for form, lines in forms.items()}
            for name, forms in data["times"].items()
        }
        self.kinds: dict[str, list[tuple[str, str]]] = {}
        for name, lines in data["kinds"].items():
            pairs = [line.partition("|") for line in _weighted(lines)]
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
            table = {key: _weighted(lines) for key, lines in data[name].items()}
            setattr(self, name, table)
        self.templates: dict[tuple[str, bool], dict[str, list[_Template]]] = {}
        for operation in OPERATIONS:
            says = _SAYS if operation in _DRAWN else _SAYS_IN_EDITS
            for held, part in ((False, "train"), (True, "held")):
                by_says: dict[str, list[_Template]] = {}
                for text in _weighted(data[operation][part]):
                    template = _Template.parse(text, says)
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


class _EnglishWords(_Words):
    def other(self, noun: str) -> str:
        return noun + ("es" if noun.endswith(("s", "sh", "ch", "x")) else "s")


class _IndonesianWords(_Words):
    def other(self, noun: str) -> str:
        return "buah"


class _Speech(ABC):
    """One caption in the making."""

    words: _Words
    there = ("there is", "there are")

    def __init__(self, intent: Intent, rng: random.Random) -> None:
        self.intent = intent
        self.random = rng.random
        self.objects = list(intent.objects)
        placed = [one.position for one in self.objects]
        # Two objects with positions may be named in either order.
        if len(placed) == 2 and None not in placed and self.chance(0.4):
            self.objects.reverse()
        drawn = intent.operation in _DRAWN
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

    # ---- the whole caption

    def say(self, held: bool) -> str:
        intent = self.intent
        template = self.template(held)
        self.leading = template.literals[0] == "" and template.slots[:1] in (("O",), ("o",))
        text = template.literals[0]
        for slot, literal in zip(template.slots, template.literals[1:], strict=True):
            text += getattr(self, f"slot_{slot}")() + literal
        if intent.operation not in _DRAWN:
            text = self.instruct(text)
        ended = text.endswith(".")
        if ended:
            text = text[:-1]
        text = self.fill(text)
        return self.finish(text, ended)

    def template(self, held: bool) -> _Template:
        intent = self.intent
        choices = self.words.templates[intent.operation, held]
        special = ""
        if len(self.objects) == 1:
            special = "P" if self.objects[0].position is not None else ""
        elif self.objects:
            special = "B"
        says = ""
        if intent.operation in _DRAWN:
            has_scene = intent.scene is not None or intent.scene_image is not None
            has_time = intent.time is not None or intent.time_image is not None
            says = ("O" if self.objects else "") + ("S" if has_scene else "")
            says += "T" if has_time else ""
        apart = "".join(sorted(says + special))
        if apart in choices and self.chance(0.3):
            says = apart
        return self.pick(choices[says])

    def instruct(self, text: str) -> str:
        """An instruction with what else the intent says and with politeness around it."""
        intent = self.intent
        if intent.operation != "time" and (intent.time or intent.time_image):
            text += " " + self.slot_w()
        if intent.operation != "scene" and (intent.scene or intent.scene_image):
            text += " " + self.slot_p()
        words = self.words.commands
        if self.chance(0.1) and text[0].islower() and text.split(" ", 1)[0] in _VERBS:
            text = f"{self.pick(words['polite'])} {text}"
        if self.chance(0.12):
            text += self.pick(words["keep"])
        return text

    def fill(self, text: str) -> str:
        """The text with the words that did not find a noun, and those that need none."""
        words = self.words
        drawn = self.intent.operation in _DRAWN
        ends: list[str] = []
        for source in self.adjectives:
            if source == "unknown":
                self.clauses.append(source)
            elif drawn:
                self.tags.append(source)
        for source in self.clauses:
            if source == "unknown":
                join = ", " if drawn and self.chance(0.4) else " "
                ends.append(join + self.pick(words.unknown["clauses"]))
        tags = [
            self.pick((words.unknown if source == "unknown" else words.filler)["tags"])
            for source in self.tags
        ]
        if drawn and self.intent.time is not None and self.chance(0.1):
            # People often say the light twice: "at sunset, photorealistic, golden hour".
            tags.insert(int(self.random() * (len(tags) + 1)), self.time("tag"))
        ends += [f", {tag}" for tag in tags]
        room = MOST_WORDS - 1 - text.count(" ")
        said = {text}
        for end in ends:
            room -= end.count(" ") + 1
            if room > 0 and end not in said:
                said.add(end)
                text += end
        return text

    def finish(self, text: str, ended: bool) -> str:
        if self.chance(0.35):
            text = text[0].upper() + text[1:]
            if ". " in text:
                text = re.sub(r"\. (.)", lambda found: ". " + found[1].upper(), text)
        elif self.chance(0.2):
            text = text.lower()
        if ended or self.chance(0.2):
            text += "."
        return text

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

    # ---- images

    def image(self, number: int) -> str:
        words = self.words.images
        text: str = self.pick(words["name"])
        if "{nth}" in text:
            return text.replace("{nth}", words["nth"][number - 1])
        return text.replace("{n}", str(number))

    def of_image(self, form: str, number: int) -> str:
        return f"{self.pick(self.words.images[form])} {self.image(number)}"

    # ---- scenes

    def place(self) -> tuple[_Place, str]:
        """A noun of the scene and what stands around it: its article is chosen by the caller."""
        assert self.intent.scene is not None  # noqa: S101
        place: _Place = self.pick(self.words.scenes[self.intent.scene])
        first = self.adjective(True)
        second = self.adjective(True) if first else ""
        if not second or second == first:
            return place, first
        return place, self.two(first, second)

    def two(self, first: str, second: str) -> str:
        return f"{first} {second}"

    @abstractmethod
    def with_adjective(self, noun: str, adjective: str) -> str: ...

    def article(self, place: _Place) -> str:
        return self.pick(place.articles)

    @abstractmethod
    def definite(self, noun: str) -> str: ...

    def slot_S(self) -> str:
        intent = self.intent
        if intent.scene_image is not None:
            if intent.scene is None:
                return self.definite(self.of_image("scene_noun", intent.scene_image))
            place, adjective = self.place()
            noun = self.definite(self.with_adjective(place.noun, adjective))
            return f"{noun} {self.of_image('from', intent.scene_image)}"
        place, adjective = self.place()
        return self.article(place) + self.with_adjective(place.noun, adjective)

    def slot_s(self) -> str:
        intent = self.intent
        if intent.scene_image is not None or self.chance(0.2):
            return self.slot_S()
        place, adjective = self.place()
        return self.with_adjective(place.noun, adjective)

    def slot_p(self) -> str:
        intent = self.intent
        if intent.scene is None:
            assert intent.scene_image is not None  # noqa: S101
            return self.of_image("scene", intent.scene_image)
        if intent.scene_image is None and intent.scene in self.words.places and self.chance(0.15):
            return self.pick(self.words.places[intent.scene])
        place, adjective = self.place()
        noun = self.with_adjective(place.noun, adjective)
        preposition = self.pick(place.prepositions)
        if intent.scene_image is not None:
            source = self.of_image("from", intent.scene_image)
            return f"{preposition} {self.definite(noun)} {source}"
        return f"{preposition} {self.article(place)}{noun}"

    def slot_pw(self) -> str:
        intent = self.intent
        if intent.scene is None or intent.time is None or intent.scene_image or intent.time_image:
            return f"{self.slot_p()} {self.slot_w()}"
        place, _ = self.place()
        noun = self.with_adjective(
            place.noun, self.pick(self.words.times[intent.time]["adjective"])
        )
        return f"{self.pick(place.prepositions)} {self.article(place)}{noun}"

    # ---- times

    def time(self, form: str) -> str:
        assert self.intent.time is not None  # noqa: S101
        return self.pick(self.words.times[self.intent.time][form])

    def slot_w(self) -> str:
        intent = self.intent
        if intent.time_image is None:
            return self.time("when")
        if intent.time is None:
            return self.of_image("time", intent.time_image)
        return f"{self.time('when')} {self.of_image('like', intent.time_image)}"

    def slot_t(self) -> str:
        intent = self.intent
        if intent.time_image is None:
            return self.time("tag")
        if intent.time is None:
            return self.of_image("time_noun", intent.time_image)
        return f"{self.time('tag')} {self.of_image('like', intent.time_image)}"

    def slot_w_noun(self) -> str:
        intent = self.intent
        return self.definite(self.slot_t()) if intent.time is None else self.slot_t()

    def time_form(self, form: str) -> str:
        """The time in an instruction; with an image it is that image's."""
        intent = self.intent
        if intent.time_image is None:
            return self.time(form)
        if form == "make":
            return self.of_image("like", intent.time_image)
        text = self.of_image(form, intent.time_image)
        return text if intent.time is None else f"{text}, {self.time('tag')}"

    def slot_sky(self) -> str:
        return self.time_form("sky")

    def slot_make(self) -> str:
        return self.time_form("make")

    def slot_into(self) -> str:
        return self.time_form("into")

    def slot_ask(self) -> str:
        return self.time_form("ask")

    # ---- objects

    @abstractmethod
    def phrase(self, wanted: Wanted, listing: bool = False, counted: bool = False) -> str:
        """The object without its position; counted: even one is said to be one."""

    @abstractmethod
    def meant(self, wanted: Wanted) -> str:
        """The object that an instruction is about, without its colour."""

    def with_position(self, wanted: Wanted, listing: bool) -> str:
        text = self.phrase(wanted, listing)
        if wanted.position is None:
            return text
        position = self.pick(self.words.positions[wanted.position])
        if self.leading and self.chance(0.15):
            return f"{position}{self.pick((' ', ', '))}{text}"
        return f"{text} {self.placed(wanted)}{position}"

    def placed(self, wanted: Wanted) -> str:
        return ""

    def objects_said(self, listing: bool) -> str:
        if len(self.objects) == 1:
            return self.with_position(self.objects[0], listing)
        first, second = self.objects
        words = self.words
        sides = {first.position, second.position}
        if first.position is None and second.position is None:
            join = ", " if listing and self.chance(0.4) else f" {self.pick(words.joins['near'])} "
            return f"{self.phrase(first, listing)}{join}{self.phrase(second, listing)}"
        if sides == {"left", "right"} and self.chance(0.12):
            relation = self.pick(words.relations[first.position or ""])
            return f"{self.phrase(first, listing)} {relation} {self.phrase(second, listing)}"
        join = (
            ", " if self.chance(0.5 if listing else 0.1) else f" {self.pick(words.joins['far'])} "
        )
        if self.leading and self.chance(0.15) and None not in sides:
            parts = [
                f"{self.pick(words.positions[one.position or ''])} {self.phrase(one, listing)}"
                for one in self.objects
            ]
            return join.join(parts)
        self.leading = False
        return join.join(self.with_position(one, listing) for one in self.objects)

    def slot_O(self) -> str:
        return self.objects_said(False)

    def slot_o(self) -> str:
        return self.objects_said(True)

    def slot_both(self) -> str:
        return self.objects_said(False)

    def slot_thing(self) -> str:
        return self.phrase(self.objects[0])

    def slot_pos(self) -> str:
        position = self.objects[0].position
        return self.pick(self.words.positions[position]) if position else ""

    def slot_there(self) -> str:
        many = bool(self.objects) and (self.objects[0].count or 1) > 1
        return self.there[many]

    def slot_cmd(self) -> str:
        return self.pick(self.words.commands["paint"])

    def slot_it(self) -> str:
        many = len(self.objects) > 1 or (self.objects[0].count or 1) > 1
        return "them" if many else "it"

    def slot_d(self) -> str:
        if self.intent.operation in ("remove", "replace"):
            return self.meant(Wanted(kind=self.intent.subject))
        return self.meant(self.objects[0])

    def slot_ds(self) -> str:
        text = self.slot_d()
        return "its" if text == "it" else f"{text}'" if text.endswith("s") else f"{text}'s"

    def slot_colour(self) -> str:
        return self.pick(self.words.colours[self.objects[0].colour or ""])

    def slot_color(self) -> str:
        return self.pick(("color", "color", "colour"))

    def number(self, count: int | None) -> str:
        words = self.words.counts
        table = words["one"] if count in (None, 1) else words["two" if count == 2 else "three"]
        text: str = self.pick(table)
        while not self.digits and text.isdigit():
            text = self.pick(table)
        return text

    def plain_number(self, count: int | None) -> str:
        """A number that stands alone: never "a pair of"."""
        text = self.number(count)
        while text.startswith("a "):
            text = self.number(count)
        return text

    def slot_number(self) -> str:
        return self.plain_number(self.objects[0].count)

    @abstractmethod
    def slot_N(self) -> str: ...

    @abstractmethod
    def slot_plural(self) -> str: ...


class _EnglishSpeech(_Speech):
    words = _EnglishWords("en")

    def finish(self, text: str, ended: bool) -> str:
        return _ARTICLE.sub(r"\1n", super().finish(text, ended))

    def with_adjective(self, noun: str, adjective: str) -> str:
        return f"{adjective} {noun}" if adjective else noun

    def definite(self, noun: str) -> str:
        return f"the {noun}"

    def slot_s(self) -> str:
        # A list may drop the article of an image's scene too.
        text = super().slot_s()
        if self.intent.scene_image is not None and self.chance(0.4):
            return text.removeprefix("the ")
        return text

    def modified(self, wanted: Wanted, noun: str, colour: bool = True) -> str:
        """The noun with size, colour and a harmless adjective before it."""
        before: list[str] = []
        if wanted.size in ("small", "large"):
            before.append(self.pick(self.words.sizes[wanted.size]))
        adjective = self.adjective(False, wanted)
        if adjective:
            before.insert(int(self.random() * (len(before) + 1)), adjective)
        if colour and wanted.colour is not None:
            word = self.pick(self.words.colours[wanted.colour])
            if self.chance(0.03):
                noun = f"{noun} in {word}"
            else:
                before.append(word)
        before.append(noun)
        return " ".join(before)

    def noun(self, wanted: Wanted) -> str:
        many = (wanted.count or 1) > 1
        if wanted.kind is not None:
            return self.pick(self.words.kinds[wanted.kind])[many]
        form = "painted" if wanted.image is None else "image"
        text: str = self.pick(self.words.generic[form])
        return f"{text}s" if many else text

    def phrase(self, wanted: Wanted, listing: bool = False, counted: bool = False) -> str:
        noun = self.modified(wanted, self.noun(wanted))
        count = wanted.count
        if wanted.image is not None:
            if (count or 1) > 1:
                noun = f"{self.plain_number(count)} {noun}"
            if self.chance(0.1):
                return f"{self.image(wanted.image)}'s {noun}"
            noun = f"{noun} {self.of_image('from', wanted.image)}"
            return noun if listing and self.chance(0.4) else f"the {noun}"
        if (count or 1) > 1 or counted or (count == 1 and self.chance(0.35)):
            return f"{self.number(count)} {noun}"
        if listing and self.chance(0.65):
            return noun
        return f"the {noun}" if self.chance(0.06) else f"a {noun}"

    def meant(self, wanted: Wanted) -> str:
        bare = wanted.size in (None, "medium") and wanted.position is None and not wanted.image
        if wanted.kind is None and bare:
            return self.pick(self.words.generic["meant"])
        noun = self.modified(wanted, self.noun(wanted), colour=False)
        if (wanted.count or 1) > 1:
            noun = f"{self.plain_number(wanted.count)} {noun}"
        if wanted.image is not None:
            noun = f"{noun} {self.of_image('from', wanted.image)}"
        if wanted.position is not None:
            noun = f"{noun} {self.pick(self.words.positions[wanted.position])}"
        return noun if self.chance(0.12) else f"the {noun}"

    def placed(self, wanted: Wanted) -> str:
        return "placed " if wanted.image is not None and self.chance(0.4) else ""

    def slot_N(self) -> str:
        wanted = self.objects[0]
        if wanted.kind is None:
            text = self.pick(("one", "only one", "just one", "just one of them", "only 1"))
            if (wanted.count or 1) > 1:
                text = f"{self.plain_number(wanted.count)} of them"
        else:
            text = self.phrase(wanted, counted=True)
        if self.chance(0.08) and not text.startswith(("a ", "just", "only")):
            text = f"{self.pick(self.words.commands['exactly'])} {text}"
        if wanted.position is not None:
            text = f"{text} {self.slot_pos()}"
        return text

    def slot_plural(self) -> str:
        wanted = self.objects[0]
        if wanted.kind is None:
            return self.pick(("objects", "objects", "items", "things"))
        return self.pick(self.words.kinds[wanted.kind])[1]


class _IndonesianSpeech(_Speech):
    words = _IndonesianWords("id")
    there = ("ada", "ada")

    def slot_there(self) -> str:
        return self.pick(("ada", "ada", "terdapat"))

    def slot_cmd(self) -> str:
        text: str = super().slot_cmd()
        # "gambar 2 kucing" would be read as "the cat of image 2".
        self.digits = not text.endswith(("gambar", "foto"))
        return text

    def living(self, wanted: Wanted) -> str:
        text = super().living(wanted)
        # "merah muda" is pink: no "young" beside a colour.
        return "lucu" if text == "muda" and wanted.colour is not None else text

    def with_adjective(self, noun: str, adjective: str) -> str:
        return f"{noun} {adjective}" if adjective else noun

    def two(self, first: str, second: str) -> str:
        # "Indonesia yang tenang", never "yang tenang Indonesia".
        if first.startswith(("yang ", "di ")):
            first, second = second, first
        if first.startswith(("yang ", "di ")):
            return first
        return f"{first} {second}"

    def definite(self, noun: str) -> str:
        return noun

    def modified(self, wanted: Wanted, noun: str, colour: bool = True) -> str:
        """The noun with colour, size and a harmless adjective after it."""
        after = [noun]
        size = ""
        if wanted.size in ("small", "large"):
            size = self.pick(self.words.sizes[wanted.size])
        adjective = self.adjective(False, wanted)
        word = ""
        if colour and wanted.colour is not None:
            word = self.pick(self.words.colours[wanted.colour])
            if self.chance(0.35):
                after += [size, adjective, self.pick(("berwarna", "berwarna", "warna")), word]
                return " ".join(part for part in after if part)
        after += [word, size] if self.chance(0.6) else [size, word]
        after.append(adjective)
        return " ".join(part for part in after if part)

    def noun(self, wanted: Wanted) -> tuple[str, str]:
        if wanted.kind is not None:
            return self.pick(self.words.kinds[wanted.kind])
        form = "painted" if wanted.image is None else "image"
        return self.pick(self.words.generic[form]), "buah"

    def counted(self, count: int, noun: str, classifier: str) -> str:
        if count == 2 and self.chance(0.1):
            return f"{self.pick(self.words.counts['pair'])} {noun}"
        number = self.number(count)
        if number == "satu" and self.chance(0.3):
            return f"se{classifier} {noun}"
        return f"{number} {classifier} {noun}" if self.chance(0.4) else f"{number} {noun}"

    def phrase(self, wanted: Wanted, listing: bool = False, counted: bool = False) -> str:
        noun, classifier = self.noun(wanted)
        text = self.modified(wanted, noun)
        count = wanted.count
        if (count or 1) > 1 or counted or (count == 1 and self.chance(0.35)):
            text = self.counted(count or 1, text, classifier)
        elif wanted.image is None and self.chance(0.12 if listing else 0.45):
            text = f"se{classifier} {text}"
        if wanted.image is not None:
            text = f"{text} {self.of_image('from', wanted.image)}"
        return text

    def meant(self, wanted: Wanted) -> str:
        bare = wanted.size in (None, "medium") and wanted.position is None and not wanted.image
        if wanted.kind is None and bare:
            return self.pick(self.words.generic["meant"])
        noun, _ = self.noun(wanted)
        text = self.modified(wanted, noun, colour=False)
        if (wanted.count or 1) > 1:
            text = f"{self.plain_number(wanted.count)} {text}"
        elif bare and text == noun:
            text += self.pick(("", "", "", "", "nya", " itu", " tersebut"))
        if wanted.image is not None:
            text = f"{text} {self.of_image('from', wanted.image)}"
        if wanted.position is not None:
            text = f"{text} {self.pick(self.words.positions[wanted.position])}"
        return text

    def placed(self, wanted: Wanted) -> str:
        if wanted.image is not None and self.chance(0.4):
            return self.pick(("diletakkan ", "ditempatkan "))
        return ""

    def slot_N(self) -> str:
        wanted = self.objects[0]
        if wanted.kind is None:
            text = self.number(wanted.count) + self.pick(("", " buah", " objek", " benda"))
        else:
            text = self.phrase(wanted, counted=True)
        if self.chance(0.08):
            text = f"{self.pick(self.words.commands['exactly'])} {text}"
        if wanted.position is not None:
            text = f"{text} {self.slot_pos()}"
        return text

    def slot_plural(self) -> str:
        wanted = self.objects[0]
        if wanted.kind is None:
            return self.pick(("objek", "objek", "benda"))
        noun: str = self.pick(self.words.kinds[wanted.kind])[0]
        return noun


_SPEECHES: dict[str, type[_Speech]] = {"en": _EnglishSpeech, "id": _IndonesianSpeech}

# Words an instruction starts with that may follow "please".
_VERBS = frozenset(
    text.split(" ", 1)[0]
    for speech in _SPEECHES.values()
    for operation in OPERATIONS
    if operation not in _DRAWN
    for part in ("train", "held")
    for text in _bare(speech.words.data[operation][part])
) - frozenset(
    {"I", "there", "the", "what", "same", "with", "only", "instead", "background:", "in", "let"}
    | {"saya", "harus", "seharusnya", "gambar", "pemandangan", "latar", "bukan", "sebagai"}
    | {"warna", "jumlah", "it"}
)

# Templates that are trained on and templates that are kept for evaluation: (language, operation).
SPLITS: Mapping[tuple[str, str], Mapping[str, tuple[str, ...]]] = {
    (language, operation): {
        "train": tuple(_bare(speech.words.data[operation]["train"])),
        "held_out": tuple(_bare(speech.words.data[operation]["held"])),
    }
    for language, speech in _SPEECHES.items()
    for operation in OPERATIONS
}


def caption(intent: Intent, language: str, rng: random.Random, held_out: bool = False) -> str:
    """What a person may write who wants this.

    It says all that the intent says and nothing else of the world, besides words that mean nothing
    there. `held_out` takes the phrasings that training never uses.
    """
    speech = _SPEECHES[language]
    text = speech(intent, rng).say(held_out)
    # Only an intent that says everything of two objects from images ever comes near this.
    while text.count(" ") >= MOST_WORDS:
        text = speech(intent, rng).say(held_out)
    return text


_WORD = re.compile(r"[^\W\d_]+")


def _in_order(texts: Sequence[str]) -> list[str]:
    """The different words of the texts, in order of appearance."""
    return list(dict.fromkeys(word for text in texts for word in _WORD.findall(text)))


def _texts(data: Any) -> list[str]:
    if isinstance(data, str):
        return [_WEIGHT.sub("", _SLOT.sub("", data)).replace("_", " ")]
    return [
        text for one in (data.values() if isinstance(data, dict) else data) for text in _texts(one)
    ]


def world_words(language: str) -> list[str]:
    """The words that mean something in the world, and those they come with."""
    data = _SPEECHES[language].words.data
    names = ("scenes", "times", "kinds", "colours", "sizes", "positions", "counts", "places")
    texts = [text for name in names for text in _texts(data[name])]
    if language == "en":
        texts += [other for forms in _SPEECHES["en"].words.kinds.values() for _, other in forms]
    return _in_order(texts)


def vocabulary() -> Iterator[str]:
    """The corpus a tokenizer learns its merges from: always the same lines.

    The more often a word is repeated the sooner it becomes one token: the words of the world with
    the space before them, those of the templates, both at the start of a caption, the harmless and
    the unknown ones.
    """
    shared = ("generic", "relations", "joins", "images", "commands", *OPERATIONS)
    for language, speech in _SPEECHES.items():
        data = speech.words.data
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
    for nouns in _SPEECHES["id"].words.kinds.values():
        # With "nya" ("its", "the") a noun would fall into odd pieces: each is a token of its own.
        yield from (f" {noun}nya" * 40 for noun in dict.fromkeys(noun for noun, _ in nouns))
    for _ in range(100):
        yield "0 1 2 3 4 5 6 7 8 9, 10. 4k 8k: ; ! ? ' \" ( ) - 's\n"
