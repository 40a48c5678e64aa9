"""Draws edits at random: a picture, an instruction and the picture it asks for.

Each operation takes a random source and gives the target and what was asked, or None where the
source does not allow the operation.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from world.sampling import lone, row, sample_scene
from world.spec import (
    COLOURS,
    KINDS,
    PAIR_SHARE,
    PAIR_X,
    POSITION_X,
    SCENES,
    SIZE_SHARE,
    TIMES,
    Example,
    Intent,
    Scene,
    Thing,
    Wanted,
)


def _other(rng: random.Random, values: tuple[str, ...], *not_these: str) -> str:
    return rng.choice([value for value in values if value not in not_these])


def _edit_time(rng: random.Random, source: Scene) -> tuple[Scene, Intent] | None:
    time = _other(rng, TIMES, source.time)
    return replace(source, time=time), Intent("time", time=time)


def _edit_scene(rng: random.Random, source: Scene) -> tuple[Scene, Intent] | None:
    scene = _other(rng, SCENES, source.scene)
    return replace(source, scene=scene), Intent("scene", scene=scene)


def _edit_colour(rng: random.Random, source: Scene) -> tuple[Scene, Intent] | None:
    if not source.things:
        return None
    chosen = rng.choice(source.things)
    colour = _other(rng, COLOURS, chosen.colour)
    things = tuple(replace(t, colour=colour) if t.kind == chosen.kind else t for t in source.things)
    alone = len({t.kind for t in source.things}) == 1
    kind = None if alone and rng.random() < 0.15 else chosen.kind
    return replace(source, things=things), Intent("colour", objects=(Wanted(kind, colour),))


def _edit_add(rng: random.Random, source: Scene) -> tuple[Scene, Intent] | None:
    if len(source.things) > 1:
        return None
    kind, colour = rng.choice(KINDS), rng.choice(COLOURS)
    if not source.things:
        position = rng.choice(("left", "centre", "right"))
        new = Thing(kind, colour, POSITION_X[position], SIZE_SHARE["medium"])
        things: tuple[Thing, ...] = (new,)
    else:
        there = source.things[0]
        if abs(there.x - 0.5) < 0.1 or there.share > 0.45 or there.kind == kind:
            return None
        position = "right" if there.x < 0.5 else "left"
        new = Thing(kind, colour, PAIR_X[position], PAIR_SHARE)
        things = (there, new) if position == "right" else (new, there)
    is_plain = position == "centre" if not source.things else True  # where anyone would expect it
    said = None if is_plain and rng.random() < 0.3 else position
    wanted = Wanted(kind, colour, said, count=1)
    return replace(source, things=things), Intent("add", objects=(wanted,))


def _edit_remove(rng: random.Random, source: Scene) -> tuple[Scene, Intent] | None:
    if not source.things:
        return None
    gone = rng.choice(source.things).kind
    left = tuple(t for t in source.things if t.kind != gone)
    subject = None if not left and rng.random() < 0.2 else gone
    return replace(source, things=left), Intent("remove", subject=subject)


def _edit_replace(rng: random.Random, source: Scene) -> tuple[Scene, Intent] | None:
    if not source.things:
        return None
    gone = rng.choice(source.things)
    kind = _other(rng, KINDS, *{t.kind for t in source.things})
    colour = rng.choice(COLOURS) if rng.random() < 0.5 else None
    things = tuple(
        replace(t, kind=kind, colour=colour or t.colour) if t.kind == gone.kind else t
        for t in source.things
    )
    alone = len({t.kind for t in source.things}) == 1
    subject = None if alone and rng.random() < 0.1 else gone.kind
    count = sum(t.kind == kind for t in things)
    wanted = Wanted(kind, colour, count=count)
    return replace(source, things=things), Intent("replace", objects=(wanted,), subject=subject)


def _edit_count(rng: random.Random, source: Scene) -> tuple[Scene, Intent] | None:
    kinds = {t.kind for t in source.things}
    if len(kinds) != 1:
        return None
    first = source.things[0]
    now = len(source.things)
    count = rng.choice([n for n in (1, 2, 3) if n != now])
    if count == 1:
        things: tuple[Thing, ...] = lone(first.kind, first.colour, "centre", "medium")
    else:
        things = row(first.kind, first.colour, count)
    kind = None if rng.random() < 0.15 else first.kind
    wanted = Wanted(kind, count=count)
    return replace(source, things=things), Intent("count", objects=(wanted,))


Edit = Callable[[random.Random, Scene], "tuple[Scene, Intent] | None"]
EDITS: dict[str, tuple[Edit, float]] = {  # the second number is how often, relatively
    "time": (_edit_time, 1.0),
    "scene": (_edit_scene, 1.0),
    "colour": (_edit_colour, 2.6),
    "add": (_edit_add, 1.0),
    "remove": (_edit_remove, 1.8),
    "replace": (_edit_replace, 3.2),
    "count": (_edit_count, 1.0),
}


def sample_edit(rng: random.Random, operation: str | None = None) -> Example:
    """A source, an instruction and the picture it asks for."""
    if operation is None:
        operation = rng.choices(list(EDITS), [often for _, often in EDITS.values()])[0]
    edit = EDITS[operation][0]
    while True:
        source = sample_scene(rng)
        result = edit(rng, source)
        if result is not None:
            return Example((source,), *result)
