"""Draws pictures, edits and compositions of the world at random: what the model learns from.

Every draw takes a random.Random, so that a seed gives the same examples everywhere. Some
combinations of kind, colour and scene are never drawn for training, so that an evaluation can
ask for what was never seen.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from dataclasses import replace

from world.spec import (
    COLOURS,
    COUNT_SHARE,
    COUNT_X,
    KINDS,
    PAIR_SHARE,
    PAIR_X,
    POSITION_X,
    SCENES,
    SIZE_SHARE,
    TIMES,
    Backdrop,
    Example,
    Intent,
    Scene,
    Thing,
    Wanted,
)

UNSEEN_ONE_IN = 16  # share of (kind, colour, scene) that training never draws

# What a kind looks like when nobody says its colour.
USUAL_COLOURS: dict[str, tuple[str, ...]] = {
    "house": ("red", "white", "orange"),
    "tree": ("green",),
    "boat": ("white", "red", "blue"),
    "car": ("red", "blue", "yellow"),
    "cat": ("orange", "black", "white"),
    "samurai": ("red", "black", "blue"),
    "balloon": ("red", "yellow", "purple"),
    "cup": ("white", "blue", "red"),
    "lamp": ("yellow", "orange"),
    "bottle": ("green", "blue"),
    "bird": ("blue", "red", "white"),
    "flower": ("red", "pink", "yellow"),
    "temple": ("red", "orange"),
    "umbrella": ("red", "yellow", "purple"),
    "chair": ("orange", "red", "blue"),
    "fish": ("orange", "blue"),
}


def is_unseen(kind: str, colour: str, scene: str) -> bool:
    """Whether training leaves this combination out."""
    return zlib.crc32(f"{kind}/{colour}/{scene}".encode()) % UNSEEN_ONE_IN == 0


def backdrop(rng: random.Random) -> Backdrop:
    return Backdrop(
        land=rng.randrange(3),
        sky=rng.randrange(3),
        fall=rng.randrange(2),
        horizon=rng.choice((-1.0, 0.0, 1.0)),
        slide=rng.choice((-1.0, 0.0, 1.0)),
        warmth=rng.uniform(-1, 1),
    )


def thing(rng: random.Random, kind: str, colour: str, x: float, share: float) -> Thing:
    """An object at x, a little to its left or right."""
    return Thing(kind=kind, colour=colour, x=x + rng.choice((-0.015, 0.0, 0.015)), share=share)


def lone(rng: random.Random, kind: str, colour: str, position: str, size: str) -> tuple[Thing]:
    return (thing(rng, kind, colour, POSITION_X[position], SIZE_SHARE[size]),)


def row(rng: random.Random, kind: str, colour: str, count: int) -> tuple[Thing, ...]:
    """Several equal objects side by side."""
    return tuple(thing(rng, kind, colour, x, COUNT_SHARE[count]) for x in COUNT_X[count])


def pair(rng: random.Random, left: Wanted, right: Wanted) -> tuple[Thing, Thing]:
    """Two different objects, one on each side; both wanted with kind and colour."""
    return (
        thing(rng, str(left.kind), str(left.colour), PAIR_X["left"], PAIR_SHARE),
        thing(rng, str(right.kind), str(right.colour), PAIR_X["right"], PAIR_SHARE),
    )


def _size(rng: random.Random) -> str:
    return rng.choices(("small", "medium", "large"), (0.25, 0.5, 0.25))[0]


def _paint(rng: random.Random, unseen: bool) -> tuple[Scene, tuple[Wanted, ...]]:
    """A scene and its objects with everything about them said."""
    while True:
        scene, time = rng.choice(SCENES), rng.choice(TIMES)
        form = rng.choices(("lone", "row", "pair", "none"), (0.6, 0.16, 0.18, 0.06))[0]
        kind, colour = rng.choice(KINDS), rng.choice(COLOURS)
        objects: tuple[Wanted, ...] = ()
        things: tuple[Thing, ...] = ()
        if form == "lone":
            position, size = rng.choice(("left", "centre", "right")), _size(rng)
            objects = (Wanted(kind, colour, position, size, 1),)
            things = lone(rng, kind, colour, position, size)
        elif form == "row":
            count = rng.choice((2, 3))
            objects = (Wanted(kind, colour, count=count),)
            things = row(rng, kind, colour, count)
        elif form == "pair":
            other = rng.choice([k for k in KINDS if k != kind])
            objects = (
                Wanted(kind, colour, "left", count=1),
                Wanted(other, rng.choice(COLOURS), "right", count=1),
            )
            things = pair(rng, *objects)
        seen = [is_unseen(t.kind, t.colour, scene) for t in things]
        if any(seen) == unseen and (things or not unseen):
            return Scene(scene, time, things, backdrop(rng)), objects


def _say(rng: random.Random, scene: Scene, objects: tuple[Wanted, ...]) -> Intent:
    """A caption's intent that leaves out some of it, mostly what anyone would expect unsaid."""
    time = None if rng.random() < (0.6 if scene.time == "day" else 0.1) else scene.time
    place = None if rng.random() < 0.1 else scene.scene
    both = rng.random() < 0.75  # positions of a pair are said together or not at all
    said = []
    for wanted in objects:
        kind, colour, position, size = wanted.kind, wanted.colour, wanted.position, wanted.size
        if rng.random() < (0.5 if colour in USUAL_COLOURS[str(kind)] else 0.06):
            colour = None
        if len(objects) > 1:
            position = position if both else None
        elif rng.random() < (0.55 if position == "centre" else 0.12):
            position = None
        if size == "medium" or rng.random() < 0.12:
            size = None
        said.append(Wanted(kind, colour, position, size, wanted.count))
    if not said and place is None:
        place = scene.scene
    return Intent("paint", place, time, tuple(said))


