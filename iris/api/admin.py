"""/admin/v1: what the `iris` command does to accounts, keys and the ledger, over HTTP.

Off without IRIS_ADMIN_TOKEN. It listens on an address of its own; on the public port only where
IRIS_ADMIN_BIND says `public`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import hmac
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from iris.accounts.accounts import (
    create_account,
    list_accounts,
    set_suspended,
    show_account,
    top_up,
)
from iris.accounts.away import AWAY
from iris.accounts.db import Database
from iris.accounts.export import journal_csv, last_rows, usage_csv
from iris.accounts.keys import KeyRecord, create_key, limit_key, list_keys, revoke_key
from iris.accounts.limits import Limits
from iris.accounts.refund import refund
from iris.accounts.usage import Period, parse_group_by, sum_usage
from iris.accounts.verify import verify
from iris.api.body import read_body
from iris.api.export import csv_response
from iris.api.idempotency import HEADER
from iris.api.json_body import short_name
from iris.api.query import read_query
from iris.api.resource import Handler, route
from iris.config import Settings
from iris.errors import BackendUnavailable, InvalidRequest, Unauthenticated

REFUSAL = "Missing or invalid admin token. Send it as `Authorization: Bearer <token>`."
PREFIX = "/admin/v1"
MAX_ROWS = 1_000

T = TypeVar("T")
DatabaseSource = Callable[[], Database | None]


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True)


class NewAccount(_Body):
    name: str = Field(description="The name of the customer.")


class TopUp(_Body):
    amount_idr: int = Field(description="Rupiah, an integer from 1.")
    test: bool = Field(default=False, description="Whether it is test money.")
    reference: str | None = Field(default=None, description="Of the payment; never booked twice.")
    note: str | None = Field(default=None, description="Kept with it in the journal.")


class LimitChanges(_Body):
    rpm: int | None = Field(default=None, description="Requests in any 60 seconds.")
    rpd: int | None = Field(default=None, description="Requests in a UTC day.")
    max_in_flight: int | None = Field(default=None, description="Requests at once.")
    monthly_cap_idr: int | None = Field(default=None, description="Rupiah in a UTC month.")


class NewKey(LimitChanges):
    name: str = Field(description="What the key is for.")
    account: str | None = Field(default=None, description="Name or id; left out, the oldest one.")
    live: bool = Field(default=False, description="Whether it pays with live money.")


class Refund(_Body):
    hold_id: str = Field(description="The picture, as the journal names it: hold_...")
    note: str | None = Field(default=None, description="Kept with it in the journal.")


Fields = TypeVar("Fields", bound=_Body)


class Admin:
    """The operations, each behind the one admin token."""

    def __init__(self, settings: Settings, database_source: DatabaseSource) -> None:
        self._settings = settings
        self._token_sha256 = hashlib.sha256(settings.admin_token.encode()).digest()
        self._database_source = database_source

    def routes(self) -> list[BaseRoute]:
        """What is served; nothing where no token is set."""
        if not self._settings.admin_token:
            return []
        accounts, keys, ledger = (f"{PREFIX}/{room}" for room in ("accounts", "keys", "ledger"))
        account = f"{accounts}/{{account}}"
        return [
            route(accounts, GET=self._of(_accounts), POST=self._of(_new_account)),
            route(account, GET=self._of(_account)),
            route(f"{account}/topup", POST=self._of(_topup)),
            route(f"{account}/suspend", POST=self._of(_suspend)),
            route(f"{account}/resume", POST=self._of(_resume)),
            route(f"{account}/usage", GET=self._of(_usage)),
            route(keys, GET=self._of(_keys), POST=self._of(self._new_key)),
            route(f"{keys}/{{id}}/limits", POST=self._of(_limit)),
            route(f"{keys}/{{id}}/revoke", POST=self._of(_revoke)),
            route(ledger, GET=self._of(_journal)),
            route(f"{ledger}/verify", GET=self._of(_verify)),
            route(f"{ledger}/export", GET=self._of(_export)),
            route(f"{ledger}/refund", POST=self._of(_refund)),
        ]

    def _of(self, operation: Callable[[Request, Database], Any]) -> Handler:
        async def handle(request: Request) -> Response:
            self._check(request)
            _check_request(request)
            database = self._database_source()
            if database is None:
                raise BackendUnavailable("The service is not ready yet. Try again in a while.")
            try:
                answer = await operation(request, database)
            except AWAY as error:
                raise BackendUnavailable(
                    "The database cannot be used at present. Try again; a top-up that has a "
                    "`reference` is booked once."
                ) from error
            return answer if isinstance(answer, Response) else JSONResponse(answer)

        return handle

    def _check(self, request: Request) -> None:
        given = request.headers.getlist("authorization")
        scheme, _, token = (given[0] if len(given) == 1 else "").partition(" ")
        sha256 = hashlib.sha256(token.strip().encode()).digest()
        # hashes are compared, so that the time says nothing of the token, nor of its length
        if not hmac.compare_digest(sha256, self._token_sha256) or scheme.lower() != "bearer":
            raise Unauthenticated(REFUSAL)

    async def _new_key(self, request: Request, database: Database) -> Any:
        body = await _read(request, NewKey)
        limits = Limits.of_new_keys(self._settings).changed(**_changes(body))
        key, secret = await asyncio.to_thread(
            create_key,
            database,
            body.name,
            is_test=not body.live,
            account=body.account,
            limits=limits,
        )
        return {**dataclasses.asdict(key), "secret": secret}


def _check_request(request: Request) -> None:
    """Raises InvalidRequest: what no name and no id holds, or a header that would do nothing."""
    for name, value in request.path_params.items():
        if not value.isprintable():  # not every database takes a NUL
            raise InvalidRequest("The path must be printable characters.", param=name)
    if request.method == "POST" and HEADER in request.headers:
        raise InvalidRequest(
            f"`{HEADER}` does nothing here; leave it out. A top-up is booked once by its "
            "`reference`, a refund by its picture.",
            param=HEADER,
        )


async def _accounts(request: Request, database: Database) -> Any:
    return _list(await asyncio.to_thread(list_accounts, database))


async def _new_account(request: Request, database: Database) -> Any:
    body = await _read(request, NewAccount)
    return dataclasses.asdict(await asyncio.to_thread(create_account, database, body.name))


async def _account(request: Request, database: Database) -> Any:
    name = request.path_params["account"]
    return dataclasses.asdict(await asyncio.to_thread(show_account, database, name))


async def _topup(request: Request, database: Database) -> Any:
    body = await _read(request, TopUp)
    account = await asyncio.to_thread(
        top_up,
        database,
        request.path_params["account"],
        body.amount_idr,
        is_test=body.test,
        reference=body.reference,
        note=body.note,
    )
    return dataclasses.asdict(account)


async def _suspend(request: Request, database: Database) -> Any:
    return await _set_suspended(request, database, True)


async def _resume(request: Request, database: Database) -> Any:
    return await _set_suspended(request, database, False)


async def _set_suspended(request: Request, database: Database, suspended: bool) -> Any:
    name = request.path_params["account"]
    return dataclasses.asdict(await asyncio.to_thread(set_suspended, database, name, suspended))


async def _usage(request: Request, database: Database) -> Any:
    query = read_query(request.scope, ("from", "to", "group_by", "ledger", "format"))
    period = Period.parse(query.get("from"), query.get("to"))
    is_test = _choice(query.get("ledger"), "ledger", ("live", "test")) == "test"
    is_csv = _choice(query.get("format"), "format", ("json", "csv")) == "csv"
    group_by = parse_group_by(query.get("group_by"), is_csv=is_csv)
    account = await asyncio.to_thread(show_account, database, request.path_params["account"])
    if is_csv:
        return await csv_response(usage_csv(database, account.id, is_test=is_test, period=period))
    return _list(
        await asyncio.to_thread(
            sum_usage, database, account.id, is_test=is_test, period=period, group_by=group_by
        )
    )


async def _keys(request: Request, database: Database) -> Any:
    records = await asyncio.to_thread(list_keys, database)
    return {"data": [_shown(record) for record in records]}


async def _limit(request: Request, database: Database) -> Any:
    body = await _read(request, LimitChanges)
    key_id = request.path_params["id"]
    return _shown(await asyncio.to_thread(limit_key, database, key_id, **_changes(body)))


async def _revoke(request: Request, database: Database) -> Any:
    return _shown(await asyncio.to_thread(revoke_key, database, request.path_params["id"]))


async def _journal(request: Request, database: Database) -> Any:
    query = read_query(request.scope, ("account", "last"))
    last = query.get("last", "20")
    is_number = last.isascii() and last.isdecimal() and len(last) <= len(str(MAX_ROWS))
    if not (is_number and 1 <= int(last) <= MAX_ROWS):
        raise InvalidRequest(f"`last` must be an integer from 1 to {MAX_ROWS:,}.", param="last")
    rows = await asyncio.to_thread(last_rows, database, query.get("account"), int(last))
    return {"data": rows}


async def _verify(request: Request, database: Database) -> Any:
    verdict = await asyncio.to_thread(verify, database)
    return {**dataclasses.asdict(verdict), "ok": not verdict.breaches}


async def _export(request: Request, database: Database) -> Any:
    account = read_query(request.scope, ("account",)).get("account")
    if account is not None:
        account = (await asyncio.to_thread(show_account, database, account)).id
    return await csv_response(journal_csv(database, account))


async def _refund(request: Request, database: Database) -> Any:
    body = await _read(request, Refund)
    account = await asyncio.to_thread(refund, database, body.hold_id, body.note)
    return dataclasses.asdict(account)


def _list(items: tuple[Any, ...]) -> dict[str, object]:
    return {"data": [dataclasses.asdict(item) for item in items]}


def _shown(record: KeyRecord) -> dict[str, object]:
    fields = dataclasses.asdict(record)
    return {**fields.pop("key"), **fields}


def _changes(body: LimitChanges) -> dict[str, int | None]:
    return {name: getattr(body, name) for name in LimitChanges.model_fields}


def _choice(given: str | None, name: str, allowed: tuple[str, ...]) -> str:
    """One of the allowed words; left out, the first. Raises InvalidRequest."""
    if given is not None and given not in allowed:
        raise InvalidRequest(
            f"`{name}` must be {' or '.join(f'`{word}`' for word in allowed)}.", param=name
        )
    return given or allowed[0]


async def _read(request: Request, model: type[Fields]) -> Fields:
    """The body as this model. Raises InvalidRequest."""
    body = await read_body(request, accepts=("application/json",), timeout_s=60.0)
    try:
        return model.model_validate(body.values)
    except ValidationError as error:
        name = short_name(str(error.errors(include_url=False)[0]["loc"][0]))
    field = model.model_fields.get(name)
    if field is None:
        known = ", ".join(model.model_fields)
        raise InvalidRequest(f"There is no field `{name}`. There are: {known}.", param=name)
    raise InvalidRequest(
        f"`{name}` is missing or has a value that is not allowed. {field.description}", param=name
    )
