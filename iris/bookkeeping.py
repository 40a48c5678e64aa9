"""The commands about who pays and who may ask: accounts and keys.

Every command imports what it needs when it runs.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from iris.config import Settings
from iris.table import print_objects, print_table, shown_time

if TYPE_CHECKING:
    from iris.accounts.accounts import Account
    from iris.accounts.db import Database
    from iris.accounts.keys import KeyRecord

_LIMIT_HEADS = ("RPM", "RPD", "IN FLIGHT", "CAP")
_LIMITS = (
    ("--rpm", "rpm", "requests in any 60 seconds"),
    ("--rpd", "rpd", "requests in a UTC day"),
    ("--in-flight", "max_in_flight", "requests in the making at once"),
    ("--monthly-cap", "monthly_cap_idr", "rupiah in a UTC month; 0 = no cap"),
)


def add_commands(rooms: Any) -> None:
    """Add them to the parsers of `iris`."""
    _add_accounts(rooms)
    _add_keys(rooms)


def _add_accounts(rooms: Any) -> None:
    actions = rooms.add_parser("accounts", help="who pays").add_subparsers(
        required=True, metavar="ACTION"
    )
    create = add_action(actions, "create", _accounts_create, "make an account")
    create.add_argument("--name", required=True, help="of the customer")
    add_action(actions, "list", _accounts_list, "every account and its balances")
    topup = add_action(actions, "topup", _accounts_topup, "add prepaid money")
    topup.add_argument("account", metavar="ACCOUNT", help="name or id")
    topup.add_argument("amount_idr", metavar="RUPIAH", type=int)
    topup.add_argument("--test", action="store_true", help="on the test ledger")
    topup.add_argument("--reference", help="of the payment: told again, it is not booked again")
    topup.add_argument("--note", help="kept with it in the journal")
    for name, run, about in (
        ("suspend", _accounts_suspend, "close it to new pictures; balance and keys stay"),
        ("resume", _accounts_resume, "open a suspended one again"),
    ):
        add_action(actions, name, run, about).add_argument(
            "account", metavar="ACCOUNT", help="name or id"
        )


def _add_keys(rooms: Any) -> None:
    actions = rooms.add_parser("keys", help="API keys").add_subparsers(
        required=True, metavar="ACTION"
    )
    create = add_action(actions, "create", _keys_create, "make a key and show its secret once")
    create.add_argument("--name", required=True, help="what the key is for")
    create.add_argument("--account", help="name or id of who pays; left out, the oldest account")
    kind = create.add_mutually_exclusive_group()
    kind.add_argument("--test", action="store_true", help="a test key (the default)")
    kind.add_argument("--live", action="store_true", help="a key that pays")
    add_action(actions, "list", _keys_list, "every key, revoked ones too; no secrets")
    limit = add_action(actions, "limit", _keys_limit, "change what a key may do")
    limit.add_argument("id", metavar="ID", help="as `iris keys list` shows it: key_...")
    revoke = add_action(actions, "revoke", _keys_revoke, "revoke a key for good")
    revoke.add_argument("id", metavar="ID", help="as `iris keys list` shows it: key_...")
    for parser in (create, limit):
        for option, name, about in _LIMITS:
            parser.add_argument(option, dest=name, type=int, metavar="N", help=about)


def add_action(actions: Any, name: str, run: Any, about: str) -> Any:
    """A parser of one action, with `--json`."""
    parser = actions.add_parser(name, help=about)
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(run=run)
    return parser


def _accounts_create(arguments: argparse.Namespace) -> None:
    from iris.accounts.accounts import create_account

    with open_database() as database:
        print_accounts(arguments, [create_account(database, arguments.name)])


def _accounts_list(arguments: argparse.Namespace) -> None:
    from iris.accounts.accounts import list_accounts

    with open_database() as database:
        print_accounts(arguments, list_accounts(database))


def _accounts_topup(arguments: argparse.Namespace) -> None:
    from iris.accounts.accounts import top_up

    with open_database() as database:
        account = top_up(
            database,
            arguments.account,
            arguments.amount_idr,
            is_test=arguments.test,
            reference=arguments.reference,
            note=arguments.note,
        )
    print_accounts(arguments, [account])


def _accounts_suspend(arguments: argparse.Namespace) -> None:
    _set_suspended(arguments, True)


def _accounts_resume(arguments: argparse.Namespace) -> None:
    _set_suspended(arguments, False)


def _set_suspended(arguments: argparse.Namespace, suspended: bool) -> None:
    from iris.accounts.accounts import set_suspended

    with open_database() as database:
        print_accounts(arguments, [set_suspended(database, arguments.account, suspended)])


def print_accounts(arguments: argparse.Namespace, accounts: Any) -> None:
    """As a table or as objects, as the arguments say."""
    found: list[Account] = list(accounts)
    if arguments.json:
        print_objects(dataclasses.asdict(account) for account in found)
        return
    print_table(
        ("ID", "NAME", "STATE", "BALANCE", "HELD", "TEST BALANCE", "CREATED"),
        [
            (
                account.id,
                account.name,
                account.state,
                f"{account.live.available_idr:,}",
                f"{account.live.held_idr:,}",
                f"{account.test.available_idr:,}",
                shown_time(account.created_at),
            )
            for account in found
        ],
    )


def _keys_create(arguments: argparse.Namespace) -> None:
    from iris.accounts.keys import create_key
    from iris.accounts.limits import Limits

    limits = Limits.of_new_keys(Settings.from_env()).changed(**_limits(arguments))
    with open_database() as database:
        key, secret = create_key(
            database,
            arguments.name,
            is_test=not arguments.live,
            account=arguments.account,
            limits=limits,
        )
    if arguments.json:
        print_objects([{**dataclasses.asdict(key), "secret": secret}])
        return
    print(f"{'test' if key.is_test else 'live'} key {key.id} ({key.name})")
    print(secret)
    print("Keep it now: it is stored nowhere and cannot be shown again.", file=sys.stderr)


def _keys_list(arguments: argparse.Namespace) -> None:
    from iris.accounts.keys import list_keys

    with open_database() as database:
        _print_keys(arguments, list_keys(database))


def _keys_limit(arguments: argparse.Namespace) -> None:
    from iris.accounts.keys import limit_key

    with open_database() as database:
        _print_keys(arguments, [limit_key(database, arguments.id, **_limits(arguments))])


def _keys_revoke(arguments: argparse.Namespace) -> None:
    from iris.accounts.keys import revoke_key

    with open_database() as database:
        record = revoke_key(database, arguments.id)
    if arguments.json:
        _print_keys(arguments, [record])
        return
    print(f"{record.key.id} ({record.key.name}) is revoked since {shown_time(record.revoked_at)}")


def _limits(arguments: argparse.Namespace) -> dict[str, int | None]:
    return {name: getattr(arguments, name) for _, name, _ in _LIMITS}


def _print_keys(arguments: argparse.Namespace, records: Any) -> None:
    found: list[KeyRecord] = list(records)
    if arguments.json:
        fields = [dataclasses.asdict(record) for record in found]
        print_objects({**field.pop("key"), **field} for field in fields)
        return
    print_table(
        ("ID", "NAME", "KIND", "KEY", "ACCOUNT", *_LIMIT_HEADS, "CREATED", "REVOKED"),
        [
            (
                record.key.id,
                record.key.name,
                "test" if record.key.is_test else "live",
                f"{record.prefix}...{record.last4}",
                record.key.account_id,
                str(record.limits.rpm),
                str(record.limits.rpd),
                str(record.limits.max_in_flight),
                f"{record.limits.monthly_cap_idr:,}" if record.limits.monthly_cap_idr else "-",
                shown_time(record.created_at),
                shown_time(record.revoked_at),
            )
            for record in found
        ],
    )


@contextmanager
def open_database() -> Iterator[Database]:
    """The database of the settings."""
    from iris.accounts.db import Database

    database = Database(Settings.from_env().database_url)
    try:
        yield database
    finally:
        database.close()
