"""Base models that an operator brings: pulled from a hub or from a folder, stored, and served."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from iris.errors import ConfigError, StoreError
from iris.store import bento
from iris.store.additions import changing, load_additions
from iris.store.digest import ModelFile, file_sha256s, sha256_of
from iris.store.hub import INDEX, HubModel, check_complete, fetch_model, is_model_file
from iris.store.importer import Progress, import_lock
from iris.store.registry import BaseEntry
from iris.store.sizes import model_size
from iris.store.tensors import read_header

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?")
_PIPELINES = ("Flux2KleinPipeline", "Flux2KleinInpaintPipeline", "Flux2KleinKVPipeline")
_SPARE_BYTES = 1 << 30


def pull(
    model: HubModel,
    home: Path,
    progress: Progress,
    *,
    revision: str | None = None,
    endpoint: str | None = None,
) -> BaseEntry:
    """Fetch a published model and put it into the store, without a second copy on the disk.

    revision: a branch, tag or commit. Left out, it is the commit that is served already, or the
        one that is pinned here.

    Raises:
        ConfigError: the additions cannot be written.
        StoreError: it cannot be fetched or used; says why.
    """
    known = {entry.name: entry for entry in load_additions(home).models}.get(model.name)
    stored = None if known is None else bento.find(known.tag)
    if known is not None and stored is not None and revision is None:
        progress(f"{known.tag} is there already, at {stored.labels.get('commit', '?')}")
        return known
    fetched = fetch_model(model, revision or model.revision, progress, endpoint)
    entry = _store(
        fetched.folder,
        name=model.name,
        version=fetched.commit[:12],
        description=model.description,
        labels={"commit": fetched.commit, "licence": model.licence},
        origin=model.repository,
        expected=fetched.sha256,
        home=home,
        progress=progress,
        is_moved=True,
    )
    shutil.rmtree(fetched.folder, ignore_errors=True)
    return entry


def import_folder(
    folder: Path, name: str, home: Path, progress: Progress, *, is_moved: bool = False
) -> BaseEntry:
    """Put a pipeline's folder into the store under a name, as a version that says what is in it.

    Of the folder only what the engine loads is taken. is_moved: the files are taken out of it.

    Raises:
        ConfigError: the name is not allowed, or the additions cannot be written.
        StoreError: the folder is no such pipeline, or cannot be copied.
    """
    if _NAME.fullmatch(name) is None:
        raise ConfigError(f"{name!r} is no name for a model. Use 1 to 32 of a-z, 0-9 and -.")
    if not folder.is_dir():
        raise StoreError(f"{folder} is not a folder. Name the one with {INDEX} in it.")
    return _store(
        folder.resolve(),
        name=name,
        version=None,
        description=f"a FLUX.2-klein model, from a folder named {folder.resolve().name}",
        labels={},
        origin=folder.resolve().name,
        expected={},
        home=home,
        progress=progress,
        is_moved=is_moved,
    )


def _store(
    folder: Path,
    *,
    name: str,
    version: str | None,
    description: str,
    labels: dict[str, str],
    origin: str,
    expected: dict[str, str],
    home: Path,
    progress: Progress,
    is_moved: bool,
) -> BaseEntry:
    """expected: the SHA-256 of those files of which it is known."""
    files = _files(folder)
    _check_index(folder)
    for file in files:
        if file.path.endswith(".safetensors"):
            read_header(folder / file.path)
    size = model_size(folder)
    num_bytes = sum(file.size_bytes for file in files)
    if not is_moved:
        _check_room(num_bytes)
    progress(f"hashing {len(files)} files, {num_bytes / 1e9:.2f} GB")
    hashes = file_sha256s(folder, files)
    for path, wanted in expected.items():
        if hashes[path] != wanted:
            (folder / path).unlink()
            raise StoreError(f"{path} of {origin} arrived damaged. Run the same command again.")
    sha256 = sha256_of(hashes)
    tag = f"epithre-iris-{name}:{version or sha256[:12]}"
    labels = {"kind": "base", "name": name, "sha256": sha256, **labels}
    metadata = {
        "description": description,
        "origin": origin,
        "sha256": hashes,
        "parameters": {field: getattr(size, field) for field in size.__slots__},
    }
    with import_lock(progress):
        bento.clear_staging()
        try:
            if bento.find(tag) is None:
                progress(f"{'moving' if is_moved else 'copying'} into {bento.store_path()}")
                staged = bento.stage(tag, files, folder, labels, metadata, is_moved=is_moved)
                if not is_moved and sha256_of(file_sha256s(staged, files)) != sha256:
                    raise StoreError(
                        f"The copy of {folder} differs from it: the files changed meanwhile, or a "
                        "disk is failing. Try again."
                    )
                bento.publish(tag, staged)
        except OSError as error:
            raise StoreError(
                f"{folder} cannot be brought into {bento.store_path()} ({error.strerror}). Make "
                "room, or set BENTOML_HOME to a folder that can be written."
            ) from error
        finally:
            bento.clear_staging()
    stored = bento.find(tag)
    if stored is None:
        raise StoreError(f"{tag} was stored and is gone. Try again.")
    entry = BaseEntry(
        name=name, tag=tag, source=stored.path, sha256=sha256, description=description
    )
    with changing(home) as additions:
        additions[0] = additions[0].with_model(entry)
    return entry


def _files(folder: Path) -> tuple[ModelFile, ...]:
    """What the engine loads of the folder; links, as the hub's own cache has them, are followed."""
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if is_model_file(name) and path.is_file():
            found.append(ModelFile(name, path.stat().st_size))
    check_complete(str(folder), (file.path for file in found))
    return tuple(found)


def _check_index(folder: Path) -> None:
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        kind = index["_class_name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{folder / INDEX} does not say what pipeline it is of.") from error
    if kind not in _PIPELINES:
        raise StoreError(
            f"{folder} is a {kind}; only FLUX.2-klein pipelines ({_PIPELINES[0]}) are served."
        )


def _check_room(num_bytes: int) -> None:
    free = shutil.disk_usage(bento.staging_home()).free
    if num_bytes + _SPARE_BYTES > free:
        raise StoreError(
            f"The copy needs {(num_bytes + _SPARE_BYTES) / 1e9:.1f} GB below "
            f"{bento.staging_home()}, and {free / 1e9:.1f} are free. Make room, import with "
            "--move, or set BENTOML_HOME to a folder on a larger disk."
        )
