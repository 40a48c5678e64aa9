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
            f"{entry.tag} is not in the Bento model store ({bento.store_path()}). Run "
            "`iris models import`; inside a bento, import first and build again."
        )
    progress(f"verifying {entry.tag}")
    try:
        sizes = {file.path: file.size_bytes for file in list_files(stored.path)}
    except StoreError as error:
        raise _differs(entry, stored, f"is damaged: {error.message}") from error
    if stored.labels.get("sha256") != entry.sha256:
        raise _differs(entry, stored, "was imported from other files than the registry names")
    if sizes != dict(stored.sizes):
        raise _differs(entry, stored, "has lost, gained or cut files since it was imported")
    whole = full_hash_bytes is None or sum(sizes.values()) <= full_hash_bytes
    if whole and folder_sha256(stored.path) != entry.sha256:
        raise _differs(entry, stored, "has been changed since it was imported")
    return stored


def _differs(entry: Entry, stored: StoredModel, how: str) -> StoreError:
    return StoreError(
        f"{entry.tag} in the Bento model store ({stored.path}) {how.rstrip('.')}. Either give the "
        "new files a new version in the registry, or remove the stored one with "
        f"`bentoml models delete {entry.tag} -y` and run `iris models import`."
    )


def entry_status(entry: Entry) -> EntryStatus:
    """Whether the model is stored; never raises for what is wrong with it."""
    try:
        if bento.find(entry.tag) is None:
            return EntryStatus(entry, "missing", remedy(entry))
        return EntryStatus(entry, "stored", str(_verified(entry, 0, lambda line: None).path))
    except StoreError as error:
        return EntryStatus(entry, "unusable", error.message)


def remedy(entry: Entry) -> str:
    """What brings back a model that is not in the store, or does without it."""
    if not no_folder(entry.source):
        return "run `iris models import`"
    # what was added has no other source than the store itself
    if entry.source.parts[-2:] != tuple(entry.tag.split(":")):
        return f"put the model's files into {entry.source} and run `iris models import`"
    if isinstance(entry, StyleEntry):
        return f"add the style again, or run `iris styles remove {entry.name}`"
    return "pull or import the model again, or set IRIS_MODEL to another"
