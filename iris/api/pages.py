"""The two pages for people: what this is, and the API description in readable form.

Both are made from nothing but the API description, anew when the styles change, and load nothing
from anywhere.
"""

from __future__ import annotations

from html import escape
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from iris.api.openapi import build_openapi
from iris.catalog import Catalog, Offer

Json = dict[str, Any]

_HEADERS = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'"}
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "pre{background:#f4f4f4;padding:1rem;overflow:auto}code{background:#f4f4f4}"
    "table{border-collapse:collapse}td,th{border:1px solid #ccc;padding:.3rem .6rem;"
    "text-align:left;vertical-align:top}"
)
_CURL = """curl {base}/v1/images/generations \\
  -H "Authorization: Bearer $KEY" -H "Content-Type: application/json" \\
  -d '{{"model": "epithre-iris", "prompt": "a lighthouse in the rain"}}'"""


class Pages:
    """GET /, /docs and /openapi.json."""

    def __init__(self, offer: Offer) -> None:
        self._offer = offer
        self._describe(offer.catalog)

    def _describe(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._spec = build_openapi(catalog)
        self._model = (
            f"{catalog.base} {catalog.base_version}, {catalog.description}. "
            f"Styles: {', '.join(f'`{name}`' for name in catalog.style_names) or 'none'}."
        )
        self._docs = _page("epithre-iris: API", "\n".join(_docs(self._spec)))

    def _look(self) -> None:
        if self._offer.catalog is not self._catalog:
            self._describe(self._offer.catalog)

    async def home(self, request: Request) -> Response:
        self._look()
        curl = _CURL.format(base=str(request.base_url).rstrip("/"))
        body = _HOME.format(curl=escape(curl), model=_marked(self._model))
        return HTMLResponse(_page("epithre-iris", body), headers=_HEADERS)

    async def docs(self, request: Request) -> Response:
        self._look()
        return HTMLResponse(self._docs, headers=_HEADERS)

    async def openapi(self, request: Request) -> Response:
        self._look()
        return JSONResponse(self._spec)


_HOME = """<h1>epithre-iris</h1>
<p>Makes pictures from text and edits pictures by text. The two routes are shaped like OpenAI's
image routes, so OpenAI's SDKs work when their base URL points here. A key is needed for pictures;
the rest is open.</p>
<p>Served here: {model}</p>
<pre>{curl}</pre>
<p>The reply holds the picture as base64 in <code>data[0].b64_json</code>.</p>
<ul><li><a href="docs">Every field, limit and error</a></li>
<li><a href="openapi.json">The same as OpenAPI 3.1</a></li>
<li><a href="v1/models">The model and its styles</a></li></ul>"""


def _page(title: str, body: str) -> str:
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body>{body}</body></html>"
    )


def _docs(spec: Json) -> list[str]:
    schemas: Json = spec["components"]["schemas"]
    html = [f"<h1>{escape(spec['info']['title'])}</h1>", _paragraph(spec["info"]["description"])]
    for path, methods in spec["paths"].items():
        for method, operation in methods.items():
            html.append(f"<h2>{method.upper()} {escape(path)}</h2>")
            key = "A key is needed." if operation["security"] else "No key is needed."
            html.append(_paragraph(f"{operation['summary']}. {key}"))
            content = operation.get("requestBody", {}).get("content", {})
            for media_type, body in content.items():
                html.append(f"<h3>{escape(media_type)}</h3>")
                html.append(_fields_table(schemas[body["schema"]["$ref"].rpartition("/")[2]]))
            html.append("<h3>Answers</h3>")
            rows = (
                (status, response["description"])
                for status, response in operation["responses"].items()
            )
            html.append(_table(("Status", "Meaning"), rows))
    return html


def _fields_table(schema: Json) -> str:
    required = schema.get("required", ())
    rows = []
    for name, field in schema["properties"].items():
        default = "required" if name in required else _plain(field.get("default", ""))
        limits = ", ".join(
            f"{word} {_plain(field[key])}" for key, word in _LIMITS.items() if key in field
        )
        rows.append(
            (
                f"`{name}`",
                _plain(field.get("type", "")),
                default,
                limits,
                field.get("description", ""),
            )
        )
    return _table(("Field", "Type", "Default", "Limits", "Rule"), rows)


_LIMITS = {
    "const": "only",
    "enum": "one of",
    "minimum": "at least",
    "maximum": "at most",
    "minLength": "characters at least",
    "maxLength": "characters at most",
    "minItems": "items at least",
    "maxItems": "items at most",
}


def _plain(value: object) -> str:
    if isinstance(value, list):
        return " | ".join(map(_plain, value))
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _table(head: tuple[str, ...], rows: Any) -> str:
    lines = ["<table><tr>" + "".join(f"<th>{escape(name)}</th>" for name in head) + "</tr>"]
    for row in rows:
        lines.append("<tr>" + "".join(f"<td>{_marked(str(cell))}</td>" for cell in row) + "</tr>")
    return "".join([*lines, "</table>"])


def _paragraph(text: str) -> str:
    return f"<p>{_marked(text)}</p>"


def _marked(text: str) -> str:
    """Escaped text, with what stands between backticks as code."""
    parts = escape(text).split("`")
    return "".join(
        f"<code>{part}</code>" if index % 2 else part for index, part in enumerate(parts)
    )
