from __future__ import annotations

from pathlib import Path

import pytest

from iris.catalog import Style
from iris.errors import ConfigError
from iris.store.registry import load_registry

GOOD = f"""
[base]
name = "tiny"
tag = "tiny-base:1.0.0"
source = "tiny/weights"
sha256 = "{"a" * 64}"
description = "a model"

[[styles]]
name = "dark"
tag = "tiny-lora-dark:2.1"
source = "tiny/dark"
base = "tiny-base:1.0.0"
rank = 8
sha256 = "{"b" * 64}"
description = "moody"

[[styles]]
name = "ink-2"
tag = "tiny-lora-ink:1"
source = "/elsewhere/ink"
base = "tiny-base:1.0.0"
rank = 4
sha256 = "{"c" * 64}"
description = "ink"
"""


def _load(tmp_path: Path, text: str | bytes):  # type: ignore[no-untyped-def]
    path = tmp_path / "registry.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_registry(path)


def test_every_value_arrives_and_the_order_is_kept(tmp_path: Path) -> None:
    registry = _load(tmp_path, GOOD)
    assert registry.base.tag == "tiny-base:1.0.0"
    assert registry.base.source == tmp_path / "tiny" / "weights"
    assert [style.name for style in registry.styles] == ["dark", "ink-2"]
    dark, ink = registry.styles
    assert (dark.rank, dark.base, dark.sha256) == (8, "tiny-base:1.0.0", "b" * 64)
    assert ink.source == Path("/elsewhere/ink")
    assert registry.entries == (registry.base, dark, ink)


def test_sources_are_relative_to_the_file_and_not_to_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "registry.toml").write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    registry = load_registry(Path("models/registry.toml"))
    assert registry.base.source == tmp_path / "models" / "tiny" / "weights"


def test_the_catalog_says_what_clients_may_know(tmp_path: Path) -> None:
    catalog = _load(tmp_path, GOOD).catalog()
    assert (catalog.base, catalog.base_version, catalog.description) == (
        "tiny",
        "1.0.0",
        "a model",
    )
    assert catalog.styles == (Style("dark", "2.1", "moody"), Style("ink-2", "1", "ink"))
    assert str(tmp_path) not in repr(catalog)


def test_a_registry_without_styles_is_allowed(tmp_path: Path) -> None:
    assert _load(tmp_path, GOOD.partition("[[styles]]")[0]).styles == ()


@pytest.mark.parametrize(
    ("old", "new", "key", "allowed"),
    [
        ('tag = "tiny-base:1.0.0"', 'tag = "tiny-base:latest"', "[base] tag", "exact version"),
        ('tag = "tiny-base:1.0.0"', 'tag = "tiny-base"', "[base] tag", "exact version"),
        ('tag = "tiny-base:1.0.0"', 'tag = "tiny-base:"', "[base] tag", "exact version"),
        ('tag = "tiny-base:1.0.0"', 'tag = ":1.0.0"', "[base] tag", "exact version"),
        ('tag = "tiny-base:1.0.0"', 'tag = "Tiny:1.0.0"', "[base] tag", "exact version"),
        ('tag = "tiny-base:1.0.0"', 'tag = "../x:1.0.0"', "[base] tag", "exact version"),
        ('tag = "tiny-base:1.0.0"', 'tag = "a:b:c"', "[base] tag", "exact version"),
        ('tag = "tiny-base:1.0.0"', "tag = 1.0", "[base] tag", "exact version"),
        ('tag = "tiny-base:1.0.0"', f'tag = "t:{"1" * 64}"', "[base] tag", "exact version"),
        ('base = "tiny-base:1.0.0"', 'base = "tiny-base:1.0.1"', "1 base", "tiny-base:1.0.0"),
        ('base = "tiny-base:1.0.0"', 'base = "tiny-base"', "1 base", "exact version"),
        ('name = "dark"', 'name = "none"', "1 name", "no style"),
        ('name = "dark"', 'name = "Dark"', "1 name", "a-z"),
        ('name = "dark"', 'name = "dark style"', "1 name", "a-z"),
        ('name = "dark"', 'name = "-dark"', "1 name", "a-z"),
        ('name = "dark"', 'name = ""', "1 name", "a-z"),
        ('name = "dark"', f'name = "{"d" * 33}"', "1 name", "32"),
        ('name = "dark"', 'name = "ink-2"', "2 name", "unique"),
        ('tag = "tiny-lora-dark:2.1"', 'tag = "tiny-lora-ink:1"', "2 tag", "unique"),
        ('tag = "tiny-lora-dark:2.1"', 'tag = "tiny-base:1.0.0"', "1 tag", "unique"),
        ("rank = 8", "rank = 0", "1 rank", "1024"),
        ("rank = 8", "rank = 1025", "1 rank", "1024"),
        ("rank = 8", "rank = 8.0", "1 rank", "whole number"),
        ("rank = 8", "rank = true", "1 rank", "whole number"),
        ("b" * 64, "b" * 63, "1 sha256", "64 hex digits"),
        ("b" * 64, "B" * 64, "1 sha256", "64 hex digits"),
        ('source = "tiny/dark"', 'source = ""', "1 source", "folder"),
        ('source = "tiny/dark"', r'source = "a\u0000b"', "1 source", "folder"),
        ('description = "moody"', 'description = " "', "1 description", "500"),
        ('description = "moody"', f'description = "{"x" * 501}"', "1 description", "500"),
        ("rank = 8\n", "", "has no rank", "Needed are"),
        ("rank = 8\n", "rank = 8\nalpha = 8\n", "knows no alpha", "Allowed are"),
        ("[base]", "[bases]", "has no base", "Needed are"),
        ("[[styles]]", "[[style]]", "knows no style", "Allowed are"),
    ],
)
def test_a_bad_entry_names_the_file_the_key_the_value_and_what_is_allowed(
    tmp_path: Path, old: str, new: str, key: str, allowed: str
) -> None:
    assert old in GOOD
    text = GOOD.replace(old, new) if old == "[[styles]]" else GOOD.replace(old, new, 1)
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, text)
    message = caught.value.message
    assert "registry.toml" in message
    assert key in message
    assert allowed in message


@pytest.mark.parametrize(
    "text",
    ["", "[base", "base = 1", "[base]\n[base]", "styles = 1\n" + GOOD.partition("[[")[0], b"\xff"],
)
def test_a_file_that_is_no_registry_is_refused_by_name(tmp_path: Path, text: str | bytes) -> None:
    with pytest.raises(ConfigError, match=r"registry\.toml"):
        _load(tmp_path, text)


def test_a_missing_file_names_the_setting_that_points_to_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="IRIS_REGISTRY"):
        load_registry(tmp_path / "nowhere.toml")
