"""Money after a process was killed at any moment, again and again; `make soak` does it longer."""

from __future__ import annotations

from pathlib import Path

from bench.soak import soak
from tests.accounts.conftest import new_database_url
from tests.accounts.postgres import Postgres


def check(home: Path, url: str, kills: int, fronts: int) -> None:
    report = soak(home, url, kills, fronts)
    assert report.kills == kills
    assert report.is_right, report
    assert report.exact_paid == report.exact_delivered
    assert report.plain_paid == report.plain_delivered
    assert report.exact_delivered + report.plain_delivered >= kills


def test_200_kills_at_any_moment_cost_nobody_a_rupiah(tmp_path: Path) -> None:
    check(tmp_path, f"sqlite:///{tmp_path / 'iris.db'}", 200, 1)


def test_kills_beside_a_living_process_are_survived_on_postgresql_too(
    postgres: Postgres, tmp_path: Path
) -> None:
    check(tmp_path, new_database_url(postgres), 30, 2)
