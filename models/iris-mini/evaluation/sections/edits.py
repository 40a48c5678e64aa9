"""Edits of one picture."""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean

from evaluation import measures
from evaluation.generate import EDIT_STRENGTH, Task
from evaluation.ledger import Ledger
from evaluation.measures import Image
from evaluation.score import Tally, parts_of
from evaluation.sections.cases import EDIT_SIDE, Result, draws, picture_seed
from evaluation.sections.trends import rising, share_rising
from world.captions import LANGUAGES, caption
from world.edits import EDITS, sample_edit
from world.render import render
from world.spec import Example

STRENGTHS = (0.2, 0.4, 0.6, 0.75, 1.0)
_OBJECT_EDITS = ("colour", "add", "remove", "replace", "count")


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
    cases = _edit_cases("time", EDIT_SIDE, count, seed)
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
    result["rises"] = rising([fmean(values) for values in distances])
    result["share_that_rise"] = share_rising(distances)
    return result
