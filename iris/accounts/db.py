"""The database of accounts: one engine, short transactions, one schema."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from sqlalchemy import URL, MetaData, Table, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError
from sqlalchemy.orm import DeclarativeBase, Session

from iris.accounts.migrate import HEAD, migrate, version_of
from iris.accounts.postgresql import open_server
from iris.accounts.sqlite import open_file
from iris.errors import ConfigError

_ALLOWED = (
    "Use sqlite:////absolute/path/iris.db, or postgresql://USER:PASSWORD@HOST/NAME where several "
    "services share one database."
)


class Base(DeclarativeBase):
    """The tables of this room. Constraints have fixed names, so that a migration can name them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_name)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


def table_of(row: type[Base]) -> Table:
    """The table of a class of rows, for statements over many rows at once."""
    return cast(Table, row.__table__)


class Database:
    """Reading and writing transactions on one SQLite file or one PostgreSQL database.

    A write holds the one write lock from its start to its end, so what it reads stays true until
    what it writes is kept. Safe to share between threads; every process makes its own.
    """

    def __init__(self, url: str) -> None:
        """Open the database, making a SQLite file and what tables are missing.

        Raises:
            ConfigError: the URL is none of these, or what it names cannot be used, or is of a later
                version of this program.
        """
        parsed = _parse(url)
        is_file = parsed.get_backend_name() == "sqlite"
        try:
            self._engine = open_file(parsed) if is_file else open_server(parsed)
            try:
                self._bring_up_to_date()
            except BaseException:
                self.close()
                raise
        except (OSError, DatabaseError) as error:
            raise _unusable(parsed, error) from error

    def _bring_up_to_date(self) -> None:
        with self.read() as session:
            if version_of(session.connection()) == HEAD:
                return  # without waiting for whoever writes
        # Of several that start together one does it; the others wait for it as long as it takes.
        with self._transaction(iris_write=True, iris_migration=True) as session:
            migrate(session.connection())

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A transaction that sees one state of the database; nothing is kept of it."""
        with Session(self._engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction that holds the write lock from its start; committed when the block ends.

        An exception inside the block rolls everything back.
        """
        with self._transaction(iris_write=True) as session:
            yield session

    @contextmanager
    def _transaction(self, **options: bool) -> Iterator[Session]:
        engine = self._engine.execution_options(**options)
        with Session(engine, expire_on_commit=False) as session, session.begin():
            session.connection()  # takes the lock now, not at the first statement
            yield session

    def close(self) -> None:
        """Close every pooled connection; the object cannot be used again in a useful way."""
        self._engine.dispose()


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError:
        # the text is repeated nowhere here: it may hold a password in more than one place
        raise ConfigError(f"IRIS_DATABASE_URL is not a database URL. {_ALLOWED}") from None
    name, driver = parsed.get_backend_name(), parsed.drivername.partition("+")[2]
    if (name, driver) in (("postgresql", ""), ("postgresql", "psycopg")):
        if not parsed.database:
            raise ConfigError(f"IRIS_DATABASE_URL does not name a database. {_ALLOWED}")
        return parsed
    if (name, driver) not in (("sqlite", ""), ("sqlite", "pysqlite")):
        raise ConfigError(
            f"IRIS_DATABASE_URL={parsed.drivername}:... is not SQLite or PostgreSQL. {_ALLOWED}"
        )
    if parsed.database in (None, "", ":memory:") or parsed.query:
        # a database in memory would be another one in every process
        raise ConfigError(f"IRIS_DATABASE_URL does not name a plain file. {_ALLOWED}")
    return parsed


def _unusable(url: URL, error: OSError | DatabaseError) -> ConfigError:
    cause = str(error.strerror) if isinstance(error, OSError) else " ".join(str(error.orig).split())
    if url.get_backend_name() == "sqlite":
        return ConfigError(
            f"IRIS_DATABASE_URL: {url.database} cannot be used as the database ({cause}). Name a "
            "file that this user can write."
        )
    return ConfigError(
        f"IRIS_DATABASE_URL: the database {url.database} on {url.host} cannot be used ({cause}). "
        "See that the server runs, that it can be reached from here, and that the user may create "
        "tables there."
    )
