"""The sections of the evaluation: each asks for pictures, and says how many of them are right."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import fmean
from typing import Any

from evaluation import measures
from evaluation.generate import EDIT_STRENGTH, Task
from evaluation.ledger import Finding, Ledger
from evaluation.measures import Image
from evaluation.probe import Seen
from evaluation.score import Rates, Tally, asked_of, only, parts_of, shuffled
from evaluation.train_probe import CEILING_SIZES, ceiling
from world import sampling
from world.captions import LANGUAGES, caption
from world.render import render
from world.spec import (
    COLOURS,
    KINDS,
    SCENES,
    STYLES,
    TIMES,
    Example,
    Intent,
    Scene,
    Wanted,
)

Result = dict[str, Any]
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
SIDE = 768
SOURCE_SIDES = (704, 512)
STEPS = (1, 2, 4, 8, 16)
GUIDANCES = (1.0, 1.5, 2.0, 3.0)
STRENGTHS = (0.2, 0.4, 0.6, 0.75, 1.0)
STYLE_STRENGTHS = (0.0, 0.3, 0.6, 0.8, 1.0, 1.5)
# Two means this close are equal: a rounding of pixels, no change of mind.
_EQUAL = 0.002
_OBJECT_EDITS = ("colour", "add", "remove", "replace", "count")


@dataclass(frozen=True, slots=True)
class Case:
    """A task and what its caption asks for."""

    task: Task
    asked: Seen
    is_unseen: bool = False


def _draws(seed: int, *names: object) -> random.Random:
    """Random numbers of their own for every section, whatever the others draw."""
    return random.Random(" ".join(map(str, (seed, *names))))


def _picture_seed(rng: random.Random) -> int:
    return rng.randrange(2**31)


def _full(rng: random.Random, language: str, unseen: bool, width: int, height: int) -> Case:
    """A caption in held-out words that says all there is to say of a new picture."""
    example = sampling.sample_full(rng, unseen)
    said = caption(example.intent, language, rng, held_out=True)
    task = Task(said, example.target, width, height, _picture_seed(rng))
    return Case(task, asked_of(example.intent), unseen)


def _mixed(rng: random.Random, count: int, width: int = SIDE, height: int = SIDE) -> list[Case]:
    """Both languages, seen and unseen combinations alike."""
    return [_full(rng, LANGUAGES[i % 2], bool(i // 2 % 2), width, height) for i in range(count)]


def _rates(cases: Sequence[Case], findings: Sequence[Finding]) -> Rates:
    tally = Tally()
    for case, finding in zip(cases, findings, strict=True):
        tally.add(case.asked.agrees(finding.seen))
    return tally.rates()


# -- the probe itself ---------------------------------------------------------------------------


def probe(ledger: Ledger, count: int, seed: int) -> Result:
    """How far the probe can be trusted: on real pictures, and after the autoencoder."""
    rng = _draws(seed, "probe")
    coded = Tally()
    apart = []
    for i in range(min(count, 100)):
        scene = sampling.sample_full(rng, unseen=bool(i % 2)).target
        picture = render(scene, *CEILING_SIZES[i % len(CEILING_SIZES)])
        back = ledger.maker.round_trip(picture)
        apart.append(measures.difference(picture, back))
        coded.add(Seen.of(scene).agrees(ledger.probe([back])[0]))
    return {
        "real": ceiling(ledger.probe, 4 * count, seed),
        "through_autoencoder": coded.rates() | {"difference": round(fmean(apart), 4)},
    }


# -- new pictures -------------------------------------------------------------------------------


def _text_cases(language: str, count: int, seed: int) -> list[Case]:
    rng = _draws(seed, "text", language)
    return [_full(rng, language, bool(i % 2), SIDE, SIDE) for i in range(count)]


def text(ledger: Ledger, count: int, seed: int) -> Result:
    """Fully said captions in held-out words; half of the combinations were never trained."""
    result: Result = {}
    cases: list[Case] = []
    findings: list[Finding] = []
    for language in LANGUAGES:
        some = _text_cases(language, count, seed)
        found = ledger.findings(f"text {language}", [case.task for case in some])
        result[language] = _rates(some, found)
        cases += some
        findings += found
    for name, unseen in (("seen", False), ("unseen", True)):
        chosen = [i for i, case in enumerate(cases) if case.is_unseen == unseen]
        result[name] = _rates([cases[i] for i in chosen], [findings[i] for i in chosen])
    result["overall"] = _rates(cases, findings)
    return result


def control(ledger: Ledger, count: int, seed: int) -> Result:
    """The pictures of `text`, judged by captions of other pictures: must be chance."""
    cases = [case for language in LANGUAGES for case in _text_cases(language, count, seed)]
    findings = ledger.findings("control", [case.task for case in cases])
    asked = [case.asked for case in cases]
    return {
        "own_caption": _rates(cases, findings),
        "other_caption": shuffled(asked, [finding.seen for finding in findings]),
        "chance": shuffled(asked, [Seen.of(case.task.target) for case in cases]),
    }


def sizes(ledger: Ledger, count: int, seed: int) -> Result:
    result: Result = {}
    for width, height in SIZES:
        name = f"{width}x{height}"
        cases = _mixed(_draws(seed, "sizes", name), count, width, height)
        found = ledger.findings(f"sizes {name}", [case.task for case in cases])
        result[name] = _rates(cases, found)
    return result


def pairs(ledger: Ledger, count: int, seed: int) -> Result:
    """Two unlike objects: the right kind and colour on the right side."""
    result: Result = {}
    for language in LANGUAGES:
        rng = _draws(seed, "pairs", language)
        cases = []
        for i in range(count):
            example = sampling.sample_pair(rng, unseen=bool(i % 2))
            said = caption(example.intent, language, rng, held_out=True)
            task = Task(said, example.target, SIDE, SIDE, _picture_seed(rng))
            cases.append(Case(task, asked_of(example.intent)))
        found = ledger.findings(f"pairs {language}", [case.task for case in cases])
        result[language] = _rates(cases, found)
    return result


def steps(ledger: Ledger, count: int, seed: int) -> Result:
    cases = _mixed(_draws(seed, "steps"), count)
    result: Result = {}
    for number in STEPS:
        tasks = [replace(case.task, steps=number) for case in cases]
        result[str(number)] = _rates(cases, ledger.findings(f"steps {number}", tasks))
    return result


def guidance(ledger: Ledger, count: int, seed: int) -> Result:
    cases = _mixed(_draws(seed, "steps"), count)
    result: Result = {}
    for scale in GUIDANCES:
        tasks = [replace(case.task, guidance=scale) for case in cases]
        result[str(scale)] = _rates(cases, ledger.findings(f"guidance {scale}", tasks))
    return result


# -- edits --------------------------------------------------------------------------------------


def outside(task: Task, picture: Image) -> dict[str, float]:
    """How far the picture is from its source where the edit has no business."""
    [source] = task.images()
    wanted = render(task.target, task.width, task.height)
    box = measures.box_of(measures.changed(source, wanted, 0.01))
    if box is None:
        return {"outside": measures.difference(source, picture)}
    return {"outside": measures.outside_difference(source, picture, box)}


def apart(task: Task, picture: Image) -> dict[str, float]:
    """How far an edit is from its source."""
    return {"apart": measures.difference(task.images()[0], picture)}


def _edit_cases(operation: str, side: int, count: int, seed: int) -> list[tuple[Example, Task]]:
    rng = _draws(seed, "edits", operation, side)
    cases = []
    for i in range(count):
        example = sampling.sample_edit(rng, operation)
        said = caption(example.intent, LANGUAGES[i % 2], rng, held_out=bool(i // 2 % 2))
        task = Task(
            said,
            example.target,
            side,
            side,
            _picture_seed(rng),
            sources=example.references,
            strength=EDIT_STRENGTH,
        )
        cases.append((example, task))
    return cases


def edits(ledger: Ledger, count: int, seed: int) -> Result:
    """Whether what was asked changed and everything else stayed."""
    result: Result = {}
    for side, strength in ((704, EDIT_STRENGTH), (704, 1.0), (512, EDIT_STRENGTH)):
        part: Result = {}
        whole = Tally()
        for operation in sampling.EDITS:
            cases = _edit_cases(operation, side, count, seed)
            tasks = [replace(task, strength=strength) for _, task in cases]
            measure = outside if operation in _OBJECT_EDITS else None
            found = ledger.findings(f"{operation} {side} at {strength}", tasks, measure)
            tally = Tally()
            for (example, _), finding in zip(cases, found, strict=True):
                asked, kept = parts_of(example)
                answers = {
                    "changed": all(asked.agrees(finding.seen).values()),
                    "kept": all(kept.agrees(finding.seen).values()),
                }
                tally.add(answers)
                whole.add(answers)
            rates = tally.rates()
            if measure:
                rates["outside"] = round(fmean(f.numbers["outside"] for f in found), 4)
            part[operation] = rates
        part["overall"] = whole.rates()
        result[f"{side} at {strength}"] = part
    return result


def strength(ledger: Ledger, count: int, seed: int) -> Result:
    """The more strength, the further from the source; the time is right at the default."""
    cases = _edit_cases("time", SOURCE_SIDES[0], count, seed)
    distances: list[list[float]] = []
    result: Result = {}
    for value in STRENGTHS:
        tasks = [replace(task, strength=value) for _, task in cases]
        found = ledger.findings(f"strength {value}", tasks, apart)
        distances.append([finding.numbers["apart"] for finding in found])
        tally = Tally()
        for (example, _), finding in zip(cases, found, strict=True):
            asked, kept = parts_of(example)
            right = {"changed": all(asked.agrees(finding.seen).values())}
            tally.add(right | {"kept": all(kept.agrees(finding.seen).values())})
        result[str(value)] = {"difference": round(fmean(distances[-1]), 4)} | tally.rates()
    result["rises"] = _rising([fmean(values) for values in distances])
    result["share_that_rise"] = _share_rising(distances)
    return result


def _rising(values: Sequence[float]) -> bool:
    return all(after > before - _EQUAL for before, after in pairwise(values))


def _share_rising(rows: Sequence[Sequence[float]]) -> float:
    """rows: one per setting, with a value of every picture."""
    columns = list(zip(*rows, strict=True))
    return round(sum(map(_rising, columns)) / len(columns), 4)


# -- compositions -------------------------------------------------------------------------------


def _unlike(rng: random.Random, count: int) -> list[Scene]:
    """References of one object each that differ in everything."""
    parts = [rng.sample(values, count) for values in (SCENES, TIMES, KINDS, COLOURS)]
    return [
        Scene(
            scene,
            time,
            sampling.lone(rng, kind, colour, "centre", rng.choice(("medium", "large"))),
            sampling.backdrop(rng),
        )
        for scene, time, kind, colour in zip(*parts, strict=True)
    ]


def _composed(references: Sequence[Scene], order: Sequence[int]) -> Scene:
    """The object of references[order[0]] in the scene of order[1] at the time of order[-1]."""
    shown, place = references[order[0]].things[0], references[order[1]]
    here = sampling.lone(random.Random(0), shown.kind, shown.colour, "centre", "medium")
    return Scene(place.scene, references[order[-1]].time, here, place.backdrop)


def references(ledger: Ledger, count: int, seed: int) -> Result:
    """The object of one image in the scene of another; the same images in another order."""
    result: Result = {}
    for images in (2, 3):
        given: list[Case] = []
        moved: list[Case] = []
        rng = _draws(seed, "references", images)
        for i in range(count):
            shown = _unlike(rng, images)
            roles = rng.sample(range(images), images)  # which image is object, scene, time
            intent = Intent(
                "compose",
                objects=(Wanted(image=roles[0] + 1),),
                scene_image=roles[1] + 1,
                time_image=roles[2] + 1 if images == 3 else None,
            )
            said = caption(intent, LANGUAGES[i % 2], rng, held_out=bool(i // 2 % 2))
            for cases, sources in ((given, shown), (moved, shown[1:] + shown[:1])):
                target = _composed(sources, roles)
                names = ("scene", "time", "count", "kind", "colour")
                task = Task(said, target, SIDE, SIDE, _picture_seed(rng), sources=tuple(sources))
                cases.append(Case(task, only(Seen.of(target), names)))
        found = ledger.findings(f"{images} images", [case.task for case in given])
        again = ledger.findings(f"{images} images moved", [case.task for case in moved])
        both = [
            all(one.asked.agrees(a.seen).values()) and all(other.asked.agrees(b.seen).values())
            for one, other, a, b in zip(given, moved, found, again, strict=True)
        ]
        result[f"{images} images"] = {
            "as_given": _rates(given, found),
            "moved_on": _rates(moved, again),
            "both_orders_right": round(sum(both) / len(both), 4),
        }
    return result


# -- styles -------------------------------------------------------------------------------------


def looks(_: Task, picture: Image) -> dict[str, float]:
    return {
        "luma": measures.luma(picture),
        "lightness": measures.lightness(picture),
        "saturation": measures.saturation(picture),
        "edge_density": measures.edge_density(picture),
    }


def lora(ledger: Ledger, count: int, seed: int) -> Result:
    """What a style does to a picture, and whether the subject can still be told."""
    cases = _mixed(_draws(seed, "lora"), count)
    result: Result = {}
    for style in STYLES:
        part: Result = {}
        numbers: list[list[dict[str, float]]] = []
        for value in STYLE_STRENGTHS:
            tasks = [replace(case.task, style=style, style_strength=value) for case in cases]
            found = ledger.findings(f"{style} {value}", tasks, looks)
            numbers.append([finding.numbers for finding in found])
            means = {
                name: round(fmean(one[name] for one in numbers[-1]), 4) for name in numbers[-1][0]
            }
            part[str(value)] = means | _rates(cases, found)
        if style == "dark":
            rows = [[-one["luma"] for one in row] for row in numbers]
            part["luma_falls"] = _rising([fmean(row) for row in rows])
            part["share_that_fall"] = _share_rising(rows)
        else:
            rows = [[one["edge_density"] for one in row] for row in numbers]
            part["edges_rise"] = _rising([fmean(row) for row in rows])
            part["share_that_rise"] = _share_rising(rows)
        result[style] = part
    return result


# -- the prompts of the documentation -----------------------------------------------------------

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
    rng = _draws(seed, "documented")
    samurai = sampling.lone(rng, "samurai", "red", "centre", "medium")
    groups: dict[str, list[Case]] = {"beach": [], "samurai": [], "product": []}
    for _ in range(count):
        empty = Scene("beach", "sunset", (), sampling.backdrop(rng))
        task = Task(BEACH, empty, SIDE, SIDE, _picture_seed(rng))
        groups["beach"].append(Case(task, Seen(scene="beach", time="sunset")))
        drawn = Scene("bamboo", "blossoms", samurai, sampling.backdrop(rng))
        task = Task(
            SAMURAI, drawn, SIDE, SIDE, _picture_seed(rng), style="anime", style_strength=0.8
        )
        asked = Seen(scene="bamboo", time="blossoms", count=1, kind="samurai")
        groups["samurai"].append(Case(task, asked))
        product, place, light = _unlike(rng, 3)
        things = sampling.lone(
            rng,
            rng.choice(("cup", "bottle", "lamp", "chair")),
            rng.choice(COLOURS),
            "centre",
            "large",
        )
        shown = (replace(product, things=things), replace(place, scene="studio"), light)
        target = _composed(shown, (0, 1, 2))
        names = ("scene", "time", "count", "kind", "colour")
        task = Task(PRODUCT, target, SIDE, SIDE, _picture_seed(rng), sources=shown)
        groups["product"].append(Case(task, only(Seen.of(target), names)))
    result: Result = {}
    for name, cases in groups.items():
        found = ledger.findings(f"documented {name}", [case.task for case in cases])
        result[name] = _rates(cases, found)
    for name, said, time, value in (
        ("clouds", CLOUDS, "storm", 0.7),
        ("sunset", SUNSET, "sunset", EDIT_STRENGTH),
    ):
        tally = Tally()
        tasks = []
        for _ in range(count):
            source = replace(sampling.sample_scene(rng), time="day")
            target = replace(source, time=time)
            tasks.append(
                Task(
                    said,
                    target,
                    SIDE,
                    SIDE,
                    _picture_seed(rng),
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


Section = Callable[[Ledger, int, int], Result]
# Name -> what it runs and how many pictures of a kind it takes.
SECTIONS: dict[str, tuple[Section, int]] = {
    "probe": (probe, 400),
    "text": (text, 200),
    "control": (control, 200),
    "sizes": (sizes, 100),
    "pairs": (pairs, 100),
    "steps": (steps, 100),
    "guidance": (guidance, 100),
    "edits": (edits, 60),
    "strength": (strength, 40),
    "references": (references, 60),
    "lora": (lora, 40),
    "documented": (documented, 8),
}
