"""The commands about what became of the money: the ledger and usage.

Every command imports what it needs when it runs.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from typing import Any

from iris.bookkeeping import add_action, open_database, print_accounts
from iris.table import print_objects, print_table

BROKEN = 1  # exit status of a ledger that does not verify
MAX_LAST = 100_000  # rows that are shown at once; they are in memory together


def add_commands(rooms: Any) -> None:
    """Add them to the parsers of `iris`."""
    _add_ledger(rooms)
    _add_usage(rooms)


def _add_ledger(rooms: Any) -> None:
    actions = rooms.add_parser("ledger", help="where every rupiah went").add_subparsers(
        required=True, metavar="ACTION"
    )
    show = add_action(actions, "show", _ledger_show, "the last rows of the journal")
    show.add_argument("account", metavar="ACCOUNT", nargs="?", help="name or id; left out, of all")
    show.add_argument("--last", type=_last, default=20, metavar="N", help="how many (20)")
    add_action(
        actions, "verify", _ledger_verify, "prove the invariants; exit status 1 and the rows if not"
    )
    export = add_action(actions, "export", _ledger_export, "the whole journal as csv")
    export.add_argument("account", metavar="ACCOUNT", nargs="?", help="name or id; left out, all")
    refund = add_action(actions, "refund", _ledger_refund, "give the price of a picture back")
    refund.add_argument("hold_id", metavar="PICTURE", help="as the journal names it: hold_...")
    refund.add_argument("--note", help="kept with it in the journal")


def _add_usage(rooms: Any) -> None:
    usage = rooms.add_parser("usage", help="what an account used")
    usage.add_argument("account", metavar="ACCOUNT", help="name or id")
    usage.add_argument("--from", dest="first", metavar="DAY", help="YYYY-MM-DD, UTC")
    usage.add_argument("--to", dest="last", metavar="DAY", help="YYYY-MM-DD, UTC; included")
    usage.add_argument("--group-by", choices=("day", "key", "style"), default="day")
    usage.add_argument("--test", action="store_true", help="of the test ledger")
    how = usage.add_mutually_exclusive_group()
    how.add_argument("--csv", action="store_true", help="a line for every picture")
    how.add_argument("--json", action="store_true", help="for programs")
    usage.set_defaults(run=_usage)


def _last(text: str) -> int:
    if not (text.isdecimal() and len(text) < 9 and 1 <= int(text) <= MAX_LAST):
        raise argparse.ArgumentTypeError(f"must be an integer from 1 to {MAX_LAST:,}")
    return int(text)


def _ledger_show(arguments: argparse.Namespace) -> None:
    from iris.accounts.export import last_rows

    with open_database() as database:
        rows = last_rows(database, arguments.account, arguments.last)
    if arguments.json:
        print_objects(rows)
        return
    print_table(
        ("ROW", "TIME", "LEDGER", "KIND", "RUPIAH", "ACCOUNT", "KEY", "PICTURE"),
        [
            (
                str(row["id"]),
                str(row["time"]),
                "test" if row["is_test"] else "live",
                str(row["kind"]),
                f"{row['amount_idr']:,}",
                str(row["account_id"]),
                str(row["key_id"] or "-"),
                str(row["hold_id"] or "-"),
            )
            for row in rows
        ],
    )


def _ledger_verify(arguments: argparse.Namespace) -> int:
    from iris.accounts.verify import verify

    with open_database() as database:
        verdict = verify(database)
    if arguments.json:
        print_objects([{**dataclasses.asdict(verdict), "ok": not verdict.breaches}])
    else:
        for breach in verdict.breaches:
            print(f"BROKEN: {breach.invariant}: {breach.row}")
        print(
            f"{verdict.rows:,} rows, {verdict.open_holds:,} open holds; taken:"
            f" Rp{verdict.captured_live_idr:,} live, Rp{verdict.captured_test_idr:,} test. "
            + (f"{len(verdict.breaches)} rows are wrong." if verdict.breaches else "It verifies.")
        )
    return BROKEN if verdict.breaches else 0


def _ledger_export(arguments: argparse.Namespace) -> None:
    from iris.accounts.accounts import show_account
    from iris.accounts.export import journal_csv, journal_rows

    with open_database() as database:
        if arguments.account is not None:
            show_account(database, arguments.account)  # or it is told before the first line
        if arguments.json:
            print_objects(journal_rows(database, arguments.account))
            return
        for line in journal_csv(database, arguments.account):
            sys.stdout.write(line)


def _ledger_refund(arguments: argparse.Namespace) -> None:
    from iris.accounts.refund import refund

    with open_database() as database:
        print_accounts(arguments, [refund(database, arguments.hold_id, arguments.note)])


def _usage(arguments: argparse.Namespace) -> None:
    from iris.accounts.accounts import show_account
    from iris.accounts.export import usage_csv
    from iris.accounts.usage import Period, sum_usage

    period = Period.parse(arguments.first, arguments.last)
    with open_database() as database:
        account = show_account(database, arguments.account)
        if arguments.csv:
            for line in usage_csv(database, account.id, is_test=arguments.test, period=period):
                sys.stdout.write(line)
            return
        sums = sum_usage(
            database,
            account.id,
            is_test=arguments.test,
            period=period,
            group_by=arguments.group_by,
        )
    if arguments.json:
        print_objects(dataclasses.asdict(one) for one in sums)
        return
    print_table(
        (arguments.group_by.upper(), "PICTURES", "RUPIAH", "INPUT TOKENS", "OUTPUT TOKENS"),
        [
            (
                one.group,
                f"{one.pictures:,}",
                f"{one.cost_idr:,}",
                f"{one.input_tokens:,}",
                f"{one.output_tokens:,}",
            )
            for one in sums
        ],
    )
