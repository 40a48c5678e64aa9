"""Measure what a trained iris-mini can do.

    python -m evaluation.evaluate [--model DIR] [--only SECTION ...]

Writes DIR/results.json, section by section. What was made is remembered in models/iris-mini/runs,
so that a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from evaluation.generate import Maker, Model, Oracle, digest
from evaluation.ledger import Ledger
from evaluation.probe import WEIGHTS, Probe
from evaluation.sections import SECTIONS

MINI = Path(__file__).resolve().parents[1]
SEED = 20


def judges() -> str:
    """A short hash of everything besides the model that decides what is found out."""
    here = Path(__file__).parent
    files = [
        here / name
        for name in ("probe.safetensors", "probe.py", "generate.py", "measures.py", "view.py")
    ]
    files += sorted(path for path in (MINI / "world").rglob("*") if path.suffix in (".py", ".toml"))
    return digest(files)


def rows(name: str, value: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every group of plain figures in a section, with its place as a path."""
    plain = {key: figure for key, figure in value.items() if not isinstance(figure, dict)}
    if plain:
        yield name, plain
    for key, inner in value.items():
        if isinstance(inner, dict):
            yield from rows(f"{name}/{key}", inner)


def show(name: str, section: dict[str, Any]) -> None:
    for path, figures in rows(name, section):
        texts = (f"{key} {figure}" for key, figure in figures.items())
        print(f"{path:32} " + "  ".join(texts), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what a trained iris-mini can do.")
    parser.add_argument("--model", type=Path, default=MINI, help="holds weights/ and styles/")
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), metavar="SECTION")
    parser.add_argument("--count", type=int, help="pictures of a kind, instead of the section's")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--oracle", action="store_true", help="render instead of running a model")
    parser.add_argument("--out", type=Path, help="the results file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    maker: Maker = Oracle() if options.oracle else Model(options.model, options.threads)
    runs = MINI / "runs" / "evaluation"
    out = options.out or (runs if options.oracle else options.model) / "results.json"
    identity = {"model": maker.fingerprint(), "judges": judges()}
    file = runs / f"{identity['model']}-{identity['judges']}.jsonl"
    ledger = Ledger(maker, Probe.load(WEIGHTS), file)
    results: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {}
    if {key: results.get(key) for key in identity} != identity:
        results = dict(identity)  # figures of another model do not mix
    for name in options.only or SECTIONS:
        section, count = SECTIONS[name]
        begun = time.monotonic()
        results[name] = section(ledger, options.count or count, options.seed)
        show(name, results[name])
        print(f"{name}: {time.monotonic() - begun:.0f} s", flush=True)
        ordered = identity | {key: results[key] for key in SECTIONS if key in results}
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(ordered, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
