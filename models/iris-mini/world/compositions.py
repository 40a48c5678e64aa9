"""Draws compositions at random: a picture made from one to five others."""

from __future__ import annotations

import random

from world.sampling import backdrop, lone, sample_scene
from world.spec import (
    COLOURS,
    KINDS,
    PAIR_SHARE,
    PAIR_X,
    SCENES,
    TIMES,
    Example,
    Intent,
    Scene,
    Thing,
    Wanted,
)


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
            Thing(shown.things[0].kind, shown.things[0].colour, PAIR_X[side], PAIR_SHARE)
            for shown, side in ((first, "left"), (second, "right"))
        )
    elif first:
        position = "centre" if rng.random() < 0.6 else rng.choice(("left", "right"))
        wanted = _named(rng, first, number["object"], None if position == "centre" else position)
        objects = (wanted,)
        shown_thing = first.things[0]
        things = lone(shown_thing.kind, shown_thing.colour, position, "medium")
    else:
        kind, colour = rng.choice(KINDS), rng.choice(COLOURS)
        objects = (Wanted(kind, colour, count=1),)
        things = lone(kind, colour, "centre", "medium")
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


def _portrait(rng: random.Random) -> Scene:
    """A reference that shows one object well."""
    scene = "studio" if rng.random() < 0.35 else rng.choice(SCENES)
    kind, colour = rng.choice(KINDS), rng.choice(COLOURS)
    size = rng.choices(("medium", "large"), (0.5, 0.5))[0]
    position = rng.choices(("centre", "left", "right"), (0.7, 0.15, 0.15))[0]
    time = "day" if rng.random() < 0.4 else rng.choice(TIMES)
    return Scene(scene, time, lone(kind, colour, position, size), backdrop(rng))


def _named(rng: random.Random, scene: Scene, image: int, position: str | None = None) -> Wanted:
    kind = scene.things[0].kind if rng.random() < 0.5 else None
    return Wanted(kind, position=position, image=image)
