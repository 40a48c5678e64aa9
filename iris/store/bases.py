"""Base models that an operator brings: pulled from a hub or from a folder, stored, and served."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from iris.errors import ConfigError, StoreError
from iris.store import bento
from iris.store.additions import changing, load_additions
from iris.store.digest import ModelFile, check_text, file_sha256s, no_folder, sha256_of
from iris.store.hub import (
    INDEX,
    KNOWN,
    PARTS,
    HubModel,
    check_complete,
    fetch_model,
    is_model_file,
)
from iris.store.importer import Progress, import_lock, pull_lock
from iris.store.registry import BaseEntry
from iris.store.resolver import is_whole
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

    What is stored already is hashed, and fetched again where it is damaged.

    revision: a branch, tag or commit. Left out, it is the commit that is served already, or the
        one that is pinned here.

    Raises:
        ConfigError: the additions cannot be written.
        StoreError: it cannot be fetched or used; says why.
    """
    found = _pulled(model, home, progress) if revision is None else revision
    if isinstance(found, BaseEntry):
        return found
    _check_home(home)
    with pull_lock(model.name, progress):
        found = _pulled(model, home, progress) if revision is None else revision
        if isinstance(found, BaseEntry):  # by another process
            return found
        fetched = fetch_model(model, found, progress, endpoint)
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


def _pulled(model: HubModel, home: Path, progress: Progress) -> BaseEntry | str:
    """The model as it was pulled before, if it is still whole; else the revision to fetch."""
    known = {entry.name: entry for entry in load_additions(home).models}.get(model.name)
    if known is None:
        return model.revision
    try:
        stored = bento.find(known.tag)
    except bento.Unusable:
        stored = None
    if stored is None:
        return model.revision
    commit = stored.labels.get("commit", model.revision)
    progress(f"verifying {known.tag}")
    if not is_whole(known, progress):
        return commit
    progress(f"{known.tag} is there already, at {commit}")
    return known


def _check_home(home: Path) -> None:
    """Whether what is stored could be listed: that comes last, after gigabytes were copied.

    Raises:
        ConfigError: it could not.
    """
    with changing(home):
        pass
    try:
        with tempfile.TemporaryFile(dir=home):
            pass
    except OSError as error:
        raise ConfigError(
            f"{home} cannot be written ({error.strerror}), where what is added is listed. Let this "
            "user write there, or set IRIS_HOME to another folder."
        ) from error


