"""Import: every registered model is in the Bento model store under its exact version."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from iris.errors import StoreError
from iris.store import bento
from iris.store.digest import ModelFile, folder_sha256, list_files, no_folder
from iris.store.lora import check_lora, lora_file
from iris.store.registry import Entry, Registry, StyleEntry
from iris.store.resolver import check_base, is_whole, remedy, resolve

Progress = Callable[[str], None]

_MISSING = (
    "Models are missing from the Bento model store: run `iris models import` as a user who can "
    "write there, and build the bento again if this is one."
)
_CLOSED = (
    "Nothing can be put into the Bento model store: run the command as a user who can write "
    "there, or set BENTOML_HOME to a folder that can be written."
)


def ensure_registered(registry: Registry, progress: Progress) -> tuple[str, ...]:
    """Import what is missing and check the rest; returns the tags that were imported.

    Nothing is written where nothing is missing, so a built bento needs neither sources nor a
    writable store. Several processes may do this at once: one imports, the others wait. A process
    that is killed leaves no half model in the store.

    Raises:
        StoreError: a source is absent or not what the registry says, or a stored model is not.
    """
    imported = []
    if _missing(registry):
        with import_lock(progress, _MISSING):
            bento.clear_staging()
            try:
                for entry in _missing(registry):  # again: another process may have been faster
                    _import(entry, registry, progress)
                    imported.append(entry.tag)
            finally:
                bento.clear_staging()
    resolve(registry)
    return tuple(imported)


def import_entry(entry: Entry, registry: Registry, progress: Progress) -> None:
    """Put one model into the store, unless its version is there already with every byte.

    registry: what the entry belongs to; a style's base must be stored.

    Raises:
        StoreError: its source is absent, or not what the entry says.
    """
    with import_lock(progress):
        bento.clear_staging()
        try:
            if not is_whole(entry, progress):
                _import(entry, registry, progress)
        finally:
            bento.clear_staging()


def _missing(registry: Registry) -> tuple[Entry, ...]:
    return tuple(entry for entry in registry.entries if bento.find(entry.tag) is None)


@contextmanager
def import_lock(progress: Progress, advice: str = _CLOSED) -> Iterator[None]:
    """Hold off every other import into this store.

    advice: what to do where the store cannot be written.

    Raises:
        StoreError: it cannot be.
    """
    line = "waiting for an import by another process"
    with _locked(bento.lock_path(), line, progress, advice):
        yield


@contextmanager
def pull_lock(name: str, progress: Progress) -> Iterator[None]:
    """Hold off every other pull of this model into this store. Raises StoreError."""
    line = f"waiting for another process that pulls {name}"
    with _locked(bento.lock_path(f"pull-{name}"), line, progress, _CLOSED):
        yield


@contextmanager
def _locked(path: Path, waiting: str, progress: Progress, advice: str) -> Iterator[None]:
    try:
        file = path.open("a")
    except OSError as error:
        raise StoreError(f"{path} cannot be written ({error.strerror}). {advice}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(waiting)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield  # closing the file frees the lock, and so does the end of the process


def _import(entry: Entry, registry: Registry, progress: Progress) -> None:
    if why := no_folder(entry.source):
        raise StoreError(
            f"{entry.tag} is not in the Bento model store ({bento.store_path()}), and its source "
            f"{entry.source} cannot be read either ({why}). To mend it, {remedy(entry)}; inside a "
            "bento, import first and build again."
        )
    files = list_files(entry.source)
    megabytes = sum(file.size_bytes for file in files) / 1e6
    progress(f"importing {entry.tag} from {entry.source} ({megabytes:.1f} MB)")
    actual = folder_sha256(entry.source)
    if actual != entry.sha256:
        raise StoreError(
            f"{entry.source} is not the model that {registry.path} names {entry.tag}: its sha256 "
            f"is {actual}, registered is {entry.sha256}. Restore the files; or, if this is a new "
            "model, register it under a new version with the new sha256."
        )
    metadata = _check_content(entry, entry.source)
    staged = _stage(entry, files, metadata)
    if folder_sha256(staged) != entry.sha256:
        raise StoreError(
            f"The copy of {entry.tag} differs from its source {entry.source}: the files changed "
            "meanwhile, or a disk is failing. Run `iris models import` again."
        )
    bento.publish(entry.tag, staged)


def _check_content(entry: Entry, folder: Path) -> dict[str, object]:
    metadata: dict[str, object] = {"description": entry.description}
    if isinstance(entry, StyleEntry):
        base = bento.find(entry.base)
        if base is None:  # the base comes first among the entries
            raise StoreError(f"{entry.tag} needs {entry.base}, which is not in the store.")
        metadata["modules"] = check_lora(
            lora_file(folder),
            rank=entry.rank,
            base_weights=check_base(base.path),
        )
        metadata |= {"default_strength": entry.default_strength, "trigger": entry.trigger}
    else:
        check_base(folder)
    return metadata


def _stage(entry: Entry, files: tuple[ModelFile, ...], metadata: dict[str, object]) -> Path:
    labels = {"kind": "base", "name": entry.name, "sha256": entry.sha256}
    if isinstance(entry, StyleEntry):
        labels |= {"kind": "style", "base": entry.base, "rank": str(entry.rank)}
    try:
        return bento.stage(entry.tag, files, entry.source, labels, metadata)
    except OSError as error:
        raise StoreError(
            f"{entry.tag} cannot be copied into {bento.store_path().parent} ({error.strerror}). "
            "Make room or set BENTOML_HOME to a folder that can be written, and import again."
        ) from error
