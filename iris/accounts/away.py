"""What is raised where the database is away, full, locked or only read: no mistake of ours."""

from __future__ import annotations

from sqlalchemy.exc import InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnection

AWAY = (InterfaceError, InternalError, NoConnection, OperationalError)
