"""A built bento serves what it was built with, whatever the registry says by then."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from iris.config import DEFAULT_REGISTRY, Settings
from iris.errors import ConfigError, StoreError
from iris.store.bento import store_path
from iris.store.importer import ensure_registered
from iris.store.pinned import served_registry
from iris.store.registry import Registry, load_registry


@pytest.fixture
def settings(tmp_path: Path) -> Any:
    """settings(IRIS_...=value): of a host on which nothing was added."""
    return lambda **env: Settings.from_env({"IRIS_HOME": str(tmp_path / "home"), **env})


def _bento(folder: Path, *tags: str) -> Path:
    """The least that makes a bento; returns the folder of its service.py."""
    now = "2026-01-01T00:00:00+00:00"
    models = [{"tag": tag, "module": "", "creation_time": now} for tag in tags]
    document = {
        "service": "service:Front",
        "name": "front",
        "version": "1",
        "bentoml_version": "1.4.39",
        "creation_time": now,
        "services": [
            {"name": "front", "service": "", "models": []},
            {"name": "engine", "service": "", "models": models},
        ],
        "spec": 2,
    }
    (folder / "src").mkdir(parents=True)
    (folder / "bento.yaml").write_text(yaml.safe_dump(document))
    return folder / "src"


@pytest.fixture
def registry(models: Any, bento_home: Path) -> Registry:
    registry = load_registry(models.register("dark", "anime"))
    ensure_registered(registry, lambda line: None)
    return registry


def test_a_bento_serves_what_it_was_built_with_in_the_same_order(
    settings: Any, registry: Registry, tmp_path: Path
) -> None:
    here = _bento(tmp_path / "bento", *(entry.tag for entry in registry.entries))
    pinned = served_registry(settings(), here=here)
    assert pinned.catalog() == registry.catalog()
    assert [entry.sha256 for entry in pinned.entries] == [e.sha256 for e in registry.entries]
    assert [style.rank for style in pinned.styles] == [style.rank for style in registry.styles]
    assert ensure_registered(pinned, lambda line: None) == ()


def test_a_bento_that_carries_its_models_takes_those(
    settings: Any,
    registry: Registry,
    bento_home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from bentoml._internal.configuration.containers import BentoMLContainer

    here = _bento(tmp_path / "bento", *(entry.tag for entry in registry.entries))
    shutil.move(bento_home / "models", here.parent / "models")
    try:
        pinned = served_registry(settings(), here=here)
        assert store_path() == here.parent / "models"
    finally:
        BentoMLContainer.model_store.reset()
    assert pinned.base.source == here.parent / "models" / "tiny-base" / "1.0.0"


def test_a_registry_that_is_named_wins_over_the_bento(
    settings: Any, registry: Registry, tmp_path: Path
) -> None:
    here = _bento(tmp_path / "bento", registry.base.tag)
    assert served_registry(settings(IRIS_REGISTRY=str(registry.path)), here=here) == registry
    with pytest.raises(ConfigError, match=r"nowhere\.toml cannot be read"):
        served_registry(settings(IRIS_REGISTRY=str(tmp_path / "nowhere.toml")), here=here)


def test_outside_a_bento_the_file_counts(settings: Any, tmp_path: Path) -> None:
    assert served_registry(settings()).path == DEFAULT_REGISTRY
    (tmp_path / "src").mkdir()  # a folder of that name is no bento yet
    assert served_registry(settings(), here=tmp_path / "src").path == DEFAULT_REGISTRY


def test_a_model_that_is_gone_is_named_and_so_is_the_way_back(
    settings: Any, registry: Registry, tmp_path: Path
) -> None:
    here = _bento(tmp_path / "bento", registry.base.tag, "tiny-lora-neon:1.0.0")
    with pytest.raises(StoreError, match=r"tiny-lora-neon:1\.0\.0.*bentoml models import"):
        served_registry(settings(), here=here)


def test_another_model_than_the_bentos_is_refused(
    settings: Any, registry: Registry, tmp_path: Path
) -> None:
    here = _bento(tmp_path / "bento", registry.base.tag)
    assert served_registry(settings(IRIS_MODEL=registry.base.name), here=here).base.tag
    with pytest.raises(ConfigError, match=r"IRIS_MODEL='klein-4b' is not in this bento"):
        served_registry(settings(IRIS_MODEL="klein-4b"), here=here)


@pytest.mark.parametrize("how", ["no base", "broken"])
def test_a_description_that_is_none_is_refused(
    settings: Any, how: str, registry: Registry, tmp_path: Path
) -> None:
    here = _bento(tmp_path / "bento", registry.styles[0].tag)
    if how == "broken":
        (here.parent / "bento.yaml").write_text("- no\n- bento\n")
    with pytest.raises(StoreError, match=r"bento\.yaml .* Build the bento again"):
        served_registry(settings(), here=here)
