"""Two trainings of one name never meet in its folder."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from iris.cli import main
from iris.errors import ConfigError, StoreError
from iris.store.registry import BaseEntry, Registry
from iris.training.folder import alone

HOLD = """
import sys
from pathlib import Path
from iris.training.folder import alone
with alone(Path(sys.argv[1]), is_fresh=False):
    print("held", flush=True)
    sys.stdin.read()
"""
REST: dict[str, Any] = {"source": Path("s"), "sha256": "0" * 64, "description": "d"}


@contextmanager
def another_process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """One that trains there."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a training that was let in would have done."""
    done: list[str] = []

    def learn(*_: Any, **__: Any) -> Path:
        done.append("train")
        return Path("made")

    def add(*_: Any, **__: Any) -> BaseEntry:
        with pytest.raises(ConfigError), alone(tmp_path / "training" / "ink", is_fresh=False):
            pass  # what was made is not to be cleared before it is stored
        done.append("add")
        return BaseEntry(name="ink", tag="ink:1", **REST)

    def resolve(_: Registry) -> Any:
        return type("Resolved", (), {"base_path": Path("base")})

    registry = Registry(Path("r"), BaseEntry(name="served", tag="served:1", **REST), ())
    monkeypatch.setenv("IRIS_HOME", str(tmp_path))
    monkeypatch.setattr("iris.style_commands.served", lambda model=None: registry)
    monkeypatch.setattr("iris.store.importer.ensure_registered", lambda *_: ())
    monkeypatch.setattr("iris.store.resolver.resolve", resolve)
    monkeypatch.setattr("iris.store.styles.add_style", add)
    monkeypatch.setattr("iris.training.run.train", learn)
    return done


def test_a_second_training_of_a_name_is_refused_before_anything_is_cleared(
    tmp_path: Path, learns: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "training" / "ink"
    folder.mkdir(parents=True)
    (folder / "state.pt").write_bytes(b"what the first one learnt")
    command = ["styles", "train", "ink", "--images", ".", "--fresh"]
    with another_process(folder) as first:
        for options in (command, command[:-1]):
            assert main(options) == 2
            assert f"Another process trains ink in {folder}. Wait" in capsys.readouterr().err
        assert (folder / "state.pt").exists()
        assert learns == []
        other = ["styles", "train", "gloom", *command[3:]]
        assert main(other) == 0  # another name is nobody's
        first.kill()  # whoever is killed keeps nobody out
        first.wait()
        assert main(command) == 0
    assert not folder.exists()
    assert learns == ["train", "add"] * 2


def test_a_lock_that_cannot_be_taken_is_named(tmp_path: Path) -> None:
    (tmp_path / "training").touch()
    with (
        pytest.raises(StoreError, match=r"training/ink\.lock cannot be written .*IRIS_HOME"),
        alone(tmp_path / "training" / "ink", is_fresh=False),
    ):
        pass


def test_a_folder_is_cleared_where_that_is_asked_for_and_named_where_it_cannot_be(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "ink"
    with alone(folder, is_fresh=True):
        assert not folder.exists()
    (folder / "samples").mkdir(parents=True)
    with alone(folder, is_fresh=False):
        assert folder.exists()
    with alone(folder, is_fresh=True):
        assert not folder.exists()
    folder.touch()
    with (
        pytest.raises(ConfigError, match=r"/ink cannot be removed \(Not a directory\)"),
        alone(folder, is_fresh=True),
    ):
        pass
