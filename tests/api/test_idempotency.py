"""The same request twice, with one Idempotency-Key, is one picture and one price."""

from __future__ import annotations

import ast
import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from iris.accounts.db import Database
from iris.accounts.ledger import Ledger
from iris.api.idempotency import fingerprint
from iris.errors import BackendBusy, BackendFailure
from tests.api.conftest import OpenShop
from tests.api.fakes import (
    TEST_KEY,
    Shop,
    assert_envelope,
    edit,
    generation,
    picture_base64,
    picture_bytes,
)

EDITS = "/v1/images/edits"


def post(shop: Shop, name: str = "order-1", **kw: Any) -> httpx.Response:
    return shop.post(headers={"idempotency-key": name}, **kw)


def test_a_retry_gets_the_same_reply_and_pays_nothing_more(open_shop: OpenShop) -> None:
    shop = open_shop(rpm=1)
    first = post(shop)
    again = post(shop)
    assert first.status_code == again.status_code == 200
    assert again.content == first.content
    for header in ("x-iris-seed", "x-iris-cost-idr", "x-iris-inference-s", "content-type"):
        assert again.headers[header] == first.headers[header]
    assert "x-iris-replayed" not in first.headers
    assert again.headers["x-iris-replayed"] == "true"
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    assert len(shop.dispatcher.jobs) == 1
    assert shop.spent_idr() == 750


def test_another_request_with_the_same_token_is_refused(open_shop: OpenShop) -> None:
    shop = open_shop()
    assert post(shop, json=generation(seed=1)).status_code == 200
    for other in (generation(seed=2), generation(seed=1, user="x"), generation()):
        error = assert_envelope(
            post(shop, json=other), 400, "idempotency_mismatch", "Idempotency-Key"
        )
        assert "24 hours" in error["message"]
    other_route = post(shop, path=EDITS, json=edit(image=picture_base64()))
    assert_envelope(other_route, 400, "idempotency_mismatch", "Idempotency-Key")
    assert shop.spent_idr() == 750


def test_the_order_of_the_fields_makes_no_other_request(open_shop: OpenShop) -> None:
    shop = open_shop()
    body = generation(seed=5)
    first = post(shop, json=body)
    again = post(shop, json=dict(reversed(body.items())))
    assert again.content == first.content


def test_a_form_with_another_boundary_is_the_same_request(open_shop: OpenShop) -> None:
    shop = open_shop()

    def send(picture: bytes) -> httpx.Response:
        return shop.front.post(
            EDITS,
            data={k: str(v) for k, v in edit().items()},
            files={"image": ("a.png", picture, "image/png")},
            headers={"idempotency-key": "form"},
        )

    first, again = send(picture_bytes()), send(picture_bytes())
    assert first.request.headers["content-type"] != again.request.headers["content-type"]
    assert again.content == first.content
    assert_envelope(send(picture_bytes(65)), 400, "idempotency_mismatch", "Idempotency-Key")
    assert shop.spent_idr() == 750


def test_every_key_has_tokens_of_its_own(open_shop: OpenShop) -> None:
    shop = open_shop()
    assert post(shop, json=generation(seed=1)).status_code == 200
    assert post(shop, json=generation(seed=2), key=TEST_KEY).status_code == 200
    assert len(shop.dispatcher.jobs) == 2


@pytest.mark.parametrize("error", [BackendFailure("x"), BackendBusy("x", retry_after_s=1)])
def test_a_failure_is_not_kept_and_the_retry_makes_the_picture(
    open_shop: OpenShop, error: Exception
) -> None:
    shop = open_shop()
    shop.dispatcher.error = error
    assert post(shop).status_code >= 429
    shop.dispatcher.error = None
    made = post(shop)
    assert made.status_code == 200
    assert "x-iris-replayed" not in made.headers
    assert shop.spent_idr() == 750


def test_duplicates_that_come_at_once_wait_for_the_first(open_shop: OpenShop) -> None:
    shop = open_shop()
    with ThreadPoolExecutor(20) as pool:
        replies = list(pool.map(lambda _: post(shop), range(20)))
    assert {reply.status_code for reply in replies} == {200}
    assert len({reply.content for reply in replies}) == 1
    assert len(shop.dispatcher.jobs) == 1
    assert sum("x-iris-replayed" not in reply.headers for reply in replies) == 1
    assert shop.spent_idr() == 750


def test_whoever_waits_makes_the_picture_when_the_first_one_fails(open_shop: OpenShop) -> None:
    shop = open_shop(deadline_s=1.0)
    shop.dispatcher.hangs = True
    replies: list[httpx.Response] = []
    first = threading.Thread(target=lambda: replies.append(post(shop)))
    first.start()
    assert shop.dispatcher.started.wait(10)
    shop.dispatcher.hangs = False
    second = post(shop)
    first.join()
    assert replies[0].status_code == 504
    assert second.status_code == 200
    assert shop.spent_idr() == 750


