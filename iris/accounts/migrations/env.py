"""What Alembic runs: the versions in order, in the transaction of the connection it gets."""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
