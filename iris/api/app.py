"""Puts the front together: every path there is, and what starts and stops with it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from iris.api.auth import KeyRing
from iris.api.dispatch import Dispatcher, DispatcherSource
from iris.api.health import Health
from iris.api.images import Images
from iris.api.metrics import Metrics, serve_metrics
from iris.api.models import Models
from iris.api.observe import Observed
from iris.api.pages import Pages
from iris.api.resource import NothingHere, route
from iris.api.sources import Decoder
from iris.catalog import Catalog
from iris.config import Settings
from iris.errors import RouteNotFound


def create_app(
    settings: Settings,
    catalog: Catalog,
    *,
    keys: KeyRing,
    decoder: Decoder,
    dispatcher_source: DispatcherSource | None = None,
) -> Starlette:
    """Build the front.

    dispatcher_source: asked at every request, because the engine's side is made after the app;
    its None means "not yet". Left out, it is `app.state.dispatcher`, once that is set.
    The lifespan starts and stops the decoder and the metrics listener. Every path is answered
    here, the unknown ones too.
    """
    app: Starlette

    def held_by_app() -> Dispatcher | None:
        held: Dispatcher | None = getattr(app.state, "dispatcher", None)
        return held

    source = dispatcher_source or held_by_app
    metrics = Metrics()
    images = Images(settings, catalog, keys=keys, decoder=decoder, dispatcher_source=source)
    models = Models(catalog)
    health = Health(source)
    pages = Pages(catalog)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with serve_metrics(settings.metrics_bind, metrics):
            await decoder.start()
            try:
                yield
            finally:
                await decoder.stop()

    app = Starlette(
        routes=[
            route("/", GET=pages.home),
            route("/docs", GET=pages.docs),
            route("/openapi.json", GET=pages.openapi),
            route("/livez", GET=health.live),
            route("/healthz", GET=health.live),
            route("/readyz", GET=health.ready),
            route("/v1/models", GET=models.list),
            route("/v1/models/{model}", GET=models.show),
            route("/v1/images/generations", POST=images.generate),
            route("/v1/images/edits", POST=images.edit),
            Route("/{path:path}", endpoint=NothingHere()),
        ],
        middleware=[Middleware(Observed, metrics)],
        exception_handlers={HTTPException: _not_routed},
        lifespan=lifespan,
    )
    return app


async def _not_routed(request: Request, error: Exception) -> Response:
    """What no route matches at all, such as `OPTIONS *`."""
    raise RouteNotFound("There is nothing at this path. /docs lists what there is.") from None
