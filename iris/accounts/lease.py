"""Who holds money: a process that lives, known by a file that it locks.

The file is also where the process notes what it has delivered, before the database knows. Such a
note survives the death of the process, though not of the host, and costs microseconds; whoever
finds the file unlocked takes the money of what is noted and gives back the rest.

It begins with a mark. A line of "?" and a note says what is handed over next; it counts if the mark
says that it was, and is followed by the note alone, so that the mark is free for the next one.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from sqlalchemy import BigInteger, String
from sqlalchemy.orm import Mapped, mapped_column

from iris.accounts.db import Base
from iris.accounts.mark import SIZE, Mark, SendByte, is_marked
from iris.accounts.usage import Delivery
from iris.errors import ConfigError

FOLDER = "leases"
MAX_NOTES_BYTES = 1 << 20  # then the file starts anew, as soon as nothing in it matters


class LeaseRow(Base):
    """A process as the others see it: it lives as long as its number rises."""

    __tablename__ = "leases"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    beats: Mapped[int] = mapped_column(BigInteger)


class Lease:
    """The lease of this process. Safe to share between threads."""

    def __init__(self, home: Path) -> None:
        """Make and lock the file `home`/leases/ID.

        Raises:
            ConfigError: it cannot be made there.
        """
        self.id = f"lease_{secrets.token_hex(16)}"
        folder = home / FOLDER
        incoming = folder / f".{self.id}"
        self._path = folder / self.id
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_APPEND
            self._file = os.open(incoming, flags, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.write(self._file, bytes(SIZE))
            self._mark = Mark(self._file)
            incoming.rename(self._path)  # seen by others from here on, locked already
        except OSError as error:
            raise ConfigError(
                f"No file can be made and locked in {folder} ({error.strerror}). Set IRIS_HOME to "
                "a folder on a disk of this host that this user can write."
            ) from error
        self._noted: set[str] = set()
        self._lock = threading.Lock()

    def note(
        self, hold_id: str, delivery: Delivery, let_go: Callable[[SendByte], None] | None = None
    ) -> None:
        """Write down that the picture was handed over.

        let_go: hands it over, by sending its last byte with the function that it is given. What it
            raises is raised here, and nothing was handed over.

        Raises:
            OSError: the disk is full. What `let_go` did not hand over before is still to be.
        """
        note = json.dumps({"hold_id": hold_id, **asdict(delivery)}).encode()
        with self._lock:
            self._noted.add(hold_id)
            if let_go is not None:
                self._mark.reset()
                self._write(b"?" + note)
                let_go(self._mark.send)
            self._write(note)

    def forget(self, hold_id: str) -> None:
        """The database knows of it now."""
        with self._lock:
            self._noted.discard(hold_id)
            if not self._noted and os.fstat(self._file).st_size > MAX_NOTES_BYTES:
                self._mark.reset()
                os.ftruncate(self._file, SIZE)

    def close(self, *, is_settled: bool) -> None:
        """Let go; the file stays for the next process where something is not settled."""
        if is_settled:
            self._path.unlink(missing_ok=True)
        self._mark.close()
        os.close(self._file)

    def _write(self, line: bytes) -> None:
        """On a line of its own, also after one that was cut off."""
        if os.write(self._file, b"\n" + line + b"\n") != len(line) + 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@dataclass(frozen=True, slots=True)
class DeadLease:
    """What a process left behind."""

    id: str
    delivered: dict[str, Delivery]  # pictures that it had handed over, by hold


@contextmanager
def dead_leases(home: Path) -> Iterator[list[DeadLease]]:
    """The leases of dead processes of this home; forgotten when the block ends without an error.

    They are locked meanwhile, so of several processes that start together one gets each.
    """
    found: list[DeadLease] = []
    files: list[tuple[int, Path]] = []
    try:
        for path in sorted((home / FOLDER).glob("lease_*")):
            try:
                file = os.open(path, os.O_RDWR)
            except FileNotFoundError:
                continue  # another process was faster
            files.append((file, path))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(file)
                files.pop()
                continue
            found.append(DeadLease(path.name, _read_notes(path)))
        yield found
        for _, path in files:
            path.unlink(missing_ok=True)
    finally:
        for file, _ in files:
            os.close(file)


def _read_notes(path: Path) -> dict[str, Delivery]:
    content = path.read_bytes()
    lines = content.splitlines()
    announced = [line for line in lines if line.startswith(b"?")]
    if announced and is_marked(content):
        lines.append(announced[-1][1:])
    noted: dict[str, Delivery] = {}
    for line in filter(None, lines):
        try:
            fields = json.loads(line)
        except ValueError:
            continue  # announced; the mark; what a full disk or a lost host cut off
        hold_id = fields.pop("hold_id")
        noted[hold_id] = Delivery(**fields)
    return noted
