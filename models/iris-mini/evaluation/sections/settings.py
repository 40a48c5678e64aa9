"""New pictures in other sizes, with other numbers of steps and other guidance."""

from __future__ import annotations

from dataclasses import replace

from evaluation.ceiling import SIZES
from evaluation.ledger import Ledger
from evaluation.sections.cases import Result, draws, mixed, rates_of

STEPS = (1, 2, 4, 8, 16)
GUIDANCES = (1.0, 1.5, 2.0, 3.0)


def sizes(ledger: Ledger, count: int, seed: int) -> Result:
    result: Result = {}
    for width, height in SIZES:
        name = f"{width}x{height}"
        cases = mixed(draws(seed, "sizes", name), count, width, height)
        found = ledger.findings(f"sizes {name}", [case.task for case in cases])
        result[name] = rates_of(cases, found)
    return result


def steps(ledger: Ledger, count: int, seed: int) -> Result:
    cases = mixed(draws(seed, "steps"), count)
    result: Result = {}
    for number in STEPS:
        tasks = [replace(case.task, steps=number) for case in cases]
        result[str(number)] = rates_of(cases, ledger.findings(f"steps {number}", tasks))
    return result


def guidance(ledger: Ledger, count: int, seed: int) -> Result:
    cases = mixed(draws(seed, "steps"), count)
    result: Result = {}
    for scale in GUIDANCES:
        tasks = [replace(case.task, guidance=scale) for case in cases]
        result[str(scale)] = rates_of(cases, ledger.findings(f"guidance {scale}", tasks))
    return result
