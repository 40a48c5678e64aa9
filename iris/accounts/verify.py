"""Proves the invariants of the ledger from its journal, and names the rows that break them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from sqlalchemy import RowMapping, text
from sqlalchemy.orm import Session

from iris.accounts.clock import DAY_MS, month_of
from iris.accounts.db import Database, table_of
from iris.accounts.journal import MOVES, JournalRow

MAX_SHOWN = 20  # rows of each invariant that are named
UNTOLD_MS = 0  # no service writes this time: a row that has it was put in without one


@dataclass(frozen=True, slots=True)
class Breach:
    """A row that must not be."""

    invariant: str
    row: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What was looked at, and what was wrong with it."""

    rows: int
    open_holds: int
    captured_live_idr: int
    captured_test_idr: int
    breaches: tuple[Breach, ...]


_BOOKS = " OR ".join(
    f"(kind = '{kind}' AND debit = '{debit}' AND credit = '{credit}')"
    for kind, (debit, credit) in MOVES.items()
)
_DERIVED = (
    "SELECT account_id, is_test,"
    " SUM(CASE WHEN credit = 'available' THEN amount_idr ELSE 0 END)"
    " - SUM(CASE WHEN debit = 'available' THEN amount_idr ELSE 0 END) AS available_idr,"
    " SUM(CASE WHEN credit = 'held' THEN amount_idr ELSE 0 END)"
    " - SUM(CASE WHEN debit = 'held' THEN amount_idr ELSE 0 END) AS held_idr"
    " FROM journal GROUP BY account_id, is_test"
)

# the holds of a key that count for its day or month: those after a number that were not given back
_COUNTED = (
    " LEFT JOIN journal h ON h.kind = 'hold' AND h.key_id = c.key_id AND h.key_seq > c.{after}"
    " AND NOT EXISTS (SELECT 1 FROM journal v WHERE v.hold_id = h.hold_id"
    " AND v.kind IN ('capture', 'void') AND v.kind = 'void')"  # the first names the index
)
_COUNTED_OF_DAY = _COUNTED.format(after="day_after")
_COUNTED_OF_MONTH = _COUNTED.format(after="month_after")
# the resolution of a row's hold that took its price
_CAPTURE = "c.hold_id = {row}.hold_id AND c.kind IN ('capture', 'void') AND c.kind = 'capture'"

