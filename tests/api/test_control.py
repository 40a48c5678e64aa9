"""Styles are reloaded over a socket that only their owner can open, and offered at once."""

from __future__ import annotations

import asyncio
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from iris.api.app import create_app
from iris.catalog import Catalog, Style
from iris.errors import BackendUnavailable
from iris.reload import reload_styles
from tests.api.fakes import (
    FakeDispatcher,
    FakeKeys,
    Front,
    Loop,
    generation,
    make_catalog,
    make_settings,
)
from tests.api.test_app import CountingDecoder


@pytest.fixture
def loop() -> Any:
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture
def started(tmp_path: Path, loop: Loop) -> Any:
    """(front, home) with nothing that can reload yet."""
    home = tmp_path / ("long" * 40) / "home"  # longer than the address of a socket may be
    app = create_app(
        make_settings(home), make_catalog(), keys=FakeKeys(), decoder=CountingDecoder()
    )
    app.state.dispatcher = FakeDispatcher()
    front = Front(app, loop)
    yield front, home
    front.close()


def styles_of(front: Front) -> list[str]:
    (model,) = front.get("/v1/models").json()["data"]
    return [style["name"] for style in model["styles"]]


def test_a_new_style_is_offered_at_once(started: Any) -> None:
    front, home = started
    more = Catalog("m", "1", "d", (*make_catalog().styles, Style("ink", "3", "d", 0.9, "inkwash")))

    async def reload() -> Catalog:
        return more

    front.app.state.reload = reload
    assert "ink" not in front.get("/openapi.json").text
    (line,) = reload_styles(home)
    assert line.endswith("serves: dark 1.0.0, anime 2.0.0, ink 3")
    assert styles_of(front) == ["dark", "anime", "ink"]
    assert "ink" in front.get("/openapi.json").text
    assert "ink" in front.get("/docs").text
    assert (
        "`lora` must be one of: none, dark, anime, ink"
        in front.post("/v1/images/generations", json=generation(lora="oil")).json()["error"][
            "message"
        ]
    )


def test_a_reload_that_fails_changes_nothing_and_says_why(started: Any) -> None:
    front, home = started

    async def reload() -> Catalog:
        raise BackendUnavailable("Style 'ink' was made for another base.")

    front.app.state.reload = reload
    with pytest.raises(BackendUnavailable, match="made for another base"):
        list(reload_styles(home))
    assert styles_of(front) == ["dark", "anime"]


def test_a_service_that_is_still_starting_says_so(started: Any) -> None:
    with pytest.raises(BackendUnavailable, match="still starting"):
        list(reload_styles(started[1]))


def test_nobody_else_can_reach_the_socket(started: Any) -> None:
    folder = started[1] / "control"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert len(list(folder.glob("*.sock"))) == 1


def test_nothing_but_reloading_is_on_the_socket(started: Any) -> None:
    front, _ = started
    assert front.post("/styles/reload").status_code == 404


def test_without_a_service_it_is_told(tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailable, match="No service runs"):
        list(reload_styles(tmp_path))


def test_what_a_killed_service_left_is_cleared_away(tmp_path: Path) -> None:
    import socket

    (tmp_path / "control").mkdir()
    path = tmp_path / "control" / "1.sock"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    with pytest.raises(BackendUnavailable, match="No service runs"):
        list(reload_styles(tmp_path))
    assert not path.exists()


def test_a_reload_that_takes_long_does_not_hold_up_the_end(started: Any, loop: Loop) -> None:
    """It is served on a loop of its own; the front waits for what it serves itself."""
    front, home = started
    begun, go = threading.Event(), threading.Event()

    async def reload() -> Catalog:
        begun.set()
        await asyncio.to_thread(go.wait, 20)
        return make_catalog()

    front.app.state.reload = reload
    asking = threading.Thread(target=lambda: list(reload_styles(home)))
    asking.start()
    try:
        assert begun.wait(20)
        loop.run(asyncio.wait_for(front.app.state.requests.finished(), 5))
    finally:
        go.set()
        asking.join()
