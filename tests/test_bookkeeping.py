"""The commands about accounts, keys, the ledger and usage."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError

from iris.accounts import accounts, sqlite
from iris.accounts.db import Database
from iris.cli import main
from tests.accounts.books import Books

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Database:
    for key in [key for key in os.environ if key.startswith("IRIS_")]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("IRIS_HOME", str(tmp_path))
    return Database(f"sqlite:///{tmp_path / 'iris.db'}")


@pytest.fixture
def iris(capsys: Captured) -> Any:
    """iris("accounts", "list") -> the objects it prints with --json."""

    def run(*arguments: str) -> Any:
        assert main([*arguments, "--json"]) == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return run


def test_an_account_is_made_topped_up_suspended_and_resumed(iris: Any) -> None:
    (made,) = iris("accounts", "create", "--name", "toko")
    assert (made["state"], made["live"]["available_idr"]) == ("active", 0)
    for _ in range(2):
        (paid,) = iris("accounts", "topup", "toko", "10000", "--reference", "INV-1")
    assert paid["live"]["available_idr"] == 10_000
    (paid,) = iris("accounts", "topup", made["id"], "500", "--test", "--note", "a gift")
    assert paid["test"]["available_idr"] == made["test"]["available_idr"] + 500
    assert iris("accounts", "suspend", "toko")[0]["state"] == "suspended"
    assert iris("accounts", "resume", "toko")[0]["state"] == "active"
    assert iris("accounts", "list") == [iris("accounts", "resume", "toko")[0]]


def test_a_key_belongs_to_an_account_and_has_limits_that_can_be_changed(iris: Any) -> None:
    (account,) = iris("accounts", "create", "--name", "toko")
    iris("accounts", "create", "--name", "other")
    (key,) = iris("keys", "create", "--name", "web", "--live", "--account", "toko", "--rpm", "7")
    assert key["account_id"] == account["id"]
    (listed,) = iris("keys", "list")
    assert listed["limits"] == {
        "rpm": 7,
        "rpd": 10_000,
        "max_in_flight": 10,
        "monthly_cap_idr": 1_000_000,
    }
    (changed,) = iris("keys", "limit", key["id"], "--in-flight", "3", "--monthly-cap", "0")
    assert (changed["limits"]["rpm"], changed["limits"]["max_in_flight"]) == (7, 3)
    assert changed["limits"]["monthly_cap_idr"] == 0


def test_the_limits_of_a_new_key_are_those_of_the_settings(
    iris: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IRIS_KEY_RPM", "600")
    iris("keys", "create", "--name", "web")
    assert iris("keys", "list")[0]["limits"]["rpm"] == 600


def test_the_ledger_is_shown_exported_verified_and_refunded(
    iris: Any, database: Database, capsys: Captured
) -> None:
    books = Books(database, money_idr=2_000)
    books.capture(books.admitted())
    rows = iris("ledger", "show", "shop")
    assert [row["kind"] for row in rows] == ["top_up", "top_up", "hold", "capture"]
    assert iris("ledger", "show", "--last", "1") == rows[-1:]
    assert iris("ledger", "export") == rows
    assert main(["ledger", "export", "shop"]) == 0
    assert [r["kind"] for r in csv.DictReader(io.StringIO(capsys.readouterr().out))] == [
        row["kind"] for row in rows
    ]
    (verdict,) = iris("ledger", "verify")
    assert (verdict["ok"], verdict["captured_live_idr"]) == (True, 750)
    (account,) = iris("ledger", "refund", rows[-1]["hold_id"], "--note", "sorry")
    assert account["live"]["available_idr"] == 2_000
    assert main(["ledger", "verify"]) == 0
    assert capsys.readouterr().out == (
        "5 rows, 0 open holds; taken: Rp750 live, Rp0 test. It verifies.\n"
    )


def test_a_ledger_that_was_tampered_with_is_told_by_row_and_exit_status(
    database: Database, capsys: Captured
) -> None:
    books = Books(database, money_idr=2_000)
    books.capture(books.admitted())
    with database.write() as session:
        session.execute(text("DROP TRIGGER journal_no_update"))
        session.execute(text("UPDATE journal SET amount_idr = 700 WHERE kind = 'capture'"))
    assert main(["ledger", "verify"]) == 1
    told = capsys.readouterr().out
    assert "BROKEN: every capture and every void resolves an earlier hold, whole" in told
    assert "kind=capture" in told
    assert "BROKEN: every balance is the sum of its journal" in told
    assert books.account in told


def test_a_counter_that_was_tampered_with_is_told_with_its_key(
    database: Database, capsys: Captured
) -> None:
    books = Books(database, money_idr=2_000)
    books.capture(books.admitted())
    with database.write() as session:
        session.execute(text("UPDATE counters SET day_count = 0, month_idr = 0"))
    assert main(["ledger", "verify"]) == 1
    told = capsys.readouterr().out.splitlines()
    for invariant, row in (
        ("every key counts the pictures of its day", "day_count=0 journal_count=1"),
        ("every key counts the money of its month", "month_idr=0 journal_idr=750"),
    ):
        (line,) = [line for line in told if f"BROKEN: {invariant}" in line]
        assert books.key_id in line
        assert row in line


def test_usage_is_summed_and_exported(iris: Any, database: Database, capsys: Captured) -> None:
    books = Books(database, money_idr=2_000)
    books.capture(books.admitted())
    books.capture(books.admitted())
    period = ("--from", "2026-11-01", "--to", "2026-11-01")
    (day,) = iris("usage", "shop", *period)
    assert (day["group"], day["pictures"], day["cost_idr"]) == ("2026-11-01", 2, 1_500)
    (key,) = iris("usage", "shop", *period, "--group-by", "key")
    assert key["group"] == books.key_id
    assert iris("usage", "shop", *period, "--test") == []
    assert main(["usage", "shop", *period, "--csv"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


@pytest.mark.parametrize(
    "arguments",
    [
        ["accounts", "list"],
        ["keys", "list"],
        ["ledger", "show"],
        ["usage", "shop", "--from", "2026-11-01", "--to", "2026-11-02"],
    ],
)
def test_every_list_is_a_table_for_a_person(
    database: Database, capsys: Captured, arguments: list[str]
) -> None:
    books = Books(database, money_idr=2_000)
    books.capture(books.admitted())
    assert main(arguments) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.isupper()
    assert rows


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["accounts", "topup", "nobody", "5"], "nobody"),
        (["accounts", "topup", "shop", "0"], "integer of rupiah"),
        (["accounts", "topup", "shop", "-5"], "integer of rupiah"),
        (["accounts", "create", "--name", "shop"], "named 'shop' already"),
        (["accounts", "suspend", "nobody"], "nobody"),
        (["keys", "create", "--name", "a", "--account", "nobody"], "nobody"),
        (["keys", "create", "--name", "a", "--rpm", "0"], "rpm=0"),
        (["keys", "limit", "key_0", "--rpm", "5"], "key_0"),
        (["ledger", "refund", "hold_0"], "hold_0"),
        (["ledger", "export", "nobody"], "nobody"),
        (["usage", "nobody"], "nobody"),
        (["usage", "shop", "--from", "today"], "YYYY-MM-DD"),
    ],
)
def test_an_error_is_one_line_and_changes_nothing(
    database: Database, capsys: Captured, arguments: list[str], said: str
) -> None:
    books = Books(database)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("iris: ")
    assert captured.err.count("\n") == 1
    assert said in captured.err
    books.check()


@pytest.mark.parametrize("count", ["0", "-5", "100001", "99999999999999999999", "9" * 5_000, "x"])
def test_so_many_rows_as_cannot_be_shown_are_refused_with_the_bounds(
    capsys: Captured, count: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["ledger", "show", "--last", count])
    assert caught.value.code == 2
    assert "argument --last: must be an integer from 1 to 100,000" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["accounts", "topup", "shop", "1000"],
        ["accounts", "suspend", "shop"],
        ["keys", "create", "--name", "web"],
    ],
)
def test_a_locked_database_is_one_line_and_nothing_is_changed(
    database: Database,
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
) -> None:
    books = Books(database, money_idr=2_000)
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_S", 0.05)
    with database.write():
        assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("iris: The database cannot be used (database is locked).")
    assert captured.err.count("\n") == 1
    assert "Nothing was changed." in captured.err
    assert books.balance() == (2_000, 0)
    assert main(arguments) == 0


@pytest.mark.parametrize("kind", [InterfaceError, InternalError, OperationalError])
def test_whatever_keeps_a_database_from_being_used_is_one_line(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, kind: type[OperationalError]
) -> None:
    """PostgreSQL says it in three ways: gone, only to be read, locked."""

    def unusable(*_: object, **__: object) -> None:
        raise kind("INSERT", None, Exception("a read-only\ntransaction"))

    monkeypatch.setattr(accounts, "top_up", unusable)
    assert main(["accounts", "topup", "shop", "1000"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("iris: The database cannot be used (a read-only transaction). Nothing")
    assert told.count("\n") == 1


def test_a_commit_whose_answer_was_lost_is_not_said_to_have_changed_nothing(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever believed it would pay in twice."""

    def lost(*_: object, **__: object) -> None:
        raise OperationalError(None, None, Exception("the connection\nis lost"))

    monkeypatch.setattr(accounts, "top_up", lost)
    assert main(["accounts", "topup", "shop", "1000"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("iris: The database did not answer to the end (the connection is lost).")
    assert "not known" in told
    assert "Nothing was changed" not in told


def test_an_error_of_the_program_itself_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(accounts, "top_up", broken)
    with pytest.raises(ZeroDivisionError):
        main(["accounts", "topup", "shop", "1000"])


def test_the_commands_of_the_docs_do_what_they_say(capsys: Captured) -> None:
    page = (Path(__file__).parents[1] / "docs" / "accounts.md").read_text()
    commands = re.findall(r"^    iris (.+)$", page, re.MULTILINE)
    assert len(commands) == 4
    for command in commands:
        assert main(shlex.split(command)) == 0
    assert re.search(r"toko +active +150,000", capsys.readouterr().out)
