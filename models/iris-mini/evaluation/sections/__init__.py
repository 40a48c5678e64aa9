"""The sections of the evaluation: each asks for pictures, and says how many of them are right."""

from __future__ import annotations

from collections.abc import Callable

from evaluation.ledger import Ledger
from evaluation.sections.cases import Result
from evaluation.sections.documented import documented
from evaluation.sections.edits import edits, sources, strength
from evaluation.sections.references import references
from evaluation.sections.settings import any_size, guidance, sizes, steps
from evaluation.sections.styles import lora
from evaluation.sections.text import control, pairs, text, unsaid
from evaluation.sections.trust import probe

Section = Callable[[Ledger, int, int], Result]
# Name -> what it runs and how many pictures of a kind it takes.
SECTIONS: dict[str, tuple[Section, int]] = {
    "probe": (probe, 400),
    "text": (text, 200),
    "unsaid": (unsaid, 200),
    "control": (control, 200),
    "sizes": (sizes, 100),
    "any_size": (any_size, 100),
    "pairs": (pairs, 100),
    "steps": (steps, 100),
    "guidance": (guidance, 100),
    "edits": (edits, 60),
    "sources": (sources, 60),
    "strength": (strength, 40),
    "references": (references, 60),
    "lora": (lora, 40),
    "documented": (documented, 8),
}
