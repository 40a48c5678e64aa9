"""The health command: one line and an exit status that an orchestrator can go by."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from iris.cli import main
from iris.errors import BackendUnavailable
from iris.probe import ask, own_url, wait_until_idle


@contextmanager
def answering(status: int, *bodies: bytes) -> Iterator[str]:
    """A server that gives these answers, one after the other and the last for ever."""
    left = list(bodies)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = left.pop(0) if len(left) > 1 else left[0]
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Tests are quiet."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def health(**changes: object) -> bytes:
    shown = {"ready": True, "alive": True, "waiting": 3, "running": 2, "detail": ""}
    return json.dumps(shown | changes).encode()


def test_a_ready_service_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with answering(200, health()) as url:
        assert main(["health", "--url", url]) == 0
    assert capsys.readouterr().out == "ready; 2 pictures running, 3 waiting\n"


def test_one_that_is_starting_is_alive(capsys: pytest.CaptureFixture[str]) -> None:
    with answering(200, health(ready=False)) as url:
        assert main(["health", "--live", "--url", url + "/"]) == 0
    assert capsys.readouterr().out.startswith("alive, not ready")


def test_one_that_is_not_ready_fails_and_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    body = json.dumps({"error": {"message": "The engine is not there yet."}}).encode()
    with answering(503, body) as url:
        assert main(["health", "--url", url]) == 2
    assert "503: The engine is not there yet." in capsys.readouterr().err


@pytest.mark.parametrize(("status", "body"), [(200, b"<html>"), (200, b"[]"), (404, b"nginx")])
def test_something_else_on_the_port_is_not_taken_for_it(status: int, body: bytes) -> None:
    with (
        answering(status, body) as url,
        pytest.raises(BackendUnavailable, match=r"does not|another"),
    ):
        ask(url)


def test_nobody_there_is_an_error_and_no_crash() -> None:
    with pytest.raises(BackendUnavailable, match="does not answer"):
        ask("http://127.0.0.1:9/readyz")


def test_the_port_is_the_one_the_service_was_started_on() -> None:
    assert own_url({}) == "http://127.0.0.1:3000"
    assert own_url({"BENTOML_PORT": "8000"}) == "http://127.0.0.1:8000"
    assert own_url({"BENTOML_PORT": "8000", "PORT": "9000"}) == "http://127.0.0.1:9000"


def test_a_drain_ends_when_the_last_picture_is_made() -> None:
    busy, idle = health(running=1, waiting=1), health(running=0, waiting=0)
    told: list[str] = []
    with answering(200, busy, busy, idle, busy, idle) as url:
        wait_until_idle(url, 10, told.append, pause_s=0)
    assert told == [f"{n} pictures to make" for n in (2, 0, 2, 0)]


def test_a_drain_of_a_service_that_is_gone_is_done() -> None:
    told: list[str] = []
    wait_until_idle("http://127.0.0.1:9", 10, told.append)
    assert "does not answer" in told[0]


def test_a_drain_that_takes_too_long_says_what_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    with answering(200, health()) as url:
        assert main(["drain", "--url", url, "--timeout", "0"]) == 2
    assert "still has 5 pictures to make after 0 s" in capsys.readouterr().err
