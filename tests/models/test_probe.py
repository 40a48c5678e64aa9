"""The probe sees what is drawn; it judges the model, so it must not be the one that errs."""

import random

from evaluation.probe import Probe, Seen
from evaluation.train_probe import draw_double, draw_scene
from world import sampling
from world.render import render


def test_the_probe_reads_pictures_of_every_size():
    probe = Probe.load()
    rng = random.Random(77)
    right = 0
    for side in ((512, 512), (768, 512), (512, 768), (320, 320)):
        scenes = [sampling.sample_scene(rng) for _ in range(25)]
        seen = probe([render(scene, *side) for scene in scenes])
        right += sum(
            all(Seen.of(scene).agrees(one).values())
            for scene, one in zip(scenes, seen, strict=True)
        )
    assert right >= 95


def test_the_probe_counts_a_second_object_however_close_or_pale():
    probe = Probe.load()
    rng = random.Random(78)
    right = {1: 0, 2: 0}
    asked = {1: 0, 2: 0}
    while min(asked.values()) < 40:
        scene = draw_scene(rng)
        if len(scene.things) == 1:
            picture, truth = draw_double(rng, scene, 512, 512, 512 / 768)
            [seen] = probe([picture])
            asked[truth.count] += 1
            right[truth.count] += seen.count == truth.count
    assert right[1] >= 0.9 * asked[1]
    assert right[2] >= 0.75 * asked[2]
