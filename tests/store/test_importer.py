from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iris.errors import StoreError
from iris.store import bento
from iris.store.importer import ensure_registered, import_entry, pull_lock
from iris.store.registry import Registry, load_registry
from iris.store.resolver import entry_status, resolve

TAGS = ("tiny-base:1.0.0", "tiny-lora-dark:1.0.0", "tiny-lora-anime:1.0.0")


def _quiet(line: str) -> None:
    assert line


@pytest.fixture
def registry(models: Any, bento_home: Path) -> Registry:
    return load_registry(models.register("dark", "anime"))


def _is_empty(home: Path) -> bool:
    files = [path for path in (home / "models").rglob("*") if path.is_file()]
    return not files and not any((home / "tmp").iterdir())


def test_missing_models_are_imported_under_their_exact_tags(
    registry: Registry, bento_home: Path
) -> None:
    said: list[str] = []
    assert ensure_registered(registry, said.append) == TAGS
    assert all(any(tag in line for line in said) for tag in TAGS)
    for entry in registry.entries:
        stored = bento.find(entry.tag)
        assert stored is not None
        assert stored.labels["sha256"] == entry.sha256
        assert stored.labels["name"] == entry.name
        for file in entry.source.rglob("*.safetensors"):
            copy = stored.path / file.relative_to(entry.source)
            assert copy.read_bytes() == file.read_bytes()
    assert not any((bento_home / "tmp").iterdir())


def test_bentoml_itself_finds_the_models_and_their_labels(registry: Registry) -> None:
    import bentoml

    ensure_registered(registry, _quiet)
    assert sorted(str(model.tag) for model in bentoml.models.list()) == sorted(TAGS)
    dark = bentoml.models.get("tiny-lora-dark:1.0.0")
    assert dark.info.labels == {
        "kind": "style",
        "name": "dark",
        "base": "tiny-base:1.0.0",
        "rank": "2",
        "sha256": registry.styles[0].sha256,
    }
    assert dark.info.metadata["modules"] == 2
    assert str(bentoml.models.get("tiny-base:latest").tag) == "tiny-base:1.0.0"


def test_a_second_import_does_and_writes_nothing(registry: Registry, bento_home: Path) -> None:
    ensure_registered(registry, _quiet)
    before = {path: path.stat().st_mtime_ns for path in bento_home.rglob("*")}
    said: list[str] = []
    assert ensure_registered(registry, said.append) == ()
    assert said == []
    assert {path: path.stat().st_mtime_ns for path in bento_home.rglob("*")} == before


def test_only_what_is_missing_is_imported(registry: Registry) -> None:
    ensure_registered(registry, _quiet)
    stored = bento.find(TAGS[1])
    assert stored is not None
    shutil.rmtree(stored.path)
    assert ensure_registered(registry, _quiet) == (TAGS[1],)


def test_stored_models_are_enough_once_the_sources_and_the_right_to_write_are_gone(
    registry: Registry, models: Any, bento_home: Path
) -> None:
    ensure_registered(registry, _quiet)
    shutil.rmtree(models.folder / "tiny")
    bento.lock_path().unlink()
    shutil.rmtree(bento_home / "tmp")
    assert ensure_registered(registry, _quiet) == ()
    assert resolve(registry).base_path == bento_home / "models" / "tiny-base" / "1.0.0"
    assert sorted(path.name for path in bento_home.iterdir()) == ["bentos", "models"]


def test_an_absent_source_says_where_it_was_looked_for(
    registry: Registry, models: Any, bento_home: Path
) -> None:
    shutil.rmtree(models.base)
    with pytest.raises(StoreError) as caught:
        ensure_registered(registry, _quiet)
    assert str(models.base) in caught.value.message
    assert "iris models import" in caught.value.message
    assert _is_empty(bento_home)


def test_an_added_model_that_was_deleted_from_the_store_says_what_takes_it_out(
    registry: Registry, bento_home: Path
) -> None:
    """It has no source beside the store, in which files could be put."""

    def added(entry: Any, name: str) -> Any:
        tag = f"epithre-iris-{name}:1"
        return replace(entry, name=name, tag=tag, source=bento_home / "models" / tag[:-2] / "1")

    base, style = added(registry.base, "mine"), added(registry.styles[0], "lora-ink")
    pulled = added(registry.base, "klein-4b")
    told = {
        "`iris styles remove lora-ink`": replace(registry, styles=(style,)),
        "`iris models import DIR --name mine`": replace(registry, base=base, styles=()),
        "`iris models pull klein-4b`": replace(registry, base=pulled, styles=()),
    }
    for advice, served in told.items():
        with pytest.raises(StoreError) as caught:
            ensure_registered(served, _quiet)
        assert advice in caught.value.message
        assert "put the model's files" not in caught.value.message
        assert advice in entry_status(served.entries[-1]).detail


