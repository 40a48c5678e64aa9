"""What an operator adds is written down, read back the same, and served beside the registry."""

from __future__ import annotations

import multiprocessing
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iris.errors import ConfigError
from iris.store.additions import FILE, Additions, changing, load_additions, with_additions
from iris.store.registry import BaseEntry, Registry, StyleEntry, load_registry

SHA = "0" * 64


def a_model(name: str = "klein-4b", version: str = "1") -> BaseEntry:
    return BaseEntry(
        name=name, tag=f"iris-{name}:{version}", source=Path("/m"), sha256=SHA, description="d"
    )


def a_style(name: str = "ink", version: str = "1", base: str = "tiny-base:1.0.0") -> StyleEntry:
    return StyleEntry(
        name=name,
        tag=f"lora-{name}:{version}",
        source=Path("/s"),
        sha256=SHA,
        description="d",
        base=base,
        rank=8,
    )


@pytest.fixture
def registry(models: Any) -> Registry:
    return load_registry(models.register("dark", "anime"))


def test_nothing_was_added_where_there_is_no_file(tmp_path: Path) -> None:
    assert load_additions(tmp_path) == Additions(tmp_path / FILE)


texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=60).filter(
    str.strip
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(description=texts, trigger=texts.filter(str.isprintable), strength=st.floats(0, 1.5))
def test_what_is_written_is_read_back_the_same(
    tmp_path: Path, description: str, trigger: str, strength: float
) -> None:
    model = replace(a_model(), description=description)
    style = replace(a_style(), trigger=trigger, default_strength=strength)
    with changing(tmp_path) as place:
        place[0] = place[0].with_model(model).with_style(style)
    found = load_additions(tmp_path)
    assert (found.models, found.styles) == ((model,), (style,))


def test_a_new_version_takes_the_place_of_the_old(tmp_path: Path) -> None:
    for version in ("1", "2"):
        with changing(tmp_path) as place:
            place[0] = place[0].with_style(a_style(version=version))
    assert [style.tag for style in load_additions(tmp_path).styles] == ["lora-ink:2"]


def test_a_style_of_another_base_stays(tmp_path: Path) -> None:
    with changing(tmp_path) as place:
        other = replace(a_style(base="other:1"), tag="lora-ink:9")
        place[0] = place[0].with_style(a_style()).with_style(other)
        place[0] = place[0].without_style("ink", "tiny-base:1.0.0")
    assert load_additions(tmp_path).styles == (other,)


def test_a_change_that_fails_changes_nothing(tmp_path: Path) -> None:
    with changing(tmp_path) as place:
        place[0] = place[0].with_style(a_style())
    with pytest.raises(ZeroDivisionError), changing(tmp_path) as place:  # noqa: PT012
        place[0] = place[0].with_style(a_style("other"))
        raise ZeroDivisionError
    assert [style.name for style in load_additions(tmp_path).styles] == ["ink"]


def test_what_is_not_text_is_refused_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with changing(tmp_path) as place:
        place[0] = place[0].with_model(a_model())
    before = load_additions(tmp_path)
    elsewhere = replace(a_model("other"), source=Path("/m") / os.fsdecode(b"caf\xe9"))
    with pytest.raises(ConfigError, match=r"caf\\udce9.* is not text in UTF-8"):  # noqa: SIM117
        with changing(tmp_path) as place:
            place[0] = place[0].with_model(elsewhere)
    assert load_additions(tmp_path) == before
    assert {path.name for path in tmp_path.iterdir()} == {FILE, f"{FILE}.lock"}


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("iris.store.additions.os.fsync", full)
    with pytest.raises(ConfigError, match="No space left on device"):  # noqa: SIM117
        with changing(tmp_path) as place:
            place[0] = place[0].with_model(a_model())
    assert {path.name for path in tmp_path.iterdir()} == {f"{FILE}.lock"}


def _add(home: Path, number: int) -> None:
    with changing(home) as place:
        place[0] = place[0].with_style(a_style(f"s{number}"))


def test_commands_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_add, args=(tmp_path, number)) for number in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert {style.name for style in load_additions(tmp_path).styles} == {
        f"s{number}" for number in range(8)
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[styles]", "is not a TOML file"),
        ("colours = 1", "knows no colours"),
        ("styles = 3", r"must be written as \[\[styles\]\]"),
        ('[[models]]\nname = "x"', "has no tag"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(ConfigError, match=says) as refused:
        load_additions(tmp_path)
    assert FILE in refused.value.message


def test_added_styles_are_served_beside_the_registered(registry: Registry) -> None:
    added = Additions(Path("a"), (), (a_style(), a_style("dark", "7"), a_style("x", base="o:1")))
    served = with_additions(registry, added, "")
    assert served.base == registry.base
    assert [style.tag for style in served.styles] == [
        "lora-dark:7",  # in the place of the registered one
        "tiny-lora-anime:1.0.0",
        "lora-ink:1",
    ]


def test_another_base_is_served_with_its_own_styles(registry: Registry) -> None:
    model = a_model()
    added = Additions(Path("a"), (model,), (a_style(), a_style("oil", base=model.tag)))
    served = with_additions(registry, added, "klein-4b")
    assert served.base == model
    assert [style.name for style in served.styles] == ["oil"]


def test_a_model_that_is_not_here_is_told_with_those_that_are(registry: Registry) -> None:
    with pytest.raises(ConfigError, match=r"IRIS_MODEL='klein-9b'.* tiny, klein-4b") as refused:
        with_additions(registry, Additions(Path("a"), (a_model(),)), "klein-9b")
    assert "iris models" in refused.value.message
