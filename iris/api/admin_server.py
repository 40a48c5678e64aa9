"""The admin API's own listener, off the public port."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from starlette.types import ASGIApp

from iris.api.protocol import BoundedH11Protocol
from iris.errors import ConfigError


@asynccontextmanager
async def serve_admin(bind: str, app: ASGIApp) -> AsyncIterator[None]:
    """Serve the app at `bind` (HOST:PORT) in a thread of its own while the context is open.

    Raises:
        ConfigError: the address cannot be had.
    """
    host, _, port = bind.rpartition(":")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host.strip("[]"), int(port)), family=family)
    except OSError as error:
        raise ConfigError(
            f"IRIS_ADMIN_BIND={bind} cannot be listened on ({error.strerror}). Choose a free "
            "address, or unset IRIS_ADMIN_TOKEN to have no admin API."
        ) from error
    async with serve_on(listener, app, "iris-admin"):
        yield


@asynccontextmanager
async def serve_on(listener: socket.socket, app: ASGIApp, name: str) -> AsyncIterator[None]:
    """Serve the app on a listening socket, in a thread of that name, while the context is open."""
    config = uvicorn.Config(
        app,
        http=BoundedH11Protocol,
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(
        target=server.run, kwargs={"sockets": [listener]}, name=name, daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        await asyncio.to_thread(thread.join)
        listener.close()
