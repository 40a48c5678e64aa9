"""The first key: a test key made on the first local start, so that one can begin at once."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from iris.accounts.db import Database
from iris.accounts.keys import count_keys, insert_key
from iris.accounts.limits import Limits
from iris.errors import ConfigError

FIRST_KEY_FILE = "first-key"


def ensure_first_key(
    database: Database, home: Path, limits: Limits | None = None
) -> tuple[Path, str | None]:
    """Make one test key when the database has never held any, and write it to `home`/first-key.

    Its account, made with it, has money on the test ledger, so one can begin at once.

    Returns the path and the secret, or None for the secret when there were keys already. Of several
    processes that start at once exactly one makes the key: the write lock of the database is
    held from the count to the file. The file (mode 0600) appears whole or not at all; one left by a
    database that was deleted since is replaced.

    Raises:
        ConfigError: the file cannot be written; then no key was made either.
    """
    path = home / FIRST_KEY_FILE
    with database.write() as session:
        if count_keys(session):
            return path, None
        _, secret = insert_key(session, FIRST_KEY_FILE, is_test=True, limits=limits)
        try:
            _write_private(path, secret + "\n")
        except OSError as error:
            raise ConfigError(
                f"The first key cannot be written to {path} ({error.strerror}). Set IRIS_HOME to a "
                "folder that this user can write, or make a key with `iris keys create`."
            ) from error
    return path, secret


def _write_private(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    incoming = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    handle = os.open(incoming, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        incoming.replace(path)
    except BaseException:
        incoming.unlink(missing_ok=True)
        raise
