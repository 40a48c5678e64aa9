from __future__ import annotations

import asyncio
import re
from html.parser import HTMLParser

import pytest
from starlette.requests import Request

from iris.api.pages import Pages
from iris.api.schemas import EditBody, GenerateBody
from iris.catalog import Catalog, Offer, Style
from tests.api.fakes import Front

VOID = {"meta", "br", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """Reads a page; remembers what it loads and whether its tags match."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_page_is_whole_and_loads_nothing_from_anywhere(front: Front, path: str) -> None:
    response = front.get(path, key=None)
    assert response.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in response.headers["content-security-policy"]
    page = Page(response.text)
    assert page.open == []
    assert not page.tags & {"script", "img", "link", "iframe", "object"}
    assert not re.search(r"https?://(?!iris\.test)", response.text)
    for link in page.links:
        assert front.get("/" + link, key=None).status_code == 200


def test_the_docs_show_every_field_route_and_status(front: Front) -> None:
    text = front.get("/docs", key=None).text
    for name in {*GenerateBody.model_fields, *EditBody.model_fields}:
        assert f"<code>{name}</code>" in text
    for word in ("POST /v1/images/edits", "multipart/form-data", "429", "backend_busy", "0.75"):
        assert word in text


def test_the_home_page_shows_a_request_to_this_very_address(front: Front) -> None:
    text = front.get("/", key=None).text
    assert "curl http://iris.test/v1/images/generations" in text
    assert "esk_" not in text


def test_the_home_page_says_which_model_paints() -> None:
    catalog = Catalog("tiny", "2.1.0", "an untrained <model>", (Style("ink", "1.0.0", "d"),))
    pages = Pages(Offer(catalog))
    request = Request({"type": "http", "headers": [(b"host", b"x")], "path": "/", "server": None})
    text = bytes(asyncio.run(pages.home(request)).body).decode()
    assert "tiny 2.1.0, an untrained &lt;model&gt;." in text
    assert "<code>ink</code>" in text


def test_a_style_cannot_put_markup_into_the_docs() -> None:
    style = Style("x", "1.0.0", "<script>alert(1)</script>")
    pages = Pages(Offer(Catalog("b", "1.0.0", "d", (style,))))
    assert "<script>" not in pages._docs
    assert "&lt;script&gt;" in pages._docs
