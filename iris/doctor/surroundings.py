"""What the service stands on: disks, the database, the addresses it listens on."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

from iris.accounts.state import state_of
from iris.config import PUBLIC, Settings
from iris.doctor.finding import Finding
from iris.errors import IrisError
from iris.fit import gib
from iris.store import bento

_LITTLE_BYTES = 2 << 30


def look_around(settings: Settings, address: str) -> Iterator[Finding]:
    """Disks, database and addresses. address: HOST:PORT of the service itself."""
    yield _disk("IRIS_HOME", settings.home)
    try:
        yield _disk("model store", bento.store_path())
    except IrisError as error:
        yield Finding("stop", "model store", error.message)
    try:
        yield Finding("ok", "database", state_of(settings.database_url))
    except IrisError as error:
        yield Finding("stop", "database", error.message)
    except OSError as error:  # it lies below a folder that is not ours
        yield Finding(
            "stop",
            "database",
            f"{error.filename} cannot be read ({error.strerror})",
            "let this user read it, or set IRIS_HOME to another folder",
        )
    addresses = [("port", address), ("IRIS_METRICS_BIND", settings.metrics_bind)]
    if settings.admin_token and settings.admin_bind != PUBLIC:
        addresses.append(("IRIS_ADMIN_BIND", settings.admin_bind))
    for subject, one in addresses:
        if one:
            yield _address(subject, one)


def _disk(subject: str, folder: Path) -> Finding:
    there = folder
    # unlike `exists`, this raises nothing of a path that is too long or below a locked folder
    while not os.access(there, os.F_OK) and there != there.parent:
        there = there.parent
    free = shutil.disk_usage(there).free
    found = f"{folder}, {gib(free)} free"
    if not os.access(there, os.W_OK):
        return Finding(
            "note", subject, f"{folder} cannot be written", "fine in an image, nowhere else"
        )
    if free < _LITTLE_BYTES:
        return Finding("note", subject, found, "make room")
    return Finding("ok", subject, found)


def _address(subject: str, address: str) -> Finding:
    host, _, port = address.rpartition(":")
    if not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        advice = "set PORT to a number from 1 to 65535"  # the settings have checked the others
        return Finding("stop", subject, f"{address} is no address", advice)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.create_server((host.strip("[]"), int(port)), family=family):
            return Finding("ok", subject, f"{address} is free")
    except OSError as error:
        why = str(error.strerror).partition(" (")[0]  # the address once more
        return Finding(
            "note",
            subject,
            f"{address} cannot be had ({why})",
            "a service that runs already has it, or choose another",
        )