def test_bentoml_waits_as_long_as_a_body_a_wait_and_a_picture_together_may_take() -> None:
    """Its own answer to a time that is up has neither our envelope nor an id."""
    source = (Path(__file__).parents[2] / "service.py").read_text()
    (given,) = (
        statement.value
        for statement in ast.parse(source).body
        if isinstance(statement, ast.Assign)
        and ast.unparse(statement.targets[0]) == "_TRAFFIC_TIMEOUT_S"
    )
    for body_s, deadline_s in ((60.0, 300.0), (1.0, 3_600.0)):
        settings = SimpleNamespace(body_timeout_s=body_s, deadline_s=deadline_s)
        timeout_s = eval(  # noqa: S307 - our own source
            ast.unparse(given), {"settings": settings, "int": int}
        )
        assert timeout_s >= body_s + 2 * deadline_s + 30  # the database has its times as well


def test_a_reply_outlives_the_process_that_gave_it(open_shop: OpenShop) -> None:
    shop = open_shop()
    first = post(shop)
    home = shop.ledger._lease._path.parent.parent
    shop.ledger.close()
    reopened = Ledger(Database(f"sqlite:///{home / 'iris.db'}"), home)
    shop.replace_ledger(reopened)
    again = post(shop)
    assert again.content == first.content
    assert again.headers["x-iris-replayed"] == "true"
    assert shop.spent_idr() == 750


def test_a_day_later_the_token_is_new(open_shop: OpenShop) -> None:
    shop = open_shop()
    first = post(shop)
    with shop.ledger.database.write() as session:
        session.execute(text("UPDATE outcomes SET created_at_ms = created_at_ms - 86400000"))
    again = post(shop, json=generation(seed=3))
    assert again.status_code == 200
    assert again.content != first.content
    assert shop.spent_idr() == 1_500


def test_replies_are_bounded_in_bytes_and_nobody_pays_twice_for_one_that_had_to_go(
    open_shop: OpenShop,
) -> None:
    shop = open_shop()
    size = len(post(shop, "0", json=generation(seed=1)).content)
    shop.ledger._till._max_outcome_bytes = 3 * size + 100
    for token in ("1", "2", "3"):
        assert post(shop, token, json=generation(seed=1)).status_code == 200
    with shop.ledger.database.read() as session:
        kept = session.scalar(text("SELECT sum(length(body)) FROM outcome_bodies"))
    assert kept <= 3 * size + 100
    error = assert_envelope(
        post(shop, "0", json=generation(seed=1)), 400, "idempotency_expired", "Idempotency-Key"
    )
    assert "no longer kept" in error["message"]
    assert post(shop, "3", json=generation(seed=1)).headers["x-iris-replayed"] == "true"
    assert shop.spent_idr() == 4 * 750


@pytest.mark.parametrize("token", ["", "x" * 256, "é", "a\tb"])
def test_a_token_that_cannot_be_one_is_refused(open_shop: OpenShop, token: str) -> None:
    shop = open_shop()
    headers = {"idempotency-key": token.encode("utf-8")}
    reply = shop.post(headers=headers)
    assert_envelope(reply, 400, "invalid_request", "Idempotency-Key")
    assert shop.dispatcher.jobs == []


def test_a_token_of_255_characters_works_and_two_of_them_do_not(open_shop: OpenShop) -> None:
    shop = open_shop()
    assert post(shop, "x" * 255).status_code == 200
    twice = shop.post(headers=[("idempotency-key", "a"), ("idempotency-key", "b")])
    assert_envelope(twice, 400, "invalid_request", "Idempotency-Key")


def test_the_database_knows_a_token_only_by_its_hash(open_shop: OpenShop) -> None:
    shop = open_shop()
    post(shop, "very-secret-order")
    with shop.ledger.database.read() as session:
        assert "very-secret-order" not in str(session.execute(text("SELECT * FROM outcomes")).all())


def test_no_two_contents_have_one_fingerprint() -> None:
    bodies: list[dict[str, object]] = [
        {"a": "1"},
        {"a": 1},
        {"a": True},
        {"a": 1.0},
        {"a": b"1"},
        {"a": ["1"]},
        {"a": "1", "b": "2"},
        {"a": "1b", "": "2"},
        {"ab": "1"},
        {"a": None},
        {"a": ["1", "2"]},
        {"a": ["12"]},
        {"a": (b"1", b"2")},
        {"a": {"1": "2"}},
    ]
    prints = [asyncio.run(fingerprint("/x", body)) for body in bodies]
    prints.append(asyncio.run(fingerprint("/y", bodies[0])))
    assert len(set(prints)) == len(prints)
