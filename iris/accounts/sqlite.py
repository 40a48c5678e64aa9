"""SQLite: one file on this host, for one service.

WAL lets readers go on beside the one writer; `synchronous=FULL` makes a commit survive a power cut;
a write takes the write lock at its start (BEGIN IMMEDIATE), because a transaction that reads first
and writes later can only fail, not wait, when another writer was faster.
"""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import ConnectionPoolEntry

BUSY_TIMEOUT_S = 10.0  # how long one writer waits for another


def open_file(url: URL) -> Engine:
    """An engine on the file of the URL; file and folder are made where they are missing."""
    _make_private_file(Path(str(url.database)))
    engine = _engine(url)
    _use_wal(engine)
    return engine


def _make_private_file(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # SQLite gives its -wal and -shm files the mode of this one
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))


def _engine(url: URL) -> Engine:
    engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_S})

    @event.listens_for(engine, "connect")
    def _configure(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
        connection.isolation_level = None  # BEGIN is ours, below
        for pragma in ("PRAGMA synchronous=FULL", "PRAGMA foreign_keys=ON"):
            try:
                connection.cursor().execute(pragma)
            except sqlite3.Error as error:  # not wrapped by SQLAlchemy at this point
                raise DatabaseError(pragma, None, error) from error

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        write = connection.get_execution_options().get("iris_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


def _use_wal(engine: Engine) -> None:
    # The mode is kept in the file. Changing it does not wait for other connections as a write
    # does, so processes that start together have to ask again.
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    raw = engine.raw_connection()
    try:
        cursor = raw.cursor()
        while True:
            try:
                cursor.execute("PRAGMA journal_mode=WAL")
                break
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise DatabaseError("PRAGMA journal_mode=WAL", None, error) from error
                time.sleep(0.01)
        cursor.close()
    finally:
        raw.close()
