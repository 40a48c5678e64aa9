"""The front with a fake engine behind the real interface, in memory and on a real socket."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import uvicorn

from iris.api.app import create_app
from iris.api.protocol import BoundedH11Protocol
from iris.images.decode import Decoder
from tests.api.fakes import FakeDispatcher, FakeKeys, Front, Loop, make_catalog, make_settings


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
    app = create_app(
        settings,
        make_catalog(),
        keys=FakeKeys(),
        decoder=Decoder(settings),
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
    app = create_app(
        settings,
        make_catalog(),
        keys=FakeKeys(),
        decoder=Decoder(settings),
        dispatcher_source=lambda: shared_dispatcher,
    )
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=0,
        log_config=None,
        http=BoundedH11Protocol,
        server_header=False,
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        thread.join(0.02)
    yield server.servers[0].sockets[0].getsockname()
    server.should_exit = True
    thread.join()


@pytest.fixture
def server(shared_server: tuple[str, int], dispatcher: FakeDispatcher) -> tuple[str, int]:
    """The address of the front on a real socket, behind the protocol it is served with."""
    return shared_server
