"""What `iris styles` cannot do is told before anything is fetched or learnt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from iris.cli import main
from iris.store.registry import BaseEntry, Registry

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IRIS_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What the commands hand on: (to whom, what), and they are refused nothing."""
    asked: list[tuple[str, str]] = []

    def fetch(name: str, progress: Any) -> Path:
        asked.append(("hub", name))
        return Path("fetched.safetensors")

    def served(model: str | None = None) -> Registry:
        name = model or "served"
        return Registry(Path("r"), BaseEntry(name=name, tag=f"{name}:1", **REST), ())

    def learn(*_: Any, **__: Any) -> Path:
        asked.append(("train", ""))
        return Path("made")

    monkeypatch.setattr("iris.store.hub.fetch_style", fetch)
    monkeypatch.setattr("iris.style_commands.served", served)
    monkeypatch.setattr("iris.training.run.train", learn)
    return asked


REST: dict[str, Any] = {"source": Path("s"), "sha256": "0" * 64, "description": "d"}


def said(capsys: Captured) -> str:
    return capsys.readouterr().err


@pytest.mark.parametrize(
    "source",
    [
        "./nothere.safetensors",
        "../acme/klein",
        "/acme/klein",
        "styles/nothere.safetensors",
        "nothere.safetensors",
        "acme/klein/old.bin",
        "loras/sub/../nothere.safetensors",
        "loras//sub/nothere.safetensors",
    ],
)
def test_a_path_is_not_taken_for_a_name_on_a_hub(
    source: str, asked: list[tuple[str, str]], capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("iris.store.bento.find", lambda tag: BaseEntry)
    assert main(["styles", "add", "ink", source]) == 2
    assert f"{Path(source)} is not there. Name a safetensors file" in said(capsys)
    assert asked == []


@pytest.mark.parametrize("source", ["acme/klein", "acme/klein/ink.safetensors", "acme/k/a/b.st"])
def test_a_name_on_a_hub_is_fetched(
    source: str, asked: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("iris.store.bento.find", lambda tag: BaseEntry)
    assert main(["styles", "add", "ink", source]) == 2  # what was fetched is not there
    assert asked == [("hub", source)]


@pytest.mark.parametrize("source", ["loras/sub/ink.safetensors", "loras/ink"])
def test_a_mistyped_path_below_a_folder_that_is_here_is_not_asked_of_a_hub(
    source: str, asked: list[tuple[str, str]], capsys: Captured
) -> None:
    Path("loras").mkdir()
    assert main(["styles", "add", "ink", source]) == 2
    assert f"{source} is not there, and loras is a folder here" in said(capsys)
    assert asked == []


def test_a_path_too_long_for_a_file_system_is_told(capsys: Captured) -> None:
    assert main(["styles", "add", "ink", "long" * 100]) == 2
    assert "cannot be read (File name too long)" in said(capsys)


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--rank", "1025", "--rank 1025 must be at most 1024"),
        ("--rank", "0", "--rank 0 must be a number above 0"),
        ("--rate", "nan", "--rate nan must be a number above 0"),
        ("--rate", "inf", "--rate inf must be a number above 0"),
        ("--seed", str(2**63), "must be at most 9223372036854775807"),
        ("--seed", "-1", "--seed -1 must be a number above 0"),
    ],
)
def test_a_number_that_cannot_be_used_is_told_before_the_training(
    option: str, value: str, says: str, asked: list[tuple[str, str]], capsys: Captured
) -> None:
    assert main(["styles", "train", "ink", "--images", ".", f"{option}={value}"]) == 2
    assert says in said(capsys)
    assert asked == []


def test_a_base_of_another_shape_is_told_before_the_training(
    asked: list[tuple[str, str]], capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    from iris.errors import StoreError

    def refuse(on: Registry, served: Registry) -> None:
        raise StoreError(f"{on.base.name} is not like {served.base.name}")

    monkeypatch.setattr("iris.store.importer.ensure_registered", lambda *_: ())
    monkeypatch.setattr("iris.store.styles.check_alike", refuse)
    assert main(["styles", "train", "ink", "--images", ".", "--on", "other"]) == 2
    assert "other is not like served" in said(capsys)
    assert asked == []


def test_a_home_that_cannot_be_cleared_is_named(
    home: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.touch()
    monkeypatch.setattr("iris.store.importer.ensure_registered", lambda *_: ())
    assert main(["styles", "train", "ink", "--images", ".", "--fresh"]) == 2
    assert "home/training/ink cannot be removed (Not a directory)" in said(capsys)
