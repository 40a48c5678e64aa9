"""Edits of one picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from evaluation import measures
from evaluation.generate import EDIT_STRENGTH, Task
from evaluation.ledger import Finding, Ledger
from evaluation.measures import Image
from evaluation.probe import Seen
from evaluation.score import Rates, Tally, parts_of
from evaluation.sections.cases import EDIT_SIDE, TOKEN, Result, draws, picture_seed
from evaluation.sections.trends import rising, share_rising
from evaluation.view import view
from world.captions import LANGUAGES, caption
from world.edits import EDITS, sample_edit
from world.spec import Example, Intent, Scene, Wanted

# Sources that do not come in squares, and such as were never painted at the model's own scale.
ELSEWHERE = {"of 960x640": (960, 640), "of 720x496": (720, 496), "foreign": (EDIT_SIDE, EDIT_SIDE)}
OWN_SIDE = 768  # of the model's own pictures
STRENGTHS = (0.2, 0.4, 0.6, 0.75, 1.0)
_OBJECT_EDITS = ("colour", "add", "remove", "replace", "count")


def outside(task: Task, picture: Image) -> dict[str, float]:
    """How far the picture is from its source where the edit has no business."""
    [source] = task.images()
    wanted = view(task.target, task.width, task.height)
    box = measures.box_of(measures.changed(source, wanted, 0.01))
    if box is None:
        return {"outside": measures.difference(source, picture)}
    return {"outside": measures.outside_difference(source, picture, box)}


def apart(task: Task, picture: Image) -> dict[str, float]:
    """How far an edit is from its source."""
    return {"apart": measures.difference(task.images()[0], picture)}


def _edit_cases(operation: str, side: int, count: int, seed: int) -> list[tuple[Example, Task]]:
    rng = draws(seed, "edits", operation, side)
    cases = []
    for i in range(count):
        example = sample_edit(rng, operation)
        said = caption(example.intent, LANGUAGES[i % 2], rng, held_out=bool(i // 2 % 2))
        task = Task(
            said,
            example.target,
            side,
            side,
            picture_seed(rng),
            sources=example.references,
            strength=EDIT_STRENGTH,
        )
        cases.append((example, task))
    return cases


def edits(ledger: Ledger, count: int, seed: int) -> Result:
    """Whether what was asked changed and everything else stayed."""
    result: Result = {}
    for side, strength in (
        (EDIT_SIDE, EDIT_STRENGTH),
        (EDIT_SIDE, 1.0),
        (512, EDIT_STRENGTH),
    ):
        part: Result = {}
        whole = Tally()
        for operation in EDITS:
            cases = _edit_cases(operation, side, count, seed)
            tasks = [replace(task, strength=strength) for _, task in cases]
            measure = outside if operation in _OBJECT_EDITS else None
            found = ledger.findings(f"{operation} {side} at {strength}", tasks, measure)
            rates = _judged(cases, found, whole)
            if measure:
                rates["outside"] = round(fmean(f.numbers["outside"] for f in found), 4)
            part[operation] = rates
        part["overall"] = whole.rates()
        result[f"{side} at {strength}"] = part
    whole = Tally()
    for operation in EDITS:
        rng = draws(seed, "edits of any size", operation)
        cases = []
        for example, task in _edit_cases(operation, EDIT_SIDE, count, seed):
            width, height = (TOKEN * rng.randint(6, EDIT_SIDE // TOKEN) for _ in range(2))
            cases.append((example, replace(task, width=width, height=height)))
        found = ledger.findings(f"{operation} of any size", [task for _, task in cases])
        _judged(cases, found, whole)
    result[f"any size at {EDIT_STRENGTH}"] = whole.rates()
    return result


def sharpness(task: Task, picture: Image) -> dict[str, float]:
    """Edges as a share of those of the picture that was asked for."""
    wanted = view(task.target, task.width, task.height)
    return {"sharpness": measures.edge_density(picture) / measures.edge_density(wanted)}


def sources(ledger: Ledger, count: int, seed: int) -> Result:
    """Edits of pictures that were made in another aspect or elsewhere, or by the model itself.

    Of the model's own pictures those count that show what they were to show.
    """
    result: Result = {}
    for name, size in (*ELSEWHERE.items(), ("own", None)):
        part: Result = {}
        whole, sharp = Tally(), []
        for operation in EDITS:
            cases = []
            for example, task in _edit_cases(operation, EDIT_SIDE, count, seed):
                if size is not None:
                    height = EDIT_SIDE * size[1] // size[0] // 16 * 16
                    is_foreign = name == "foreign"
                    moved = replace(task, height=height, source_size=size, is_foreign=is_foreign)
                else:
                    first = _made(example.references[0], task.seed)
                    moved = replace(task, sources=(), first=first)
                cases.append((example, moved))
            if size is None:
                firsts = [task.first for _, task in cases if task.first is not None]
                seen = ledger.findings(f"{operation} own, before", firsts)
                cases = [
                    case
                    for case, finding in zip(cases, seen, strict=True)
                    if all(Seen.of(case[0].references[0]).agrees(finding.seen).values())
                ]
            tasks = [task for _, task in cases]
            found = ledger.findings(f"{operation} {name}", tasks, sharpness)
            sharp += [finding.numbers["sharpness"] for finding in found]
            part[operation] = _judged(cases, found, whole)
        part["overall"] = whole.rates() | {"sharpness": round(fmean(sharp), 4)}
        result[name] = part
    return result


def _made(scene: Scene, seed: int) -> Task:
    """The scene from its caption, with everything said."""
    things = scene.things
    if len(things) > 1 and things[0].kind == things[1].kind:
        objects: tuple[Wanted, ...] = (Wanted(things[0].kind, things[0].colour, count=len(things)),)
    elif len(things) > 1:
        sides = zip(things, ("left", "right"), strict=True)
        objects = tuple(Wanted(one.kind, one.colour, side, count=1) for one, side in sides)
    else:
        truth = Seen.of(scene)
        lone = Wanted(truth.kind, truth.colour, truth.position, truth.size, 1)
        objects = (lone,) if things else ()
    said = caption(
        Intent("paint", scene.scene, scene.time, objects), LANGUAGES[0], draws(seed, "own")
    )
    return Task(said, scene, OWN_SIDE, OWN_SIDE, seed)


def _judged(
    cases: Sequence[tuple[Example, Task]], findings: Sequence[Finding], whole: Tally
) -> Rates:
    """How often what was asked changed and all else stayed; all is added to `whole`, too."""
    tally = Tally()
    for (example, _), finding in zip(cases, findings, strict=True):
        asked, kept = parts_of(example)
        answers = {
            "changed": all(asked.agrees(finding.seen).values()),
            "kept": all(kept.agrees(finding.seen).values()),
        }
        tally.add(answers)
        whole.add(answers)
    return tally.rates()


def strength(ledger: Ledger, count: int, seed: int) -> Result:
    """The more strength, the further from the source; the time is right at the default."""
    cases = _edit_cases("time", EDIT_SIDE, count, seed)
    distances: list[list[float]] = []
    result: Result = {}
    for value in STRENGTHS:
        tasks = [replace(task, strength=value) for _, task in cases]
        found = ledger.findings(f"strength {value}", tasks, apart)
        distances.append([finding.numbers["apart"] for finding in found])
        rates = _judged(cases, found, Tally())
        result[str(value)] = {"difference": round(fmean(distances[-1]), 4)} | rates
    result["rises"] = rising([fmean(values) for values in distances])
    result["share_that_rise"] = share_rising(distances)
    return result