# What must be true -> a query for the rows for which it is not. No text of anybody's is in them.
INVARIANTS: dict[str, str] = {
    "every row moves a positive amount between the books of its kind": (
        f"SELECT id AS journal, kind, debit, credit, amount_idr FROM journal"
        f" WHERE amount_idr <= 0 OR NOT ({_BOOKS})"
    ),
    "every capture and every void resolves an earlier hold, whole": (
        "SELECT j.id AS journal, j.kind, j.hold_id FROM journal j LEFT JOIN journal h"
        " ON h.kind = 'hold' AND h.hold_id = j.hold_id AND h.id < j.id"
        " AND h.account_id = j.account_id AND h.is_test = j.is_test"
        " AND h.key_id = j.key_id AND h.amount_idr = j.amount_idr"
        " WHERE j.kind IN ('capture', 'void') AND h.id IS NULL"
    ),
    "every hold is resolved once at most": (
        "SELECT MAX(id) AS journal, hold_id, COUNT(*) AS resolutions FROM journal"
        " WHERE kind IN ('capture', 'void') GROUP BY hold_id HAVING COUNT(*) > 1"
    ),
    "every hold is made once": (
        "SELECT MAX(id) AS journal, hold_id, COUNT(*) AS holds FROM journal"
        " WHERE kind = 'hold' GROUP BY hold_id HAVING COUNT(*) > 1"
    ),
    "every hold is of the account and the ledger of its key": (
        "SELECT h.id AS journal, h.key_id, h.account_id, h.is_test,"
        " k.account_id AS key_account_id, k.is_test AS key_is_test"
        " FROM journal h LEFT JOIN keys k ON k.id = h.key_id"
        " WHERE h.kind = 'hold' AND (k.id IS NULL OR k.account_id <> h.account_id"
        " OR k.is_test <> h.is_test)"
    ),
    "every hold without a resolution is open": (
        "SELECT h.id AS journal, h.hold_id FROM journal h"
        " LEFT JOIN journal r ON r.hold_id = h.hold_id AND r.kind IN ('capture', 'void')"
        " LEFT JOIN holds o ON o.id = h.hold_id"
        " WHERE h.kind = 'hold' AND r.id IS NULL AND o.id IS NULL"
    ),
    "every open hold is in the journal, as it is, without a resolution": (
        "SELECT o.id AS hold FROM holds o"
        " LEFT JOIN journal h ON h.kind = 'hold' AND h.hold_id = o.id"
        " AND h.account_id = o.account_id AND h.is_test = o.is_test AND h.key_id = o.key_id"
        " AND h.key_seq = o.key_seq"
        " AND h.amount_idr = o.amount_idr"
        " LEFT JOIN journal r ON r.hold_id = o.id AND r.kind IN ('capture', 'void')"
        " WHERE h.id IS NULL OR r.id IS NOT NULL"
    ),
    "every open hold was opened when the journal says": (
        "SELECT o.id AS hold, o.opened_at_ms, h.at_ms AS journal_ms FROM holds o"
        " JOIN journal h ON h.kind = 'hold' AND h.hold_id = o.id"
        f" WHERE o.opened_at_ms NOT IN ({UNTOLD_MS}, h.at_ms)"
    ),
    "every refund gives back a captured picture, once, and no more than its price": (
        "SELECT MAX(r.id) AS journal, r.hold_id FROM journal r LEFT JOIN journal c"
        " ON c.kind = 'capture' AND c.hold_id = r.hold_id AND c.id < r.id"
        " AND c.account_id = r.account_id AND c.is_test = r.is_test"
        " AND c.amount_idr >= r.amount_idr"
        " WHERE r.kind = 'refund' GROUP BY r.hold_id HAVING COUNT(c.id) <> 1"
    ),
    "every refund is of the key that paid": (
        "SELECT r.id AS journal, r.hold_id, r.key_id, c.key_id AS capture_key_id FROM journal r"
        f" JOIN journal c ON {_CAPTURE.format(row='r')}"
        " WHERE r.kind = 'refund' AND (r.key_id IS NULL OR r.key_id <> c.key_id)"
    ),
    "no balance was ever negative": (
        "SELECT id AS journal, account_id, is_test, available_idr, held_idr FROM (SELECT id,"
        " account_id, is_test,"
        " SUM(CASE WHEN credit = 'available' THEN amount_idr WHEN debit = 'available'"
        " THEN -amount_idr ELSE 0 END) OVER w AS available_idr,"
        " SUM(CASE WHEN credit = 'held' THEN amount_idr WHEN debit = 'held' THEN -amount_idr"
        " ELSE 0 END) OVER w AS held_idr"
        " FROM journal WINDOW w AS (PARTITION BY account_id, is_test ORDER BY id)) AS running"
        " WHERE available_idr < 0 OR held_idr < 0"
    ),
    "every balance is the sum of its journal": (
        "SELECT b.account_id, b.is_test, b.available_idr, b.held_idr,"
        " d.available_idr AS journal_available_idr, d.held_idr AS journal_held_idr"
        f" FROM balances b LEFT JOIN ({_DERIVED}) AS d"
        " ON d.account_id = b.account_id AND d.is_test = b.is_test"
        " WHERE b.available_idr <> COALESCE(d.available_idr, 0)"
        " OR b.held_idr <> COALESCE(d.held_idr, 0)"
    ),
    "every account has a balance on each ledger": (
        "SELECT a.id AS account, COUNT(b.account_id) AS balances FROM accounts a"
        " LEFT JOIN balances b ON b.account_id = a.id GROUP BY a.id HAVING COUNT(b.account_id) <> 2"
    ),
    "every key has counters": (
        "SELECT k.id AS key_id FROM keys k LEFT JOIN counters c ON c.key_id = k.id"
        " WHERE c.key_id IS NULL"
    ),
    "every key counts the holds that it has open": (
        "SELECT c.key_id, c.in_flight, COUNT(o.id) AS open_holds FROM counters c"
        " LEFT JOIN holds o ON o.key_id = c.key_id GROUP BY c.key_id, c.in_flight"
        " HAVING c.in_flight <> COUNT(o.id)"
    ),
    "every key's holds are numbered without a gap": (
        "SELECT c.key_id, c.admitted, COUNT(j.id) AS holds,"
        " COUNT(DISTINCT j.key_seq) AS numbers, MIN(j.key_seq) AS first, MAX(j.key_seq) AS last"
        " FROM counters c LEFT JOIN journal j ON j.key_id = c.key_id AND j.kind = 'hold'"
        " GROUP BY c.key_id, c.admitted"
        " HAVING c.admitted <> COUNT(j.id) OR c.admitted <> COUNT(DISTINCT j.key_seq)"
        " OR c.admitted <> COALESCE(MAX(j.key_seq), 0) OR COALESCE(MIN(j.key_seq), 1) <> 1"
    ),
    "every key counts the pictures of its day": (
        "SELECT c.key_id, c.day, c.day_after, c.day_count, COUNT(h.id) AS journal_count"
        f" FROM counters c{_COUNTED_OF_DAY}"
        " GROUP BY c.key_id, c.day, c.day_after, c.day_count HAVING c.day_count <> COUNT(h.id)"
    ),
    "every key counts the money of its month": (
        "SELECT c.key_id, c.month, c.month_after, c.month_idr,"
        " COALESCE(SUM(h.amount_idr), 0) AS journal_idr"
        f" FROM counters c{_COUNTED_OF_MONTH}"
        " GROUP BY c.key_id, c.month, c.month_after, c.month_idr"
        " HAVING c.month_idr <> COALESCE(SUM(h.amount_idr), 0)"
    ),
    # A day that has begun stays for whoever is a little behind, so a hold may be of the day before.
    "every hold that counts for a day was made on it or the day before": (
        "SELECT c.key_id, c.day, h.id AS journal, h.at_ms FROM counters c JOIN journal h"
        " ON h.kind = 'hold' AND h.key_id = c.key_id AND h.key_seq > c.day_after"
        f" WHERE h.at_ms / {DAY_MS} NOT IN (c.day - 1, c.day)"
    ),
    "every key's month holds its day": (
        "SELECT key_id, month_after, day_after, admitted FROM counters"
        " WHERE NOT (0 <= month_after AND month_after <= day_after AND day_after <= admitted)"
    ),
    "every key knows when its last hold was made": (
        "SELECT c.key_id, c.admitted, c.last_admitted_ms, h.at_ms AS journal_ms FROM counters c"
        " LEFT JOIN journal h"
        " ON h.kind = 'hold' AND h.key_id = c.key_id AND h.key_seq = c.admitted"
        " WHERE c.last_admitted_ms <> COALESCE(h.at_ms, 0)"
    ),
    "every capture has its usage record, as it is": (
        "SELECT j.id AS journal, j.hold_id FROM journal j LEFT JOIN usage u"
        " ON u.hold_id = j.hold_id AND u.account_id = j.account_id AND u.key_id = j.key_id"
        " AND u.is_test = j.is_test AND u.amount_idr = j.amount_idr"
        " WHERE j.kind = 'capture' AND u.hold_id IS NULL"
    ),
    "every usage record has the time of its capture": (
        "SELECT u.hold_id AS usage, u.at_ms, c.at_ms AS journal_ms FROM usage u"
        f" JOIN journal c ON {_CAPTURE.format(row='u')}"
        f" WHERE u.at_ms NOT IN ({UNTOLD_MS}, c.at_ms)"
    ),
    "every usage record was captured": (
        "SELECT u.hold_id AS usage FROM usage u LEFT JOIN journal j"
        " ON j.hold_id = u.hold_id AND j.kind = 'capture' WHERE j.id IS NULL"
    ),
}

