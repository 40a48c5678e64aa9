"""The small world: what is asked for is what is drawn and said, and the same again each time."""

import random
from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest

from world import sampling
from world.captions import LANGUAGES, caption
from world.captions.speech import MOST_WORDS
from world.captions.vocabulary import world_words
from world.compositions import sample_compose
from world.edits import sample_edit
from world.render import render
from world.spec import (
    COLOURS,
    KINDS,
    OPERATIONS,
    SCENES,
    TIMES,
    Backdrop,
    Intent,
    Scene,
    Thing,
    Wanted,
)

LUMA = np.array([0.299, 0.587, 0.114])


def a_scene(scene="hills", time="day", kind="house", colour="red", **more):
    return Scene(scene, time, (Thing(kind, colour, 0.5, 0.4),), Backdrop(), **more)


def examples(seed, count=150):
    rng = random.Random(seed)
    for number in range(count):
        yield sampling.sample_paint(rng)
        yield sample_edit(rng)
        yield sample_compose(rng, 1 + number % 5)


def test_a_scene_always_gives_the_same_bytes_in_the_size_asked_for():
    for width, height in ((256, 256), (320, 192), (128, 384)):
        picture = render(a_scene(), width, height)
        assert picture.shape == (height, width, 3)
        assert np.array_equal(picture, render(a_scene(), width, height))


def test_every_scene_time_kind_and_colour_makes_another_picture():
    for name, values in {
        "scene": SCENES,
        "time": TIMES,
        "kind": KINDS,
        "colour": COLOURS,
    }.items():
        pictures = [render(a_scene(**{name: value}), 96, 96).astype(int) for value in values]
        for one, other in product(range(len(values)), repeat=2):
            if one < other:
                apart = np.abs(pictures[one] - pictures[other]).mean()
                assert apart > 0.8, (name, values[one], values[other])


def test_a_large_picture_is_the_small_one_enlarged():
    small = render(a_scene(), 128, 128).astype(float)
    large = render(a_scene(), 512, 512).astype(float)
    shrunk = large.reshape(128, 4, 128, 4, 3).mean(axis=(1, 3))
    assert np.abs(shrunk - small).mean() < 3


def test_night_is_darker_than_day_and_dark_darker_still():
    def luma(scene):
        return (render(scene, 128, 128) @ LUMA).mean()

    for scene in SCENES:
        assert luma(a_scene(scene, "night")) < 0.6 * luma(a_scene(scene, "day"))
    amounts = [luma(a_scene(style="dark", amount=amount)) for amount in (0.0, 0.5, 1.0, 1.5)]
    assert amounts == sorted(amounts, reverse=True)
    assert amounts[3] > 25


def test_the_backdrop_of_another_seed_is_mostly_visibly_another():
    rng = random.Random(4)
    pictures = [
        render(replace(a_scene(), backdrop=sampling.backdrop(rng)), 96, 96).astype(int)
        for _ in range(20)
    ]
    apart = [np.abs(one - other).mean() for one, other in combinations(pictures, 2)]
    assert sum(value > 4 for value in apart) > 0.8 * len(apart)
    assert min(apart) > 0


def test_training_never_draws_the_combinations_kept_for_the_evaluation():
    rng = random.Random(1)
    for _ in range(600):
        scene = sampling.sample_scene(rng)
        assert not any(sampling.is_unseen(t.kind, t.colour, scene.scene) for t in scene.things)
    for _ in range(20):
        scene = sampling.sample_full(rng, unseen=True).target
        assert any(sampling.is_unseen(t.kind, t.colour, scene.scene) for t in scene.things)


@pytest.mark.parametrize("operation", [o for o in OPERATIONS if o not in ("paint", "compose")])
def test_an_edit_changes_what_it_says_and_nothing_else(operation):
    rng = random.Random(7)
    for _ in range(40):
        example = sample_edit(rng, operation)
        [source], target = example.references, example.target
        assert example.intent.operation == operation
        assert target != source
        assert target.backdrop == source.backdrop
        assert (target.time != source.time) == (operation == "time")
        assert (target.scene != source.scene) == (operation == "scene")
        if operation in ("time", "scene"):
            assert target.things == source.things
        if operation == "remove":
            assert set(target.things) < set(source.things)
        if operation == "add":
            assert set(source.things) < set(target.things)
        if operation == "colour":
            assert [t.kind for t in source.things] == [t.kind for t in target.things]


def test_a_composition_takes_each_part_from_the_image_that_is_named():
    rng = random.Random(3)
    for number in range(200):
        example = sample_compose(rng, 1 + number % 5)
        intent, target = example.intent, example.target
        if intent.scene_image:
            assert target.scene == example.references[intent.scene_image - 1].scene
        if intent.time_image:
            assert target.time == example.references[intent.time_image - 1].time
        for wanted, thing in zip(intent.objects, target.things, strict=True):
            if wanted.image:
                shown = example.references[wanted.image - 1].things[0]
                assert (thing.kind, thing.colour) == (shown.kind, shown.colour)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("held_out", [False, True])
def test_a_caption_is_short_and_the_same_for_the_same_chance(language, held_out):
    for seed, example in enumerate(examples(5, 60)):
        text = caption(example.intent, language, random.Random(seed), held_out=held_out)
        assert text == text.strip()
        assert 1 <= len(text.split()) <= MOST_WORDS
        again = caption(example.intent, language, random.Random(seed), held_out=held_out)
        assert again == text


def test_a_caption_names_no_colour_that_is_not_meant():
    rng = random.Random(9)
    for colour in COLOURS:
        intent = Intent("paint", objects=(Wanted("car", colour, count=1),))
        captions = [caption(intent, "en", rng).lower() for _ in range(40)]
        words = set(" ".join(captions).replace(",", " ").replace(".", " ").split())
        assert colour in words
        assert not (set(COLOURS) - {colour}) & words


def test_every_world_word_is_known_in_both_languages():
    for language in LANGUAGES:
        assert len(world_words(language)) > 100
