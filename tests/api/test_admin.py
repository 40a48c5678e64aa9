"""/admin/v1: behind its own token, on its own address, and the same as the commands."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from iris.accounts.db import Database
from iris.accounts.keys import KeyRing, create_key
from iris.accounts.ledger import Ledger
from iris.api.app import create_app
from iris.errors import ConfigError
from iris.images.decode import Decoder
from tests.api.fakes import (
    FakeDispatcher,
    Front,
    Loop,
    assert_envelope,
    generation,
    make_catalog,
    make_settings,
)

TOKEN = "admin-" + "x" * 40


class Office:
    """A front with an admin API."""

    def __init__(self, home: Path, loop: Loop, **settings: str) -> None:
        self.database = Database(f"sqlite:///{home / 'iris.db'}")
        made = make_settings(home, **settings)
        self.app = create_app(
            made,
            make_catalog(),
            keys=KeyRing(self.database),
            decoder=Decoder(made),
            dispatcher_source=FakeDispatcher,
        )
        self.app.state.ledger = Ledger(self.database, home)
        self.front = Front(self.app, loop)

    def __call__(self, method: str, path: str, token: str | None = TOKEN, **kw: Any) -> Any:
        reply = self.front.request(method, f"/admin/v1{path}", key=token, **kw)
        return reply


@pytest.fixture
def office(loop: Loop, tmp_path: Path) -> Iterator[Office]:
    office = Office(tmp_path, loop, admin_token=TOKEN, admin_bind="public")
    yield office
    office.front.close()


def test_a_customer_from_the_first_day_to_the_last(office: Office) -> None:
    account = office("POST", "/accounts", json={"name": "toko"}).json()
    assert account["live"] == {"available_idr": 0, "held_idr": 0}
    payment = {"amount_idr": 1_500, "reference": "INV-1"}
    for _ in range(2):  # the same payment
        paid = office("POST", "/accounts/toko/topup", json=payment).json()
        assert paid["live"]["available_idr"] == 1_500
    key = office("POST", "/keys", json={"name": "web", "account": "toko", "live": True}).json()
    assert key["secret"].startswith("esk_live_")
    limited = office("POST", f"/keys/{key['id']}/limits", json={"rpm": 5}).json()
    assert (limited["limits"]["rpm"], limited["limits"]["rpd"]) == (5, 10_000)

    def buy() -> httpx.Response:
        url = "/v1/images/generations"
        return office.front.post(url, key=key["secret"], json=generation())

    assert buy().status_code == 200
    (used,) = office("GET", "/accounts/toko/usage?group_by=key").json()["data"]
    assert (used["group"], used["cost_idr"]) == (key["id"], 750)
    rows = office("GET", "/ledger?account=toko&last=2").json()["data"]
    assert [row["kind"] for row in rows] == ["hold", "capture"]
    refund = {"hold_id": rows[1]["hold_id"], "note": "a bad picture"}
    for _ in range(2):
        given = office("POST", "/ledger/refund", json=refund).json()
        assert given["live"]["available_idr"] == 1_500
    assert office("POST", "/accounts/toko/suspend").json()["state"] == "suspended"
    assert office("POST", "/accounts/toko/resume").json()["state"] == "active"
    assert office("POST", f"/keys/{key['id']}/revoke").json()["revoked_at"] is not None
    (listed,) = office("GET", "/keys").json()["data"]
    assert listed["revoked_at"] is not None
    assert "secret" not in listed
    verdict = office("GET", "/ledger/verify").json()
    assert verdict["ok"] is True
    assert verdict["captured_live_idr"] == 750
    exported = office("GET", "/ledger/export").text.splitlines()
    assert len(exported) == 1 + verdict["rows"]
    assert [a["name"] for a in office("GET", "/accounts").json()["data"]] == ["toko"]


def test_a_suspended_account_is_a_403_and_its_key_works_again_afterwards(office: Office) -> None:
    office("POST", "/accounts", json={"name": "toko"})
    secret = office("POST", "/keys", json={"name": "web"}).json()["secret"]
    office("POST", "/accounts/toko/suspend")
    url = "/v1/images/generations"
    assert_envelope(office.front.post(url, key=secret, json={}), 403, "account_suspended")
    office("POST", "/accounts/toko/resume")


@pytest.mark.parametrize("token", [None, "", "x", TOKEN[:-1], TOKEN + "x"])
@pytest.mark.parametrize(("method", "path"), [("GET", "/accounts"), ("POST", "/keys")])
def test_without_the_token_nothing_is_to_be_had(
    office: Office, method: str, path: str, token: str | None
) -> None:
    assert_envelope(office(method, path, token), 401, "authentication_error")


def test_a_customers_key_is_no_admin_token_nor_the_other_way_round(office: Office) -> None:
    _, secret = create_key(office.database, "web", is_test=True)
    assert_envelope(office("GET", "/accounts", secret), 401, "authentication_error")
    reply = office.front.post("/v1/images/generations", key=TOKEN, json=generation())
    assert_envelope(reply, 401, "authentication_error")


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/accounts", {}, "name"),
        ("/accounts", {"name": ""}, "name"),
        ("/accounts", {"name": "a", "x": 1}, "x"),
        ("/accounts", {"name": "a/b"}, "name"),
        ("/accounts/nobody/topup", {"amount_idr": 1}, "account"),
        ("/accounts/default/topup", {"amount_idr": "1"}, "amount_idr"),
        ("/accounts/default/topup", {"amount_idr": 0}, "amount_idr"),
        ("/accounts/default/topup", {"amount_idr": 1, "note": "\n"}, "note"),
        ("/keys", {"name": "a", "rpm": 0}, "rpm"),
        ("/keys", {"name": "a", "account": "nobody"}, "account"),
        ("/keys/key_0/limits", {"rpm": 1}, "id"),
        ("/keys/key_0/revoke", {}, "id"),
        ("/ledger/refund", {"hold_id": "hold_0"}, "hold_id"),
    ],
)
def test_what_is_wrong_is_a_400_that_names_it(
    office: Office, path: str, body: dict[str, object], param: str
) -> None:
    create_key(office.database, "web", is_test=True)
    assert_envelope(office("POST", path, json=body), 400, "invalid_request", param)


def test_another_payment_with_the_same_reference_is_refused(office: Office) -> None:
    office("POST", "/accounts", json={"name": "toko"})
    office("POST", "/accounts/toko/topup", json={"amount_idr": 5, "reference": "R"})
    other = {"amount_idr": 6, "reference": "R"}
    reply = office("POST", "/accounts/toko/topup", json=other)
    assert_envelope(reply, 400, "invalid_request", "reference")


@pytest.mark.parametrize(
    ("method", "path", "param"),
    [
        ("GET", "/accounts/a%00b", "account"),
        ("POST", "/accounts/a%0Ab/suspend", "account"),
        ("POST", "/keys/key_%00/revoke", "id"),
        ("GET", "/ledger?account=a%00b", "account"),
        ("GET", "/ledger/export?account=%00", "account"),
    ],
)
def test_what_no_name_holds_is_refused_before_a_database_is_asked_for_it(
    office: Office, method: str, path: str, param: str
) -> None:
    error = assert_envelope(office(method, path), 400, "invalid_request", param)
    assert "printable" in error["message"]


@pytest.mark.parametrize("last", ["0", "1001", "0000000019999", "00000000" + "9" * 25, "9" * 4_000])
def test_no_more_rows_than_may_be_are_had_however_their_number_is_written(
    office: Office, last: str
) -> None:
    assert_envelope(office("GET", f"/ledger?last={last}"), 400, "invalid_request", "last")


def test_a_csv_is_not_grouped(office: Office) -> None:
    office("POST", "/accounts", json={"name": "toko"})
    reply = office("GET", "/accounts/toko/usage?format=csv&group_by=day")
    assert_envelope(reply, 400, "invalid_request", "group_by")
    assert office("GET", "/accounts/toko/usage?format=csv").status_code == 200


def test_an_idempotency_key_is_refused_and_not_thought_to_work(office: Office) -> None:
    office("POST", "/accounts", json={"name": "toko"})
    header = {"Idempotency-Key": "pay"}
    reply = office("POST", "/accounts/toko/topup", json={"amount_idr": 5}, headers=header)
    error = assert_envelope(reply, 400, "invalid_request", "Idempotency-Key")
    assert "`reference`" in error["message"]
    shown = office("GET", "/accounts/toko", headers=header).json()
    assert shown["live"]["available_idr"] == 0


def test_while_the_database_cannot_be_written_nothing_is_booked_and_that_is_told(
    office: Office,
) -> None:
    office("POST", "/accounts", json={"name": "toko"})
    engine, is_full = office.database._engine, True

    @event.listens_for(engine, "begin")
    def _(connection: Any) -> None:
        connection.exec_driver_sql(f"PRAGMA query_only = {is_full}")

    payment = {"amount_idr": 5}
    reply = office("POST", "/accounts/toko/topup", json=payment)
    assert_envelope(reply, 503, "backend_unavailable")
    is_full = False
    assert office("GET", "/accounts/toko").json()["live"]["available_idr"] == 0
    paid = office("POST", "/accounts/toko/topup", json=payment).json()
    assert paid["live"]["available_idr"] == 5


def test_without_a_token_there_is_no_admin_api(loop: Loop, tmp_path: Path) -> None:
    office = Office(tmp_path, loop, admin_bind="public")
    try:
        assert_envelope(office("GET", "/accounts"), 404, "not_found")
    finally:
        office.front.close()


def free_address() -> str:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{sock.getsockname()[1]}"


def test_it_listens_on_an_address_of_its_own_and_not_on_the_public_port(
    loop: Loop, tmp_path: Path
) -> None:
    bind = free_address()
    office = Office(tmp_path, loop, admin_token=TOKEN, admin_bind=bind)
    try:
        assert_envelope(office("GET", "/accounts"), 404, "not_found")
        own = httpx.Client(base_url=f"http://{bind}", headers={"authorization": f"Bearer {TOKEN}"})
        with own:
            assert own.post("/admin/v1/accounts", json={"name": "toko"}).status_code == 200
            assert own.get("/admin/v1/accounts").json()["data"][0]["name"] == "toko"
            assert own.get("/v1/models").status_code == 404
    finally:
        office.front.close()


def test_an_address_that_is_taken_stops_the_start(loop: Loop, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigError, match="IRIS_ADMIN_BIND"):
            Office(tmp_path, loop, admin_token=TOKEN, admin_bind=bind)


def test_an_export_that_cannot_be_read_is_told_so_before_it_begins(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise OperationalError("SELECT", {}, Exception("away"))

    with monkeypatch.context() as patch:
        patch.setattr(Database, "read", away)
        assert_envelope(office("GET", "/ledger/export"), 503, "backend_unavailable")
    assert office("GET", "/ledger/export").status_code == 200
