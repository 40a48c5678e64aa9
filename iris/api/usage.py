"""GET /v1/usage: what the key's own account used, as sums or as a table of every picture."""

from __future__ import annotations

import asyncio
import dataclasses

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from iris.accounts.away import AWAY
from iris.accounts.export import usage_csv
from iris.accounts.ledger import Ledger
from iris.accounts.usage import Period, parse_group_by, sum_usage
from iris.api.auth import KeyRing, authenticate
from iris.api.export import csv_response
from iris.api.images import LedgerSource
from iris.api.query import read_query
from iris.api.record import record_of
from iris.errors import BackendUnavailable, InvalidRequest

PARAMETERS = ("from", "to", "group_by", "format")


class Usage:
    """Sums by day, key or style, of the ledger that the key belongs to."""

    def __init__(self, *, keys: KeyRing, ledger_source: LedgerSource) -> None:
        self._keys = keys
        self._ledger_source = ledger_source

    async def show(self, request: Request) -> Response:
        key = await authenticate(request, self._keys)
        record = record_of(request.scope)
        record.key_id, record.is_test = key.id, key.is_test
        query = read_query(request.scope, PARAMETERS)
        period = Period.parse(query.get("from"), query.get("to"))
        format = query.get("format", "json")
        if format not in ("json", "csv"):
            raise InvalidRequest("`format` must be `json` or `csv`.", param="format")
        group_by = parse_group_by(query.get("group_by"), is_csv=format == "csv")
        database = self._ledger().database
        try:
            if format == "csv":
                name = f"usage-{period.first}-{period.last}.csv"
                return await csv_response(
                    usage_csv(database, key.account_id, is_test=key.is_test, period=period),
                    {"content-disposition": f'attachment; filename="{name}"'},
                )
            sums = await asyncio.to_thread(
                sum_usage,
                database,
                key.account_id,
                is_test=key.is_test,
                period=period,
                group_by=group_by,
            )
        except AWAY as error:
            raise BackendUnavailable("Usage cannot be read at present. Try again.") from error
        return JSONResponse(
            {
                "object": "usage",
                "ledger": "test" if key.is_test else "live",
                "from": str(period.first),
                "to": str(period.last),
                "group_by": group_by,
                "data": [{group_by: s.pop("group"), **s} for s in map(dataclasses.asdict, sums)],
                "total": {
                    "pictures": sum(s.pictures for s in sums),
                    "cost_idr": sum(s.cost_idr for s in sums),
                },
            }
        )

    def _ledger(self) -> Ledger:
        ledger = self._ledger_source()
        if ledger is None:
            raise BackendUnavailable("The service is not ready yet. Try again in a while.")
        return ledger
