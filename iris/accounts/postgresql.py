"""PostgreSQL: one database for all services, however many there are.

Transactions mean the same as on SQLite: a write takes the one write lock at its start, a read sees
one state of the database from its first statement on.
"""

from __future__ import annotations

from sqlalchemy import URL, Connection, Engine, create_engine, event

CONNECT_TIMEOUT_S = 10
_WRITE_LOCK = 0x49524953  # any number, as long as all services use the same


def open_server(url: URL) -> Engine:
    """An engine on the database of the URL; nothing is connected to yet."""
    engine = create_engine(
        url.set(drivername="postgresql+psycopg"),
        pool_pre_ping=True,  # the server may have been restarted since
        connect_args={
            "connect_timeout": CONNECT_TIMEOUT_S,
            "application_name": "epithre-iris",
            "client_encoding": "utf8",  # a database of the encoding SQL_ASCII gives bytes otherwise
        },
    )

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        if connection.get_execution_options().get("iris_write", False):
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITE_LOCK})")
        else:
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")

    return engine