# the same for months, which have no length of their own
MONTHS = "every hold that counts for a month was made in it or the month before"
_MONTHS_COUNTED = (
    "SELECT c.key_id, c.month, MIN(h.at_ms) AS first_ms, MAX(h.at_ms) AS last_ms FROM counters c"
    " JOIN journal h ON h.kind = 'hold' AND h.key_id = c.key_id AND h.key_seq > c.month_after"
    " GROUP BY c.key_id, c.month"
)

# What keeps the journal as it was written, by the kind of database: triggers that are in force. A
# copy of the tables alone has none, and nothing else would tell.
GUARDED = "the database refuses to change the journal, and to write twice what can be once"
_TRIGGERS = {
    "sqlite": {"journal_no_update", "journal_no_delete"},
    "postgresql": {"journal_append_only"},
}
_UNIQUE = {str(index.name) for index in table_of(JournalRow).indexes if index.unique}
_IN_FORCE = {
    "sqlite": (
        "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'journal'"
        " UNION SELECT name FROM pragma_index_list('journal') WHERE \"unique\" = 1"
    ),
    "postgresql": (
        "SELECT tgname FROM pg_trigger WHERE tgrelid = to_regclass('journal')"
        " AND tgenabled IN ('O', 'A')"
        " UNION SELECT relname FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid"
        " WHERE indrelid = to_regclass('journal') AND indisunique AND indisvalid"
    ),
}


def verify(database: Database) -> Verdict:
    """Look at everything, in one state of the database; services may go on meanwhile."""
    with database.read() as session:
        captured = {
            bool(is_test): int(amount)
            for is_test, amount in session.execute(
                text(
                    "SELECT is_test, SUM(amount_idr) FROM journal WHERE kind = 'capture'"
                    " GROUP BY is_test"
                )
            )
        }
        return Verdict(
            rows=session.scalar(text("SELECT COUNT(*) FROM journal")) or 0,
            open_holds=session.scalar(text("SELECT COUNT(*) FROM holds")) or 0,
            captured_live_idr=captured.get(False, 0),
            captured_test_idr=captured.get(True, 0),
            breaches=tuple(_breaches(session)),
        )


def _breaches(session: Session) -> Iterator[Breach]:
    kind = session.connection().dialect.name
    in_force = set(session.scalars(text(_IN_FORCE[kind])))
    for name in sorted((_TRIGGERS[kind] | _UNIQUE) - in_force):
        yield Breach(GUARDED, f"missing={name}")
    for invariant, query in INVARIANTS.items():
        for row in session.execute(text(f"{query} LIMIT {MAX_SHOWN}")).mappings():
            yield _breach(invariant, row)
    wrong = (
        row
        for row in session.execute(text(_MONTHS_COUNTED)).mappings()
        if {month_of(row["first_ms"]), month_of(row["last_ms"])} - {row["month"], row["month"] - 1}
    )
    for row in islice(wrong, MAX_SHOWN):
        yield _breach(MONTHS, row)


def _breach(invariant: str, row: RowMapping) -> Breach:
    return Breach(invariant, " ".join(f"{name}={value}" for name, value in row.items()))
