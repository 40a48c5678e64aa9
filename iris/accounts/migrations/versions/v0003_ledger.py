"""The journal, which can only grow; what is open; what was delivered; who is alive.

An account that was there before gets the money of the test ledger that a new one gets.
"""

from __future__ import annotations

import time

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

TEST_GRANT_IDR = 75_000_000
BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")  # SQLite counts up only integers


def upgrade() -> None:
    op.create_table(
        "journal",
        sa.Column("id", BIG_ID, nullable=False, autoincrement=True),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("is_test", sa.Boolean(), nullable=False),
        sa.Column("account_id", sa.String(20), nullable=False),
        sa.Column("debit", sa.String(9), nullable=False),
        sa.Column("credit", sa.String(9), nullable=False),
        sa.Column("amount_idr", sa.BigInteger(), nullable=False),
        sa.Column("hold_id", sa.String(37), nullable=True),
        sa.Column("key_id", sa.String(20), nullable=True),
        sa.Column("key_seq", sa.BigInteger(), nullable=True),
        sa.Column("reference", sa.String(100), nullable=True),
        sa.Column("note", sa.String(200), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_journal"),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name="fk_journal_account_id_accounts"
        ),
        sa.CheckConstraint("amount_idr > 0", name="ck_journal_amount"),
        sa.CheckConstraint(
            "(kind = 'top_up' AND debit = 'cash' AND credit = 'available' AND hold_id IS NULL)"
            " OR (kind = 'hold' AND debit = 'available' AND credit = 'held'"
            " AND hold_id IS NOT NULL AND key_id IS NOT NULL AND key_seq IS NOT NULL)"
            " OR (kind = 'capture' AND debit = 'held' AND credit = 'revenue'"
            " AND hold_id IS NOT NULL)"
            " OR (kind = 'void' AND debit = 'held' AND credit = 'available'"
            " AND hold_id IS NOT NULL)"
            " OR (kind = 'refund' AND debit = 'revenue' AND credit = 'available'"
            " AND hold_id IS NOT NULL)",
            name="ck_journal_kind",
        ),
        sqlite_autoincrement=True,  # an id is never given twice
    )
    for name, columns, where in (
        ("uq_journal_hold", ["hold_id"], "kind = 'hold'"),
        ("uq_journal_resolution", ["hold_id"], "kind IN ('capture', 'void')"),
        ("uq_journal_refund", ["hold_id"], "kind = 'refund'"),
        ("uq_journal_reference", ["reference"], "reference IS NOT NULL"),
    ):
        _partial_index(name, columns, where, unique=True)
    _partial_index("ix_journal_window", ["key_id", "at_ms", "key_seq"], "kind = 'hold'")
    op.create_index("ix_journal_account", "journal", ["account_id", "is_test", "id"])
    _make_append_only("journal")
    op.create_table(
        "holds",
        sa.Column("id", sa.String(37), nullable=False),
        sa.Column("account_id", sa.String(20), nullable=False),
        sa.Column("key_id", sa.String(20), nullable=False),
        sa.Column("is_test", sa.Boolean(), nullable=False),
        sa.Column("amount_idr", sa.BigInteger(), nullable=False),
        sa.Column("opened_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("day", sa.Integer(), nullable=False),
        sa.Column("month", sa.Integer(), nullable=False),
        sa.Column("lease_id", sa.String(40), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_holds"),
    )
    op.create_index("ix_holds_lease_id", "holds", ["lease_id"])
    op.create_table(
        "leases",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("beats", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_leases"),
    )
    op.create_table(
        "usage",
        sa.Column("hold_id", sa.String(37), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("account_id", sa.String(20), nullable=False),
        sa.Column("key_id", sa.String(20), nullable=False),
        sa.Column("is_test", sa.Boolean(), nullable=False),
        sa.Column("amount_idr", sa.BigInteger(), nullable=False),
        sa.Column("route", sa.String(10), nullable=False),
        sa.Column("style", sa.String(100), nullable=False),
        sa.Column("size", sa.String(9), nullable=False),
        sa.Column("num_steps", sa.Integer(), nullable=False),
        sa.Column("input_text_tokens", sa.Integer(), nullable=False),
        sa.Column("input_image_tokens", sa.Integer(), nullable=False),
        sa.Column("output_image_tokens", sa.Integer(), nullable=False),
        sa.Column("user_tag", sa.String(255), nullable=True),
        sa.PrimaryKeyConstraint("hold_id", name="pk_usage"),
    )
    op.create_index("ix_usage_account", "usage", ["account_id", "is_test", "at_ms"])
    _grant_test_money()


def _partial_index(name: str, columns: list[str], where: str, unique: bool = False) -> None:
    condition = sa.text(where)
    op.create_index(
        name,
        "journal",
        columns,
        unique=unique,
        sqlite_where=condition,
        postgresql_where=condition,
    )


def _make_append_only(table: str) -> None:
    """The database itself refuses to change what was written, whoever asks."""
    if op.get_bind().dialect.name == "sqlite":
        for event in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{event.lower()} BEFORE {event} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, 'the {table} is append-only'); END"
            )
        return
    op.execute(
        f"CREATE FUNCTION {table}_is_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION 'the {table} is append-only'; END $$"
    )
    op.execute(
        f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
        f"FOR EACH STATEMENT EXECUTE FUNCTION {table}_is_append_only()"
    )


def _grant_test_money() -> None:
    connection = op.get_bind()
    for (account_id,) in connection.execute(sa.text("SELECT id FROM accounts")).all():
        connection.execute(
            sa.text(
                "INSERT INTO journal (at_ms, kind, is_test, account_id, debit, credit, amount_idr,"
                " note) VALUES (:at_ms, 'top_up', :yes, :id, 'cash', 'available', :amount,"
                " 'test money of a new account')"
            ),
            {
                "at_ms": int(time.time() * 1000),
                "yes": True,
                "id": account_id,
                "amount": TEST_GRANT_IDR,
            },
        )
        connection.execute(
            sa.text(
                "UPDATE balances SET available_idr = :amount WHERE account_id = :id AND is_test"
            ),
            {"amount": TEST_GRANT_IDR, "id": account_id},
        )
