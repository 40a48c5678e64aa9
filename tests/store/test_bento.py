from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from iris.errors import StoreError
from iris.store import bento
from iris.store.importer import ensure_registered
from iris.store.registry import load_registry

SERVICE = """
    import json
    import os
    from pathlib import Path

    import bentoml

    from iris.store.bento import declare_models
    from iris.store.registry import load_registry
    from iris.store.resolver import resolve

    REGISTRY = load_registry(Path(__file__).parent / "models" / "registry.toml")


    @bentoml.service
    @declare_models(REGISTRY)
    class Engine:
        def __init__(self) -> None:
            resolved = resolve(REGISTRY)
            print(
                json.dumps(
                    {
                        "base": str(resolved.base_path),
                        "styles": [str(style.path) for style in resolved.styles],
                        "attribute": str(self.model_base.path),
                    }
                )
            )

        @bentoml.api
        def ping(self) -> str:
            return "pong"
    """

BUILD = """
    import sys, bentoml
    built = bentoml.build(
        "service:Engine",
        name="tiny",
        version="1",
        build_ctx=sys.argv[1],
        include=["service.py", "models/registry.toml"],
        python={"lock_packages": False},  # locking would ask a package index
    )
    print(built.path)
    """

START = """
    import sys
    from _bentoml_impl.loader import load
    load(sys.argv[1], standalone_load=True).inner()
    """


def _run(script: str, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_attributes_are_named_after_the_entries(models: Any, bento_home: Path) -> None:
    (models.folder / "tiny" / "styles" / "dark").rename(models.style("ink-2"))
    registry = load_registry(models.register("anime", "ink-2"))
    declared = bento.bento_models(registry)
    assert {name: str(model.tag) for name, model in declared.items()} == {
        "model_base": "tiny-base:1.0.0",
        "model_style_000_anime": "tiny-lora-anime:1.0.0",
        "model_style_001_ink_2": "tiny-lora-ink-2:1.0.0",
    }


def test_a_built_bento_names_the_exact_models_and_starts_from_its_own_copies(
    models: Any, bento_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import yaml

    registry = load_registry(models.register("dark", "anime"))
    ensure_registered(registry, lambda line: None)
    project = tmp_path / "project"
    (project / "models").mkdir(parents=True)
    (project / "service.py").write_text(textwrap.dedent(SERVICE))
    shutil.copy(registry.path, project / "models")
    built = Path(_run(BUILD, project))

    description = yaml.safe_load((built / "bento.yaml").read_text())
    (service,) = description["services"]
    assert {model["tag"] for model in service["models"]} == {e.tag for e in registry.entries}

    # on the host, the bento uses the store
    shutil.rmtree(models.folder / "tiny")
    store = bento_home / "models"
    assert json.loads(_run(START, built)) == {
        "base": str(store / "tiny-base/1.0.0"),
        "styles": [str(store / "tiny-lora-dark/1.0.0"), str(store / "tiny-lora-anime/1.0.0")],
        "attribute": str(store / "tiny-base/1.0.0"),
    }

    # in a container there is no store, but the bento's folder has the models in it
    inside = tmp_path / "container" / "bento"
    shutil.copytree(built, inside)
    shutil.copytree(store, inside / "models")
    shutil.rmtree(bento_home)
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "container"))
    assert json.loads(_run(START, inside)) == {
        "base": str(inside / "models/tiny-base/1.0.0"),
        "styles": [
            str(inside / "models/tiny-lora-dark/1.0.0"),
            str(inside / "models/tiny-lora-anime/1.0.0"),
        ],
        "attribute": str(inside / "models/tiny-base/1.0.0"),
    }


def test_the_store_is_where_bentoml_home_says(tmp_path: Path, bento_home: Path) -> None:
    script = "from iris.store.bento import store_path; print(store_path())"
    assert _run(script) == str(bento_home / "models")


def test_a_store_that_cannot_be_made_says_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = """
        from iris.errors import StoreError
        from iris.store import bento
        try:
            bento.find("tiny-base:1.0.0")
        except StoreError as error:
            print(error.message)
        """
    (tmp_path / "file").touch()
    for home in ("file", "file/below", "x" * 300):
        monkeypatch.setenv("BENTOML_HOME", str(tmp_path / home))
        said = _run(script)
        assert said.startswith(f"The Bento model store cannot be made in {tmp_path / home} (")
        assert said.endswith("Set BENTOML_HOME to a folder that can be written.")


def test_a_store_that_may_not_be_read_says_so(
    bento_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(self: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "is_file", locked)
    with pytest.raises(StoreError, match=r"cannot be read \(Permission denied\).*BENTOML_HOME"):
        bento.find("tiny-base:1.0.0")


def test_what_killed_commands_left_is_cleared_and_a_style_in_the_making_spared(
    bento_home: Path,
) -> None:
    for name in ("iris-import-x", "iris-style-old", "iris-style-new", "iris-pull-x", "other"):
        (bento_home / "tmp" / name).mkdir()
        (bento_home / "tmp" / name / "weights").write_bytes(b"x")
    two_days_ago = time.time() - 2 * 86_400
    for name in ("iris-style-old", "iris-pull-x", "other"):
        os.utime(bento_home / "tmp" / name, (two_days_ago, two_days_ago))
    bento.clear_staging()
    left = sorted(path.name for path in (bento_home / "tmp").iterdir())
    assert left == ["iris-pull-x", "iris-style-new", "other"]


def test_publishing_across_file_systems_says_what_to_do(
    models: Any, bento_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rename(self: Path, target: Path) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(StoreError, match=r"cross-device.*one writable file system"):
        ensure_registered(load_registry(models.register()), lambda line: None)
    assert bento.find("tiny-base:1.0.0") is None


def test_nothing_is_reported_to_anyone_when_a_model_is_imported(
    models: Any, bento_home: Path
) -> None:
    script = """
        import os, sys
        del os.environ["BENTOML_DO_NOT_TRACK"]
        import httpx
        calls = []
        httpx.post = lambda *a, **k: calls.append(a)
        from pathlib import Path
        from iris.store.importer import ensure_registered
        from iris.store.registry import load_registry
        imported = ensure_registered(load_registry(Path(sys.argv[1])), lambda line: None)
        print(len(imported), len(calls))
        """
    assert _run(script, models.register("dark")) == "2 0"
