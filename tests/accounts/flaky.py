"""A database that fails in the ways in which one does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from iris.accounts.db import Database


class Flaky(Database):
    """In good order until a test says otherwise."""

    is_away = False  # no write can begin
    is_full = False  # none can be kept
    is_mute = False  # they are kept, and nobody is told

    @contextmanager
    def write(self) -> Iterator[Session]:
        if self.is_away:
            raise OperationalError("BEGIN", {}, Exception("away"))
        with super().write() as session:
            yield session
            if self.is_full:
                raise OperationalError("COMMIT", {}, Exception("full"))
        if self.is_mute:
            raise OperationalError("COMMIT", {}, Exception("lost"))
