"""Compositions: pictures made from several images."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from evaluation.generate import Task
from evaluation.ledger import Ledger
from evaluation.probe import Seen
from evaluation.score import Rates, only
from evaluation.sections.cases import (
    EDIT_SIDE,
    TOKEN,
    Case,
    Result,
    draws,
    picture_seed,
    rates_of,
)
from world.captions import LANGUAGES, caption
from world.sampling import backdrop, lone
from world.spec import COLOURS, KINDS, SCENES, TIMES, Intent, Scene, Wanted


def unlike(rng: random.Random, count: int) -> list[Scene]:
    """References of one object each that differ in everything."""
    parts = [rng.sample(values, count) for values in (SCENES, TIMES, KINDS, COLOURS)]
    return [
        Scene(
            scene,
            time,
            lone(kind, colour, "centre", rng.choice(("medium", "large"))),
            backdrop(rng),
        )
        for scene, time, kind, colour in zip(*parts, strict=True)
    ]


def composed(references: Sequence[Scene], order: Sequence[int]) -> Scene:
    """The object of references[order[0]] in the scene of order[1] at the time of order[-1]."""
    shown, place = references[order[0]].things[0], references[order[1]]
    here = lone(shown.kind, shown.colour, "centre", "medium")
    return Scene(place.scene, references[order[-1]].time, here, place.backdrop)


def _asked(rng: random.Random, shown: Sequence[Scene], number: int) -> tuple[list[int], str]:
    """Which image is object, scene and time, and a caption that says so."""
    roles = rng.sample(range(len(shown)), len(shown))
    intent = Intent(
        "compose",
        objects=(Wanted(image=roles[0] + 1),),
        scene_image=roles[1] + 1,
        time_image=roles[2] + 1 if len(shown) == 3 else None,
    )
    said = caption(intent, LANGUAGES[number % 2], rng, held_out=bool(number // 2 % 2))
    return roles, said


def _case(task: Task) -> Case:
    return Case(task, only(Seen.of(task.target), ("scene", "time", "count", "kind", "colour")))


def references(ledger: Ledger, count: int, seed: int) -> Result:
    """The object of one image in the scene of another; the same images in another order."""
    result: Result = {}
    for images in (2, 3):
        given: list[Case] = []
        moved: list[Case] = []
        rng = draws(seed, "references", images)
        for i in range(count):
            shown = unlike(rng, images)
            roles, said = _asked(rng, shown, i)
            for cases, sources in ((given, shown), (moved, shown[1:] + shown[:1])):
                target = composed(sources, roles)
                own = picture_seed(rng)
                task = Task(said, target, EDIT_SIDE, EDIT_SIDE, own, sources=tuple(sources))
                cases.append(_case(task))
        found = ledger.findings(f"{images} images", [case.task for case in given])
        again = ledger.findings(f"{images} images moved", [case.task for case in moved])
        both = [
            all(one.asked.agrees(a.seen).values()) and all(other.asked.agrees(b.seen).values())
            for one, other, a, b in zip(given, moved, found, again, strict=True)
        ]
        result[f"{images} images"] = {
            "as_given": rates_of(given, found),
            "moved_on": rates_of(moved, again),
            "both_orders_right": round(sum(both) / len(both), 4),
        }
    result["2 images of any size"] = _of_any_size(ledger, count, seed)
    return result


def _of_any_size(ledger: Ledger, count: int, seed: int) -> Rates:
    """Images, and a picture, of any whole number of tokens from 384 pixels a side."""
    rng = draws(seed, "references of any size")
    cases = []
    for i in range(count):
        shown = unlike(rng, 2)
        roles, said = _asked(rng, shown, i)
        width, height, *size = (TOKEN * rng.randint(6, EDIT_SIDE // TOKEN) for _ in range(4))
        target, own = composed(shown, roles), picture_seed(rng)
        task = Task(said, target, width, height, own, sources=tuple(shown))
        cases.append(_case(replace(task, source_size=(size[0], size[1]))))
    return rates_of(cases, ledger.findings("images of any size", [case.task for case in cases]))
