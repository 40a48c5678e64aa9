"""Brings a database to the schema of this program, from whatever earlier one it has."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from iris.errors import ConfigError

HEAD = "0006"  # the newest of migrations/versions


def version_of(connection: Connection) -> str | None:
    """The version of the schema; None = nothing is there, "0001" = older than versions."""
    tables = inspect(connection)
    if tables.has_table("alembic_version"):
        version: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
        return version
    return "0001" if tables.has_table("keys") else None


def migrate(connection: Connection) -> None:
    """Run what is missing, inside the transaction of the caller, who holds the write lock.

    Raises:
        ConfigError: the database was made by a later version of the program.
    """
    # imported here, because a database that is up to date needs none of it
    from alembic import command
    from alembic.config import Config

    current = version_of(connection)
    if current is not None and current > HEAD:
        raise ConfigError(
            f"IRIS_DATABASE_URL: the database has the schema {current}, and this program knows "
            f"them up to {HEAD}. Run the newer program, or restore a backup of before it."
        )
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    config.attributes["connection"] = connection
    if current == "0001" and not inspect(connection).has_table("alembic_version"):
        command.stamp(config, "0001")
    command.upgrade(config, HEAD)