def sample_scene(rng: random.Random) -> Scene:
    """Any picture that training may show."""
    return _paint(rng, unseen=False)[0]


def sample_paint(rng: random.Random) -> Example:
    scene, objects = _paint(rng, unseen=False)
    return Example((), scene, _say(rng, scene, objects))


def sample_full(rng: random.Random, unseen: bool) -> Example:
    """One object with all six attributes said, of a combination that was or wasn't trained."""
    while True:
        scene, objects = _paint(rng, unseen)
        if len(objects) == 1:
            return Example((), scene, Intent("paint", scene.scene, scene.time, objects))


def sample_pair(rng: random.Random, unseen: bool) -> Example:
    """Two objects with everything said."""
    while True:
        scene, objects = _paint(rng, unseen)
        if len(objects) == 2:
            return Example((), scene, Intent("paint", scene.scene, scene.time, objects))


# Edits: each takes a random source and gives the target and what was asked, or None where the
# source does not allow the operation.


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
        new = thing(rng, kind, colour, POSITION_X[position], SIZE_SHARE["medium"])
        things: tuple[Thing, ...] = (new,)
    else:
        there = source.things[0]
        if abs(there.x - 0.5) < 0.1 or there.share > 0.45 or there.kind == kind:
            return None
        position = "right" if there.x < 0.5 else "left"
        new = thing(rng, kind, colour, PAIR_X[position], PAIR_SHARE)
        things = (there, new) if position == "right" else (new, there)
    said = position if not source.things or rng.random() < 0.7 else None
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
        things: tuple[Thing, ...] = lone(rng, first.kind, first.colour, "centre", "medium")
    else:
        things = row(rng, first.kind, first.colour, count)
    kind = None if rng.random() < 0.15 else first.kind
    wanted = Wanted(kind, count=count)
    return replace(source, things=things), Intent("count", objects=(wanted,))


Edit = Callable[[random.Random, Scene], "tuple[Scene, Intent] | None"]
EDITS: dict[str, tuple[Edit, float]] = {  # the second number is how often, relatively
    "time": (_edit_time, 1.3),
    "scene": (_edit_scene, 1.3),
    "colour": (_edit_colour, 1.6),
    "add": (_edit_add, 1.2),
    "remove": (_edit_remove, 1.0),
    "replace": (_edit_replace, 2.0),
    "count": (_edit_count, 1.2),
}


def sample_edit(rng: random.Random, operation: str | None = None) -> Example:
    """A source, an instruction and the picture it asks for."""
    if operation is None:
        operation = rng.choices(list(EDITS), [often for _, often in EDITS.values()])[0]
    edit = EDITS[operation][0]
    while True:
        source, _ = _paint(rng, unseen=False)
        result = edit(rng, source)
        if result is not None:
            return Example((source,), *result)


# Compositions.


