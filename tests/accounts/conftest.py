from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from iris.accounts.db import Database
from tests.accounts.postgres import Postgres, running_postgres


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'home' / 'iris.db'}"


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    database = Database(url)
    yield database
    database.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """The one server of all tests. Without one they fail: what it promises cannot be left out."""
    with running_postgres() as server:
        yield server


def new_database_url(server: Postgres, options: str = "") -> str:
    """A new, empty database on the server."""
    name = f"iris_{secrets.token_hex(4)}"
    database = Database(server.url())
    with database._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        # AUTOCOMMIT: a database cannot be made inside a transaction
        connection.execute(text("SET default_transaction_read_only = off"))
        connection.execute(text(f"CREATE DATABASE {name} {options}"))
    database.close()
    return server.url(name)


@pytest.fixture(params=["sqlite", "postgresql"])
def either_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new database on each kind of server in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'home' / 'iris.db'}"
    return new_database_url(request.getfixturevalue("postgres"))


@pytest.fixture
def either(either_url: str) -> Iterator[Database]:
    database = Database(either_url)
    yield database
    database.close()
