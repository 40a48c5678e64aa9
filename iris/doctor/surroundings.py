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


def look_around(settings: Settings, host: str, port: int) -> Iterator[Finding]:
    """Disks, database and addresses."""
    for subject, folder in (("IRIS_HOME", settings.home), ("model store", bento.store_path())):
        yield _disk(subject, folder)
    try:
        yield Finding("ok", "database", state_of(settings.database_url))
    except IrisError as error:
        yield Finding("stop", "database", error.message)
    addresses = [("port", f"{host}:{port}"), ("IRIS_METRICS_BIND", settings.metrics_bind)]
    if settings.admin_token and settings.admin_bind != PUBLIC:
        addresses.append(("IRIS_ADMIN_BIND", settings.admin_bind))
    for subject, address in addresses:
        if address:
            yield _address(subject, address)


def _disk(subject: str, folder: Path) -> Finding:
    there = folder
    while not there.exists() and there != there.parent:
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
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.create_server((host.strip("[]"), int(port)), family=family):
            return Finding("ok", subject, f"{address} is free")
    except OSError as error:
        return Finding(
            "note",
            subject,
            f"{address} cannot be had ({os.strerror(error.errno or 0)})",
            "a service that runs already has it, or choose another",
        )
