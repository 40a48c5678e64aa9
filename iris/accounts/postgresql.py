"""PostgreSQL: one database for all services, however many there are.

Transactions mean the same as on SQLite: a write takes the one write lock at its start, a read sees
one state of the database from its first statement on. Whatever waits for a lock, for a connection
or for a host that is gone waits so long at most.
"""

from __future__ import annotations

from sqlalchemy import URL, Connection, Engine, create_engine, event

LOCK_TIMEOUT_S = 10.0  # how long one writer waits for another, as on SQLite
# A process that is stopped inside a write loses it, before others have waited too long for it.
IDLE_TIMEOUT_S = 5.0
STATEMENT_TIMEOUT_S = 20.0  # of a write; a read of a long journal may take what it takes
CONNECT_TIMEOUT_S = 10
POOL_TIMEOUT_S = 10.0
_WRITE_LOCK = 0x49524953  # any number, as long as all services use the same

# For a host that does not answer at all; one that is written in the URL counts instead.
_CONNECTION = {
    "connect_timeout": str(CONNECT_TIMEOUT_S),
    "keepalives_idle": "5",
    "keepalives_interval": "5",
    "keepalives_count": "2",
    "tcp_user_timeout": "10000",  # ms
}


def open_server(url: URL) -> Engine:
    """An engine on the database of the URL; nothing is connected to yet."""
    engine = create_engine(
        url.set(drivername="postgresql+psycopg", query={**_CONNECTION, **url.query}),
        pool_pre_ping=True,  # the server may have been restarted since
        pool_timeout=POOL_TIMEOUT_S,
        connect_args={
            "application_name": "epithre-iris",
            "client_encoding": "utf8",  # a database of the encoding SQL_ASCII gives bytes otherwise
        },
    )
    # In every transaction, not once for a connection: a pooler in between may change those. Sent
    # together with what a transaction begins with anyway, they cost no time.
    waiting = _set_local("lock_timeout", LOCK_TIMEOUT_S)
    lock = f"SELECT pg_advisory_xact_lock({_WRITE_LOCK})"
    write = (
        f"{waiting}; {_set_local('statement_timeout', STATEMENT_TIMEOUT_S)};"
        f" {_set_local('idle_in_transaction_session_timeout', IDLE_TIMEOUT_S)}; {lock}"
    )
    read = f"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY; {waiting}"

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        options = connection.get_execution_options()
        if not options.get("iris_write", False):
            connection.exec_driver_sql(read)
        else:
            connection.exec_driver_sql(lock if options.get("iris_migration", False) else write)

    return engine


def _set_local(name: str, seconds: float) -> str:
    return f"SET LOCAL {name} = {round(seconds * 1000)}"
