"""The prompts of the documentation."""

from __future__ import annotations

from dataclasses import replace

from evaluation.generate import EDIT_STRENGTH, Task
from evaluation.ledger import Ledger
from evaluation.probe import Seen
from evaluation.score import Tally, only
from evaluation.sections.cases import (
    EDIT_SIDE,
    SIDE,
    Case,
    Result,
    draws,
    picture_seed,
    rates_of,
)
from evaluation.sections.references import composed, unlike
from world.sampling import backdrop, lone, sample_scene
from world.spec import COLOURS, Scene

BEACH = "a serene Indonesian beach at sunset, photorealistic, golden hour"
SAMURAI = "a young samurai in a bamboo forest, cherry blossoms falling"
CLOUDS = "change the sky to dramatic stormy clouds with lightning"
SUNSET = "change background to sunset"
PRODUCT = (
    "the product from image 1, displayed in the studio setting from image 2, "
    "in the photography style of image 3"
)


def documented(ledger: Ledger, count: int, seed: int) -> Result:
    """The prompts a reader of the documentation tries first, over several seeds."""
    rng = draws(seed, "documented")
    samurai = lone("samurai", "red", "centre", "medium")
    groups: dict[str, list[Case]] = {"beach": [], "samurai": [], "product": []}
    for _ in range(count):
        empty = Scene("beach", "sunset", (), backdrop(rng))
        task = Task(BEACH, empty, SIDE, SIDE, picture_seed(rng))
        groups["beach"].append(Case(task, Seen(scene="beach", time="sunset")))
        drawn = Scene("bamboo", "blossoms", samurai, backdrop(rng))
        task = Task(
            SAMURAI, drawn, SIDE, SIDE, picture_seed(rng), style="anime", style_strength=0.8
        )
        asked = Seen(scene="bamboo", time="blossoms", count=1, kind="samurai")
        groups["samurai"].append(Case(task, asked))
        product, place, light = unlike(rng, 3)
        things = lone(
            rng.choice(("cup", "bottle", "lamp", "chair")),
            rng.choice(COLOURS),
            "centre",
            "large",
        )
        shown = (replace(product, things=things), replace(place, scene="studio"), light)
        target = composed(shown, (0, 1, 2))
        names = ("scene", "time", "count", "kind", "colour")
        task = Task(PRODUCT, target, EDIT_SIDE, EDIT_SIDE, picture_seed(rng), sources=shown)
        groups["product"].append(Case(task, only(Seen.of(target), names)))
    result: Result = {}
    for name, cases in groups.items():
        found = ledger.findings(f"documented {name}", [case.task for case in cases])
        result[name] = rates_of(cases, found)
    for name, said, time, value in (
        ("clouds", CLOUDS, "storm", 0.7),
        ("sunset", SUNSET, "sunset", EDIT_STRENGTH),
    ):
        tally = Tally()
        tasks = []
        for _ in range(count):
            source = replace(sample_scene(rng), time="day")
            target = replace(source, time=time)
            tasks.append(
                Task(
                    said,
                    target,
                    EDIT_SIDE,
                    EDIT_SIDE,
                    picture_seed(rng),
                    sources=(source,),
                    strength=value,
                )
            )
        for task, finding in zip(tasks, ledger.findings(f"documented {name}", tasks), strict=True):
            truth = Seen.of(task.target)
            kept = replace(truth, time=None)
            tally.add(
                {
                    "changed": finding.seen.time == time,
                    "kept": all(kept.agrees(finding.seen).values()),
                }
            )
        result[name] = tally.rates()
    return result
