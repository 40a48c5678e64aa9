"""What a picture of the small world shows, as data: nothing here draws or speaks.

A Scene is a whole picture, down to every number that differs between two pictures of the same
caption. An Intent is what a caption says of the picture that is wanted, and no more than that.
"""

from __future__ import annotations

from dataclasses import dataclass, field

SCENES = (
    "beach",
    "sea",
    "hills",
    "forest",
    "bamboo",
    "desert",
    "city",
    "mountains",
    "ricefield",
    "studio",
)
# Time of day and weather are one attribute: a picture has exactly one of these.
TIMES = ("day", "sunset", "night", "storm", "fog", "rain", "snow", "blossoms")
KINDS = (
    "house",
    "tree",
    "boat",
    "car",
    "cat",
    "samurai",
    "balloon",
    "cup",
    "lamp",
    "bottle",
    "bird",
    "flower",
    "temple",
    "umbrella",
    "chair",
    "fish",
)
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white", "black")
POSITIONS = ("left", "centre", "right")
SIZES = ("small", "medium", "large")
COUNTS = (1, 2, 3)
STYLES = ("dark", "anime")
MOST_REFERENCES = 5

# Centre of a lone object, as a share of the picture's width.
POSITION_X = {"left": 0.25, "centre": 0.5, "right": 0.75}
# Side of an object's box, as a share of the picture's shorter side.
SIZE_SHARE = {"small": 0.2, "medium": 0.34, "large": 0.52}
# Several equal objects stand side by side and are smaller.
COUNT_X = {1: (0.5,), 2: (0.3, 0.7), 3: (0.2, 0.5, 0.8)}
COUNT_SHARE = {2: 0.34, 3: 0.26}
PAIR_X = {"left": 0.28, "right": 0.72}
PAIR_SHARE = 0.36


@dataclass(frozen=True, slots=True)
class Thing:
    """One object of a picture."""

    kind: str
    colour: str
    x: float  # centre, share of the width
    share: float  # side of its box, share of the picture's shorter side


@dataclass(frozen=True, slots=True)
class Backdrop:
    """What differs between backgrounds of the same caption."""

    land: int = 0  # 0 or 1: as it is drawn, or its mirror image
    sky: int = 0  # 0..2: where sun, moon, bolt and clouds are
    warmth: float = 0.0  # -1..1: hue of the light, within what the time allows


@dataclass(frozen=True, slots=True)
class Scene:
    """A whole picture."""

    scene: str
    time: str
    things: tuple[Thing, ...]
    backdrop: Backdrop = field(default_factory=Backdrop)
    style: str | None = None
    amount: float = 0.0  # of the style; 0..1.5


@dataclass(frozen=True, slots=True)
class Wanted:
    """One object as a caption names it; None is what the caption leaves open."""

    kind: str | None = None
    colour: str | None = None
    position: str | None = None
    size: str | None = None
    count: int | None = None
    image: int | None = None  # 1-based: the object is the one of that reference image


# What an edit does. "paint" makes a new picture, "compose" makes one from several images.
OPERATIONS = (
    "paint",
    "compose",
    "time",
    "scene",
    "colour",
    "add",
    "remove",
    "replace",
    "count",
)


@dataclass(frozen=True, slots=True)
class Intent:
    """What a caption asks for.

    paint: scene, time, objects (0, 1 or 2 of them).
    compose: as paint, where scene_image / time_image / an object's image say "as in image N".
    time, scene: the new value in `time` / `scene`.
    colour: objects[0] has the kind that is recoloured (or None: "it") and the new colour.
    add: objects[0] is what is added, with its position.
    remove: subject is the kind that goes (or None: "the object").
    replace: subject is the kind that goes, objects[0] what comes.
    count: objects[0] has the kind and the new count.
    """

    operation: str
    scene: str | None = None
    time: str | None = None
    objects: tuple[Wanted, ...] = ()
    subject: str | None = None
    scene_image: int | None = None
    time_image: int | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """One training or test example: pictures in, a picture out, and what the caption asks.

    `boxes` of what changed are found by comparing the pictures, not stored.
    """

    references: tuple[Scene, ...]
    target: Scene
    intent: Intent
