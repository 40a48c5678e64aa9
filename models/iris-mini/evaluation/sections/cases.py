"""Cases: tasks together with what their captions ask for, drawn alike for every section."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.generate import Task
from evaluation.ledger import Finding
from evaluation.probe import Seen
from evaluation.score import Rates, Tally, asked_of
from world.captions import LANGUAGES, caption
from world.sampling import sample_full

Result = dict[str, Any]
SIDE = 768
TOKEN = 64  # pixels of a token's side
EDIT_SIDE = 704  # the largest that is served where images come in


@dataclass(frozen=True, slots=True)
class Case:
    """A task and what its caption asks for."""

    task: Task
    asked: Seen
    is_unseen: bool = False


def draws(seed: int, *names: object) -> random.Random:
    """Random numbers of their own for every section, whatever the others draw."""
    return random.Random(" ".join(map(str, (seed, *names))))


def picture_seed(rng: random.Random) -> int:
    """A seed for one picture."""
    return rng.randrange(2**31)


def full(rng: random.Random, language: str, unseen: bool, width: int, height: int) -> Case:
    """A caption in held-out words that says all there is to say of a new picture."""
    example = sample_full(rng, unseen)
    said = caption(example.intent, language, rng, held_out=True)
    task = Task(said, example.target, width, height, picture_seed(rng))
    return Case(task, asked_of(example.intent), unseen)


def mixed(rng: random.Random, count: int, width: int = SIDE, height: int = SIDE) -> list[Case]:
    """Both languages, seen and unseen combinations alike."""
    return [full(rng, LANGUAGES[i % 2], bool(i // 2 % 2), width, height) for i in range(count)]


def rates_of(cases: Sequence[Case], findings: Sequence[Finding]) -> Rates:
    """How often the pictures have what their cases ask for."""
    tally = Tally()
    for case, finding in zip(cases, findings, strict=True):
        tally.add(case.asked.agrees(finding.seen))
    return tally.rates()
