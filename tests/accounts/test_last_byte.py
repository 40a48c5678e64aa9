"""Killed in the very moment of handing over: what the client has and what is paid are the same.

The process kills itself at a given step of it, so nothing here is left to chance.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from bench.money_front import BODY, serve
from iris.accounts.accounts import create_account, top_up
from iris.accounts.db import Database
from iris.accounts.keys import create_key
from iris.accounts.lease import Lease
from iris.accounts.ledger import Ledger
from iris.accounts.mark import Mark
from iris.accounts.verify import verify

ENGINE_S = 0.001
SIZES = ["64x64", "320x320"]  # a reply of one packet, and one of more than a socket holds
HEADERS: list[dict[str, str]] = [{}, {"connection": "close"}]
Dying = tuple[type, str, Callable[..., None]]  # a method of a class, and what stands in for it
_note, _send = Lease.note, Mark.send


def _die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _die_late(*_: object) -> None:
    time.sleep(0.5)  # longer than the system keeps anything back
    _die()


def _die_when_it_is_sent(mark: Mark, line: int, byte: int) -> None:
    _send(mark, line, byte)
    _die()


def _die_when_it_is_noted(*arguments: Any) -> None:
    _note(*arguments)
    _die()


FIRST: Dying = (Lease, "note", _die)
LATE: Dying = (Lease, "note", _die_late)
ANNOUNCED: Dying = (Mark, "send", _die)
SENT: Dying = (Mark, "send", _die_when_it_is_sent)
NOTED: Dying = (Lease, "note", _die_when_it_is_noted)


def _serve_and_die(dying: Dying, listener: socket.socket, url: str, home: Path) -> None:
    setattr(*dying)
    serve(listener, url, home, ENGINE_S)


def bought(
    dying: Dying, url: str, home: Path, size: str, headers: dict[str, str]
) -> tuple[bool, int]:
    """Whether the client got the whole picture, and what was paid for it after the next start."""
    database = Database(url)
    account = create_account(database, "toko").id
    top_up(database, account, 10_000)
    _, secret = create_key(database, "web", is_test=False, account=account)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["bench.money_front"])  # a process that starts fast
    has_it = False
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = context.Process(target=_serve_and_die, args=(dying, listener, url, home))
        process.start()
        with contextlib.suppress(httpx.TransportError):
            reply = httpx.post(
                f"http://127.0.0.1:{listener.getsockname()[1]}/v1/images/generations",
                headers={"authorization": f"Bearer {secret}", **headers},
                json={**BODY, "size": size},
                timeout=60,
            )
            has_it = bool(reply.status_code == 200 and json.loads(reply.content)["data"])
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
    Ledger(database, home).close()  # the next start
    verdict = verify(database)
    database.close()
    assert verdict.breaches == ()
    assert verdict.open_holds == 0
    return has_it, verdict.captured_live_idr


@pytest.mark.parametrize("dying", [FIRST, LATE, ANNOUNCED])
@pytest.mark.parametrize("headers", HEADERS)
@pytest.mark.parametrize("size", SIZES)
def test_killed_before_the_last_byte_is_sent_the_client_has_no_picture_and_pays_nothing(
    either_url: str, tmp_path: Path, size: str, headers: dict[str, str], dying: Dying
) -> None:
    assert bought(dying, either_url, tmp_path, size, headers) == (False, 0)


@pytest.mark.parametrize("dying", [SENT, NOTED])
@pytest.mark.parametrize("headers", HEADERS)
@pytest.mark.parametrize("size", SIZES)
def test_killed_after_the_last_byte_is_sent_the_client_has_the_picture_and_pays_it(
    either_url: str, tmp_path: Path, size: str, headers: dict[str, str], dying: Dying
) -> None:
    assert bought(dying, either_url, tmp_path, size, headers) == (True, 750)
