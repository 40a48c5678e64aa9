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
    POSITIONS,
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

# What nobody says is as anyone would expect it, one way or the other: which of the two, the land
# decides, and so the noise. The more were left to the noise, the more pictures would be torn
# between two of them.
USUAL_COLOURS: dict[str, tuple[str, str]] = {
    "house": ("red", "white"),
    "tree": ("green", "green"),
    "boat": ("blue", "white"),
    "car": ("red", "blue"),
    "cat": ("orange", "white"),
    "samurai": ("red", "black"),
    "balloon": ("red", "yellow"),
    "cup": ("white", "blue"),
    "lamp": ("yellow", "orange"),
    "bottle": ("green", "blue"),
    "bird": ("blue", "red"),
    "flower": ("pink", "red"),
    "temple": ("orange", "red"),
    "umbrella": ("red", "purple"),
    "chair": ("orange", "blue"),
    "fish": ("orange", "blue"),
}
USUAL_SCENES: dict[str, tuple[str, str]] = {
    "house": ("hills", "ricefield"),
    "tree": ("hills", "ricefield"),
    "boat": ("sea", "beach"),
    "car": ("city", "desert"),
    "cat": ("hills", "city"),
    "samurai": ("bamboo", "mountains"),
    "balloon": ("hills", "mountains"),
    "cup": ("studio", "studio"),
    "lamp": ("studio", "studio"),
    "bottle": ("studio", "beach"),
    "bird": ("forest", "sea"),
    "flower": ("hills", "forest"),
    "temple": ("mountains", "bamboo"),
    "umbrella": ("beach", "city"),
    "chair": ("studio", "beach"),
    "fish": ("sea", "sea"),
}
USUAL = 0.3  # share of the pictures to train on that show what is usual
UNSAID = 0.6  # how often what is usual is left unsaid


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


def _paint(
    rng: random.Random, unseen: bool, usual: float = 0.0
) -> tuple[Scene, tuple[Wanted, ...]]:
    """A scene and its objects with everything about them said.

    usual: the share of them in which scene, colour and place are what nobody needs to say.
    """
    while True:
        here, is_usual = backdrop(rng), rng.random() < usual
        scene, time = rng.choice(SCENES), rng.choice(TIMES)
        form = rng.choices(("lone", "row", "pair", "none"), (0.6, 0.16, 0.18, 0.06))[0]
        kind, colour = rng.choice(KINDS), rng.choice(COLOURS)
        if is_usual:
            scene = USUAL_SCENES[kind][here.land]
            colour = rng.choice((colour, USUAL_COLOURS[kind][here.land]))
        objects: tuple[Wanted, ...] = ()
        things: tuple[Thing, ...] = ()
        if form == "lone":
            position, size = rng.choice(POSITIONS), _size(rng)
            if is_usual and rng.random() < 0.7:
                position, size = "centre", "medium"
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
            return Scene(scene, time, things, here), objects


def _say(rng: random.Random, scene: Scene, objects: tuple[Wanted, ...]) -> Intent:
    """A caption's intent that leaves out some of it, only what anyone would expect unsaid.

    Unsaid, it is day, and things are of medium size and a lone one in the middle; scene and colours
    are the usual ones.
    """
    time = None if scene.time == "day" and rng.random() < 0.6 else scene.time
    land = scene.backdrop.land
    place: str | None = scene.scene
    if objects and place == USUAL_SCENES[str(objects[0].kind)][land] and rng.random() < UNSAID:
        place = None
    both = rng.random() < 0.75  # positions of a pair are said together or not at all
    said = []
    for wanted in objects:
        kind, colour, position, size = wanted.kind, wanted.colour, wanted.position, wanted.size
        if colour == USUAL_COLOURS[str(kind)][land] and rng.random() < UNSAID:
            colour = None
        if len(objects) > 1:
            position = position if both else None
        elif position == "centre" and rng.random() < UNSAID:
            position = None
        if size == "medium":
            size = None
        said.append(Wanted(kind, colour, position, size, wanted.count))
    return Intent("paint", place, time, tuple(said))


def sample_scene(rng: random.Random) -> Scene:
    """Any picture that training may show."""
    return _paint(rng, unseen=False)[0]


def sample_paint(rng: random.Random) -> Example:
    scene, objects = _paint(rng, unseen=False, usual=USUAL)
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
