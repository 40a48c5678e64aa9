"""What a database is, looked at without changing it."""

from __future__ import annotations

import os
from pathlib import Path

from sqlalchemy import create_engine, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from iris.accounts.migrate import HEAD, version_of
from iris.errors import ConfigError

_TIMEOUT_S = 5


def state_of(url: str) -> str:
    """One line about the database, which is neither made nor migrated.

    Raises:
        ConfigError: it cannot be used; names the database, never its password.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ConfigError("IRIS_DATABASE_URL is not a database URL.") from None
    is_file = parsed.get_backend_name() == "sqlite"
    shown = str(parsed.database) if is_file else f"{parsed.database} on {parsed.host}"
    if is_file:
        path = Path(str(parsed.database))
        if not path.exists():
            there = next(folder for folder in path.absolute().parents if folder.exists())
            if not os.access(there, os.W_OK):
                raise ConfigError(f"{shown} is not there, and {there} cannot be written.")
            return f"{shown} is made at the first start"
        parsed = parsed.set(query={"mode": "ro", "uri": "true"}, database=f"file:{path.absolute()}")
    else:
        parsed = parsed.set(drivername="postgresql+psycopg")
        parsed = parsed.update_query_dict({"connect_timeout": str(_TIMEOUT_S)})
    engine = create_engine(parsed)
    try:
        with engine.connect() as connection:
            version = version_of(connection)
    except SQLAlchemyError as error:
        raise ConfigError(f"{shown} cannot be used ({type(error).__name__}).") from error
    finally:
        engine.dispose()
    if version is None:
        return f"{shown} is empty: its tables are made at the first start"
    if version > HEAD:
        raise ConfigError(
            f"{shown} has the schema {version}, and this program knows them up to {HEAD}. Run the "
            "newer program."
        )
    return f"{shown}, " + ("up to date" if version == HEAD else "is brought up to date at a start")
