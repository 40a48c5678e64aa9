"""Draws new pictures of the world at random: what the model learns from.

Every draw takes a random.Random, so that a seed gives the same examples everywhere. Some
combinations of kind, colour and scene are never drawn for training, so that an evaluation can
ask for what was never seen.
"""

from __future__ import annotations

import random
import zlib

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
# How often each place of a lone object is left unsaid.
UNSAID_PLACES = {"left": 0.1, "centre": 0.6, "right": 0.1}


def is_unseen(kind: str, colour: str, scene: str) -> bool:
    """Whether training leaves this combination out."""
    return zlib.crc32(f"{kind}/{colour}/{scene}".encode()) % UNSEEN_ONE_IN == 0


def backdrop(rng: random.Random) -> Backdrop:
    """One of six, and a warmth: what the noise must decide, a few steps must be able to read."""
    return Backdrop(land=rng.randrange(2), sky=rng.randrange(3), warmth=rng.uniform(-1, 1))


def lone(kind: str, colour: str, position: str, size: str) -> tuple[Thing]:
    return (Thing(kind, colour, POSITION_X[position], SIZE_SHARE[size]),)


def row(kind: str, colour: str, count: int) -> tuple[Thing, ...]:
    """Several equal objects side by side."""
    return tuple(Thing(kind, colour, x, COUNT_SHARE[count]) for x in COUNT_X[count])


def pair(left: Wanted, right: Wanted) -> tuple[Thing, Thing]:
    """Two different objects, one on each side; both wanted with kind and colour."""
    return (
        Thing(str(left.kind), str(left.colour), PAIR_X["left"], PAIR_SHARE),
        Thing(str(right.kind), str(right.colour), PAIR_X["right"], PAIR_SHARE),
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
            things = lone(kind, colour, position, size)
        elif form == "row":
            count = rng.choice((2, 3))
            objects = (Wanted(kind, colour, count=count),)
            things = row(kind, colour, count)
        elif form == "pair":
            other = rng.choice([k for k in KINDS if k != kind])
            objects = (
                Wanted(kind, colour, "left", count=1),
                Wanted(other, rng.choice(COLOURS), "right", count=1),
            )
            things = pair(*objects)
        seen = [is_unseen(t.kind, t.colour, scene) for t in things]
        if any(seen) == unseen and (things or not unseen):
            return Scene(scene, time, things, backdrop(rng)), objects


def _say(rng: random.Random, scene: Scene, objects: tuple[Wanted, ...]) -> Intent:
    """A caption's intent that leaves out some of it, only what anyone would expect unsaid.

    Unsaid, it is day and things are of medium size; colours are usual ones.
    """
    time = None if scene.time == "day" and rng.random() < 0.6 else scene.time
    place = None if rng.random() < 0.1 else scene.scene
    both = rng.random() < 0.75  # positions of a pair are said together or not at all
    said = []
    for wanted in objects:
        kind, colour, position, size = wanted.kind, wanted.colour, wanted.position, wanted.size
        if colour in USUAL_COLOURS[str(kind)] and rng.random() < 0.5:
            colour = None
        if len(objects) > 1:
            position = position if both else None
        elif wanted.count == 1 and rng.random() < UNSAID_PLACES[str(position)]:
            position = None
        if size == "medium":
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
