"""How English says it."""

from __future__ import annotations

import re

from world.captions.speech import Speech
from world.captions.words import WORDS
from world.spec import Wanted

# "a" before a vowel sound becomes "an".
_ARTICLE = re.compile(r"\b([Aa])(?= (?!one\b|uni|eu|use)(?:[aeiouAEIOU]|hour|honest))")


class EnglishSpeech(Speech):
    """One English caption in the making."""

    words = WORDS["en"]

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
