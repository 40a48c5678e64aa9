"""New pictures in other sizes, with other numbers of steps and other guidance."""

from __future__ import annotations

from dataclasses import replace

from evaluation.ceiling import SIZES
from evaluation.ledger import Ledger
from evaluation.score import Tally
from evaluation.sections.cases import TOKEN, Result, draws, mixed, rates_of
from evaluation.view import view

# Shortest and longest sides, in tokens.
ANY_SIDE = (("sides of 256 to 448", 4, 7), ("sides of 512 to 960", 8, 15))
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


def any_size(ledger: Ledger, count: int, seed: int) -> Result:
    """Pictures of any size, and what the probe sees of rendered ones."""
    result: Result = {}
    for name, shortest, longest in ANY_SIDE:
        rng = draws(seed, "any size", name)
        cases = []
        for case in mixed(rng, count):
            width, height = (TOKEN * rng.randint(shortest, longest) for _ in range(2))
            cases.append(replace(case, task=replace(case.task, width=width, height=height)))
        tasks = [case.task for case in cases]
        real = Tally()
        for case, task in zip(cases, tasks, strict=True):
            [seen] = ledger.probe([view(task.target, task.width, task.height)])
            real.add(case.asked.agrees(seen))
        found = ledger.findings(f"any size {name}", tasks)
        result[name] = rates_of(cases, found) | {"real": real.rates()["all"]}
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
