from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Match, Mount

from iris.api.app import create_app
from tests.api.fakes import FakeDispatcher, FakeKeys, assert_envelope, make_catalog, make_settings


class CountingDecoder:
    def __init__(self, broken: bool = False) -> None:
        self.log: list[str] = []
        self._broken = broken

    async def start(self) -> None:
        self.log.append("start")
        if self._broken:
            raise RuntimeError("no decoder")

    async def stop(self) -> None:
        self.log.append("stop")

    async def decode(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("nothing to decode here")

    async def size(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("nothing to decode here")


def make_app(tmp_path: Path, decoder: CountingDecoder) -> Starlette:
    return create_app(
        make_settings(tmp_path),
        make_catalog(),
        keys=FakeKeys(),
        decoder=decoder,
        dispatcher_source=FakeDispatcher,
    )


def test_the_decoder_lives_as_long_as_the_app(tmp_path: Path) -> None:
    decoder = CountingDecoder()
    app = make_app(tmp_path, decoder)

    async def live() -> None:
        async with app.router.lifespan_context(app):
            assert decoder.log == ["start"]

    asyncio.run(live())
    assert decoder.log == ["start", "stop"]


def test_an_app_whose_decoder_does_not_start_does_not_start(tmp_path: Path) -> None:
    app = make_app(tmp_path, CountingDecoder(broken=True))

    async def live() -> None:
        async with app.router.lifespan_context(app):
            raise AssertionError("started")

    with pytest.raises(RuntimeError, match="no decoder"):
        asyncio.run(live())


async def get(app: Any, path: str) -> httpx.Response:
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=True)
    async with httpx.AsyncClient(transport=transport, base_url="http://iris.test") as client:
        return await client.get(path)


def test_a_host_that_mounts_the_app_finds_it_claiming_every_path_and_method(
    tmp_path: Path,
) -> None:
    app = make_app(tmp_path, CountingDecoder())
    for path in ("/", "/metrics", "/schema.json", "/docs.json", "/v1/images/edits", "/x/y"):
        for method in ("GET", "POST", "PURGE"):
            scope = {"type": "http", "path": path, "method": method, "root_path": ""}
            matches = [route.matches(scope)[0] for route in app.routes]
            assert Match.FULL in matches
            assert Match.PARTIAL not in matches
    host = Starlette(routes=[Mount("/", app)])
    assert_envelope(asyncio.run(get(host, "/metrics")), 404, "not_found")
    assert asyncio.run(get(host, "/v1/models")).status_code == 200


def test_what_no_route_matches_at_all_is_a_404_of_ours(tmp_path: Path) -> None:
    app = make_app(tmp_path, CountingDecoder())

    async def ask() -> httpx.Response:
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": "OPTIONS",
            "path": "*",
            "raw_path": b"*",
            "root_path": "",
            "query_string": b"",
            "http_version": "1.1",
            "headers": [],
        }
        await app(scope, receive, send)
        return httpx.Response(
            sent[0]["status"], headers=sent[0]["headers"], content=sent[1]["body"]
        )

    assert_envelope(asyncio.run(ask()), 404, "not_found")


def test_two_apps_in_one_process_know_nothing_of_each_other(tmp_path: Path) -> None:
    one = create_app(
        make_settings(tmp_path), make_catalog(), keys=FakeKeys(), decoder=CountingDecoder()
    )
    two = create_app(
        make_settings(tmp_path), make_catalog(), keys=FakeKeys(), decoder=CountingDecoder()
    )
    one.state.dispatcher = FakeDispatcher()
    assert asyncio.run(get(one, "/readyz")).status_code == 200
    assert asyncio.run(get(two, "/readyz")).status_code == 503
