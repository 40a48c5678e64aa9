"""The styles at every strength."""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean

from evaluation import measures
from evaluation.generate import Task
from evaluation.ledger import Ledger
from evaluation.measures import Image
from evaluation.sections.cases import Result, draws, mixed, rates_of
from evaluation.sections.trends import rising, share_rising
from world.spec import STYLES

STYLE_STRENGTHS = (0.0, 0.3, 0.6, 0.8, 1.0, 1.5)


def looks(_: Task, picture: Image) -> dict[str, float]:
    return {
        "luma": measures.luma(picture),
        "lightness": measures.lightness(picture),
        "saturation": measures.saturation(picture),
        "edge_density": measures.edge_density(picture),
    }


def lora(ledger: Ledger, count: int, seed: int) -> Result:
    """What a style does to a picture, and whether the subject can still be told."""
    cases = mixed(draws(seed, "lora"), count)
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
            part[str(value)] = means | rates_of(cases, found)
        if style == "dark":
            rows = [[-one["luma"] for one in row] for row in numbers]
            part["luma_falls"] = rising([fmean(row) for row in rows])
            part["share_that_fall"] = share_rising(rows)
        else:
            rows = [[one["edge_density"] for one in row] for row in numbers]
            part["edges_rise"] = rising([fmean(row) for row in rows])
            part["share_that_rise"] = share_rising(rows)
        result[style] = part
    return result
