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

import httpx
import pytest

from bench.money_front import BODY, serve
from iris.accounts.accounts import create_account, top_up
from iris.accounts.db import Database
from iris.accounts.keys import create_key
from iris.accounts.lease import Lease
from iris.accounts.ledger import Ledger
from iris.accounts.usage import Delivery
from iris.accounts.verify import verify

ENGINE_S = 0.001
SIZES = ["64x64", "320x320"]  # a reply of one packet, and one of more than a socket holds
HEADERS: list[dict[str, str]] = [{}, {"connection": "close"}]
_note = Lease.note


def _die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _die_first(lease: Lease, hold_id: str, delivery: Delivery, let_go: Callable[[], None]) -> None:
    _die()


def _die_late(lease: Lease, hold_id: str, delivery: Delivery, let_go: Callable[[], None]) -> None:
    time.sleep(0.5)  # longer than the system keeps anything back
    _die()


def _die_after_it_is_noted(
    lease: Lease, hold_id: str, delivery: Delivery, let_go: Callable[[], None]
) -> None:
    _note(lease, hold_id, delivery, let_go)
    _die()


def _die_in_between(
    lease: Lease, hold_id: str, delivery: Delivery, let_go: Callable[[], None]
) -> None:
    let_go()
    _die()


def _serve_and_die(
    note: Callable[..., None], listener: socket.socket, url: str, home: Path
) -> None:
    Lease.note = note  # type: ignore[method-assign]
    serve(listener, url, home, ENGINE_S)


def bought(
    note: Callable[..., None], url: str, home: Path, size: str, headers: dict[str, str]
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
        process = context.Process(target=_serve_and_die, args=(note, listener, url, home))
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


@pytest.mark.parametrize("die", [_die_first, _die_late])
@pytest.mark.parametrize("headers", HEADERS)
@pytest.mark.parametrize("size", SIZES)
def test_killed_before_the_note_the_client_has_not_the_whole_picture_and_pays_nothing(
    either_url: str, tmp_path: Path, size: str, headers: dict[str, str], die: Callable[..., None]
) -> None:
    assert bought(die, either_url, tmp_path, size, headers) == (False, 0)


@pytest.mark.parametrize("headers", HEADERS)
@pytest.mark.parametrize("size", SIZES)
def test_killed_after_the_note_the_client_has_the_whole_picture_and_pays_it(
    either_url: str, tmp_path: Path, size: str, headers: dict[str, str]
) -> None:
    assert bought(_die_after_it_is_noted, either_url, tmp_path, size, headers) == (True, 750)


def test_killed_in_the_one_gap_between_them_the_picture_is_free(
    either_url: str, tmp_path: Path
) -> None:
    assert bought(_die_in_between, either_url, tmp_path, "64x64", {}) == (True, 0)
