"""Says the objects of a picture: one or two of them, with what is wanted of each."""

from __future__ import annotations

from abc import abstractmethod

from world.captions.voice import Voice
from world.spec import Wanted


class Objects(Voice):
    """What a caption says of the objects."""

    there = ("there is", "there are")

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
