"""What a request costs, whatever becomes of it."""

from __future__ import annotations

import errno
import itertools
import json
import logging
import os
import socket
import ssl
import time
from typing import Any

import httpx
import pytest
from sqlalchemy import event

from iris.accounts.db import Database
from iris.accounts.lease import Lease
from iris.accounts.mark import Mark
from iris.accounts.usage import UsageRow
from iris.accounts.verify import verify
from iris.api import charge
from iris.errors import BackendFailure, BackendTimeout
from tests.api.conftest import OpenShop, served
from tests.api.fakes import (
    TEST_KEY,
    Loop,
    assert_envelope,
    edit,
    generation,
    picture_base64,
    wait_for_line,
)
from tests.api.test_body import answer, connected, head

GENERATIONS = "/v1/images/generations"
EDITS = "/v1/images/edits"


def test_a_delivered_picture_costs_its_price_and_says_so(open_shop: OpenShop) -> None:
    shop = open_shop(rpm=5)
    made = shop.post(json=generation(user="someone", lora="dark"))
    edited = shop.post(EDITS, json=edit(image=picture_base64()))
    for reply, remaining in ((made, "4"), (edited, "3")):
        assert reply.status_code == 200
        assert reply.headers["x-iris-cost-idr"] == "750"
        assert reply.headers["x-ratelimit-limit-requests"] == "5"
        assert reply.headers["x-ratelimit-remaining-requests"] == remaining
        assert reply.headers["x-ratelimit-reset-requests"].endswith("s")
    assert shop.spent_idr() == 1_500
    with shop.ledger.database.read() as session:
        first, second = session.query(UsageRow).order_by(UsageRow.route.desc()).all()
    assert (first.route, first.style, first.user_tag) == ("generation", "dark", "someone")
    assert (first.size, first.output_image_tokens) == ("64x64", 33)
    assert (second.route, second.style, second.user_tag) == ("edit", "none", None)


def test_a_test_key_pays_with_test_money(open_shop: OpenShop) -> None:
    shop = open_shop()
    assert shop.post(key=TEST_KEY).status_code == 200
    assert shop.spent_idr() == 0
    assert verify(shop.ledger.database).captured_test_idr == 750


@pytest.mark.parametrize(
    "error", [BackendFailure("x"), BackendTimeout("x"), ValueError("x"), MemoryError()]
)
def test_a_picture_that_failed_costs_nothing(open_shop: OpenShop, error: Exception) -> None:
    shop = open_shop(max_in_flight=1)
    shop.dispatcher.error = error
    assert shop.post().status_code >= 500
    assert shop.spent_idr() == 0
    shop.dispatcher.error = None
    assert shop.post().status_code == 200  # its place is free as soon as the answer is there


def test_a_picture_past_its_deadline_costs_nothing(open_shop: OpenShop) -> None:
    shop = open_shop(deadline_s=0.3)
    shop.dispatcher.hangs = True
    assert_envelope(shop.post(), 504, "backend_timeout")
    assert shop.spent_idr() == 0


def test_a_bad_request_costs_nothing_and_counts_for_no_limit(open_shop: OpenShop) -> None:
    shop = open_shop(rpm=1)
    for body in (generation(n=2), generation(size="1x1"), {"prompt": "x"}):
        assert shop.post(json=body).status_code == 400
    bad_image = edit(image="AAAA")
    assert shop.post(EDITS, json=bad_image).status_code == 400
    assert shop.post().status_code == 200
    assert shop.spent_idr() == 750


def test_an_empty_account_gets_a_402_before_the_engine_is_asked(open_shop: OpenShop) -> None:
    shop = open_shop(money_idr=749)
    error = assert_envelope(shop.post(), 402, "insufficient_quota")
    assert error["type"] == "insufficient_quota"
    assert shop.dispatcher.jobs == []
    assert shop.spent_idr() == 0


