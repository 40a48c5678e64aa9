"""The direction of imports, and the one place of status codes, read from the source itself."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# room -> the rooms it may import, besides itself. A room is a folder or a module right in iris/.
ROOMS: dict[str, frozenset[str]] = {
    "errors": frozenset(),
    "jobs": frozenset(),
    "catalog": frozenset(),
    "fit": frozenset({"errors"}),
    "host_memory": frozenset(),
    "config": frozenset({"errors", "fit"}),
    "images": frozenset({"jobs", "errors", "config"}),
    "accounts": frozenset({"config", "errors", "catalog"}),
    "store": frozenset({"config", "errors", "catalog", "fit"}),
    "engine": frozenset({"jobs", "errors", "fit", "host_memory"}),
    "api": frozenset({"accounts", "images", "jobs", "errors", "config", "catalog", "translation"}),
    "welcome": frozenset(),
    "drain": frozenset(),
    "devices": frozenset(),
    "probe": frozenset({"errors"}),
    "table": frozenset(),
    "bookkeeping": frozenset({"accounts", "config", "errors", "table"}),
    "reports": frozenset({"accounts", "bookkeeping", "table"}),
    "model_commands": frozenset({"config", "errors", "store", "table"}),
    "style_commands": frozenset(
        {"catalog", "config", "errors", "model_commands", "reload", "store", "table", "training"}
    ),
    "doctor": frozenset(
        {"accounts", "config", "errors", "fit", "host_memory", "probe", "store", "table"}
    ),
    "training": frozenset({"engine", "errors", "fit", "images", "jobs"}),
    "translation": frozenset({"errors"}),
    "reload": frozenset({"errors"}),
    "cli": frozenset(
        {
            "bookkeeping",
            "doctor",
            "model_commands",
            "probe",
            "reports",
            "style_commands",
            "config",
            "errors",
        }
    ),
}
BENTOML = ("bentoml", "_bentoml_sdk", "_bentoml_impl", "bentoml_cli")
TORCH = (
    "torch",
    "torchvision",
    "diffusers",
    "transformers",
    "peft",
    "accelerate",
    "safetensors.torch",
)
# library -> the rooms that may know it; service.py knows BentoML besides
LIBRARIES: dict[str, frozenset[str]] = {
    **dict.fromkeys(BENTOML, frozenset({"store"})),
    **dict.fromkeys(TORCH, frozenset({"engine", "training"})),
    "sqlalchemy": frozenset({"accounts", "cli"}),
    "alembic": frozenset({"accounts"}),
}
SUCCESS = frozenset({200, 204})  # what a route may say of itself; errors have one table
ERROR_TABLE = "iris/api/errors.py"


@dataclass(frozen=True)
class Imported:
    module: str  # dotted, absolute
    line: int


def _imports(tree: ast.Module, package: str) -> Iterator[Imported]:
    """Every import anywhere in the file, those inside functions and for type checkers too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Imported(alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            for alias in node.names:  # `from iris import engine` imports iris.engine
                yield Imported(f"{base}.{alias.name}", node.lineno)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = ast.unparse(node.func).rsplit(".", 1)[-1]
            if called in ("import_module", "__import__"):
                yield Imported(str(node.args[0].value), node.lineno)


def _why_not(room: str | None, module: str) -> str | None:
    """Why the room may not import the module, or None. The room of service.py is None."""
    first, _, rest = module.partition(".")
    if first == "iris":
        target = rest.partition(".")[0]
        if room is None or target not in ROOMS or target == room or target in ROOMS[room]:
            return None
        allowed = ", ".join(sorted(ROOMS[room])) or "nothing of iris"
        return f"iris.{room} may import {allowed}"
    for library, rooms in LIBRARIES.items():
        if module == library or module.startswith(f"{library}."):
            if room in rooms or (room is None and library in BENTOML):
                return None
            known = ", ".join(f"iris.{name}" for name in sorted(rooms))
            return (
                f"only {known}{' and service.py' if library in BENTOML else ''} may know {library}"
            )
    return None


def _status_codes(tree: ast.Module, allowed: frozenset[int]) -> Iterator[tuple[int, str]]:
    """Where a file decides on an HTTP status by itself."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            for keyword in node.keywords:
                if keyword.arg in ("status_code", "status"):
                    yield from _number(keyword.value, allowed)
            if ast.unparse(node.func).endswith("HTTPException") and node.args:
                yield from _number(node.args[0], allowed)
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value in ("status", "status_code"):
                    yield from _number(value, allowed)
        elif isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            if any(ast.unparse(side).rsplit(".", 1)[-1] == "status_code" for side in sides):
                for side in sides:
                    yield from _number(side, allowed)
    for imported in _imports(tree, ""):
        if imported.module == "http.HTTPStatus" or imported.module.startswith("starlette.status"):
            yield imported.line, imported.module


def _number(node: ast.expr, allowed: frozenset[int]) -> Iterator[tuple[int, str]]:
    for part in ast.walk(node):  # `404 if missing else 400` too
        if isinstance(part, ast.Constant) and type(part.value) is int and part.value not in allowed:
            yield part.lineno, f"status {part.value}"


def violations(root: Path) -> list[str]:
    """One line for every import and every status code that is where it may not be."""
    found = []
    files = sorted((root / "iris").rglob("*.py"))
    if (root / "service.py").exists():
        files.append(root / "service.py")
    for file in files:
        path = file.relative_to(root)
        tree = ast.parse(file.read_text(encoding="utf-8"), filename=str(path))
        room = None if path.name == "service.py" and len(path.parts) == 1 else _room(path)
        if room is not None and room not in ROOMS:
            found.append(f"{path}:1 is a new room, iris.{room}: say in ROOMS what it may import")
            continue
        for imported in _imports(tree, ".".join(path.parts[:-1])):
            reason = _why_not(room, imported.module)
            if reason is not None:
                what = f"imports {imported.module}"
                found.append(f"{path}:{imported.line} {what}, not allowed because {reason}")
        if path.as_posix() != ERROR_TABLE:
            for line, what in _status_codes(tree, SUCCESS if room == "api" else frozenset()):
                found.append(
                    f"{path}:{line} names {what}, not allowed because {ERROR_TABLE} holds the one "
                    "table from errors to statuses"
                )
    return found


def _room(path: Path) -> str | None:
    if path.as_posix() == "iris/__init__.py":
        return "errors"  # the package itself is at the bottom as well
    return path.with_suffix("").parts[1]


def test_every_import_points_downwards_and_every_status_has_one_place() -> None:
    found = violations(ROOT)
    assert not found, "\n".join(["", *found])


def test_the_files_that_matter_are_really_read() -> None:
    rooms = {_room(path.relative_to(ROOT)) for path in (ROOT / "iris").rglob("*.py")}
    assert {"errors", "config", "accounts", "store", "engine", "api", "images", "cli"} <= rooms


def _tree(root: Path, path: str, text: str) -> list[str]:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return violations(root)


@pytest.mark.parametrize(
    ("path", "text", "said"),
    [
        ("iris/api/app.py", "import torch", "imports torch, "),
        ("iris/api/app.py", "def f():\n    import torch.nn as nn", "app.py:2 imports torch.nn"),
        ("iris/api/app.py", "from iris.engine import engine", "imports iris.engine.engine"),
        ("iris/api/app.py", "from iris import engine", "imports iris.engine"),
        ("iris/api/app.py", "from ..engine import engine", "imports iris.engine.engine"),
        ("iris/api/app.py", "from .. import store", "imports iris.store"),
        ("iris/api/sub/app.py", "from ...engine.loader import x", "imports iris.engine.loader.x"),
        ("iris/api/app.py", "if TYPE_CHECKING:\n    import iris.store.bento", "iris.store.bento"),
        (
            "iris/api/app.py",
            "import importlib\nimportlib.import_module('torch')",
            ":2 imports torch",
        ),
        ("iris/api/app.py", "__import__('bentoml')", "imports bentoml"),
        ("iris/engine/loop.py", "from iris.api.errors import x", "iris.engine may import errors"),
        ("iris/engine/loop.py", "import iris.config", "imports iris.config"),
        (
            "iris/engine/loop.py",
            "import bentoml",
            "only iris.store and service.py may know bentoml",
        ),
        ("iris/engine/loop.py", "from bentoml.models import get", "imports bentoml.models.get"),
        ("iris/store/x.py", "from safetensors.torch import load_file", "safetensors.torch"),
        ("iris/store/x.py", "from safetensors import torch", "safetensors.torch"),
        ("iris/store/x.py", "from iris.accounts import keys", "imports iris.accounts.keys"),
        ("iris/accounts/x.py", "from iris import jobs", "imports iris.jobs"),
        ("iris/images/x.py", "import iris.accounts.keys", "imports iris.accounts.keys"),
        ("iris/jobs.py", "from iris.errors import IrisError", "may import nothing of iris"),
        ("iris/errors.py", "import iris.jobs", "may import nothing of iris"),
        ("iris/catalog.py", "import iris.config", "may import nothing of iris"),
        ("iris/__init__.py", "from iris.config import Settings", "imports iris.config.Settings"),
        ("iris/cli.py", "import iris.api.app", "imports iris.api.app"),
        ("iris/new.py", "", "iris/new.py:1 is a new room"),
        ("service.py", "import torch", "service.py:1 imports torch"),
        ("service.py", "JSONResponse({}, status_code=503)", "service.py:1 names status 503"),
        (
            "iris/api/app.py",
            "r = JSONResponse({},\n  status_code=404)",
            "app.py:2 names status 404",
        ),
        ("iris/api/app.py", "send({'type': 'x', 'status': 413})", "names status 413"),
        ("iris/api/app.py", "f(status=404 if missing else 400)", "names status 400"),
        ("iris/api/app.py", "if response.status_code == 500: pass", "names status 500"),
        ("iris/api/app.py", "raise HTTPException(404)", "names status 404"),
        ("iris/api/app.py", "from http import HTTPStatus", "names http.HTTPStatus"),
        ("iris/api/app.py", "from starlette import status", "names starlette.status"),
        ("iris/engine/loop.py", "Reply(status_code=200)", "names status 200"),
    ],
)
def test_a_wrong_line_is_found_and_named(tmp_path: Path, path: str, text: str, said: str) -> None:
    found = _tree(tmp_path, path, text)
    assert found
    assert any(said in line for line in found), found
    assert all(line.startswith(f"{path}:") for line in found)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (
            "service.py",
            "import bentoml\nfrom iris.engine.engine import Engine\nimport iris.api.app",
        ),
        ("iris/store/x.py", "import bentoml\nfrom _bentoml_sdk import models\nimport iris.catalog"),
        ("iris/store/x.py", "import safetensors.numpy\nfrom . import registry"),
        ("iris/engine/x.py", "import torch, diffusers\nfrom iris.jobs import Job"),
        ("iris/engine/x.py", "from .flow import step\nfrom iris.engine import lora"),
        ("iris/api/x.py", "from iris import __version__\nfrom iris.accounts.keys import KeyRing"),
        ("iris/api/errors.py", "TABLE = {IrisError: 500}\nJSONResponse({}, status_code=400)"),
        ("iris/api/x.py", "JSONResponse({}, status_code=200)\nsend({'status': 204})"),
        ("iris/api/x.py", "JSONResponse({}, status_code=table[type(error)], size=404)"),
        ("iris/api/x.py", "from starlette.exceptions import HTTPException\nf({HTTPException: g})"),
        ("iris/config.py", "from iris.errors import ConfigError\nimport torchlike"),
    ],
)
def test_a_right_line_is_left_in_peace(tmp_path: Path, path: str, text: str) -> None:
    assert _tree(tmp_path, path, text) == []