def import_folder(
    folder: Path,
    name: str | None,
    home: Path,
    progress: Progress,
    *,
    taken: Collection[str] = (),
    is_moved: bool = False,
) -> BaseEntry:
    """Put a pipeline's folder into the store under a name, as a version that says what is in it.

    Of the folder only what the engine loads is taken.

    name: by default the folder's.
    taken: names that mean other models, besides those that can be pulled.
    is_moved: in the end the files are taken out of the folder.

    Raises:
        ConfigError: the name is not allowed, or the additions cannot be written.
        StoreError: the folder is no such pipeline, or cannot be copied.
    """
    if why := no_folder(folder):
        raise StoreError(f"{folder} is not a folder ({why}). Name the one with {INDEX} in it.")
    folder = folder.resolve()
    if name is None:
        name = folder.name.lower().replace(".", "-")
    if _NAME.fullmatch(name) is None:
        raise ConfigError(
            f"{name!r} is no name for a model. Give it one with --name NAME: 1 to 32 of a-z, 0-9 "
            "and - (not at the ends)."
        )
    if name in taken or name in KNOWN:
        raise ConfigError(
            f"{name!r} is the name of another model, whose place this one would take. Give it a "
            "name of its own: --name NAME."
        )
    _check_home(home)
    # the folder's name may be in another encoding than that of what is written
    origin = os.fsencode(folder.name).decode(errors="replace")
    return _store(
        folder,
        name=name,
        version=None,
        description=f"a FLUX.2-klein model, from a folder named {origin}",
        labels={},
        origin=origin,
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
    with import_lock(progress):  # before gigabytes are read: can anything be stored?
        bento.clear_staging()  # what a killed import left takes room
    files = pipeline_files(folder)
    for file in files:
        if file.path.endswith(".safetensors"):
            read_header(folder / file.path)
    size = model_size(folder)
    num_bytes = sum(file.size_bytes for file in files)
    _check_room(folder, files, is_moved=is_moved)
    progress(f"hashing {len(files)} files, {num_bytes / 1e9:.2f} GB")
    hashes = file_sha256s(folder, files)
    for path, wanted in expected.items():
        if hashes[path] != wanted:
            (folder / path).unlink()
            raise StoreError(f"{path} of {origin} arrived damaged. Run the same command again.")
    sha256 = sha256_of(hashes)
    tag = f"epithre-iris-{name}:{version or sha256[:12]}"
    source = bento.store_path().joinpath(*tag.split(":"))
    entry = BaseEntry(name=name, tag=tag, source=source, sha256=sha256, description=description)
    labels = {"kind": "base", "name": name, "sha256": sha256, **labels}
    metadata = {
        "description": description,
        "origin": origin,
        "sha256": hashes,
        "parameters": {field: getattr(size, field) for field in size.__slots__},
    }
    is_new = False
    with import_lock(progress):
        bento.clear_staging()
        try:
            if not is_whole(entry, progress):
                progress(f"{'moving' if is_moved else 'copying'} into {bento.store_path()}")
                # the folder keeps its files until they are in the store: staging is thrown away
                staged = bento.stage(tag, files, folder, labels, metadata, is_linked=is_moved)
                _check_staged(staged, folder, files, hashes)
                bento.publish(tag, staged)
                is_new = True
        except OSError as error:
            raise StoreError(
                f"{folder} cannot be brought into {bento.store_path()} ({error.strerror}). Make "
                "room, or set BENTOML_HOME to a folder that can be written."
            ) from error
        finally:
            bento.clear_staging()
    with changing(home) as additions:
        additions[0] = additions[0].with_model(entry)
    if is_moved and is_new:
        _take_out(folder, files, progress)
    elif is_moved:
        progress(f"{tag} is in the store already; nothing is moved")
    return entry


def pipeline_files(folder: Path) -> tuple[ModelFile, ...]:
    """What the engine loads of the folder; links, as the hub's own cache has them, are followed.

    Raises:
        StoreError: it is no whole FLUX.2-klein pipeline; names what is missing or cannot be read.
    """
    found = []
    try:
        for path in sorted(_paths(folder)):
            name = path.relative_to(folder).as_posix()
            if is_model_file(name) and path.is_file():
                check_text(folder, name)
                found.append(ModelFile(name, path.stat().st_size))
    except OSError as error:
        raise StoreError(
            f"{error.filename or folder} cannot be read ({error.strerror}). Let this user read it."
        ) from error
    names = [file.path for file in found]
    check_complete(str(folder), names)
    read = {name: _read(folder / name) for name in names if name.endswith(".json")}
    kind = read[INDEX].get("_class_name")
    if kind is None:
        raise StoreError(f"{folder / INDEX} does not say what pipeline it is of.")
    if kind not in _PIPELINES:
        raise StoreError(
            f"{folder} is a {kind}; only FLUX.2-klein pipelines ({_PIPELINES[0]}) are served."
        )
    for name, index in read.items():
        if name.endswith(".safetensors.index.json"):
            _check_shards(folder, name, index.get("weight_map"), names)
    return tuple(found)


def _paths(folder: Path) -> Iterator[Path]:
    """Everything in the folder and in its parts, which may be links to other folders."""
    yield from folder.iterdir()
    for part in PARTS:
        if (folder / part).is_dir():
            yield from (folder / part).iterdir()


def _read(path: Path) -> dict[str, Any]:
    """The object in a JSON file."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("not an object")
    except (OSError, ValueError, RecursionError) as error:
        raise StoreError(f"{path} cannot be read as JSON. Fetch or copy it again.") from error
    return found


def _check_shards(folder: Path, index: str, shards: Any, present: list[str]) -> None:
    """shards: the file of each tensor, by the tensor's name."""
    if not isinstance(shards, dict):
        raise StoreError(
            f"{folder / index} does not say in which files the weights are. Fetch or copy it again."
        )
    part = index.partition("/")[0]
    for shard in sorted({f"{part}/{name}" for name in shards.values()} - set(present)):
        raise StoreError(f"{folder} has no {shard}, which {index} names. Fetch or copy it.")


def _check_staged(
    staged: Path, folder: Path, files: tuple[ModelFile, ...], hashes: dict[str, str]
) -> None:
    """Whether what is staged is what was hashed; a second name of the same file must be."""
    copied = [file for file in files if not (staged / file.path).samefile(folder / file.path)]
    sizes = {file.path: (staged / file.path).stat().st_size for file in files}
    is_same = sizes == {file.path: file.size_bytes for file in files}
    if not is_same or file_sha256s(staged, copied) != {f.path: hashes[f.path] for f in copied}:
        raise StoreError(
            f"The copy of {folder} differs from it: the files changed meanwhile, or a disk is "
            "failing. Try again."
        )


def _take_out(folder: Path, files: tuple[ModelFile, ...], progress: Progress) -> None:
    for path in dict.fromkeys(_own(folder, file) for file in files):
        try:
            path.unlink()
        except OSError as error:
            progress(f"{path} is stored, but stays there too ({error.strerror})")


def _own(folder: Path, file: ModelFile) -> Path:
    """What of the file is the folder's own: of a part that is a link, the link."""
    part = folder / file.path.partition("/")[0]
    return part if part.is_symlink() else folder / file.path


def _check_room(folder: Path, files: tuple[ModelFile, ...], *, is_moved: bool) -> None:
    """Nothing is needed for what is moved on its own file system."""
    home = bento.staging_home()
    device = home.stat().st_dev if is_moved else None
    num_bytes = sum(f.size_bytes for f in files if (folder / f.path).stat().st_dev != device)
    free = shutil.disk_usage(home).free
    if num_bytes and num_bytes + _SPARE_BYTES > free:
        raise StoreError(
            f"The copy needs {(num_bytes + _SPARE_BYTES) / 1e9:.1f} GB below {home}, and "
            f"{free / 1e9:.1f} are free. Make room, set BENTOML_HOME to a folder on a larger "
            "disk, or import with --move from a folder on the same disk."
        )
