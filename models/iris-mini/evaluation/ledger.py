"""What was found out about pictures already made, on disk, so that a run can be continued."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path

from tqdm import tqdm

from evaluation.generate import Maker, Task
from evaluation.measures import Image
from evaluation.probe import Probe, Seen

Measure = Callable[[Task, Image], dict[str, float]]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one picture shows, and the numbers that were asked for."""

    seen: Seen
    numbers: dict[str, float] = field(default_factory=dict)


class Ledger:
    """Makes the pictures of tasks, looks at them, and remembers."""

    def __init__(self, maker: Maker, probe: Probe, file: Path) -> None:
        """file: JSON lines; belongs to one maker and one probe."""
        self.maker = maker
        self.probe = probe
        self._file = file
        self._known: dict[str, Finding] = {}
        if file.exists():
            for line in file.read_text(encoding="utf-8").splitlines():
                entry = json.loads(line)
                self._known[entry["key"]] = Finding(Seen(**entry["seen"]), entry["numbers"])

    def findings(
        self, name: str, tasks: Sequence[Task], measure: Measure | None = None
    ) -> list[Finding]:
        """A finding for every task; what is known already is not made again."""
        label = measure.__name__ if measure else ""
        keys = [sha256(f"{label} {task!r}".encode()).hexdigest()[:20] for task in tasks]
        todo = {key: task for key, task in zip(keys, tasks, strict=True) if key not in self._known}
        pictures = self.maker.make(list(todo.values()))
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("a", encoding="utf-8") as lines:
            for key, task in tqdm(todo.items(), desc=name, mininterval=2.0, disable=not todo):
                picture = next(pictures)
                [seen] = self.probe([picture])
                finding = Finding(seen, measure(task, picture) if measure else {})
                self._known[key] = finding
                entry = {"key": key, "seen": asdict(seen), "numbers": finding.numbers}
                lines.write(json.dumps(entry) + "\n")
                lines.flush()
        return [self._known[key] for key in keys]
