"""What the `iris` command asks of a running service of its host, over a Unix socket in IRIS_HOME.

The folder of the sockets is open to the user who runs the service and to nobody else; so no token
is needed, and it is there without any setting.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from iris.api.admin_server import serve_on
from iris.api.resource import route
from iris.catalog import Catalog, Offer
from iris.errors import BackendUnavailable, ConfigError

FOLDER = "control"

Reload = Callable[[], Coroutine[Any, Any, Catalog]]


class Reloads:
    """POST /styles/reload: serve the styles there are now."""

    def __init__(self, offer: Offer, reload_source: Callable[[], Reload | None]) -> None:
        """Made on the event loop of the front, on which alone the engines can be spoken to.

        reload_source: what loads the styles into the engines; its None means "not yet".
        """
        self._offer = offer
        self._reload_source = reload_source
        self._loop = asyncio.get_running_loop()

    def routes(self) -> Iterator[BaseRoute]:
        yield route("/styles/reload", POST=self.reload)

    async def reload(self, request: Request) -> Response:
        """The engines first: nobody is offered what cannot be made."""
        reload = self._reload_source()
        if reload is None:
            raise BackendUnavailable("The service is still starting. Try again in a while.")
        work = asyncio.run_coroutine_threadsafe(reload(), self._loop)
        self._offer.catalog = await asyncio.wrap_future(work)
        styles = [f"{style.name} {style.version}" for style in self._offer.catalog.styles]
        return JSONResponse({"styles": styles})


@asynccontextmanager
async def serve_control(home: Path, app: ASGIApp) -> AsyncIterator[None]:
    """Serve the app on this process's own socket in `home` while the context is open.

    Raises:
        ConfigError: the socket cannot be made.
    """
    folder = home / FOLDER
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        path = folder / f"{os.getpid()}.sock"
        path.unlink(missing_ok=True)
        with _short(path) as name:
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(name)
        listener.listen()
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot hold a socket ({error.strerror}). Set IRIS_HOME to a folder of your "
            "own on a local disk."
        ) from error
    async with serve_on(listener, app, "iris-control"):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """The path by a name that fits a socket's address, which holds 107 bytes."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
