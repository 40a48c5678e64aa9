"""The command, and how its findings are shown."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator
from typing import Any

from iris.config import Settings
from iris.doctor.finding import Finding
from iris.errors import ConfigError
from iris.probe import own_url
from iris.table import print_objects

_MARKS = {"ok": " ok ", "note": "note", "stop": "STOP"}


def add_command(rooms: Any) -> None:
    """Add it to the parsers of `iris`."""
    doctor = rooms.add_parser("doctor", help="what this machine will run, and what to change")
    doctor.add_argument("--json", action="store_true", help="for programs")
    doctor.set_defaults(run=_doctor)


def findings() -> Iterator[Finding]:
    """Everything that is looked at, in order."""
    from iris.doctor.machine import look_at_machine
    from iris.doctor.models import look_at_models
    from iris.doctor.surroundings import look_around
    from iris.doctor.torch_facts import ask_torch

    try:
        settings = Settings.from_env()
    except ConfigError as error:
        yield Finding("stop", "settings", error.message)
        return
    torch = ask_torch(settings.device)
    yield from look_at_machine(settings, torch)
    yield from look_at_models(settings, torch)
    yield from look_around(settings, own_url().removeprefix("http://"))


def _doctor(arguments: argparse.Namespace) -> int:
    """Ends with 1 where something keeps the service from starting as it is set."""
    found = []
    for finding in findings():
        found.append(finding)
        if arguments.json:
            print_objects([dataclasses.asdict(finding)])
        else:
            print(f"[{_MARKS[finding.level]}] {finding.subject}: {finding.found}")
            if finding.advice:
                print(f"       -> {finding.advice}")
    return int(any(finding.level == "stop" for finding in found))
