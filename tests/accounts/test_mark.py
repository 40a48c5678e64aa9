"""A byte that is sent and the mark that says so are one thing, whenever the process is killed."""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from iris.accounts.mark import SIZE, Mark, is_marked

KILLS = 200
ROOT = Path(__file__).parents[2]
Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "mark"
    file.write_bytes(bytes(SIZE))
    return file


@pytest.fixture
def mark(file: Path) -> Iterator[Mark]:
    with file.open("r+b") as stream:
        mark = Mark(stream.fileno())
        yield mark
        mark.close()


def connected() -> Pair:
    """Our side, which does not wait, and the other."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname(), timeout=60)
        ours, _ = listener.accept()
    ours.setblocking(False)
    return ours, theirs


@pytest.fixture
def line() -> Iterator[Pair]:
    ours, theirs = connected()
    with ours, theirs:
        yield ours, theirs


def test_every_byte_arrives_as_it_is_and_is_marked(mark: Mark, line: Pair, file: Path) -> None:
    ours, theirs = line
    for byte in range(256):
        mark.reset()
        assert not is_marked(file.read_bytes())
        mark.send(ours.fileno(), byte)
        assert theirs.recv(10) == bytes([byte])
        assert is_marked(file.read_bytes())


def test_a_byte_that_the_system_does_not_take_is_not_marked(
    mark: Mark, line: Pair, file: Path
) -> None:
    ours, theirs = line
    while True:
        try:
            ours.send(bytes(65536))
        except BlockingIOError:
            break
    with pytest.raises(BlockingIOError):
        mark.send(ours.fileno(), 7)
    assert not is_marked(file.read_bytes())
    theirs.close()
    time.sleep(0.05)
    with pytest.raises(ConnectionError):
        mark.send(ours.fileno(), 7)
    assert not is_marked(file.read_bytes())


def test_killed_at_any_moment_as_many_are_marked_as_were_sent(file: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    decided_by_the_mark = 0
    for _ in range(KILLS):
        log.touch()
        file.write_bytes(bytes(SIZE))
        ours, theirs = connected()
        command = [sys.executable, "-m", "tests.accounts.sender", file, log, str(ours.fileno())]
        process = subprocess.Popen(command, cwd=ROOT, pass_fds=[ours.fileno()])
        ours.close()
        sent = len(theirs.recv(1))  # it has begun
        end_at = time.monotonic() + random.uniform(0, 0.01)
        while time.monotonic() < end_at:
            sent += len(theirs.recv(65536))
        process.kill()
        assert process.wait() == -signal.SIGKILL
        while some := theirs.recv(65536):
            sent += len(some)
        theirs.close()
        noted = log.read_bytes()
        marked = noted.endswith(b"?") and is_marked(file.read_bytes())
        assert noted.count(b"!") + marked == sent
        decided_by_the_mark += marked
        log.unlink()
    assert decided_by_the_mark > KILLS / 20  # the moment that matters was hit
