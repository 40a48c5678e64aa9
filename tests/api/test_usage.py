"""GET /v1/usage: the sums and the table of the account whose key asks."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from iris.accounts.accounts import create_account, top_up
from iris.accounts.db import Database
from iris.accounts.keys import KeyRing, create_key
from iris.accounts.ledger import Ledger
from iris.api.app import create_app
from iris.images.decode import Decoder
from tests.api.fakes import (
    FakeDispatcher,
    Front,
    Loop,
    assert_envelope,
    edit,
    generation,
    make_catalog,
    make_settings,
    picture_base64,
)

TODAY = str(datetime.now(UTC).date())


class Market:
    """Two accounts behind one front; the first has two live keys and a test key."""

    def __init__(self, home: Path, loop: Loop) -> None:
        database = Database(f"sqlite:///{home / 'iris.db'}")
        settings = make_settings(home)
        self.app = create_app(
            settings,
            make_catalog(),
            keys=KeyRing(database),
            decoder=Decoder(settings),
            dispatcher_source=FakeDispatcher,
        )
        self.app.state.ledger = Ledger(database, home)
        self.ids: dict[str, str] = {}
        self.secrets: dict[str, str] = {}
        for account, name, is_test in (
            ("one", "web", False),
            ("one", "app", False),
            ("one", "try", True),
            ("two", "web", False),
        ):
            if name != "app" and not is_test:
                create_account(database, account)
                top_up(database, account, 10**6)
            key, secret = create_key(database, name, is_test=is_test, account=account)
            self.ids[f"{account} {name}"] = key.id
            self.secrets[f"{account} {name}"] = secret
        self.front = Front(self.app, loop)

    def buy(self, who: str, **fields: object) -> None:
        body = generation(**fields)
        reply = self.front.post("/v1/images/generations", key=self.secrets[who], json=body)
        assert reply.status_code == 200


@pytest.fixture(scope="module")
def market(loop: Loop, tmp_path_factory: pytest.TempPathFactory) -> Market:
    market = Market(tmp_path_factory.mktemp("market"), loop)
    market.buy("one web")
    market.buy("one web", lora="dark", user="=cmd()")
    market.buy("one app", lora="dark", user='ibu, "Sri"')
    market.buy("one try")
    reply = market.front.post(
        "/v1/images/edits", key=market.secrets["two web"], json=edit(image=picture_base64())
    )
    assert reply.status_code == 200
    yield market
    market.front.close()


def test_the_sums_are_those_of_the_account_and_of_the_ledger_of_the_key(market: Market) -> None:
    for who, pictures in (("one web", 3), ("one app", 3), ("one try", 1), ("two web", 1)):
        reply = market.front.get("/v1/usage", key=market.secrets[who]).json()
        assert reply["object"] == "usage"
        assert reply["ledger"] == ("test" if who == "one try" else "live")
        assert reply["total"] == {"pictures": pictures, "cost_idr": 750 * pictures}
        assert reply["data"] == [
            {
                "day": TODAY,
                "pictures": pictures,
                "cost_idr": 750 * pictures,
                "input_tokens": 33 * pictures,
                "output_tokens": 33 * pictures,
            }
        ]


@pytest.mark.parametrize(
    ("group_by", "expected"),
    [("key", {"one web": 2, "one app": 1}), ("style", {"none": 1, "dark": 2})],
)
def test_usage_can_be_grouped(market: Market, group_by: str, expected: dict[str, int]) -> None:
    url = f"/v1/usage?group_by={group_by}"
    data = market.front.get(url, key=market.secrets["one web"]).json()["data"]
    named = {market.ids.get(name, name): count for name, count in expected.items()}
    assert {line[group_by]: line["pictures"] for line in data} == named


def test_a_period_holds_its_first_and_its_last_day_and_no_other(market: Market) -> None:
    for query, pictures in (
        (f"from={TODAY}&to={TODAY}", 3),
        ("from=2026-01-01&to=2026-01-31", 0),
        ("to=2026-01-31", 0),
    ):
        reply = market.front.get(f"/v1/usage?{query}", key=market.secrets["one web"]).json()
        assert reply["total"]["pictures"] == pictures


def test_the_csv_has_a_line_for_every_picture_and_no_formula(market: Market) -> None:
    reply = market.front.get("/v1/usage?format=csv", key=market.secrets["one web"])
    assert reply.headers["content-type"].startswith("text/csv")
    assert "attachment" in reply.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(reply.text)))
    assert [row["user"] for row in rows] == ["", "'=cmd()", 'ibu, "Sri"']
    assert {row["cost_idr"] for row in rows} == {"750"}
    assert {row["ledger"] for row in rows} == {"live"}
    assert all(row["picture"].startswith("hold_") for row in rows)


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("from=yesterday", "from"),
        ("to=2026-13-01", "to"),
        ("from=2026-02-02&to=2026-02-01", "from"),
        ("from=2020-01-01", "from"),
        ("group_by=user", "group_by"),
        ("format=xml", "format"),
        ("format=csv&group_by=day", "group_by"),
        ("from=2026-01-01&from=2026-01-02", "from"),
        ("key=esk_live_x", None),
        ("from", None),
    ],
)
def test_a_bad_query_is_a_400_that_names_the_parameter(
    market: Market, query: str, param: str | None
) -> None:
    reply = market.front.get(f"/v1/usage?{query}", key=market.secrets["one web"])
    error = assert_envelope(reply, 400, "invalid_request", param)
    assert "esk_live" not in error["message"]


def test_without_a_key_there_is_no_usage(market: Market) -> None:
    assert_envelope(market.front.get("/v1/usage", key=None), 401, "authentication_error")
    secret = market.secrets["one web"]
    reply = market.front.get(f"/v1/usage?api_key={secret}", key=None)
    assert_envelope(reply, 401, "authentication_error")


def test_sums_that_cannot_be_read_are_told_so(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> None:
        raise OperationalError("SELECT", {}, Exception("away"))

    monkeypatch.setattr("iris.api.usage.sum_usage", away)
    reply = market.front.get("/v1/usage", key=market.secrets["one web"])
    assert_envelope(reply, 503, "backend_unavailable")


def test_a_table_that_cannot_be_read_is_told_so_before_it_begins(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> Iterator[str]:
        yield "time,picture\r\n"
        raise OperationalError("SELECT", {}, Exception("away"))

    monkeypatch.setattr("iris.api.usage.usage_csv", away)
    reply = market.front.get("/v1/usage?format=csv", key=market.secrets["one web"])
    assert_envelope(reply, 503, "backend_unavailable")


def test_a_table_without_a_picture_is_its_head(market: Market) -> None:
    query = "format=csv&from=2026-01-01&to=2026-01-31"
    reply = market.front.get(f"/v1/usage?{query}", key=market.secrets["one web"])
    assert reply.status_code == 200
    assert reply.text.startswith("time,picture,")
    assert reply.text.count("\n") == 1
