from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from iris.errors import StoreError
from iris.store import bento, resolver
from iris.store.importer import ensure_registered, import_entry
from iris.store.registry import Registry, load_registry
from iris.store.resolver import (
    FULL_HASH_BYTES,
    check_stored,
    entry_status,
    resolve,
    status,
    verify,
)


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


def _added(entry: Any, name: str) -> Any:
    """Stored, without another source."""
    tag = f"epithre-iris-{name}:1"
    new = replace(entry, name=name.removeprefix("lora-"), tag=tag)
    import_entry(new, Registry(Path("r"), new, ()), lambda line: None)
    return replace(new, source=bento.store_path() / tag.replace(":", "/"))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("klein-4b", "run `iris models pull klein-4b`"),
        ("mine", "`iris models import DIR --name mine`"),
        ("lora-ink", "`iris styles add ink FILE_OR_HUB_ID`"),
    ],
)
def test_what_is_damaged_is_mended_by_what_brought_it(
    registry: Registry, name: str, says: str
) -> None:
    entry = _added(registry.styles[0] if name == "lora-ink" else registry.base, name)
    check_stored(entry, lambda line: None)
    _flip(next(entry.source.rglob("*.safetensors")))
    with pytest.raises(StoreError, match="has been changed") as caught:
        check_stored(entry, lambda line: None)
    assert says in caught.value.message
    assert "registry" not in caught.value.message


def test_a_bentos_own_model_that_is_damaged_is_mended_by_a_build(
    registry: Registry, bento_home: Path
) -> None:
    (bento_home / "bento.yaml").touch()
    _flip(next((bento_home / "models" / "tiny-base").rglob("*.safetensors")))
    with pytest.raises(StoreError, match="where the bento was built, and build it again") as caught:
        resolve(registry)
    assert "models delete" not in caught.value.message


def test_a_state_is_as_thorough_as_it_is_asked_to_be(registry: Registry, bento_home: Path) -> None:
    style = registry.styles[0]
    _flip(next((bento_home / "models" / "tiny-lora-dark").rglob("*.safetensors")))
    assert entry_status(style).state == "stored"
    assert entry_status(style, FULL_HASH_BYTES).state == "unusable"


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
