"""Right and wrong: what a caption asks of a picture, and how often pictures have it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from evaluation.probe import Seen
from world.spec import Example, Intent

Rates = dict[str, float | int]


@dataclass(slots=True)
class Tally:
    """Counts of answers by name."""

    right: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)

    def add(self, answers: Mapping[str, bool], whole: str = "all") -> None:
        """One picture: each answer, and under `whole` whether all of them are right."""
        for name, is_right in answers.items():
            self.asked[name] += 1
            self.right[name] += is_right
        self.asked[whole] += 1
        self.right[whole] += all(answers.values())

    def rates(self, count: str = "all") -> Rates:
        """Shares that are right, and how many pictures there were under "n"."""
        shares = {name: round(self.right[name] / n, 4) for name, n in self.asked.items()}
        return {"n": self.asked[count], **shares}


def asked_of(intent: Intent) -> Seen:
    """What the caption of a new picture, with everything said, asks for.

    A medium size is never said, so it is not asked for.
    """
    objects = intent.objects
    asked = Seen(scene=intent.scene, time=intent.time, count=0)
    if len(objects) == 2:
        left, right = objects
        return replace(
            asked,
            count=2,
            left_kind=left.kind,
            left_colour=left.colour,
            right_kind=right.kind,
            right_colour=right.colour,
        )
    for wanted in objects:
        asked = replace(
            asked,
            count=wanted.count or 1,
            kind=wanted.kind,
            colour=wanted.colour,
            position=wanted.position,
            size=None if wanted.size == "medium" else wanted.size,
        )
    return asked


def only(seen: Seen, names: Sequence[str]) -> Seen:
    """The named fields alone."""
    known = dict(seen.items())
    return Seen(**{name: known[name] for name in names if name in known})


def parts_of(example: Example) -> tuple[Seen, Seen]:
    """An edit's target as the part that was asked for and the part that had to stay."""
    before, after = Seen.of(example.references[0]), Seen.of(example.target)
    intent = example.intent
    there = [name for name, _ in after.items()]
    if intent.operation == "count":  # place and size follow from the number
        asked = ["count"]
        there = [name for name in there if name not in ("position", "size", "is_pair")]
    elif intent.operation == "remove":
        asked = ["count"]
        there = [name for name in there if name != "is_pair"]
    elif intent.operation == "add":
        there = [name for name in there if name not in ("size", "is_pair")]
        new = [t for t in example.target.things if t not in example.references[0].things]
        if not after.is_pair:
            asked = ["count", "kind", "colour", "position"]
        elif new[0].x < 0.5:
            asked = ["count", "left_kind", "left_colour"]
        else:
            asked = ["count", "right_kind", "right_colour"]
    else:
        asked = [name for name, value in after.items() if getattr(before, name) != value]
    kept = [name for name in there if name not in asked]
    return only(after, asked), only(after, kept)


def shuffled(asked: Sequence[Seen], seen: Sequence[Seen], shifts: int = 7) -> Rates:
    """Every picture judged by the captions of others, in the fields that both have."""
    tally = Tally()
    for shift in range(1, shifts + 1):
        for i, one in enumerate(seen):
            shared = only(asked[(i + shift) % len(asked)], [name for name, _ in one.items()])
            tally.add(shared.agrees(one))
    return tally.rates()
