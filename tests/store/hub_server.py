"""A hub of one folder on this machine: as much of its HTTP as its client asks for."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_FILE = re.compile(r"/acme/klein/resolve/[\w.-]+/(.+)")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """What the hub holds and what it was asked for."""

    folder: Path
    repository: str
    url: str = ""
    cut_after_bytes: int | None = None  # of a file it gives no more, and breaks off there
    status: int = 200  # of every answer
    damaged: str = ""  # a file of which another byte arrives than was sent
    fetched: list[tuple[str, str | None]] = field(default_factory=list)  # file, range
    asked: list[str] = field(default_factory=list)  # every path, in order


def _said_of(path: Path, folder: Path) -> dict[str, object]:
    said = {"rfilename": path.relative_to(folder).as_posix(), "size": path.stat().st_size}
    if path.suffix != ".safetensors":
        return said
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return said | {"lfs": {"size": path.stat().st_size, "sha256": sha256, "pointerSize": 130}}


@contextmanager
def serving(folder: Path, repository: str) -> Iterator[Hub]:
    hub = Hub(folder, repository)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def _answer(self) -> None:
            path = self.path.partition("?")[0]
            hub.asked.append(path)
            if hub.status != 200:
                self._send(hub.status, b"{}", {})
            elif path.startswith(f"/api/models/{repository}/tree/"):
                files = [
                    {"type": "file", "path": f["rfilename"], "size": f["size"], "oid": COMMIT}
                    for f in self._files()
                ]
                self._send(200, json.dumps(files).encode(), {})
            elif path.startswith(f"/api/models/{repository}"):
                self._send(200, json.dumps(self._info()).encode(), {})
            elif found := _FILE.fullmatch(path):
                self._file(found[1])
            else:
                self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})

        def _info(self) -> dict[str, object]:
            return {"id": repository, "sha": COMMIT, "siblings": self._files()}

        def _files(self) -> list[dict[str, object]]:
            files = sorted(p for p in folder.rglob("*") if p.is_file())
            return [_said_of(p, folder) for p in files]

        def _file(self, name: str) -> None:
            data = (folder / name).read_bytes()
            wanted = self.headers.get("Range")
            if self.command == "GET":
                hub.fetched.append((name, wanted))
            if name == hub.damaged:
                data = data[:-1] + bytes([data[-1] ^ 1])
            headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha256(data).hexdigest()}"'}
            start = int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted else 0
            if start:
                headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            end = len(data) if hub.cut_after_bytes is None else hub.cut_after_bytes
            self._send(206 if start else 200, data[start:], headers, most=max(0, end - start))

        def _send(
            self, status: int, body: bytes, headers: dict[str, str], most: int | None = None
        ) -> None:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body[:most])
                self.close_connection = len(body[:most]) < len(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
