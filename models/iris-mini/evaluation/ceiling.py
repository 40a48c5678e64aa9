"""How often the probe is right about real pictures: no model can score more."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import fields

from tqdm import tqdm

from evaluation.probe import Probe, Seen
from evaluation.view import view
from world import sampling

SIZES = (
    (512, 512),
    (640, 640),
    (768, 768),
    (960, 960),
    (512, 768),
    (768, 512),
    (640, 960),
    (960, 640),
)


def ceiling(probe: Probe, count: int, seed: int) -> dict[str, float]:
    """How often the probe is right about real pictures it never saw, without any style."""
    rng = random.Random(f"ceiling {seed}")
    right: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    for i in tqdm(range(count), desc="ceiling"):
        width, height = SIZES[i % len(SIZES)]
        draw_one = (sampling.sample_full, sampling.sample_pair)[i % 5 == 4]
        scene = draw_one(rng, unseen=bool(i % 2)).target
        truth = Seen.of(scene)
        [seen] = probe([view(scene, width, height)])
        answers = truth.agrees(seen)
        answers["all"] = all(answers.values())
        asked.update(answers.keys())  # of a mapping, Counter would add up the values
        right.update(name for name, is_right in answers.items() if is_right)
    order = [*(field.name for field in fields(Seen)), "all"]
    return {name: round(right[name] / asked[name], 4) for name in order if asked[name]}
