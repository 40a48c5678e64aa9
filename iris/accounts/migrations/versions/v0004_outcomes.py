"""What an Idempotency-Key stands for: a picture in the making, or the reply that was given."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "outcomes",
        sa.Column("key_id", sa.String(20), nullable=False),
        sa.Column("token_sha256", sa.String(64), nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("lease_id", sa.String(40), nullable=True),
        sa.Column("headers", sa.Text(), nullable=True),
        sa.Column("body_bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key_id", "token_sha256", name="pk_outcomes"),
    )
    op.create_index("ix_outcomes_created_at_ms", "outcomes", ["created_at_ms"])
    op.create_index("ix_outcomes_lease_id", "outcomes", ["lease_id"])
    op.create_table(
        "outcome_bodies",
        sa.Column("key_id", sa.String(20), nullable=False),
        sa.Column("token_sha256", sa.String(64), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("key_id", "token_sha256", name="pk_outcome_bodies"),
    )