def test_a_source_that_may_not_be_read_is_told(registry: Registry, models: Any) -> None:
    distant = replace(registry.base, source=models.folder / ("x" * 300))
    with pytest.raises(StoreError, match="File name too long"):
        ensure_registered(replace(registry, base=distant), _quiet)


def test_a_source_that_is_not_the_registered_one_is_never_imported(
    registry: Registry, models: Any, bento_home: Path
) -> None:
    (models.base / "model_index.json").write_text("{ }")
    with pytest.raises(StoreError) as caught:
        ensure_registered(registry, _quiet)
    assert registry.base.sha256 in caught.value.message
    assert "new version" in caught.value.message
    assert _is_empty(bento_home)


def test_a_pickle_in_a_source_is_never_imported(models: Any, bento_home: Path) -> None:
    path = models.register()
    (models.base / "custom_objects.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(StoreError, match=r"custom_objects\.pkl may not be part of a model"):
        ensure_registered(load_registry(path), _quiet)
    assert _is_empty(bento_home)


def test_a_base_cut_short_is_never_imported_though_its_hash_is_registered(
    models: Any, bento_home: Path
) -> None:
    weights = models.base / "transformer" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(StoreError, match="cut short"):
        ensure_registered(load_registry(models.register()), _quiet)
    assert _is_empty(bento_home)


def test_a_style_that_does_not_fit_is_never_imported_though_its_hash_is_registered(
    models: Any, bento_home: Path, write_lora: Callable[..., None]
) -> None:
    write_lora(
        models.style("dark") / "pytorch_lora_weights.safetensors",
        modules=("elsewhere",),
    )
    with pytest.raises(StoreError, match="elsewhere"):
        ensure_registered(load_registry(models.register("dark", "anime")), _quiet)
    assert bento.find("tiny-base:1.0.0") is not None
    assert bento.find("tiny-lora-dark:1.0.0") is None
    assert not any((bento_home / "tmp").iterdir())


def test_a_copy_that_differs_from_its_source_is_never_published(
    registry: Registry, bento_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copy(source: Path, target: Path, *, is_linked: bool) -> None:
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(source.read_bytes()[:-1])

    monkeypatch.setattr("iris.store.bento._put", copy)
    with pytest.raises(StoreError, match="differs from its source"):
        ensure_registered(registry, _quiet)
    assert _is_empty(bento_home)


def test_a_full_disk_is_an_error_that_names_the_store(
    registry: Registry, bento_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copy(source: Path, target: Path, *, is_linked: bool) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("iris.store.bento._put", copy)
    with pytest.raises(StoreError, match="No space left on device") as caught:
        ensure_registered(registry, _quiet)
    assert str(bento_home) in caught.value.message
    assert _is_empty(bento_home)


def test_new_files_under_an_old_version_are_refused_and_the_old_ones_kept(
    registry: Registry, models: Any
) -> None:
    ensure_registered(registry, _quiet)
    (models.base / "model_index.json").write_text('{"new": 1}')
    changed = load_registry(models.register("dark", "anime"))
    with pytest.raises(StoreError) as caught:
        ensure_registered(changed, _quiet)
    assert "tiny-base:1.0.0" in caught.value.message
    assert "bentoml models delete tiny-base:1.0.0" in caught.value.message
    assert resolve(registry)


def test_a_new_version_is_imported_beside_the_old_one(registry: Registry, models: Any) -> None:
    ensure_registered(registry, _quiet)
    new = load_registry(models.register("dark", version="1.0.1"))
    assert ensure_registered(new, _quiet) == ("tiny-base:1.0.1", "tiny-lora-dark:1.0.1")
    assert resolve(registry).base_path != resolve(new).base_path


def test_a_version_that_only_begins_like_the_registered_one_is_another(
    registry: Registry, models: Any
) -> None:
    longer = load_registry(models.register("dark", version="1.0.0-rc1"))
    ensure_registered(longer, _quiet)
    assert bento.find("tiny-base:1.0.0") is None
    assert ensure_registered(registry, _quiet) == TAGS


def test_a_folder_without_description_counts_as_missing_and_is_replaced(
    registry: Registry, bento_home: Path
) -> None:
    half = bento_home / "models" / "tiny-base" / "1.0.0"
    half.mkdir(parents=True)
    (half / "half.safetensors").write_bytes(b"\x00")
    assert TAGS[0] in ensure_registered(registry, _quiet)
    assert not (half / "half.safetensors").exists()


@pytest.mark.parametrize(
    "content", ["", ":", "[]", "name: tiny-base\nversion: 1.0.0\n", "name: x\nversion: 2\n"]
)
def test_an_unreadable_description_is_an_error_that_says_how_to_remove_it(
    registry: Registry, bento_home: Path, content: str
) -> None:
    broken = bento_home / "models" / "tiny-base" / "1.0.0"
    broken.mkdir(parents=True)
    (broken / "model.yaml").write_text(content)
    with pytest.raises(StoreError, match="Remove that folder, then repeat") as caught:
        ensure_registered(registry, _quiet)
    assert str(broken) in caught.value.message
    shutil.rmtree(broken)
    assert ensure_registered(registry, _quiet) == TAGS


def test_a_store_that_may_not_be_written_is_told_in_the_words_of_what_was_to_be_done(
    registry: Registry, bento_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(path: Path, *_: Any) -> None:
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "open", closed)
    told = rf"{bento_home}/iris-\S+ cannot be written \(Read-only file system\)\. "
    with pytest.raises(StoreError, match=told + "Models are missing.*`iris models import`"):
        ensure_registered(registry, _quiet)
    with pytest.raises(StoreError, match=told + "Nothing can be put.*BENTOML_HOME"):
        import_entry(registry.base, registry, _quiet)
    with pytest.raises(StoreError, match=told + "Nothing can be put"), pull_lock("x", _quiet):
        pass


def test_one_model_that_is_damaged_in_the_store_is_put_there_again(registry: Registry) -> None:
    import_entry(registry.base, registry, _quiet)
    stored = bento.find(TAGS[0])
    assert stored is not None
    weights = stored.path / "transformer" / "model.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    import_entry(registry.base, registry, _quiet)
    assert weights.read_bytes() == good
    assert list(bento.staging_home().iterdir()) == []


def test_a_model_that_somebody_else_put_there_is_refused(
    registry: Registry, bento_home: Path
) -> None:
    import bentoml

    with bentoml.models.create(TAGS[0]):
        pass
    with pytest.raises(StoreError, match="not put there by `iris models import`"):
        ensure_registered(registry, _quiet)


_IMPORT = """
import sys
from pathlib import Path
from iris.store.importer import ensure_registered
from iris.store.registry import load_registry
print(*ensure_registered(load_registry(Path(sys.argv[1])), lambda line: None))
"""

_IMPORT_SLOWLY = (
    """
import sys, time
from iris.store import bento
copy = bento._put
def slow(source, target, **how):
    copy(source, target, **how)
    print("copied", flush=True)
    time.sleep(60)
bento._put = slow
"""
    + _IMPORT
)


@contextmanager
def _running(script: str, registry: Registry) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", script, str(registry.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def _halfway(registry: Registry) -> Iterator[subprocess.Popen[str]]:
    """An import that has copied one file, holds the lock and sleeps."""
    with _running(_IMPORT_SLOWLY, registry) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "copied\n"
        yield process


def test_of_processes_that_import_together_exactly_one_imports_each_model(
    registry: Registry,
) -> None:
    with ExitStack() as stack:
        processes = [stack.enter_context(_running(_IMPORT, registry)) for _ in range(3)]
        outputs = [process.communicate(timeout=60)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sorted(tag for output in outputs for tag in output) == sorted(TAGS)
    assert resolve(registry)


def test_an_import_that_was_killed_leaves_no_half_model_and_can_be_repeated(
    registry: Registry, bento_home: Path
) -> None:
    with _halfway(registry) as process:
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert any((bento_home / "tmp").iterdir())
    assert not (bento_home / "models" / "tiny-base").exists()
    assert ensure_registered(registry, _quiet) == TAGS
    assert not any((bento_home / "tmp").iterdir())


def test_an_import_waits_for_another_one_and_says_so(registry: Registry) -> None:
    said: list[str] = []
    with _halfway(registry) as process:

        def kill_the_other(line: str) -> None:
            said.append(line)
            if "waiting" in line:
                process.kill()

        assert ensure_registered(registry, kill_the_other) == TAGS
    assert said[0] == "waiting for an import by another process"


def test_a_style_with_nan_is_never_imported(
    models: Any, bento_home: Path, write_lora: Callable[..., None]
) -> None:
    name = "transformer.transformer_blocks.0.attn.to_q.lora_B.weight"
    bad = np.full((4, 2), np.nan, np.float32)
    write_lora(models.style("dark") / "pytorch_lora_weights.safetensors", change={name: bad})
    with pytest.raises(StoreError, match="NaN"):
        ensure_registered(load_registry(models.register("dark")), _quiet)
    assert bento.find("tiny-lora-dark:1.0.0") is None