def _portrait(rng: random.Random) -> Scene:
    """A reference that shows one object well."""
    scene = "studio" if rng.random() < 0.35 else rng.choice(SCENES)
    kind, colour = rng.choice(KINDS), rng.choice(COLOURS)
    size = rng.choices(("medium", "large"), (0.5, 0.5))[0]
    position = rng.choices(("centre", "left", "right"), (0.7, 0.15, 0.15))[0]
    time = "day" if rng.random() < 0.4 else rng.choice(TIMES)
    return Scene(scene, time, lone(rng, kind, colour, position, size), backdrop(rng))


def _named(rng: random.Random, scene: Scene, image: int, position: str | None = None) -> Wanted:
    kind = scene.things[0].kind if rng.random() < 0.5 else None
    return Wanted(kind, position=position, image=image)


def sample_compose(rng: random.Random, images: int) -> Example:
    """A picture made from `images` references, 1 to 5, in the order the caption numbers them."""
    if not 1 <= images <= 5:
        raise ValueError(f"a composition has 1 to 5 images, not {images}")
    roles = _roles(rng, images)
    order = list(range(images))
    rng.shuffle(order)
    references = [_portrait(rng) if rng.random() < 0.5 else sample_scene(rng) for _ in order]
    number = {role: order[index] + 1 for index, role in enumerate(roles)}
    for role, image in number.items():
        if role.startswith("object"):
            references[image - 1] = _portrait(rng)
    scene, time, here = rng.choice(SCENES), rng.choice(TIMES), backdrop(rng)
    said_scene: str | None = scene
    said_time: str | None = time if rng.random() < 0.6 else None
    if "scene" in number:
        shown = references[number["scene"] - 1]
        scene, here = shown.scene, shown.backdrop
        said_scene = scene if rng.random() < 0.3 else None
        if said_time is None or rng.random() < 0.6:
            said_time, time = None, shown.time
    elif said_time is None:
        time = "day"
    if "time" in number:
        time, said_time = references[number["time"] - 1].time, None

    first = references[number["object"] - 1] if "object" in number else None
    second = references[number["object 2"] - 1] if "object 2" in number else None
    objects: tuple[Wanted, ...]
    things: tuple[Thing, ...]
    if first and second:
        if first.things[0].kind == second.things[0].kind:
            return sample_compose(rng, images)
        said = rng.random() < 0.6
        objects = (
            _named(rng, first, number["object"], "left" if said else None),
            _named(rng, second, number["object 2"], "right" if said else None),
        )
        things = tuple(
            thing(rng, shown.things[0].kind, shown.things[0].colour, PAIR_X[side], PAIR_SHARE)
            for shown, side in ((first, "left"), (second, "right"))
        )
    elif first:
        position = "centre" if rng.random() < 0.6 else rng.choice(("left", "right"))
        wanted = _named(rng, first, number["object"], None if position == "centre" else position)
        objects = (wanted,)
        shown_thing = first.things[0]
        things = lone(rng, shown_thing.kind, shown_thing.colour, position, "medium")
    else:
        kind, colour = rng.choice(KINDS), rng.choice(COLOURS)
        objects = (Wanted(kind, colour, count=1),)
        things = lone(rng, kind, colour, "centre", "medium")
    target = Scene(scene, time, things, here)
    intent = Intent(
        "compose",
        scene=said_scene,
        time=said_time,
        objects=objects,
        scene_image=number.get("scene"),
        time_image=number.get("time"),
    )
    return Example(tuple(references), target, intent)


def _roles(rng: random.Random, images: int) -> tuple[str, ...]:
    """Which parts of the picture come from images; images without a role are only looked past."""
    choices: list[tuple[tuple[str, ...], float]] = [(("object",), 0.6), (("scene",), 0.4)]
    if images >= 2:
        choices = [
            (("object", "scene"), 0.6),
            (("object", "time"), 0.12),
            (("object", "object 2"), 0.18),
            (("object",), 0.06),
            (("scene",), 0.04),
        ]
    if images >= 3:
        choices = [
            (("object", "scene", "time"), 0.6),
            (("object", "object 2", "scene"), 0.25),
            (("object", "scene"), 0.15),
        ]
    if images >= 4:
        choices = [
            (("object", "object 2", "scene", "time"), 0.5),
            (("object", "scene", "time"), 0.5),
        ]
    return rng.choices([roles for roles, _ in choices], [often for _, often in choices])[0]
