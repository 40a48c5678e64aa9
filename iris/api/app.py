"""Puts the front together: every path there is, and what starts and stops with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Lifespan

from iris.accounts.ledger import Ledger
from iris.api.admin import Admin
from iris.api.admin_server import serve_admin
from iris.api.auth import KeyRing
from iris.api.control import Reloads, serve_control
from iris.api.dispatch import Dispatcher, DispatcherSource
from iris.api.health import Health
from iris.api.images import Images, LedgerSource
from iris.api.metrics import Metrics, serve_metrics
from iris.api.models import Models
from iris.api.observe import Observed
from iris.api.pages import Pages
from iris.api.requests import Requests
from iris.api.resource import NothingHere, route
from iris.api.sources import Decoder
from iris.api.usage import Usage
from iris.catalog import Catalog, Offer
from iris.config import PUBLIC, Settings
from iris.errors import RouteNotFound


def create_app(
    settings: Settings,
    catalog: Catalog,
    *,
    keys: KeyRing,
    decoder: Decoder,
    ledger_source: LedgerSource | None = None,
    dispatcher_source: DispatcherSource | None = None,
) -> Starlette:
    """Build the front.

    dispatcher_source: asked at every request, because the engine's side is made after the app;
    its None means "not yet". Left out, it is `app.state.dispatcher`, once that is set.
    ledger_source: the same for the ledger, which is `app.state.ledger` when left out.
    catalog: what is served at first; `app.state.reload` finds out what is served from then on.
    `app.state.requests` knows what is being served. The lifespan starts and stops the decoder and
    the listeners of metrics, admin and control, and closes the ledger. Every path is answered here,
    the unknown ones too.
    """
    app: Starlette

    def held_by_app() -> Dispatcher | None:
        held: Dispatcher | None = getattr(app.state, "dispatcher", None)
        return held

    def ledger_of_app() -> Ledger | None:
        ledger: Ledger | None = getattr(app.state, "ledger", None)
        return ledger

    source = dispatcher_source or held_by_app
    ledgers = ledger_source or ledger_of_app
    metrics, requests = Metrics(), Requests()
    offer = Offer(catalog)
    images = Images(
        settings,
        offer,
        keys=keys,
        ledger_source=ledgers,
        decoder=decoder,
        dispatcher_source=source,
    )
    usage = Usage(keys=keys, ledger_source=ledgers)
    admin = Admin(settings, lambda: ledger.database if (ledger := ledgers()) else None)
    models = Models(offer)
    health = Health(source)
    pages = Pages(offer)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(serve_metrics(settings.metrics_bind, metrics))
            if settings.admin_token and settings.admin_bind != PUBLIC:
                served = _application([*admin.routes()], metrics, Requests())  # of its own loop
                await stack.enter_async_context(serve_admin(settings.admin_bind, served))
            reloads = Reloads(offer, lambda: getattr(app.state, "reload", None))
            control = _application([*reloads.routes()], metrics, Requests())
            await stack.enter_async_context(serve_control(settings.home, control))
            await decoder.start()
            try:
                yield
            finally:
                await decoder.stop()
                if (ledger := ledgers()) is not None:
                    await asyncio.to_thread(ledger.close)

    app = _application(
        [
            route("/", GET=pages.home),
            route("/docs", GET=pages.docs),
            route("/openapi.json", GET=pages.openapi),
            route("/livez", GET=health.live),
            route("/healthz", GET=health.live),
            route("/readyz", GET=health.ready),
            route("/v1/models", GET=models.list),
            route("/v1/models/{model}", GET=models.show),
            route("/v1/usage", GET=usage.show),
            route("/v1/images/generations", POST=images.generate),
            route("/v1/images/edits", POST=images.edit),
            *(admin.routes() if settings.admin_bind == PUBLIC else ()),
        ],
        metrics,
        requests,
        lifespan,
    )
    app.state.requests = requests
    return app


def _application(
    routes: list[BaseRoute],
    metrics: Metrics,
    requests: Requests,
    lifespan: Lifespan[Starlette] | None = None,
) -> Starlette:
    """The routes, and an answer of ours to everything else."""
    return Starlette(
        routes=[*routes, Route("/{path:path}", endpoint=NothingHere())],
        middleware=[Middleware(Observed, metrics, requests)],
        exception_handlers={HTTPException: _not_routed},
        lifespan=lifespan,
    )


async def _not_routed(request: Request, error: Exception) -> Response:
    """What no route matches at all, such as `OPTIONS *`."""
    raise RouteNotFound("There is nothing at this path. /docs lists what there is.") from None
