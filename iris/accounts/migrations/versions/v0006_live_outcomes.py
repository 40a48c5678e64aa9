"""The bodies that are there, and what is in the making, each in an index of its own.

Until here both were found among all replies of a day, and of those most have no body any more.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    _partial_index("ix_outcomes_live", ["created_at_ms", "body_bytes"], "body_bytes > 0")
    op.drop_index("ix_outcomes_lease_id", "outcomes")
    _partial_index("ix_outcomes_lease_id", ["lease_id"], "lease_id IS NOT NULL")


def _partial_index(name: str, columns: list[str], where: str) -> None:
    condition = sa.text(where)
    op.create_index(name, "outcomes", columns, sqlite_where=condition, postgresql_where=condition)
