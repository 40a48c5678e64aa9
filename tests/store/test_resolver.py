from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from iris.errors import StoreError
from iris.store import resolver
from iris.store.importer import ensure_registered
from iris.store.registry import Registry, load_registry
from iris.store.resolver import resolve, status, verify


@pytest.fixture
def registry(models: Any, bento_home: Path) -> Registry:
    registry = load_registry(models.register("dark", "anime"))
    ensure_registered(registry, lambda line: None)
    return registry


def _flip(path: Path) -> None:
    """Change the last byte, and nothing that a listing would show."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_every_model_is_found_in_the_order_of_the_registry(
    registry: Registry, bento_home: Path
) -> None:
    store = bento_home / "models"
    resolved = resolve(registry)
    assert resolved.base_path == store / "tiny-base" / "1.0.0"
    assert resolved.styles == (
        ("dark", store / "tiny-lora-dark" / "1.0.0", 2),
        ("anime", store / "tiny-lora-anime" / "1.0.0", 2),
    )
    assert (resolved.styles[0].path / "pytorch_lora_weights.safetensors").is_file()


@pytest.mark.parametrize("check", [resolve, lambda registry: verify(registry, lambda line: None)])
@pytest.mark.parametrize("tag", ["tiny-base:1.0.0", "tiny-lora-dark:1.0.0"])
def test_one_changed_byte_in_the_store_is_found(
    registry: Registry, bento_home: Path, tag: str, check: Callable[[Registry], object]
) -> None:
    folder = bento_home / "models" / tag.replace(":", "/")
    _flip(next(folder.rglob("*.safetensors")))
    with pytest.raises(StoreError, match="has been changed") as caught:
        check(registry)
    assert f"bentoml models delete {tag} -y" in caught.value.message


@pytest.mark.parametrize("tag", ["tiny-base:1.0.0", "tiny-lora-dark:1.0.0"])
def test_a_lost_and_an_added_file_are_found_at_any_size(
    registry: Registry, bento_home: Path, tag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver, "FULL_HASH_BYTES", 0)
    folder = bento_home / "models" / tag.replace(":", "/")
    added = folder / "added.json"
    added.write_text("{}")
    with pytest.raises(StoreError, match="lost, gained or cut"):
        resolve(registry)
    added.unlink()
    assert resolve(registry)
    next(folder.rglob("*.safetensors")).unlink()
    with pytest.raises(
        StoreError, match=r"lost, gained or cut|is damaged: .* is empty\."
    ) as caught:
        resolve(registry)
    assert f"bentoml models delete {tag} -y" in caught.value.message


def test_a_pickle_added_to_the_store_is_refused(registry: Registry, bento_home: Path) -> None:
    (bento_home / "models" / "tiny-base" / "1.0.0" / "custom_objects.pkl").write_bytes(b"x")
    with pytest.raises(StoreError, match=r"custom_objects\.pkl"):
        resolve(registry)


def test_large_models_are_hashed_by_verify_alone(
    registry: Registry, bento_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver, "FULL_HASH_BYTES", 0)
    base = bento_home / "models" / "tiny-base" / "1.0.0"
    _flip(base / "transformer" / "model.safetensors")
    assert resolve(registry).base_path == base
    with pytest.raises(StoreError, match="has been changed"):
        verify(registry, lambda line: None)


def test_a_description_that_claims_another_hash_is_refused(
    registry: Registry, bento_home: Path
) -> None:
    description = bento_home / "models" / "tiny-base" / "1.0.0" / "model.yaml"
    text = description.read_text()
    assert registry.base.sha256 in text
    description.write_text(text.replace(registry.base.sha256, "0" * 64))
    with pytest.raises(StoreError, match="imported from other files"):
        resolve(registry)


def test_a_style_is_checked_again_against_the_base_that_is_stored(
    registry: Registry, models: Any
) -> None:
    text = registry.path.read_text().replace("rank = 2", "rank = 3")
    registry.path.write_text(text)
    with pytest.raises(StoreError, match="the registry says 3"):
        resolve(load_registry(registry.path))


def test_a_missing_model_says_what_to_run(models: Any, bento_home: Path) -> None:
    registry = load_registry(models.register("dark"))
    with pytest.raises(StoreError, match="iris models import") as caught:
        resolve(registry)
    assert "tiny-base:1.0.0" in caught.value.message


def test_verify_tells_its_progress_for_every_model(registry: Registry) -> None:
    said: list[str] = []
    assert verify(registry, said.append) == resolve(registry)
    assert said == [f"verifying {entry.tag}" for entry in registry.entries]


def test_the_status_of_one_model_never_hides_the_others(
    registry: Registry, models: Any, bento_home: Path
) -> None:
    models.register("dark", "anime")
    (bento_home / "models" / "tiny-base" / "1.0.0" / "extra.json").write_text("{}")
    (bento_home / "models" / "tiny-lora-dark" / "1.0.0" / "model.yaml").unlink()
    lines = status(registry)
    assert [line.state for line in lines] == ["unusable", "missing", "stored"]
    assert [line.entry for line in lines] == list(registry.entries)
