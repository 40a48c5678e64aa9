"""A key's day and month begin after one of its holds, by number, so that they can be counted again.

Until here they began at a time of day, and times can go back.
"""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_DAY_MS = 86_400_000
# what of a key's holds counts: those after a number that were not given back
_COUNTED = (
    " FROM journal h WHERE h.kind = 'hold' AND h.key_id = counters.key_id"
    " AND h.key_seq > counters.{after} AND NOT EXISTS (SELECT 1 FROM journal v"
    " WHERE v.hold_id = h.hold_id"
    " AND v.kind IN ('capture', 'void') AND v.kind = 'void')"  # the first names the index
)


def upgrade() -> None:
    with op.batch_alter_table("counters") as counters:
        for name in ("day_after", "month_after"):
            counters.add_column(
                sa.Column(name, sa.BigInteger(), nullable=False, server_default="0")
            )
    with op.batch_alter_table("holds") as holds:
        holds.add_column(sa.Column("key_seq", sa.BigInteger(), nullable=False, server_default="0"))
        holds.drop_column("day")
        holds.drop_column("month")
    op.execute(
        "UPDATE holds SET key_seq = (SELECT h.key_seq FROM journal h"
        " WHERE h.kind = 'hold' AND h.hold_id = holds.id)"
    )
    _count_again()
    with op.batch_alter_table("counters") as counters:
        for name in ("day_after", "month_after"):
            counters.alter_column(name, server_default=None)
    with op.batch_alter_table("holds") as holds:
        holds.alter_column("key_seq", server_default=None)


def _count_again() -> None:
    connection = op.get_bind()
    for day, month in connection.execute(sa.text("SELECT DISTINCT day, month FROM counters")).all():
        for column, value, after, begins_ms in (
            ("day", day, "day_after", day * _DAY_MS),
            ("month", month, "month_after", _begin_of(month)),
        ):
            connection.execute(
                sa.text(
                    f"UPDATE counters SET {after} = COALESCE((SELECT MIN(h.key_seq) - 1"
                    " FROM journal h WHERE h.kind = 'hold' AND h.key_id = counters.key_id"
                    f" AND h.at_ms >= :begins_ms), admitted) WHERE {column} = :value"
                ),
                {"begins_ms": begins_ms, "value": value},
            )
    counted = _COUNTED.format(after="day_after")
    op.execute(f"UPDATE counters SET day_count = (SELECT COUNT(*){counted})")
    counted = _COUNTED.format(after="month_after")
    op.execute(f"UPDATE counters SET month_idr = (SELECT COALESCE(SUM(h.amount_idr), 0){counted})")


def _begin_of(month: int) -> int:
    """Its first millisecond; a month of a key that was never used is before all time."""
    if month < 1970 * 12:
        return 0
    return int(datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC).timestamp() * 1000)
