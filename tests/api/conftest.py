"""The front with a fake engine behind the real interface, in memory and on a real socket."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn
from starlette.applications import Starlette

from iris.api.app import create_app
from iris.api.protocol import BoundedH11Protocol
from iris.images.decode import Decoder
from tests.api.fakes import (
    FakeDispatcher,
    FakeKeys,
    Front,
    Loop,
    Shop,
    make_catalog,
    make_ledger,
    make_settings,
)


@contextmanager
def served(
    app: Starlette, lifespan: str = "on", tls: ssl.SSLContext | None = None
) -> Iterator[tuple[str, int]]:
    """The app on a real socket, behind the protocol it is served with.

    lifespan: "off" for an app whose lifespan runs already.
    """
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=0,
        log_config=None,
        http=BoundedH11Protocol,
        server_header=False,
        lifespan=lifespan,  # type: ignore[arg-type]
        timeout_graceful_shutdown=5,
    )
    config.load()
    config.ssl = tls
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        thread.join(0.02)
    try:
        yield server.servers[0].sockets[0].getsockname()
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive(), "the server does not end"


@pytest.fixture(scope="session")
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture(scope="session")
def shared_dispatcher() -> FakeDispatcher:
    return FakeDispatcher()


@pytest.fixture
def dispatcher(shared_dispatcher: FakeDispatcher) -> FakeDispatcher:
    """The engine behind both fronts, fresh for every test."""
    shared_dispatcher.reset()
    return shared_dispatcher


@pytest.fixture(scope="session")
def shared_front(
    loop: Loop, shared_dispatcher: FakeDispatcher, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Front]:
    settings = make_settings(tmp_path_factory.mktemp("front"))
    ledger = make_ledger(settings.home)
    app = create_app(
        settings,
        make_catalog(),
        keys=FakeKeys(),
        decoder=Decoder(settings),
        ledger_source=lambda: ledger,
        dispatcher_source=lambda: shared_dispatcher,
    )
    front = Front(app, loop)
    yield front
    front.close()


@pytest.fixture
def front(shared_front: Front, dispatcher: FakeDispatcher) -> Front:
    """The front in memory."""
    return shared_front


@pytest.fixture(scope="session")
def shared_server(
    shared_dispatcher: FakeDispatcher, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, int]]:
    settings = make_settings(tmp_path_factory.mktemp("server"))
    ledger = make_ledger(settings.home)
    app = create_app(
        settings,
        make_catalog(),
        keys=FakeKeys(),
        decoder=Decoder(settings),
        ledger_source=lambda: ledger,
        dispatcher_source=lambda: shared_dispatcher,
    )
    with served(app) as address:
        yield address


@pytest.fixture
def server(shared_server: tuple[str, int], dispatcher: FakeDispatcher) -> tuple[str, int]:
    """The address of the front on a real socket, behind the protocol it is served with."""
    return shared_server


OpenShop = Callable[..., Shop]


@pytest.fixture
def open_shop(loop: Loop, tmp_path: Path) -> Iterator[OpenShop]:
    """open_shop(**limits, deadline_s=...) -> a Shop."""
    fronts: list[Front] = []

    def make(deadline_s: float = 300.0, money_idr: int = 10**9, **limits: int) -> Shop:
        home = tmp_path / str(len(fronts))
        home.mkdir()
        settings = make_settings(home, deadline_s=deadline_s)
        dispatcher = FakeDispatcher()
        ledger = make_ledger(home, money_idr=money_idr, **limits)
        app = create_app(
            settings,
            make_catalog(),
            keys=FakeKeys(),
            decoder=Decoder(settings),
            dispatcher_source=lambda: dispatcher,
        )
        app.state.ledger = ledger
        fronts.append(Front(app, loop))
        return Shop(fronts[-1], ledger, dispatcher)

    yield make
    for front in fronts:
        front.close()
