"""New pictures of captions: in seen and unseen combinations, with one object or two."""

from __future__ import annotations

from dataclasses import replace

from evaluation.generate import Task
from evaluation.ledger import Finding, Ledger
from evaluation.probe import Seen
from evaluation.score import asked_of, shuffled
from evaluation.sections.cases import SIDE, Case, Result, draws, full, picture_seed, rates_of
from world.captions import LANGUAGES, caption
from world.sampling import sample_full, sample_pair


def text(ledger: Ledger, count: int, seed: int) -> Result:
    """Fully said captions in held-out words; half of the combinations were never trained."""
    result: Result = {}
    cases: list[Case] = []
    findings: list[Finding] = []
    for language in LANGUAGES:
        some = _text_cases(language, count, seed)
        found = ledger.findings(f"text {language}", [case.task for case in some])
        result[language] = rates_of(some, found)
        cases += some
        findings += found
    for name, unseen in (("seen", False), ("unseen", True)):
        chosen = [i for i, case in enumerate(cases) if case.is_unseen == unseen]
        result[name] = rates_of([cases[i] for i in chosen], [findings[i] for i in chosen])
    result["overall"] = rates_of(cases, findings)
    return result


def unsaid(ledger: Ledger, count: int, seed: int) -> Result:
    """Captions that leave out the place of the object, or all but the object."""
    result: Result = {}
    for name, is_bare in (("place", False), ("all but the object", True)):
        rng = draws(seed, "unsaid", name)
        cases = []
        for i in range(count):
            example = sample_full(rng, unseen=bool(i // 2 % 2))
            [wanted] = example.intent.objects
            wanted = replace(wanted, position=None, size=None, count=1)
            intent = replace(example.intent, objects=(wanted,))
            if is_bare:
                intent = replace(intent, scene=None, time=None)
            said = caption(intent, LANGUAGES[i % 2], rng, held_out=True)
            task = Task(said, example.target, SIDE, SIDE, picture_seed(rng))
            cases.append(Case(task, asked_of(intent)))
        result[name] = rates_of(cases, ledger.findings(f"unsaid {name}", [c.task for c in cases]))
    return result


def control(ledger: Ledger, count: int, seed: int) -> Result:
    """The pictures of `text`, judged by captions of other pictures: must be chance."""
    cases = [case for language in LANGUAGES for case in _text_cases(language, count, seed)]
    findings = ledger.findings("control", [case.task for case in cases])
    asked = [case.asked for case in cases]
    return {
        "own_caption": rates_of(cases, findings),
        "other_caption": shuffled(asked, [finding.seen for finding in findings]),
        "chance": shuffled(asked, [Seen.of(case.task.target) for case in cases]),
    }


def _text_cases(language: str, count: int, seed: int) -> list[Case]:
    rng = draws(seed, "text", language)
    return [full(rng, language, bool(i % 2), SIDE, SIDE) for i in range(count)]


def pairs(ledger: Ledger, count: int, seed: int) -> Result:
    """Two unlike objects: the right kind and colour on the right side."""
    result: Result = {}
    for language in LANGUAGES:
        rng = draws(seed, "pairs", language)
        cases = []
        for i in range(count):
            example = sample_pair(rng, unseen=bool(i % 2))
            said = caption(example.intent, language, rng, held_out=True)
            task = Task(said, example.target, SIDE, SIDE, picture_seed(rng))
            cases.append(Case(task, asked_of(example.intent)))
        found = ledger.findings(f"pairs {language}", [case.task for case in cases])
        result[language] = rates_of(cases, found)
    return result
