"""Every service of the host is told of the styles, whatever another one answers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from iris.errors import BackendUnavailable, ConfigError
from iris.reload import reload_styles

REFUSES = b'{"error": {"message": "Style ink does not fit."}}'
SERVES = b'{"styles": ["ink 1"]}'


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Callable[[str, bytes], None]]:
    """service(name, answer): one that runs on tmp_path and answers so."""
    (tmp_path / "control").mkdir()
    with ExitStack() as stack:

        def start(name: str, answer: bytes) -> None:
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(str(tmp_path / "control" / f"{name}.sock"))
            listener.listen()

            def run() -> None:
                speaker, _ = listener.accept()
                with speaker:
                    speaker.recv(4096)
                    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(answer)}\r\n\r\n"
                    speaker.sendall(head.encode() + answer)

            threading.Thread(target=run, daemon=True).start()

        yield start


def test_one_that_fails_keeps_no_other_from_being_told(
    service: Callable[[str, bytes], None], tmp_path: Path
) -> None:
    for name, answer in (("1", REFUSES), ("2", SERVES), ("3", b"no JSON"), ("4", SERVES)):
        service(name, answer)
    lines = reload_styles(tmp_path)
    assert next(lines) == "process 2 serves: ink 1"
    assert next(lines) == "process 4 serves: ink 1"
    with pytest.raises(BackendUnavailable, match=r"process 1: Style ink .*process 3 did not"):
        next(lines)


def test_a_home_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"file/control cannot be read \(Not a directory\)"):
        list(reload_styles(tmp_path / "file"))
    with pytest.raises(ConfigError, match=r"cannot be read \(File name too long\)"):
        list(reload_styles(tmp_path / ("long" * 100)))
