"""Styles are stored under versions, checked against the base, and listed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from iris.config import Settings
from iris.errors import ConfigError, StoreError
from iris.store import bento
from iris.store.additions import load_additions
from iris.store.hub import fetch_style
from iris.store.importer import ensure_registered
from iris.store.pinned import served_registry
from iris.store.registry import Registry, StyleEntry, load_registry
from iris.store.resolver import resolve
from iris.store.styles import Wish, add_style, check_alike, remove_style
from tests.store.conftest import MODULES, Models
from tests.store.hub_server import serving

WISH = Wish(name="ink", default_strength=0.8, trigger="inkwash", description="ink on paper")


@pytest.fixture
def registry(models: Any, bento_home: Path) -> Registry:
    registry = load_registry(models.register("dark"))
    ensure_registered(registry, lambda line: None)
    return registry


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def served(registry: Registry, home: Path) -> Callable[[], Registry]:
    """What is served now."""
    env = {"IRIS_HOME": str(home), "IRIS_REGISTRY": str(registry.path)}
    return lambda: served_registry(Settings.from_env(env))


@pytest.fixture
def lora(tmp_path: Path, write_lora: Callable[..., None]) -> Path:
    write_lora(tmp_path / "ink.safetensors", rank=3)
    return tmp_path / "ink.safetensors"


def add(wish: Wish, source: Path, served: Callable[[], Registry], home: Path) -> StyleEntry:
    return add_style(wish, source, served(), home, lambda line: None)


def test_an_added_style_is_stored_and_served(served: Any, home: Path, lora: Path) -> None:
    entry = add(WISH, lora, served, home)
    assert (entry.tag, entry.rank, entry.base) == ("epithre-iris-lora-ink:1", 3, "tiny-base:1.0.0")
    (_, style) = served().catalog().styles
    assert (style.name, style.default_strength, style.trigger) == ("ink", 0.8, "inkwash")
    assert [one.name for one in resolve(served()).styles] == ["dark", "ink"]
    stored = bento.find(entry.tag)
    assert stored is not None
    assert stored.labels["sha256"] == entry.sha256


def test_other_weights_are_the_next_version_and_the_same_are_none(
    served: Any, home: Path, lora: Path, write_lora: Callable[..., None]
) -> None:
    assert add(WISH, lora, served, home).tag.endswith(":1")
    assert add(WISH, lora, served, home).tag.endswith(":1")
    write_lora(lora, rank=4)
    assert add(WISH, lora, served, home).tag.endswith(":2")
    assert add(replace(WISH, default_strength=0.2), lora, served, home).tag.endswith(":3")
    assert [s.tag for s in load_additions(home).styles] == ["epithre-iris-lora-ink:3"]
    assert bento.find("epithre-iris-lora-ink:1") is not None


@pytest.mark.parametrize("harm", ["a byte", "a file", "the record", "all of it"])
def test_a_style_that_is_damaged_in_the_store_is_mended_by_adding_it_again(
    harm: str, served: Any, home: Path, lora: Path
) -> None:
    entry = add(WISH, lora, served, home)
    weights = entry.source / "pytorch_lora_weights.safetensors"
    good = weights.read_bytes()
    match harm:
        case "a byte":
            weights.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        case "a file":
            weights.unlink()
        case "the record":
            (entry.source / "model.yaml").write_text("")
        case _:
            shutil.rmtree(entry.source)
    with pytest.raises(StoreError):
        resolve(served())
    assert add(WISH, lora, served, home) == entry
    assert weights.read_bytes() == good
    assert [one.name for one in resolve(served()).styles] == ["dark", "ink"]


def test_a_style_is_added_again_to_a_store_that_lost_everything(
    served: Any, home: Path, lora: Path, bento_home: Path
) -> None:
    entry = add(WISH, lora, served, home)
    shutil.rmtree(bento_home / "models")
    (bento_home / "models").mkdir()
    assert add(WISH, lora, served, home) == entry


def test_an_added_style_takes_the_place_of_a_registered_one(
    served: Any, home: Path, lora: Path
) -> None:
    add(replace(WISH, name="dark"), lora, served, home)
    assert [style.tag for style in served().styles] == ["epithre-iris-lora-dark:1"]
    remove_style("dark", served(), home)
    assert [style.tag for style in served().styles] == ["tiny-lora-dark:1.0.0"]


def test_removing_what_was_not_added_names_what_was(served: Any, home: Path, lora: Path) -> None:
    add(WISH, lora, served, home)
    with pytest.raises(ConfigError, match="Added are: ink"):
        remove_style("dark", served(), home)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"name": "none"}, "no style"),
        ({"name": "In k"}, "no name for a style"),
        ({"name": "../x"}, "no name for a style"),
        ({"default_strength": 1.6}, "0.0 to 1.5"),
        ({"default_strength": float("nan")}, "0.0 to 1.5"),
        ({"trigger": "x" * 201}, "200 printable"),
        ({"trigger": "a\nb"}, "200 printable"),
        ({"description": " "}, "1 to 500"),
    ],
)
def test_a_wish_that_is_not_allowed_is_refused_before_anything(
    change: dict[str, Any], says: str, served: Any, home: Path, lora: Path
) -> None:
    with pytest.raises(ConfigError, match=says):
        add(replace(WISH, **change), lora, served, home)
    assert load_additions(home).styles == ()


def test_a_lora_that_does_not_fit_leaves_nothing_behind(
    served: Any, home: Path, bento_home: Path, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong.safetensors"
    save_file(
        {
            "transformer.proj_out.lora_A.weight": np.ones((2, 6), np.float32),
            "transformer.proj_out.lora_B.weight": np.ones((4, 2), np.float32),
        },
        wrong,
    )
    with pytest.raises(StoreError, match="another base"):
        add(WISH, wrong, served, home)
    assert load_additions(home).styles == ()
    assert bento.versions_of("epithre-iris-lora-ink") == ()
    assert list((bento_home / "tmp").iterdir()) == []


def test_a_folder_of_pefts_is_scaled_as_its_settings_say(
    served: Any, home: Path, lora: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    shutil.copy(lora, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"r": 3, "lora_alpha": 12}))
    entry = add(WISH, folder, served, home)
    plain = add(replace(WISH, name="plain"), lora, served, home)
    assert entry.sha256 != plain.sha256
    before = load_file(plain.source / "pytorch_lora_weights.safetensors")
    after = load_file(entry.source / "pytorch_lora_weights.safetensors")
    assert all((before[key] == after[key]).all() for key in before)
    for settings, reason in (("{", "PEFT's settings"), ('{"lora_alpha": NaN}', "is nan")):
        (folder / "adapter_config.json").write_text(settings)
        with pytest.raises(StoreError, match=reason):
            add(WISH, folder, served, home)


def test_a_style_of_a_hub_is_scaled_by_the_settings_beside_it(
    served: Any, home: Path, lora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
    repository = tmp_path / "repository"
    folder = repository / "checkpoint-500"
    folder.mkdir(parents=True)
    shutil.copy(lora, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"r": 3, "lora_alpha": 12}))
    (repository / "adapter_config.json").write_text(json.dumps({"r": 3, "lora_alpha": 99}))
    with serving(repository, "acme/klein") as hub:
        name = "acme/klein/checkpoint-500/adapter_model.safetensors"
        fetched = fetch_style(name, lambda line: None, hub.url)
    here = add(WISH, folder, served, home)
    assert add(replace(WISH, name="fetched"), fetched, served, home).sha256 == here.sha256


def test_a_folder_with_several_files_is_not_guessed_at(served: Any, home: Path, lora: Path) -> None:
    shutil.copy(lora, lora.with_name("other.safetensors"))
    with pytest.raises(StoreError, match=r"ink\.safetensors, other\.safetensors"):
        add(WISH, lora.parent, served, home)


def test_what_is_not_there_is_named(served: Any, home: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"nowhere\.safetensors is not there"):
        add(WISH, tmp_path / "nowhere.safetensors", served, home)


@pytest.mark.parametrize("name", ["long" * 100, "file/" + "long" * 100])
def test_what_cannot_be_looked_for_is_named(
    name: str, served: Any, home: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(StoreError, match=r"long cannot be read \(File name too long\)"):
        add(WISH, tmp_path / name, served, home)


def test_a_folder_that_may_not_be_read_is_named(
    served: Any, home: Path, lora: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: Path) -> None:  # as to everybody but root
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(StoreError, match=f"{lora.parent} cannot be read .Permission denied"):
        add(WISH, lora.parent, served, home)


def test_a_store_that_cannot_be_written_is_named(
    served: Any, home: Path, lora: Path, bento_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("iris.store.styles.tempfile.mkdtemp", refuse)
    with pytest.raises(StoreError, match=f"{bento_home} cannot be written .Read-only.*BENTOML_HOM"):
        add(WISH, lora, served, home)


@pytest.mark.parametrize(
    ("name", "shape", "says"),
    [
        (f"{MODULES[0]}.weight", (4, 6), None),
        ("x_embedder.weight", (2, 2), None),  # no layer that is trained
        (f"{MODULES[0]}.weight", (4, 8), "to_q.weight is 4 x 8 there and 4 x 6 here"),
        ("transformer_blocks.9.ff.weight", (4, 6), "9.ff.weight is 4 x 6 there and missing here"),
    ],
)
def test_a_style_is_learnt_on_a_base_of_the_same_shape_alone(
    name: str, shape: tuple[int, ...], says: str | None, registry: Registry, tmp_path: Path
) -> None:
    others = Models(tmp_path / "others")
    others.write_base()
    extra = {name: np.ones(shape, np.float32)}
    file = others.base / "transformer" / "model.safetensors"
    save_file(load_file(file) | extra, file)
    on = load_registry(others.register(version="2.0.0"))
    ensure_registered(on, lambda line: None)
    if says is None:
        check_alike(on, registry)
        return
    with pytest.raises(StoreError, match=f"on tiny-base:2.0.0 would not fit tiny-base:1.*{says}"):
        check_alike(on, registry)


def test_dozens_of_styles_are_served(
    served: Any, home: Path, lora: Path, write_lora: Callable[..., None]
) -> None:
    for number in range(30):
        add(replace(WISH, name=f"style-{number}"), lora, served, home)
    assert len(resolve(served()).styles) == 31
