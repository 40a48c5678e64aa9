"""The probe sees what is drawn; it judges the model, so it must not be the one that errs."""

import random

from evaluation.probe import Probe, Seen
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