def test_a_capped_key_gets_a_402_of_its_own(open_shop: OpenShop) -> None:
    shop = open_shop(monthly_cap_idr=750)
    assert shop.post().status_code == 200
    assert_envelope(shop.post(), 402, "monthly_cap_exceeded")
    assert len(shop.dispatcher.jobs) == 1


@pytest.mark.parametrize(
    ("limit", "code", "least_s", "most_s"),
    [("rpm", "rpm_exceeded", 55, 60), ("rpd", "rpd_exceeded", 1, 86_400)],
)
def test_over_a_limit_is_a_429_that_says_when_to_come_back(
    open_shop: OpenShop, limit: str, code: str, least_s: int, most_s: int
) -> None:
    shop = open_shop(**{limit: 2})
    assert [shop.post().status_code for _ in range(2)] == [200, 200]
    reply = shop.post()
    error = assert_envelope(reply, 429, code)
    assert error["type"] == "rate_limit_error"
    assert least_s <= int(reply.headers["retry-after"]) <= most_s
    if limit == "rpm":
        assert reply.headers["x-ratelimit-remaining-requests"] == "0"
    assert len(shop.dispatcher.jobs) == 2


def test_one_more_than_may_be_in_flight_is_a_429(
    open_shop: OpenShop, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = open_shop(max_in_flight=1)
    with served(shop.front.app, lifespan="off") as address:
        shop.dispatcher.hangs = True
        body = b'{"model":"epithre-iris","prompt":"x","size":"64x64"}'
        with connected(address) as line:
            line.sendall(head(content_length=str(len(body))) + body)
            assert shop.dispatcher.started.wait(10)
            reply = shop.post()
            assert_envelope(reply, 429, "concurrency_exceeded")
            assert reply.headers["retry-after"] == "1"
        assert shop.dispatcher.cancelled.wait(10)
        assert shop.spent_idr() == 0
        shop.dispatcher.reset()
        assert shop.post().status_code == 200


def test_a_client_that_leaves_before_it_has_everything_pays_nothing(
    open_shop: OpenShop, caplog: pytest.LogCaptureFixture
) -> None:
    shop = open_shop()
    # noise cannot be compressed: far more than the sockets between us hold
    big = generation(size="960x960")
    shop.dispatcher.noise = True
    with served(shop.front.app, lifespan="off") as address, caplog.at_level(logging.INFO):
        request = httpx.Request("POST", f"http://x{GENERATIONS}", json=big)
        body = request.content
        with socket.socket() as line:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            line.connect(address)
            line.settimeout(20)
            line.sendall(head(content_length=str(len(body))) + body)
            assert line.recv(1000).startswith(b"HTTP/1.1 200")
            time.sleep(0.3)
            assert shop.left_idr()[1] == 750  # not handed over yet: still held
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        assert wait_for_line(caplog, "client_gone")["status"] == 499
        assert shop.spent_idr() == 0


def test_a_client_that_has_everything_pays_even_if_it_hangs_up_at_once(
    open_shop: OpenShop,
) -> None:
    shop = open_shop()
    with served(shop.front.app, lifespan="off") as address:
        body = b'{"model":"epithre-iris","prompt":"x","size":"64x64"}'
        with connected(address) as line:
            line.sendall(head(content_length=str(len(body))) + body)
            assert answer(line).status_code == 200  # to its last byte
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        deadline = time.monotonic() + 5
        while shop.left_idr()[1] and time.monotonic() < deadline:
            time.sleep(0.01)
        assert shop.spent_idr() == 750


@pytest.mark.parametrize("size", ["64x64", "960x960"])
def test_a_connection_that_ends_with_its_reply_gives_it_whole_and_ends_in_good_order(
    open_shop: OpenShop, size: str
) -> None:
    """The end of a reply is kept back for a moment, and dropped if the process dies in it."""
    shop = open_shop()
    shop.dispatcher.noise = True
    with served(shop.front.app, lifespan="off") as address:
        body = json.dumps(generation(size=size)).encode()
        with connected(address) as line:
            line.sendall(head(content_length=str(len(body)), connection="close") + body)
            received = b""
            while chunk := line.recv(65536):  # a dropped connection would raise
                received += chunk
    _, _, content = received.partition(b"\r\n\r\n")
    assert json.loads(content)["data"]
    assert shop.spent_idr() == 750


@pytest.fixture
def hesitant(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system takes the last byte of a reply at the twentieth time."""
    plain = Mark.send
    tries = 0

    def send(mark: Mark, line: int, byte: int) -> None:
        nonlocal tries
        tries += 1
        if tries % 20:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        plain(mark, line, byte)

    monkeypatch.setattr(Mark, "send", send)


def test_requests_sent_at_once_are_answered_whole_and_in_order_and_each_is_paid(
    open_shop: OpenShop, hesitant: None
) -> None:
    shop = open_shop()
    seeds = [3, 1, 2]
    with served(shop.front.app, lifespan="off") as address, connected(address) as line:
        for seed in seeds:
            body = json.dumps(generation(seed=seed)).encode()
            line.sendall(head(content_length=str(len(body))) + body)
        with line.makefile("rb") as stream:
            for seed in seeds:
                headers = httpx.Headers(
                    row.decode().strip().split(": ", 1)
                    for row in itertools.takewhile(bytes.strip, stream)
                    if not row.startswith(b"HTTP/")
                )
                assert headers["x-iris-seed"] == str(seed)
                assert json.loads(stream.read(int(headers["content-length"])))["data"]
    assert [job.seed for job in shop.dispatcher.jobs] == seeds
    assert shop.spent_idr() == 750 * len(seeds)


def test_over_tls_every_byte_goes_through_it(open_shop: OpenShop) -> None:
    shop = open_shop()
    ours, theirs = (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context())
    theirs.check_hostname, theirs.verify_mode = False, ssl.CERT_NONE
    for context in (ours, theirs):  # a cipher that needs no certificate
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("AECDH-AES256-SHA:@SECLEVEL=0")
    shop.dispatcher.noise = True
    with (
        served(shop.front.app, lifespan="off", tls=ours) as address,
        connected(address) as plain,
        theirs.wrap_socket(plain) as line,
    ):
        for size in ("64x64", "960x960"):
            body = json.dumps(generation(size=size)).encode()
            line.sendall(head(content_length=str(len(body))) + body)
            assert answer(line).json()["data"]
    assert shop.spent_idr() == 1_500


def test_a_full_disk_is_a_503_before_any_work_and_what_was_delivered_is_paid_later(
    open_shop: OpenShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(charge, "PATIENCE_S", 0.1)
    shop = open_shop()
    limit_pages(shop.ledger.database, None)
    for _ in range(300):  # until what was free in the last pages is used up
        reply = shop.post()
        if reply.status_code != 200:
            break
    error = assert_envelope(reply, 503, "backend_unavailable")
    assert "disk" not in error["message"]
    delivered = len(shop.dispatcher.jobs)
    assert_envelope(shop.post(), 503, "backend_unavailable")
    assert len(shop.dispatcher.jobs) == delivered
    limit_pages(shop.ledger.database, 10**9)
    assert shop.post().status_code == 200
    time.sleep(1.5)  # longer than the till waits before it tries again
    assert shop.spent_idr() == 750 * (delivered + 1)


def test_a_note_that_finds_no_room_changes_nothing_as_long_as_the_process_lives(
    open_shop: OpenShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    shop = open_shop()
    monkeypatch.setattr(Lease, "note", full)
    assert shop.post().status_code == 200
    assert shop.spent_idr() == 750


def limit_pages(database: Database, pages: int | None) -> None:
    """Let the file grow to so many pages; None: no more. SQLite says that the disk is full."""
    database._engine.dispose()

    @event.listens_for(database._engine, "connect")
    def limit(connection: Any, _: Any) -> None:
        most = pages or connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {most}")
