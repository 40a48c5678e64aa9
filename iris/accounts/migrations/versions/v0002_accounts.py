"""Accounts with a balance on each ledger; every key belongs to one and has limits.

Keys that were there before come to one account named `default`, with the limits that are published.
"""

from __future__ import annotations

import secrets
import time

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "accounts",
        sa.Column("id", sa.String(20), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("state", sa.String(9), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_accounts"),
        sa.UniqueConstraint("name", name="uq_accounts_name"),
        sa.CheckConstraint("state IN ('active', 'suspended')", name="ck_accounts_state"),
    )
    op.create_table(
        "balances",
        sa.Column("account_id", sa.String(20), nullable=False),
        sa.Column("is_test", sa.Boolean(), nullable=False),
        sa.Column("available_idr", sa.BigInteger(), nullable=False),
        sa.Column("held_idr", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account_id", "is_test", name="pk_balances"),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name="fk_balances_account_id_accounts"
        ),
        sa.CheckConstraint("available_idr >= 0", name="ck_balances_available"),
        sa.CheckConstraint("held_idr >= 0", name="ck_balances_held"),
    )
    _give_keys_an_account()
    op.create_table(
        "counters",
        sa.Column("key_id", sa.String(20), nullable=False),
        sa.Column("day", sa.Integer(), nullable=False),
        sa.Column("day_count", sa.Integer(), nullable=False),
        sa.Column("month", sa.Integer(), nullable=False),
        sa.Column("month_idr", sa.BigInteger(), nullable=False),
        sa.Column("in_flight", sa.Integer(), nullable=False),
        sa.Column("admitted", sa.BigInteger(), nullable=False),
        sa.Column("last_admitted_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key_id", name="pk_counters"),
        sa.ForeignKeyConstraint(["key_id"], ["keys.id"], name="fk_counters_key_id_keys"),
    )
    op.execute("INSERT INTO counters SELECT id, 0, 0, 0, 0, 0, 0, 0 FROM keys")


def _give_keys_an_account() -> None:
    connection = op.get_bind()
    default = f"acc_{secrets.token_hex(8)}"
    if connection.scalar(sa.text("SELECT count(*) FROM keys")):
        connection.execute(
            sa.text("INSERT INTO accounts VALUES (:id, 'default', 'active', :now)"),
            {"id": default, "now": int(time.time())},
        )
        for is_test in (False, True):
            connection.execute(
                sa.text("INSERT INTO balances VALUES (:id, :is_test, 0, 0)"),
                {"id": default, "is_test": is_test},
            )
    columns = (
        sa.Column("account_id", sa.String(20), nullable=False, server_default=default),
        sa.Column("rpm", sa.Integer(), nullable=False, server_default="60"),
        sa.Column("rpd", sa.Integer(), nullable=False, server_default="10000"),
        sa.Column("max_in_flight", sa.Integer(), nullable=False, server_default="10"),
        sa.Column("monthly_cap_idr", sa.BigInteger(), nullable=False, server_default="1000000"),
    )
    with op.batch_alter_table("keys") as keys:
        for column in columns:
            keys.add_column(column)
    with op.batch_alter_table("keys") as keys:
        for column in columns:  # from now on every key says what it has
            keys.alter_column(column.name, server_default=None)
        keys.create_foreign_key("fk_keys_account_id_accounts", "accounts", ["account_id"], ["id"])
