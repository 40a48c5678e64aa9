"""How Indonesian says it."""

from __future__ import annotations

from world.captions.speech import Speech
from world.captions.words import WORDS
from world.spec import Wanted


class IndonesianSpeech(Speech):
    """One Indonesian caption in the making."""

    words = WORDS["id"]
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
