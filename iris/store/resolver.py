"""Resolving: from the registry to the folders of the stored models, verified."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from iris.errors import StoreError
from iris.store import bento
from iris.store.bento import StoredModel
from iris.store.digest import folder_sha256, list_files, no_folder
from iris.store.hub import KNOWN
from iris.store.lora import check_lora, lora_file
from iris.store.registry import Entry, Registry, StyleEntry
from iris.store.tensors import TensorInfo, read_header, read_headers

# Up to this size a model is hashed whole at every start; above it only by `iris models verify`.
FULL_HASH_BYTES = 256 * 1024 * 1024


class ResolvedStyle(NamedTuple):
    """A style that can be loaded."""

    name: str
    path: Path  # its folder, with pytorch_lora_weights.safetensors
    rank: int


@dataclass(frozen=True, slots=True)
class Resolved:
    """Where the exact versions of the registry are."""

    base_path: Path  # a diffusers pipeline folder
    styles: tuple[ResolvedStyle, ...]


@dataclass(frozen=True, slots=True)
class EntryStatus:
    """One line of `iris models list`."""

    entry: Entry
    state: Literal["stored", "missing", "unusable"]
    detail: str  # where it is stored or what is wrong with it


def resolve(registry: Registry) -> Resolved:
    """The folders of all registered models, after a check that is fast at any size.

    Names, sizes and recorded hashes of the files are compared with the registry, and the files of
    models up to `FULL_HASH_BYTES` are hashed.

    Raises:
        StoreError: a model is missing or is not what the registry says.
    """
    return _resolve(registry, FULL_HASH_BYTES, lambda line: None)


def verify(registry: Registry, progress: Callable[[str], None]) -> Resolved:
    """As `resolve`, with every byte of every model hashed.

    Raises:
        StoreError: a model is missing or is not what the registry says.
    """
    return _resolve(registry, None, progress)


def check_stored(entry: Entry, progress: Callable[[str], None]) -> None:
    """Hash every byte of one stored model.

    Raises:
        StoreError: it is missing or is not what the entry says.
    """
    _verified(entry, None, progress)


def is_whole(entry: Entry, progress: Callable[[str], None]) -> bool:
    """Whether the model is stored with every byte that the entry says; tells what is wrong.

    Raises:
        StoreError: this user may not look at it.
    """
    try:
        stored = bento.find(entry.tag)
    except bento.Unusable:
        progress(f"{entry.tag} lies in the Bento model store without a record that can be read")
        return False
    if stored is None:
        return False
    why = _damage(entry, stored, None)
    if why:
        progress(f"{entry.tag} in the Bento model store ({stored.path}) {why}")
    return not why


def status(registry: Registry) -> tuple[EntryStatus, ...]:
    """Whether each registered model is stored; never raises for one of them."""
    return tuple(entry_status(entry) for entry in registry.entries)


def check_base(folder: Path) -> dict[str, TensorInfo]:
    """Check that a base model's weights are whole safetensors files; returns its transformer's.

    Raises:
        StoreError: names the file.
    """
    for path in sorted(folder.rglob("*.safetensors")):
        read_header(path)
    return read_headers(folder / "transformer")


def _resolve(
    registry: Registry, full_hash_bytes: int | None, progress: Callable[[str], None]
) -> Resolved:
    base = _verified(registry.base, full_hash_bytes, progress)
    base_weights = check_base(base.path)
    styles = []
    for style in registry.styles:
        stored = _verified(style, full_hash_bytes, progress)
        check_lora(lora_file(stored.path), rank=style.rank, base_weights=base_weights)
        styles.append(ResolvedStyle(style.name, stored.path, style.rank))
    return Resolved(base.path, tuple(styles))


def _verified(
    entry: Entry, full_hash_bytes: int | None, progress: Callable[[str], None]
) -> StoredModel:
    stored = bento.find(entry.tag)
    if stored is None:
        raise StoreError(
            f"{entry.tag} is not in the Bento model store ({bento.store_path()}). To mend it, "
            f"{remedy(entry)}; inside a bento, import first and build again."
        )
    progress(f"verifying {entry.tag}")
    why = _damage(entry, stored, full_hash_bytes)
    if why:
        raise StoreError(
            f"{entry.tag} in the Bento model store ({stored.path}) {why}. {_mending(entry)}"
        )
    return stored


def _damage(entry: Entry, stored: StoredModel, full_hash_bytes: int | None) -> str:
    """How the stored files are not those of the entry; empty where they are."""
    try:
        sizes = {file.path: file.size_bytes for file in list_files(stored.path)}
        if stored.labels.get("sha256") != entry.sha256:
            return "was imported from other files than the registry names"
        if sizes != dict(stored.sizes):
            return "has lost, gained or cut files since it was imported"
        is_hashed = full_hash_bytes is None or sum(sizes.values()) <= full_hash_bytes
        if is_hashed and folder_sha256(stored.path) != entry.sha256:
            return "has been changed since it was imported"
    except StoreError as error:
        return f"is damaged: {error.message.rstrip('.')}"
    return ""


def _mending(entry: Entry) -> str:
    """What puts the right files in the place of those that are stored."""
    if _is_added(entry) or bento.is_carried():
        return f"To mend it, {remedy(entry)}."
    return (
        "Either give the new files a new version in the registry, or remove the stored one with "
        f"`bentoml models delete {entry.tag} -y` and {remedy(entry)}."
    )


def entry_status(entry: Entry, full_hash_bytes: int = 0) -> EntryStatus:
    """Whether the model is stored; never raises for what is wrong with it.

    full_hash_bytes: up to this size its files are hashed; a start takes `FULL_HASH_BYTES`.
    """
    try:
        if bento.find(entry.tag) is None:
            return EntryStatus(entry, "missing", remedy(entry))
        stored = _verified(entry, full_hash_bytes, lambda line: None)
        return EntryStatus(entry, "stored", str(stored.path))
    except StoreError as error:
        return EntryStatus(entry, "unusable", error.message)


def remedy(entry: Entry) -> str:
    """What brings back a model that is missing or damaged in the store, or does without it."""
    if bento.is_carried():
        return "import the model where the bento was built, and build it again"
    if not _is_added(entry):
        if not no_folder(entry.source):
            return "run `iris models import`"
        return f"put the model's files into {entry.source} and run `iris models import`"
    if isinstance(entry, StyleEntry):
        return (
            f"add the style again as before (`iris styles add {entry.name} FILE_OR_HUB_ID`), or "
            f"run `iris styles remove {entry.name}`"
        )
    if entry.name in KNOWN:
        return f"run `iris models pull {entry.name}`, or set IRIS_MODEL to another"
    return (
        f"import its folder again (`iris models import DIR --name {entry.name}`), or set "
        "IRIS_MODEL to another"
    )


def _is_added(entry: Entry) -> bool:
    """What was added has no other source than the store itself."""
    return entry.source.parts[-2:] == tuple(entry.tag.split(":"))
